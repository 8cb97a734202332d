"""The command line of every experiment: train (the default), sample, evaluate, export, import; and for pictures of yours.

`jgen.main(Config, build, presets)` is all that a module calls. jax is imported only once the arguments are understood.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

from jgen import memory
from jgen.app import import_command, picture_commands, run_commands, train_command
from jgen.app.auto import Auto
from jgen.app.command import Build, Presets
from jgen.app.experiments import running
from jgen.app.import_command import Reader
from jgen.app.parsing import Args
from jgen.errors import UserError, nearest

OF_RUNS = ("train", "sample", "evaluate", "export", *picture_commands.COMMANDS)
COMMANDS = (*OF_RUNS, "import")
NO_PLACE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
"""Errors of the system about a file that can't be opened, or be written there."""


def main(
    config: type, build: Build, presets: Presets | None = None, args: Args | None = None, auto: Auto | None = None,
    published: Reader | None = None,
) -> None:  # fmt: skip
    """Runs an experiment from the shell; exits with 2 and one line for bad input.

    config: the frozen dataclass of the experiment, with fields data, train, mesh and sampling. presets: named configs;
    the first is the default. build: config -> Experiment. auto: the settings for a set of one's own, as --preset auto.
    published: a file of the authors' weights -> a run, as import makes it.
    """
    words = list(sys.argv[1:] if args is None else args)
    command = words.pop(0) if words and not words[0].startswith("-") else "train"
    module = _name(build)
    running[module] = SimpleNamespace(Config=config, build=build)
    with one_line_errors():
        if command not in COMMANDS:
            raise UserError(f"{command}: no such command{nearest(command, list(COMMANDS))}; it may be {', '.join(COMMANDS)}")
        memory.keep()
        if command in picture_commands.COMMANDS:
            return run_commands.edit(command, module, presets or {"default": config()}, words)
        if command == "import":
            return import_command.run(module, published, words)
        presets = presets or {"default": config()}
        if command == "train":
            return train_command.train(module, build, presets, words, auto)
        run = {"sample": run_commands.sample, "evaluate": run_commands.evaluate, "export": run_commands.export}[command]
        run(module, build, presets, words)


def _name(build: Build) -> str:
    """The name of an experiment for `python -m`: a program that was started by its file is known by the file's name."""
    program = sys.modules["__main__"]
    if build.__module__ != "__main__":
        return build.__module__
    if spec := getattr(program, "__spec__", None):
        return spec.name
    return Path(getattr(program, "__file__", None) or "__main__").stem


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """A block whose bad input ends the program with 2 and one line, Ctrl-C with 130, and `| head` without a word."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except UserError as error:
        _stop(str(error))
    except BrokenPipeError:  # nobody reads what is printed, and what is left of it would be tried again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno in NO_PLACE and error.filename is not None:
            _stop(str(UserError(f"{Path(os.fsdecode(error.filename))}: {error.strerror}; what was written before is intact")))
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _stop(f"{error.strerror}: what was written before is intact; free some space and run it again")


def _stop(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2) from None
