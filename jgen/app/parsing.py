"""Arguments -> configs. A sampler's name is looked for first, since it decides which options there are."""

import contextlib
import dataclasses
import difflib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from jgen.config.ranges import leaves
from jgen.config.samplers import SAMPLERS
from jgen.config.values import with_sampler
from jgen.errors import UserError, nearest

T = TypeVar("T")
Args = Sequence[str]
Help = str | Callable[[], str | None] | None
POSITIONAL = get_args(tyro.conf.Positional[str])[1]
"""The mark of an argument without a name."""
RULES = ConstructorRegistry()
"""How tyro reads a dataclass here."""
SEEN = object()


@RULES.struct_rule
def _flowing(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A dataclass as tyro reads it, but that the help of an option is one text: tyro keeps the line breaks of its docstring."""
    if SEEN in info.markers:  # for tyro's own rule
        return None
    found = RULES.get_struct_spec(dataclasses.replace(info, markers=(*info.markers, SEEN)))
    if not isinstance(found, StructConstructorSpec):
        return None
    fields = [dataclasses.replace(field, helptext=_one_text(field.helptext)) for field in found.fields]
    return dataclasses.replace(found, fields=tuple(fields))


def _one_text(text: Help) -> Help:
    """A docstring, or a function that reads it, without the line breaks inside of its paragraphs."""
    if callable(text):
        return lambda: _one_text(text())  # pyright: ignore[reportReturnType]
    return text and re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def _wrapped(about: str) -> str:
    """The head of --help at the terminal's width, which tyro gives as it is; it joins lines that begin with a letter."""
    width = shutil.get_terminal_size().columns
    return "\n\n".join(textwrap.fill(each, width, subsequent_indent="  ") for each in about.split("\n\n"))


def peek(args: Args, name: str) -> str:
    """The value of an option before the arguments are parsed, since the defaults of the others depend on it."""
    for i, word in enumerate(args):
        if word == f"--{name}" and i + 1 < len(args):
            return args[i + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return ""


def mentions(args: Args, name: str) -> bool:
    """Whether an option, named with underscores, is given, with whatever value."""
    flag = f"--{name.replace('_', '-')}"
    return any(word == flag or word.startswith(f"{flag}=") for word in args)


def sampler_names(options: Any) -> tuple[str, ...]:
    """The samplers that options of sampling can have; none where there is nothing to choose."""
    if not hasattr(options, "solver"):
        return ()
    return tuple(name for name, row in SAMPLERS.items() if row.coordinates in options.coordinates)


def sampler_field(options: Any, prefix: str = "") -> list[Any]:
    """The field of a parsed dataclass that shows and takes the sampler's name; none where there is nothing to choose."""
    names = sampler_names(options)
    if not names:
        return []
    doc = type(options.solver).__doc__ or ""
    about = f"{doc.splitlines()[0]} Each has options of its own: --help with another shows them."
    hint = Annotated[Literal[names], tyro.conf.arg(name=f"{prefix}sampler", help=about)]  # pyright: ignore
    return [("sampler", hint, dataclasses.field(default=options.solver.sampler))]


def chosen_sampler(options: T, args: Args, prefix: str = "") -> T:
    """Options of sampling with the sampler that the arguments name. Raises UserError for one that there is none of."""
    name = peek(args, f"{prefix}sampler")
    try:
        return with_sampler(options, name) if name else options
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None


def parse(kind: type[T], name: str, args: Args, about: str = "") -> T:
    """A dataclass of arguments. about: what --help says before the options.

    Raises UserError for an option that there is none of, with the nearest ones, and for a value of another kind.
    """
    said, prog = io.StringIO(), f"python -m {name}"
    try:
        with contextlib.redirect_stderr(said):
            found, unknown = tyro.cli(
                kind, prog=prog, args=list(args), description=_wrapped(about), return_unknown_args=True, registry=RULES
            )
    except SystemExit as stop:
        if stop.code and (problem := _refused(said.getvalue(), args)):
            raise UserError(problem) from None
        sys.stderr.write(said.getvalue())
        raise
    if unknown:
        raise UserError(_unknown(unknown[0], args, _options(found), getattr(found, "sampler", "")))
    return found


def parse_command(program: str, kinds: Mapping[str, type], args: Args | None) -> Any:
    """The arguments of one of a program's commands, whose name comes first. Raises UserError as `parse`, and for the name.

    args: those of this process unless given.
    """
    words = list(sys.argv[1:] if args is None else args)
    names = list(kinds)
    if words and words[0] in ("-h", "--help"):
        return tyro.extras.subcommand_cli_from_dict(dict(kinds), prog=f"python -m {program}", args=words, registry=RULES)
    if not words:
        raise UserError(f"{program}: name a command, one of {', '.join(names)}")
    if words[0] not in kinds:
        raise UserError(f"{words[0]}: no such command{nearest(words[0], names)}; it may be {', '.join(names)}")
    kind = kinds[words[0]]
    return parse(kind, f"{program} {words[0]}", words[1:], kind.__doc__ or "")


def _refused(box: str, args: Args) -> str:
    """The problem with a value, in one line, of what tyro says about it in a box; '' where that is something else."""
    text = " ".join(row.strip("│ ") for row in box.splitlines())
    if found := re.search(r"invalid choice '(.*)' for argument '--(\S+)'. Expected one of \((.*)\)", text):
        choices = re.findall(r"'([^']*)'", found[3])
        return f"{found[2]}={found[1]}: must be one of {', '.join(choices)}{nearest(found[1], choices)}"
    if found := re.search(r"Missing from python -m (\S+ \S+): (?:STR )?(.*?) \(required\)", text):
        return f"{found[1]}: one argument is missing: {found[2]}"
    if found := re.search(r"Missing value for argument '--([\w.-]+)", text):
        return f"{found[1]}: no value was given"
    if found := re.search(r"Error parsing --([\w.-]+)(?:, -\S+)*: (.*)", text):
        kinds = {"int()": "a whole number", "to float": "a number"}
        kind = next((kind for word, kind in kinds.items() if word in found[2]), "of the kind that --help shows")
        if "for arguments: [" in found[2]:
            kind = "numbers with spaces between"
        came = peek(args, found[1]) or peek(args, found[1].replace("-", "_"))
        return f"{found[1]}={came}: must be {kind}"
    return ""


def _unknown(word: str, args: Args, options: list[str], sampler: str) -> str:
    """The problem with a word that is neither an option nor the value of one."""
    if not word.startswith("-"):
        before = args[args.index(word) - 1] if word in args[1:] else ""
        if (opposite := option_name(before.removeprefix("--"), False)) in options:
            return f"{before} {word}: {before} takes no value, and {opposite} is its opposite"
        run = f"; a run is named by --run {word}" if "--run" in options and (Path(word) / "config.json").is_file() else ""
        return f"{word}: is no option, nor the value of one{run}"
    option = f"--{word.split('=')[0].strip('-')}"
    last = option.removeprefix("--").split(".")[-1].replace("-", "_")
    same = [each for each in options if each.removeprefix("--").split(".")[-1].replace("-", "_") == last]
    having = [name for name, row in SAMPLERS.items() if last in {field.name for field in dataclasses.fields(row)}]
    if sampler and having and not same:
        return f"{word}: is an option of --sampler {', '.join(having)}, not of {sampler}"
    close = difflib.get_close_matches(option, same or options, 3, 0 if same else 0.75)
    hint = f" (did you mean {', '.join(close)}?)" if close else "; --help shows those there are"
    return f"{word}: no such option{hint}"


def option_name(name: str, value: Any = True) -> str:
    """An option as it is typed; of False, its opposite.

    >>> option_name("data.batch_size"), option_name("data.flip", False)
    ('--data.batch-size', '--data.no-flip')
    """
    prefix, dot, last = name.replace("_", "-").rpartition(".")
    return f"--{prefix}{dot}{'no-' if value is False else ''}{last}"


def _options(found: Any) -> list[str]:
    """The options of parsed arguments, as they are typed."""
    names = []
    for leaf in leaves(found):
        marks = getattr(leaf.hint, "__metadata__", ())
        name = next((mark.name for mark in marks if getattr(mark, "name", None)), leaf.name)
        if POSITIONAL not in marks:
            names += [option_name(name), *([option_name(name, False)] if isinstance(leaf.value, bool) else [])]
    return names


def config_default(default: T, args: Args) -> T:
    """A config with the sampler that the arguments name."""
    options = getattr(default, "sampling", None)
    chosen = chosen_sampler(options, args, "sampling.")
    return default if chosen is options else dataclasses.replace(default, sampling=chosen)  # pyright: ignore


def parse_config(default: T, args: Args, name: str = "experiments") -> T:
    """A config alone, from its default and arguments."""
    default = config_default(default, args)
    field = ("config", Annotated[type(default), tyro.conf.arg(name="")], dataclasses.field(default=default))
    fields = [field, *sampler_field(getattr(default, "sampling", None), "sampling.")]
    return parse(dataclasses.make_dataclass("Config", fields), name, args).config  # pyright: ignore
