"""Training runs of a tiny model: resuming is exact, and what goes wrong is reported and loses nothing."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.data import ArraySource, Pipeline
from jgen.sharding import make_mesh
from jgen.train.checkpoint import Checkpoints, check_fits, digest
from jgen.train.draw import draw
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


@pytest.mark.parametrize("images", [jnp.zeros((3, 8, 8, 1)), jnp.zeros((1, 8, 8, 1), jnp.uint8), jnp.zeros((8, 8, 1))])
def test_a_sampler_of_no_images_is_refused_before_training(tmp_path, images):
    stage = replace(tiny.stage(), sample=lambda params, extra, keys, options: images)
    with pytest.raises(ValueError, match=r"for one key; must be floats \[1, H, W, C\]"):
        fit(stage, tmp_path, MESH)
    assert not list(tmp_path.iterdir())


def test_samples_depend_on_seed_and_index_alone(whole):
    state, stage = whole[1].state, tiny.stage()
    ten = draw(stage, state.averaged, state.extra, MESH, num=10, seed=5, batch=10)
    few = draw(stage, state.averaged, state.extra, MESH, num=7, seed=5, batch=3)
    np.testing.assert_allclose(ten[:7], few, atol=1e-5)
    assert np.abs(ten).max() <= 1
    assert not np.allclose(ten, draw(stage, state.averaged, state.extra, MESH, num=10, seed=6, batch=10))


# --- as a user runs it ---------------------------------------------------------------------------------------------


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
