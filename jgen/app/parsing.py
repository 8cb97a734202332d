"""Arguments -> configs. A sampler's name is looked for first, since it decides which options there are."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jgen.config.samplers import SAMPLERS
from jgen.config.values import with_sampler

T = TypeVar("T")
Args = Sequence[str]


def peek(args: Args, name: str) -> str:
    """The value of an option before the arguments are parsed, since the defaults of the others depend on it."""
    for i, word in enumerate(args):
        if word == f"--{name}" and i + 1 < len(args):
            return args[i + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return ""


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
    return with_sampler(options, name) if name else options


def parse(kind: type[T], name: str, args: Args, about: str = "") -> T:
    """A dataclass of arguments; an unknown option ends the program with 2 and the nearest ones.

    about: what --help says before the options.
    """
    return tyro.cli(kind, prog=f"python -m {name}", args=list(args), description=about)


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
