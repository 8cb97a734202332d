"""The same run on 1, 2 and 8 devices, data parallel or sharded, and on 2 processes: same noise, losses and samples."""

import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jgen.arrays import shard_like
from tests import tiny


def start(out, devices, fsdp=1, processes=()):
    env = {**tiny.environment(devices), "JAX_COMPILATION_CACHE_DIR": ""}
    command = [sys.executable, str(tiny.ROOT / "tests" / "multidevice.py"), str(out), str(fsdp), *map(str, processes)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes):
    for process in processes:
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text[-3000:]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "one.npz"
    finish(start(out, 1))
    return np.load(out)


def check(one, out, devices, sharded):
    found = np.load(out)
    assert int(found["devices"]) == devices
    assert (int(found["split"]) > 5) == sharded
    np.testing.assert_array_equal(found["noise"], one["noise"])
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(found["images"], one["images"], atol=1e-4)
    assert np.std(found["images"]) > 0.1
    assert 0 < found["agrees"].min() < found["agrees"].max()
    for name in ("codebook", "covariance", "agrees"):
        np.testing.assert_allclose(found[name], one[name], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices,fsdp", [(8, 4), (2, 1), (8, 1), (2, 2)])
def test_devices_change_nothing(one, tmp_path, devices, fsdp):
    finish(start(tmp_path / "x.npz", devices, fsdp))
    check(one, tmp_path / "x.npz", devices, fsdp > 1)


@pytest.mark.slow
def test_devices_share_the_work_of_a_step(tmp_path):
    """A step's arithmetic, over all devices, is no more on four than on one: no device does another's share as well."""
    code = (
        "from experiments import stylegan2; from jgen.config import MeshConfig; from jgen.sharding import make_mesh\n"
        "from jgen.train.compiled import compile_stage; from jgen.train.stage import batch_shapes; from tests import tiny\n"
        "import jax\n"
        "(stage,) = stylegan2.build(tiny.parsed('stylegan2')).stages\n"
        "def flops(n):\n"
        "    compiled = compile_stage(stage, make_mesh(MeshConfig(devices=n)))\n"
        "    step = compiled.step.lower(compiled.shapes, jax.random.key(0), batch_shapes(stage))\n"
        "    return n * step.compile().cost_analysis()['flops']\n"
        "one, four = flops(1), flops(4)\n"
        "assert four < 1.25 * one, (one, four)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.environment(4), cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_sharded_draws_keep_their_values():
    draws = {"z": np.arange(12.0, dtype=np.float32).reshape(4, 3), "cut": np.arange(3)}
    for call in (shard_like, jax.jit(shard_like)):
        found = call(draws, np.full((8, 2, 2, 1), np.nan, np.float32))
        np.testing.assert_array_equal(found["z"], draws["z"])
        np.testing.assert_array_equal(found["cut"], draws["cut"])  # 3 rows do not divide 8


@pytest.mark.slow
def test_processes_change_nothing(one, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    finish(*[start(tmp_path / "x.npz", 1, 1, (address, 2, i)) for i in range(2)])
    check(one, tmp_path / "x.npz", 2, False)


@pytest.mark.slow
def test_two_processes_train_resume_and_save_from_the_command_line(tmp_path):
    """The whole loop on two hosts: one run folder, written once; then resumed on a single one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    env = tiny.environment()
    base = [sys.executable, "-m", "experiments.ddpm", "--name", "./both", *tiny.FLAGS["ddpm"]]
    mesh = ["--mesh.coordinator", address, "--mesh.num-processes", "2", "--mesh.devices", "2"]
    finish(*[
        subprocess.Popen([*base, *mesh, "--mesh.process-id", str(i)], cwd=tmp_path, env=env,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for i in range(2)
    ])  # fmt: skip
    from jgen.train.log import read

    both = [r["loss"] for r in read(tmp_path / "both" / "metrics.jsonl") if "loss" in r]
    assert len(both) == 6
    assert (tmp_path / "both" / "samples.png").exists()
    tiny.run("-m", "experiments.ddpm", "--name", "./one", *tiny.FLAGS["ddpm"], "--mesh.devices", "1", cwd=tmp_path)
    one = [r["loss"] for r in read(tmp_path / "one" / "metrics.jsonl") if "loss" in r]
    np.testing.assert_allclose(both, one, rtol=1e-4)
    done = tiny.run("-m", "experiments.ddpm", "sample", "--run", "both", "--num", "4", cwd=tmp_path)
    assert "4 images from step 6" in done.stdout
