"""Files that jgen writes: never seen half written by a reader; the cache; the versions recorded in them."""

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from jgen.errors import UserError

LONGEST_NAME = 200
"""Bytes of a file's name; file systems take 255, of which a temporary file needs some more."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` at once when the block ends without an error.

    A link of the name is replaced, never written through.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_out(path: Path, suffixes: Sequence[str], option: str = "out") -> None:
    """Raises UserError, before any work is done, for a file that can't be written: by its suffix, or by its place.

    suffixes: those that it may have; "" is a folder.
    """
    if path.suffix not in suffixes:
        known = [f"a {suffix}" if suffix else "a folder" for suffix in suffixes]
        raise UserError(f"{option}={path}: must be {', '.join(known[:-1])}{' or ' if known[:-1] else ''}{known[-1]}")
    _check_place(path, f"{option}={path}", folder=not path.suffix)


def check_folder(path: Path, option: str = "out") -> None:
    """Raises UserError, before any work is done, where no folder of this name can be written."""
    _check_place(path, f"{option}={path}", folder=True)


def _check_place(path: Path, named: str, folder: bool) -> None:
    """Raises UserError where a file or a folder can't be written."""
    try:
        if path.is_dir() and not folder:
            raise UserError(f"{named}: is a folder; must be the name of a file in one")
        if path.exists() and not path.is_dir() and folder:
            raise UserError(f"{named}: is a file; must be a folder")
        if len(os.fsencode(path.name)) > LONGEST_NAME:
            raise UserError(f"{named}: a name of {len(os.fsencode(path.name))} bytes; must have at most {LONGEST_NAME}")
        place = next(each for each in (path, *path.parents) if each.exists() and (each != path or folder))
        if not place.is_dir():
            raise UserError(f"{named}: {place} is no folder")
        with tempfile.TemporaryFile(dir=place):  # which tells more than its permissions do
            pass
    except OSError as error:
        raise UserError(f"{named}: nothing can be written there ({error.strerror}); name another place") from error


def check_no_links(folder: Path) -> None:
    """Raises UserError for a symbolic link below a folder, since what is written there might go elsewhere."""
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if os.path.islink(path := os.path.join(parent, name)):
                raise UserError(f"{path}: is a symbolic link; a run's folder must hold its own files, so remove it")


def cache_folder(name: str) -> Path | None:
    """A folder of the cache: below $JGEN_CACHE, else ~/.cache/jgen; None where $JGEN_CACHE is empty."""
    root = os.environ.get("JGEN_CACHE", str(Path.home() / ".cache" / "jgen"))
    return Path(root) / name if root else None


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python, jgen and the packages named."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("jgen", *packages)}}
