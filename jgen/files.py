"""Files that jgen writes: never seen half written by a reader; the cache; the versions recorded in them."""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from jgen.errors import UserError


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
