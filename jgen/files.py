"""Files that jgen writes: never seen half written by a reader; the cache; the versions recorded in them."""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` at once when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    yield temporary
    os.replace(temporary, path)


def cache_folder(name: str) -> Path | None:
    """A folder of the cache: below $JGEN_CACHE, else ~/.cache/jgen; None where $JGEN_CACHE is empty."""
    root = os.environ.get("JGEN_CACHE", str(Path.home() / ".cache" / "jgen"))
    return Path(root) / name if root else None


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python, jgen and the packages named."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("jgen", *packages)}}
