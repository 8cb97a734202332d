"""Training runs of a tiny model: resuming is exact, and what goes wrong is reported and loses nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgen
from experiments import ddpm
from jgen.config import changed
from jgen.data import ArraySource, Pipeline
from jgen.nn import winograd
from jgen.sharding import make_mesh
from jgen.train.checkpoint import Checkpoints, check_fits, digest
from jgen.train.draw import draw
from jgen.train.flops import flops
from jgen.train.log import Log, read
from jgen.train.loop import fit
from jgen.train.stage import restore
from jgen.train.stop import locked
from tests import tiny

MESH = make_mesh()


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 6 steps."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit(tiny.stage(), folder, MESH)


def test_a_run_leaves_samples_curves_metrics_and_checkpoints(whole):
    folder, fitted = whole
    assert fitted.finished
    assert [r["step"] for r in read(folder / "metrics.jsonl") if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in read(folder / "metrics.jsonl") if "val_loss" in r] == [2, 4, 6]
    for name in ("samples.png", "loss.png", "samples/00000006.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    assert list((folder / "tensorboard").iterdir())
    step, state = restore(tiny.stage(), folder / "checkpoints", MESH)
    assert step == 6
    same(state, fitted.state)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("after", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5))])
def test_a_run_killed_and_started_again_equals_the_uninterrupted_one(whole, tmp_path, monkeypatch, after):
    record, seen = Log.record, []

    def dying(self, step, metrics):
        record(self, step, metrics)
        seen.append(step)
        if len(seen) > after:
            self.file.write('{"step": 99, "lo')  # a line cut short
            raise Killed

    monkeypatch.setattr(Log, "record", dying)
    with pytest.raises(Killed):
        fit(tiny.stage(), tmp_path, MESH)
    monkeypatch.undo()
    fitted = fit(tiny.stage(), tmp_path, MESH)
    same(fitted.state, whole[1].state)
    assert read(tmp_path / "metrics.jsonl") == read(whole[0] / "metrics.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("scan", [2])
def test_scanned_dispatches_train_the_same_model(whole, tmp_path, scan):
    fitted = fit(tiny.stage(train__scan=scan), tmp_path, MESH)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, fitted.state, whole[1].state)
    steps = [[r["step"] for r in read(f / "metrics.jsonl") if "loss" in r] for f in (tmp_path, whole[0])]
    assert steps[0] == steps[1]


def damage(folder, kind):
    """Truncates or alters the largest file below a folder."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        data = data[: len(data) // 2]
    elif kind == "altered":
        for i in range(len(data) // 4, len(data), 997):
            data[i] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["truncated", "altered", "gone"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(whole, tmp_path, capfd, kind):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "6"
    if kind == "gone":
        shutil.rmtree(newest / "run")
    else:
        damage(newest / "run", kind)
    fitted = fit(tiny.stage(), tmp_path, MESH)
    out = "".join(capfd.readouterr())
    assert f"{newest}: damaged checkpoint skipped" in out.replace("\n", "")
    same(fitted.state, whole[1].state)


def test_when_no_checkpoint_can_be_read_nothing_is_deleted(whole, tmp_path):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    for step in Checkpoints(tmp_path / "checkpoints").steps():
        damage(tmp_path / "checkpoints" / str(step) / "run", "truncated")
    with pytest.raises(ValueError, match="none of its checkpoints"):
        fit(tiny.stage(), tmp_path, MESH)


def test_the_digest_sees_any_single_change():
    x = jnp.arange(24.0).reshape(4, 6)
    for other in (x.at[2, 3].add(1e-6), x[::-1], x.at[0, 0].set(-0.0), x.at[:, 0].set(x[:, 1]).at[:, 1].set(x[:, 0])):
        assert int(digest(x)[0]) != int(digest(other)[0])
    assert digest({"a": x, "b": jnp.ones(3, bool), "c": jnp.ones((), jnp.bfloat16)}).shape == (3,)


def test_newest_and_best_checkpoints_are_kept(tmp_path):
    state = {"w": jnp.ones(3)}
    with Checkpoints(tmp_path, keep_last=2, keep_best=1) as checkpoints:
        for step, loss in enumerate([3.0, 1.0, 2.0, 5.0, 4.0], 1):
            checkpoints.save(step, state, loss)
            checkpoints.wait()
        assert checkpoints.steps() == [2, 4, 5]


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="another process is training in this folder"):
        fit(tiny.stage(), tmp_path, MESH)


def poisoned(bad_steps):
    """A pipeline whose batches hold a NaN at some steps."""

    class Poisoned(Pipeline):
        def batches(self, start=0, scan=0):
            for i, batch in enumerate(super().batches(start, scan)):
                image = batch["image"]
                yield {**batch, "image": image.at[0, 0, 0, 0].set(jnp.nan) if start + i + 1 in bad_steps else image}

    stage = tiny.stage()
    images = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 1), np.uint8)
    return stage, Poisoned(ArraySource({"image": images}), stage.data, 0, MESH)


def test_a_bad_batch_is_skipped_and_named(tmp_path, capfd):
    stage, pipeline = poisoned({3})
    fitted = fit(stage, tmp_path, MESH, pipeline=pipeline)
    assert fitted.finished
    assert "step 3: batch entry 'image' is not finite; the step was not applied" in capfd.readouterr().err.replace("\n", " ")
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(fitted.state) if x.dtype == jnp.float32)
    assert [r["step"] for r in read(tmp_path / "metrics.jsonl") if "loss" in r] == [1, 2, 4, 5, 6]


def test_many_bad_steps_in_a_row_stop_the_run_with_advice(tmp_path):
    stage, pipeline = poisoned(set(range(3, 99)))
    stage = replace(stage, train=replace(stage.train, max_bad_steps=2))
    with pytest.raises(ValueError, match="batch entry 'image' was not finite for 2 steps in a row.*lower the learning"):
        fit(stage, tmp_path, MESH, pipeline=pipeline)
    assert restore(stage, tmp_path / "checkpoints", MESH)[0] == 2


@pytest.mark.parametrize("change,match", [
    ({"train__steps": 0}, "train.steps=0: must be at least 1"),
    ({"train__scan": 4}, "train.steps=6: must be a multiple of train.scan=4"),
    ({"sampling__steps": 41}, "steps=41: must be from 1 to the schedule's 40"),
    ({"train__accumulate": 3}, "data.batch_size=8: must be divisible by 1 devices x 3 parts"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        fit(tiny.stage(**change), tmp_path, MESH)


def test_samples_depend_on_seed_and_index_alone(whole):
    state, stage = whole[1].state, tiny.stage()
    ten = draw(stage, state.averaged, state.extra, MESH, num=10, seed=5, batch=10)
    few = draw(stage, state.averaged, state.extra, MESH, num=7, seed=5, batch=3)
    np.testing.assert_allclose(ten[:7], few, atol=1e-5)
    assert np.abs(ten).max() <= 1
    assert not np.allclose(ten, draw(stage, state.averaged, state.extra, MESH, num=10, seed=6, batch=10))


# --- as a user runs it ---------------------------------------------------------------------------------------------


def finished(folder):
    step, state = restore(jgen.load(folder).stage, folder / "checkpoints", MESH)
    return step, state, read(folder / "metrics.jsonl")


def test_checkpoints_of_another_network_or_optimizer_are_refused_and_kept(tmp_path):
    def state(width, memory):
        return {"params": {"net": {"w": jnp.ones(width)}}, "opt": (jnp.zeros(memory),)}

    with Checkpoints(tmp_path) as checkpoints:
        for step in (2, 3):
            checkpoints.save(step, state(2, 3))
        checkpoints.wait()
        shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), state(2, 3))
        for other, message in (
            (state(4, 3), r"3: params/net/w is \(2,\), but \(4,\) by these settings; start another run"),
            (state(2, 5), "3: holds the state of another optimizer"),
        ):
            with pytest.raises(ValueError, match=message):
                checkpoints.restore(other, shardings)
        (tmp_path / "3" / "run" / "_METADATA").write_text("{")  # a damaged one says nothing; the one before does
        with pytest.raises(ValueError, match=r"2: params/net/w is \(2,\), but \(4,\)"):
            checkpoints.restore(state(4, 3), shardings)
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.restore(state(2, 3), shardings)[0] == 2
    check_fits(tmp_path / "none", state(2, 3))  # nothing to compare with


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
    same(a[1], b[1])
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


def test_flops_of_a_step_are_the_same_however_it_is_run(monkeypatch):
    (stage,) = ddpm.build(tiny.config(channels=64)).stages
    expected = flops(stage)
    assert flops(replace(stage, train=replace(stage.train, scan=2))) == expected
    assert flops(replace(stage, train=replace(stage.train, accumulate=2))) == expected
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    assert flops(stage) == expected


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
    same(finished(folder)[1], finished(runs / "runs/ddpm/whole")[1])
