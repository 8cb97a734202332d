"""The commands of an experiment, each in a process of its own: a run is trained, killed, resumed, sampled and measured."""

import json
import shutil
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

import jgen
from experiments import ddpm
from jgen.app.command import stored_config
from jgen.app.train_command import _resumed
from jgen.app.training import write_config
from jgen.config import changed, leaves
from jgen.sharding import make_mesh
from jgen.train.checkpoint import Checkpoints
from jgen.train.log import read
from jgen.train.stage import restore
from tests import tiny

MESH = make_mesh()


def finished(folder):
    step, state = restore(jgen.load(folder).stage, folder / "checkpoints", MESH)
    return step, state, read(folder / "metrics.jsonl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with one whole run of the command line in runs/ddpm/whole."""
    cwd = tmp_path_factory.mktemp("runs")
    done = tiny.run("-m", "experiments.ddpm", "--name", "whole", *tiny.FLAGS["ddpm"], cwd=cwd)
    assert "python -m experiments.ddpm sample --run runs/ddpm/whole" in done.stdout
    return cwd


@pytest.mark.slow
def test_sigkill_and_sigterm_lose_nothing(runs):
    """Killed once hard and once softly, and started again with the folder alone, the run ends where it would have."""
    command = [sys.executable, "-m", "experiments.ddpm"]
    new, again = ["--name", "killed", *tiny.FLAGS["ddpm"]], ["--run", "runs/ddpm/killed"]
    env, folder = tiny.environment(), runs / "runs/ddpm/killed"
    for flags, number in ((new, signal.SIGKILL), (again, signal.SIGTERM)):
        process = subprocess.Popen([*command, *flags], cwd=runs, env=env, stdout=subprocess.PIPE, text=True)
        before, until = len(read(folder / "metrics.jsonl")), time.monotonic() + 120
        while len(read(folder / "metrics.jsonl")) <= before and time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
        if number == signal.SIGTERM:
            assert process.returncode == 0
            assert "saved; go on with" in out or "report:" in out
            if "saved" in out:
                assert "python -m experiments.ddpm train --run runs/ddpm/killed" in out
    tiny.run("-m", "experiments.ddpm", "train", "--run", "runs/ddpm/killed", cwd=runs)
    a, b = finished(runs / "runs/ddpm/whole"), finished(folder)
    assert a[0] == b[0] == 6
    chex.assert_trees_all_equal(a[1], b[1])
    losses = [[r for r in records if "loss" in r] for _, _, records in (a, b)]
    assert losses[0] == losses[1]


def test_changed_settings_are_refused_on_resume_with_their_names(runs):
    done = tiny.run(
        "-m", "experiments.ddpm", "--run", "runs/ddpm/whole", "--learning-rate", "0.5", "--train.log-every", "2",
        cwd=runs, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "learning_rate: 0.002 -> 0.5" in done.stderr
    assert "log_every" not in done.stderr
    assert "Traceback" not in done.stderr


def test_sample_and_evaluate(runs):
    flags = ("--run", "runs/ddpm/whole", "--num", "5", "--seed", "3", "--steps", "3", "--out", "a.npz")
    done = tiny.run("-m", "experiments.ddpm", "sample", *flags, cwd=runs)
    assert "5 images from step 6" in done.stdout
    images = np.load(runs / "a.npz")["images"]
    assert images.shape == (5, 8, 8, 1)
    run = jgen.load(runs / "runs/ddpm/whole")
    again = run.sample(num=5, seed=3, steps=3)
    assert np.abs((again + 1) * 127.5 - images.astype(float)).max() <= 1
    other = changed(run.config.sampling, {"steps": 3})
    assert jgen.load(runs / "runs/ddpm/whole", sampling=other).stage.options == other
    with pytest.raises(ValueError, match="sampler=pc: must be one of ddim, ddpm, heun"):
        run.sample(sampler="pc")
    with pytest.raises(ValueError, match="stps: no such sampling option"):
        run.sample(stps=3)
    tiny.run("-m", "experiments.ddpm", "evaluate", "--run", "runs/ddpm/whole", "--num", "64", cwd=runs)
    (path,) = (runs / run.folder).glob("evaluate-64-seed0-*.json")
    records = json.loads(path.read_text())["records"]
    assert sum(r["metric"].startswith("loss") for r in records) == 11
    assert sum("DDIM there and back" in r["metric"] for r in records) == 1
    for record in records:
        assert record["subject"]["step"] == 6
        assert record["protocol"]["num"] == 64
        assert record["protocol"]["reference_split"] == "test"
        assert 0 < record["value"] < (10 if record["metric"].startswith("loss") else 60)


def test_a_seed_out_of_range_is_one_line(runs):
    flags = ("--run", "runs/ddpm/whole", "--seed", "5000000000")
    done = tiny.run("-m", "experiments.ddpm", "sample", *flags, cwd=runs, check=False)
    assert done.stderr == "error: seed=5000000000: must be from 0 to 2147483647\n"
    with pytest.raises(ValueError, match="seed=5000000000: must be from 0"):
        jgen.load(runs / "runs/ddpm/whole").sample(4, seed=5000000000)


def test_a_new_run_takes_no_name_that_there_is(runs):
    done = tiny.run("-m", "experiments.ddpm", "--name", "whole", *tiny.FLAGS["ddpm"], cwd=runs, check=False)
    assert "name=whole: runs/ddpm/whole holds a run; go on with it by train --run runs/ddpm/whole" in done.stderr
    assert done.returncode == 2


def test_a_run_trains_longer_without_more_words(runs):
    folder = shutil.copytree(runs / "runs/ddpm/whole", runs / "runs/ddpm/longer")
    tiny.run("-m", "experiments.ddpm", "train", "--run", str(folder), "--train.steps", "8", cwd=runs)
    assert jgen.load(folder).step == 8
    assert json.loads((folder / "config.json").read_text())["config"]["train"]["steps"] == 8
    done = tiny.run("-m", "experiments.ddpm", "train", "--run", str(folder), "--train.steps", "4", cwd=runs, check=False)
    assert "train.steps: 8 -> 4" in done.stderr


@pytest.mark.parametrize("name, option", [("vqvae", "prior_steps"), ("ncp_vae", "ncp_steps"), ("guided", "classifier_steps")])
def test_a_last_stage_trains_longer_by_its_own_option(name, option, tmp_path):
    module, config = f"experiments.{name}", tiny.parsed(name)
    steps = {leaf.name: leaf.value for leaf in leaves(config)}[option]
    write_config(tmp_path, module, "digits", config)
    stored = stored_config(tmp_path, module)
    more, fewer = (tiny.with_option(config, option, steps + change) for change in (1, -1))
    assert _resumed(more, stored, tmp_path, "", False) == more
    with pytest.raises(ValueError, match=f"its settings differ, {option}: {steps} -> {steps - 1}"):
        _resumed(fewer, stored, tmp_path, "", False)


@pytest.mark.slow
def test_pictures_of_other_samplers_have_other_names(runs):
    folder = runs / "runs/ddpm/whole"
    for how in ([], ["--sampler", "heun"], ["--steps", "3"]):
        tiny.run("-m", "experiments.ddpm", "sample", "--run", str(folder), "--num", "4", "--seed", "9", *how, cwd=runs)
    names = sorted(p.name for p in folder.glob("samples*-seed9.png"))
    assert len(names) == 3
    assert "samples-seed9.png" in names
    assert any(name.startswith("samples-heun-") for name in names)


def test_report_holds_everything_and_loads_nothing(runs):
    page = (runs / "runs/ddpm/whole/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2
    assert ddpm.__doc__.partition("\n")[0].split("(")[0] in page  # the sentence on the model
    assert "ms a step" in page
    assert "&quot;batch_size&quot;: 8" in page
    assert "python -m experiments.ddpm sample --run" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


@pytest.mark.parametrize("args,message", [
    (["--preset", "difits"], "preset=difits: must be one of digits, fashion_mnist, emoji32, cifar10 (did you mean digits"),
    (["--data.name", "nope"], "data.name=nope: no such set"),
    (["trian"], "trian: no such command (did you mean train"),
    (["sample", "--run", "nowhere"], "run=nowhere: no run there"),
    (["train", "--run", "nowhere"], "run=nowhere: no run there to go on with (it has no config.json); a new run is named by"),
    (["sample", "--seed", "5000000000", "--run", "x"], "run=x: no run there"),
    (["--data.batch-size", "4000"], "data.batch_size=4000: digits has only 1500 images"),
    (["--mesh.fsdp", "3"], "mesh.fsdp=3: must divide the"),
    (["--mesh.coordinator", "localhost:1"], "goes with --mesh.num-processes N and --mesh.process-id"),
])  # fmt: skip
def test_bad_arguments_exit_with_2_and_one_line(tmp_path, args, message):
    done = tiny.run("-m", "experiments.ddpm", *args, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "runs").exists()  # nothing that sample would take for the newest run


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["sample", "--help"]])
def test_help_does_not_import_jax(tmp_path, args):
    code = (
        "import runpy, sys; sys.argv[1:] = {args!r}\n"
        "try: runpy.run_module('experiments.ddpm', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'jax' not in sys.modules"
    )
    done = tiny.run("-c", code.format(args=args), cwd=tmp_path)
    assert "--sampling.steps" in done.stdout or "--steps" in done.stdout


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
def test_a_run_of_another_experiment_is_refused(tmp_path, capsys, command):
    (tmp_path / "config.json").write_text(json.dumps({"module": "experiments.edm", "preset": "digits", "config": {}}))
    with pytest.raises(SystemExit, match="2"):
        jgen.main(ddpm.Config, ddpm.build, ddpm.PRESETS, [command, "--run", str(tmp_path)])
    assert capsys.readouterr().err == f"error: run={tmp_path}: is a run of experiments.edm, not of experiments.ddpm\n"


@pytest.mark.parametrize("memory", [False, True])
def test_dry_run_shows_parameters_and_flops_and_trains_nothing(tmp_path, memory):
    flag = "--dry-run-memory" if memory else "--dry-run"
    done = tiny.run("-m", "experiments.ddpm", flag, *tiny.FLAGS["ddpm"], cwd=tmp_path)
    assert "output_blocks_0_0" in done.stdout
    assert "GFLOP" in done.stdout
    assert ("MiB a device" in done.stdout) == memory
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_the_last_good_checkpoint_intact(runs):
    """Files may not grow past 4 kB, which a checkpoint's do."""
    folder = runs / "runs/ddpm/full"
    shutil.copytree(runs / "runs/ddpm/whole", folder)
    for step in (6,):
        shutil.rmtree(folder / "checkpoints" / str(step))
    before = Checkpoints(folder / "checkpoints").steps()
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 4; exec {sys.executable} -m experiments.ddpm --run runs/ddpm/full"], cwd=runs,
        env=tiny.environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    # Libraries' threads fail to write as well, and may leave a line of their own unfinished before ours.
    line = next((line for line in done.stderr.splitlines() if "error: " in line), done.stderr)
    assert "could not be written" in line or "File too large" in line, done.stderr
    assert Checkpoints(folder / "checkpoints").steps() == before
    tiny.run("-m", "experiments.ddpm", "--run", "runs/ddpm/full", cwd=runs)
    chex.assert_trees_all_equal(finished(folder)[1], finished(runs / "runs/ddpm/whole")[1])
