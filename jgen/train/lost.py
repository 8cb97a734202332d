"""A lost process of several: the others end with one line that names it, in place of the runtime's abort and its stacks.

JAX's runtime notices a process that was killed, writes which one to the error stream, and aborts its own process. Here the
runtime's lines are held back and read, and the abort ends the process with them in one line.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator

import jax

from jgen.errors import UserError

HEARTBEAT_SECONDS = 30
"""A process that was not heard of for so long is lost."""
RECORD = re.compile(rb"^[IWEF]\d{4} \d\d:\d\d:\d\d")
"""Begins a record of the runtime's log; lines without it belong to the record before."""
COORDINATION = re.compile(rb"^[EF]\d{4} .*? (coordination_service\w*|preemption_\w+|client|distributed_runtime\w*)\.(cc|h):")
UNHEALTHY = re.compile(r"unhealthy[^:]*:\s*((?:\S*?task:)?\d+(?:\s+(?:\S*?task:)?\d+)*)")
NO_LEADER = re.compile(r"Failed to send RPC to coordination service|leader task was preempted")
CONNECTION = re.compile(r"gloo|nccl|connection|unavailable|heartbeat|coordination", re.IGNORECASE)


def message(log: str) -> str:
    """The line for what the runtime wrote before it aborted; "" where it says nothing of a lost process.

    >>> message("The following tasks are unhealthy (stopped sending heartbeats):\\n1\\nThe tasks have crashed.")
    'process 1 of the run was lost (killed, or cut off); start all of them again to go on from the last checkpoint'
    """
    if found := UNHEALTHY.search(log):
        lost = sorted({int(n) for n in re.findall(r"(\d+)(?:\s|$)", found[1] + " ")})
    elif NO_LEADER.search(log):
        lost = [0]
    else:
        return ""
    names = f"process {lost[0]}" if len(lost) == 1 else f"processes {', '.join(map(str, lost))}"
    verb = "was" if len(lost) == 1 else "were"
    return f"{names} of the run {verb} lost (killed, or cut off); start all of them again to go on from the last checkpoint"


class Watch:
    """Reads what libraries write to the error stream, passes it on, and ends the process where the runtime aborts it."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.holding = False
        sys.stderr.flush()
        self.stream = os.dup(2)
        sys.stderr = os.fdopen(os.dup(self.stream), "w", buffering=1)  # Python's own lines need no reading
        source, sink = os.pipe()
        os.dup2(sink, 2)
        os.close(sink)
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        library = ctypes.CDLL(None)
        self.default = library.signal
        self.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        library.signal(signal.SIGABRT, self.handler)

    def _read(self, source: int) -> None:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                if RECORD.match(line):
                    self.holding = bool(COORDINATION.match(line))
                if self.holding:
                    self.held.append(line)
                else:
                    os.write(self.stream, line)

    def _aborted(self, number: int) -> None:
        time.sleep(0.5)  # until what was written before is read
        if text := message(b"".join(self.held).decode(errors="replace")):
            os.write(self.stream, f"error: {text}\n".encode())
            os._exit(2)
        for line in self.held:
            os.write(self.stream, line)
        os.dup2(self.stream, 2)
        self.default(number, 0)  # the signal's own action: abort goes on


@contextlib.contextmanager
def named() -> Iterator[None]:
    """A block in which a failed exchange between processes waits until the runtime has named the lost one."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, UserError) as error:
        reason = error if isinstance(error, jax.errors.JaxRuntimeError) else error.__cause__
        if jax.process_count() == 1 or not isinstance(reason, jax.errors.JaxRuntimeError) or not CONNECTION.search(str(reason)):
            raise
        time.sleep(HEARTBEAT_SECONDS + 20)  # the abort comes meanwhile
        print(f"error: another process of the run was lost ({str(reason).splitlines()[0][:200]})", file=sys.stderr, flush=True)
        os._exit(2)
