"""Keeps Orbax's threads and unfinished tasks from printing tracebacks of errors that it raises as well.

A damaged file or a full disk makes them print hundreds of lines, some of them long after the error; jgen reports what is
raised, in one line. Tracebacks that do not pass through these libraries are printed as before.
"""

import functools
import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Any

LIBRARIES = ("orbax", "tensorstore", "asyncio")


@functools.cache
def quiet_libraries() -> None:
    """Turns them off for the rest of the process; once is enough."""
    uncaught, unraisable, in_thread = sys.excepthook, sys.unraisablehook, threading.excepthook

    def show_uncaught(kind: Any, value: Any, traceback: TracebackType | None) -> None:
        if not _of_libraries(traceback):
            uncaught(kind, value, traceback)

    def show_unraisable(found: Any) -> None:
        code = getattr(found.object, "cr_code", None)
        if not (_of_libraries(found.exc_traceback) or (code and _named(code.co_filename))):
            unraisable(found)

    def show_in_thread(found: Any) -> None:
        if not _of_libraries(found.exc_traceback):
            in_thread(found)

    sys.excepthook, sys.unraisablehook, threading.excepthook = show_uncaught, show_unraisable, show_in_thread
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _of_libraries(traceback: TracebackType | None) -> bool:
    files = []
    while traceback is not None:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return any(map(_named, files)) and not any("/jgen/" in file for file in files)


def _named(file: str) -> bool:
    return any(f"/{name}/" in file.replace("\\", "/") for name in LIBRARIES)
