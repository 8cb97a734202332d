"""jgen completion bash|zsh: a script for the shell, which completes commands, experiments and their options.

source <(jgen completion bash)        # in ~/.bashrc; in ~/.zshrc: source <(jgen completion zsh)
"""

import contextlib
import io
import re
import runpy
import sys

from jgen.app.cli import COMMANDS
from jgen.app.experiments import NAMES
from jgen.errors import UserError

SHELLS = ("bash", "zsh")
BASH = """_jgen() {{
  local word=${{COMP_WORDS[COMP_CWORD]}}
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "{words}" -- "$word"))
  elif [ "${{word:0:1}}" = - ]; then
    COMPREPLY=($(compgen -W "$(jgen completion options "${{COMP_WORDS[@]:1:2}}" 2>/dev/null)" -- "$word"))
  elif [ "$COMP_CWORD" = 2 ] && [[ " {experiments} " == *" ${{COMP_WORDS[1]}} "* ]]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _jgen jgen
"""


def main(words: list[str]) -> None:
    """Prints the script of a shell, or the options of an experiment's command. Raises UserError for another shell."""
    if words[:1] == ["options"]:
        return print(" ".join(options(words[1:])))
    if words in (["-h"], ["--help"]):
        return print((__doc__ or "").strip())
    if len(words) != 1 or words[0] not in SHELLS:
        shell = " ".join(words) or "no shell"
        raise UserError(f"completion: {shell} was given; must be one of {', '.join(SHELLS)}")
    tools = ("list", "data", "metrics", "completion", "doctor", "serve")
    script = BASH.format(words=" ".join((*tools, *COMMANDS, *NAMES)), experiments=" ".join(NAMES), commands=" ".join(COMMANDS))
    print(("autoload -U +X bashcompinit && bashcompinit\n" if words[0] == "zsh" else "") + script, end="")


def options(words: list[str]) -> list[str]:
    """The options of an experiment, or of its command, as its --help shows them; none for another word."""
    if not words or words[0] not in NAMES:
        return []
    command = [word for word in words[1:2] if word in COMMANDS]
    module, text = f"experiments.{words[0]}", io.StringIO()
    before, sys.argv = sys.argv, [f"python -m {module}", *command, "--help"]
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text.getvalue())))
