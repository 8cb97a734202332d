"""Two processes: all stop at one step, and a lost one is named."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from jgen.train.log import read
from jgen.train.lost import message
from tests import tiny

FLAGS = [
    word for pair in zip(tiny.FLAGS["ddpm"][::2], tiny.FLAGS["ddpm"][1::2]) for word in pair
    if pair[0] not in ("--train.steps", "--train.save-every")
]  # fmt: skip


@pytest.mark.parametrize(
    "log, start",
    [
        ("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n2\n0\nThe tasks", "processes 0, 2 of"),
        (
            "unhealthy (stopped sending heartbeats): /job:jax_worker/replica:0/task:3\nThe tasks",
            "process 3 of the run was lost",
        ),
        ("UNAVAILABLE: Failed to send RPC to coordination service. Either the leader", "process 0 of the run was lost"),
        ("Out of memory", ""),
    ],
)
def test_the_runtime_s_words_for_a_lost_process(log, start):
    assert message(log).startswith(start)
    assert bool(message(log)) == bool(start)


@pytest.fixture
def two(tmp_path):
    """Two processes of one run that never ends, after their first steps, and the run's folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "run"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments.ddpm", "--name", str(folder), *FLAGS, "--train.steps", "1000000",
             "--train.save-every", "1000000", "--mesh.coordinator", f"localhost:{port}", "--mesh.num-processes", "2",
             "--mesh.process-id", str(i)],
            env=tiny.environment(1), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    until = time.monotonic() + 240
    while len(read(folder / "metrics.jsonl")) < 3 and time.monotonic() < until and all(p.poll() is None for p in processes):
        time.sleep(0.1)
    yield processes, folder
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[(1, 0.0)], [(0, 0.0), (1, 0.7)]])
def test_sigterm_to_one_or_both_stops_all_at_one_step_and_saves(two, signals):
    processes, folder = two
    for which, after in signals:
        time.sleep(after)
        processes[which].send_signal(signal.SIGTERM)
    out = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], out
    (saved,) = [int(p.name) for p in (folder / "checkpoints").iterdir()]
    assert f"stopped at step {saved} of" in out[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_survivor_of_a_lost_process_names_it_within_a_minute(two, lost):
    processes, _ = two
    processes[lost].send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, err = processes[1 - lost].communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert processes[1 - lost].returncode == 2
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    assert lines[0].startswith(f"error: process {lost} of the run was lost (killed, or cut off); start all of them again")
    assert "Traceback" not in err
