"""jgen completion bash|zsh: a script for the shell, which completes commands, experiments and their options.

source <(jgen completion bash)        # in ~/.bashrc; in ~/.zshrc: source <(jgen completion zsh)
"""

import contextlib
import io
import re
import runpy
import sys

from jgen.app.cli import COMMANDS, OF_RUNS
from jgen.app.console import of_run
from jgen.app.experiments import NAMES
from jgen.errors import UserError

SHELLS = ("bash", "zsh")
WORDS = {
    "completion": SHELLS,
    "data": ("list", "show", "prepare"),
    "metrics": ("compare", "score", "pairs", "export", "plot", "steps"),
}
"""{tool: the words that may come after it}."""
BASH = """_jgen() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} found=
  if [ "$COMP_CWORD" = 1 ]; then
    found="{words}"
  elif [ "${{word:0:1}}" = - ]; then
    found=$(jgen completion options "${{COMP_WORDS[@]:1:2}}" 2>/dev/null)
  elif [ "${{before:0:1}}" = - ]; then
    found=$(jgen completion values "$before" "${{COMP_WORDS[@]:1:2}}" 2>/dev/null)
  elif [ "$COMP_CWORD" = 2 ] && [[ " {experiments} " == *" $before "* ]]; then
    found="{commands}"
  elif [ "$COMP_CWORD" = 2 ]; then
    case $before in
{tools}
    esac
  fi
  if [ -n "$found" ]; then
    COMPREPLY=($(compgen -W "$found" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _jgen jgen
"""


def main(words: list[str]) -> None:
    """Prints the script of a shell, or the options of a command or the values of one. Raises UserError for another shell."""
    if words[:1] == ["options"]:
        return print(" ".join(options(words[1:])))
    if words[:1] == ["values"]:
        return print(" ".join(values(words[1], words[2:])))
    if words in (["-h"], ["--help"]):
        return print((__doc__ or "").strip())
    if len(words) != 1 or words[0] not in SHELLS:
        shell = " ".join(words) or "no shell"
        raise UserError(f"completion: {shell} was given; must be one of {', '.join(SHELLS)}")
    tools = "\n".join(f'      {tool}) found="{" ".join(own)}" ;;' for tool, own in WORDS.items())
    first = " ".join(("list", *WORDS, "doctor", "serve", *OF_RUNS, *NAMES))
    script = BASH.format(words=first, experiments=" ".join(NAMES), commands=" ".join(COMMANDS), tools=tools)
    print(("autoload -U +X bashcompinit && bashcompinit\n" if words[0] == "zsh" else "") + script, end="")


def options(words: list[str]) -> list[str]:
    """The options of an experiment, of its command, of a command about a run or of a tool, as --help shows them; else none."""
    return sorted(set(re.findall(r"(?<![\w-])--[a-z](?:[\w.-]*\w)?", _help(words))))


def values(option: str, words: list[str]) -> list[str]:
    """The values that an option takes, where --help lists them: of the same words; else none."""
    found = re.search(rf"(?<![\w-]){re.escape(option)} \{{([^}}]*)\}}", " ".join(_help(words).split()))
    return [value.strip() for value in found[1].split(",")] if found else []


def _help(words: list[str]) -> str:
    """The text that --help shows of the first words of a command line, without the frames."""
    if (found := _module(words)) is None:
        return ""
    module, own = found
    text, before = io.StringIO(), sys.argv
    sys.argv = [f"python -m {module}", *own, "--help"]
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before
    return text.getvalue().replace("│", " ")


def _module(words: list[str]) -> tuple[str, list[str]] | None:
    """(the module that the words run, its arguments but for options); None for other words."""
    first, second = (*words[:2], "", "")[:2]
    if first in NAMES:
        return f"experiments.{first}", [second] * (second in COMMANDS)
    if first in OF_RUNS:
        try:
            return of_run(first, [second])
        except UserError:
            return None
    if first in ("data", "metrics"):
        return f"jgen.{first}", [second] * (second in WORDS[first])
    return ("jgen", ["serve"]) if first == "serve" else None
