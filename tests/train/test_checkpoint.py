"""Checkpoints from strangers and beside a running training: reading changes nothing, and damage is one line."""

import json
import shutil
import subprocess
import sys

import pytest

import jgen
from jgen.sharding import make_mesh
from jgen.train.log import read
from jgen.train.loop import fit
from jgen.train.stage import restore
from jgen.train.stop import locked
from tests import tiny

MESH = make_mesh()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 6 steps by the command line's own function, saved every 2."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    tiny.run("-m", "experiments.ddpm", "--name", str(folder), *tiny.FLAGS["ddpm"], cwd=folder.parent)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def listing(folder):
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "files of arrays cut short": lambda run: [halve(p) for p in (run / "checkpoints/6/run/ocdbt.process_0/d").iterdir()],
    "no folder of arrays": lambda run: shutil.rmtree(run / "checkpoints/6/run/d"),
    "no manifest": lambda run: (run / "checkpoints/6/run/manifest.ocdbt").unlink(),
    "a manifest cut short": lambda run: halve(run / "checkpoints/6/run/manifest.ocdbt"),
    "empty descriptions": lambda run: (run / "checkpoints/6/run/array_metadatas/process_0").write_bytes(b""),
    "no metadata": lambda run: (run / "checkpoints/6/run/_METADATA").unlink(),
    "nothing in it": lambda run: shutil.rmtree(run / "checkpoints/6/run"),
    "a file of its name": lambda run: (shutil.rmtree(run / "checkpoints/6"), (run / "checkpoints/6").write_text("")),
    "another step in it": lambda run: (
        shutil.rmtree(run / "checkpoints/6"), shutil.copytree(run / "checkpoints/4", run / "checkpoints/6"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_and_reading_changes_nothing(run, kind, capfd):
    DAMAGE[kind](run)
    before = listing(run)
    assert jgen.load(run).step == 4
    out, err = capfd.readouterr()
    lines = [line for line in (out + err).splitlines() if line]
    assert len(lines) == 1, lines[:5]
    assert lines[0].startswith(f"{run / 'checkpoints' / '6'}: damaged checkpoint skipped (")
    assert listing(run) == before


def test_a_resumed_training_removes_the_damaged_ones_and_writes_their_steps_again(run):
    shutil.copytree(run / "checkpoints/6", run / "checkpoints/200")
    DAMAGE["a file of its name"](run)
    tiny.run("-m", "experiments.ddpm", "train", "--run", str(run), cwd=run.parent)
    assert jgen.load(run).step == 6
    assert sorted(p.name for p in (run / "checkpoints").iterdir())[-1] == "6.not-a-checkpoint"
    assert not (run / "checkpoints/200").exists()
    assert (run / "checkpoints/6").is_dir()


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "tensorboard", "samples", "checkpoints", "samples/more.png"])
def test_links_in_a_run_s_folder_are_never_written_through(run, name, tmp_path):
    target = tmp_path / "elsewhere"
    if name in ("tensorboard", "samples", "checkpoints"):
        shutil.rmtree(run / name, ignore_errors=True)
        target.mkdir()
    else:
        (run / name).unlink(missing_ok=True)
        target.write_text("precious")
    (run / name).symlink_to(target)
    with pytest.raises(ValueError, match="is a symbolic link"):
        fit(tiny.stage(), run, MESH)
    done = tiny.run("-m", "experiments.ddpm", "train", "--run", str(run), cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "is a symbolic link" in done.stderr
    assert list(target.iterdir()) == [] if target.is_dir() else target.read_text() == "precious"


def test_pictures_and_records_take_the_place_of_links(run, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_text("precious")
    (run / "samples-seed0.png").symlink_to(target)
    tiny.run("-m", "experiments.ddpm", "sample", "--run", str(run), "--num", "4", cwd=tmp_path)
    assert target.read_text() == "precious"


def test_a_second_training_is_refused_before_it_writes_anything(run):
    with locked(run):
        before = listing(run)
        done = tiny.run("-m", "experiments.ddpm", "--run", str(run), "--train.log-every", "3", cwd=run.parent, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"error: {run}: another process is training in this folder"
        assert listing(run) == before


@pytest.mark.slow
def test_readers_beside_a_training_that_saves_every_two_steps(whole, tmp_path):
    """Both end well: the training finishes, and each reading finds a checkpoint."""
    run, flags = shutil.copytree(whole, tmp_path / "run"), dict(zip(tiny.FLAGS["ddpm"][::2], tiny.FLAGS["ddpm"][1::2]))
    config = json.loads((run / "config.json").read_text())
    config["config"]["train"]["steps"] = 60
    (run / "config.json").write_text(json.dumps(config))
    assert flags["--train.save-every"] == "2"
    code = f"""
import jgen, pathlib
count = 0
while not pathlib.Path({str(tmp_path / "over")!r}).exists():
    assert jgen.load({str(run)!r}).step >= 6
    count += 1
print(count)
"""
    env = tiny.environment()
    reader = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tiny.run("-m", "experiments.ddpm", "train", "--run", str(run), cwd=tmp_path)
    (tmp_path / "over").touch()
    out, err = reader.communicate(timeout=120)
    assert reader.returncode == 0, err[-2000:]
    assert int(out) > 3
    assert restore(tiny.stage(), run / "checkpoints", MESH)[0] == 60
    assert [r["step"] for r in read(run / "metrics.jsonl") if "loss" in r][-1] == 60
