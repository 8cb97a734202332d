"""A training folder is one process's at a time, and a signal ends the training after a step, with a checkpoint."""

import contextlib
import fcntl
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from jgen.errors import UserError
from jgen.files import check_no_links

DISPATCHES = itertools.count(1)
"""Numbers the dispatches of a process over all its stages: several processes agree on one of them to stop after."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder against other processes; the lock goes with the process, however it ends.

    Raises UserError where another one holds it, and for symbolic links below it, which are never written through.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_no_links(folder)
    number = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{folder}: another process is training in this folder") from error
    else:
        yield
    finally:
        os.close(number)


class Stop:
    """Remembers a SIGTERM or Ctrl-C until the loop can act on it. Use as a context manager.

    Of several processes, JAX's runtime takes the SIGTERM of any and agrees with the others on a step to stop at.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Stop":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
            for number in numbers:
                self.before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, _: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def now(self) -> bool:
        """Whether to stop after this dispatch, called after each; all processes of a run answer alike."""
        if jax.process_count() == 1:
            return self.requested
        return bool(multihost_utils.reached_preemption_sync_point(next(DISPATCHES)))
