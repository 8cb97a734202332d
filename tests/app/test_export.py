"""Exported runs: the weights draw the bits of the run, the program its images, and files from strangers are checked."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jgen
from experiments import ddpm, vae
from jgen.app.export import export, public
from jgen.config import changed
from jgen.config.export import Export
from jgen.errors import UserError
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a tiny DDPM."""
    folder = tmp_path_factory.mktemp("run") / "a"
    tiny.run("-m", "experiments.ddpm", "--name", str(folder), *tiny.FLAGS["ddpm"], cwd=folder.parent)
    return folder


@pytest.fixture(scope="module")
def weights(run, tmp_path_factory):
    return export(run, Export(out=str(tmp_path_factory.mktemp("out") / "w")))


def test_weights_draw_the_bits_of_the_run(run, weights):
    whole, alone = jgen.load(run), jgen.load(weights)
    np.testing.assert_array_equal(alone.sample(4, seed=3), whole.sample(4, seed=3))
    assert alone.step == whole.step == 6
    assert not alone.state.opt
    assert alone.stage.name == "ddpm"


def test_the_folder_is_small_and_says_what_it_is(run, weights):
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in (weights, run)]
    assert sizes[0] < sizes[1] / 4  # of a network as tiny as this, much is not weights
    card = (weights / "README.md").read_text()
    for text in ("Ho, Jain & Abbeel 2020", "digits", "6 of 6 steps", "jgen.load", "licence", "Apache-2.0"):
        assert text in card


def test_training_does_not_go_on_from_it_but_another_begins(weights, tmp_path, capsys):
    with pytest.raises(SystemExit):
        jgen.main(ddpm.Config, ddpm.build, ddpm.PRESETS, ["--run", str(weights)])
    assert "--train.begin-from" in capsys.readouterr().err


def test_no_folder_of_the_machine_is_published():
    config = {"data": {"name": "folder:/home/me/photos", "root": "/x"}, "train": {"begin_from": "/runs/a"}}
    text = json.dumps(public({"module": "m", "preset": "p", "config": config}))
    assert "/home" not in text
    places = {
        "inversion": {"gan": "/home/me/gan"},
        "sampling": {"classifier": "~/c", "sampler": "ddim"},
        "x": "cnn:/home/f.npz",
    }
    named = public({"module": "m", "preset": "p", "config": places})["config"]
    assert named == {"inversion": {"gan": "gan"}, "sampling": {"classifier": "c", "sampler": "ddim"}, "x": "cnn:f.npz"}
    assert "folder:photos" in text
    assert "/x" not in text
    assert "/runs" not in text


def test_nothing_is_written_among_other_files(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        export(run, Export(out=str(tmp_path)))
    with pytest.raises(UserError, match="holds other files"):
        export(run, Export(out=str(run)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out=.*file: is a file; must be a folder"):
        export(run, Export(out=str(tmp_path / "file")))
    with pytest.raises(UserError, match="out=.*: nothing can be written there"):
        export(run, Export(out="/proc/out"))
    with pytest.raises(UserError, match="batch=3: to=weights draws no images"):
        export(run, Export(out=str(tmp_path / "v1.2"), batch=3))


def _altered(weights, folder, change, meta=None):
    shutil.copytree(weights, folder)
    arrays = load_file(folder / "weights.safetensors")
    change(arrays)
    save_file(arrays, folder / "weights.safetensors", meta or {"stage": "ddpm", "step": "6"})
    return folder


@pytest.mark.parametrize("name, change, says", [
    ("missing", lambda a: a.pop(min(a)), "is not there"),
    ("more", lambda a: a.update(evil=np.zeros(2)), "evil is no array"),
    ("size", lambda a: a.update({min(a): np.zeros((9, 9), np.float32)}), "by its settings"),
    ("type", lambda a: a.update({min(a): a[min(a)].astype(np.float16)}), "float16"),
    ("nan", lambda a: a.update({min(a): a[min(a)] * np.float32(np.nan)}), "not finite"),
])  # fmt: skip
def test_weights_of_strangers_are_checked(weights, tmp_path, name, change, says):
    with pytest.raises(UserError, match=says):
        jgen.load(_altered(weights, tmp_path / name, change))


@pytest.mark.parametrize("meta, says", [({"stage": "gan", "step": "6"}, "'gan'"), ({"stage": "ddpm", "step": "-1"}, "step")])
def test_the_head_of_the_file_is_checked(weights, tmp_path, meta, says):
    with pytest.raises(UserError, match=says):
        jgen.load(_altered(weights, tmp_path / "a", lambda arrays: None, meta))


def test_a_cut_file_is_one_line(weights, tmp_path):
    shutil.copytree(weights, tmp_path / "a")
    file = tmp_path / "a" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="not a readable"):
        jgen.load(tmp_path / "a")


def test_the_program_draws_the_images_of_the_run(run, tmp_path):
    pytest.importorskip("flatbuffers")
    whole = jgen.load(run)
    options = changed(whole.stage.options, {"sampler": "heun", "steps": 2})
    out = export(run, Export(to="stablehlo", out=str(tmp_path / "s"), batch=3), options)
    found = jgen.load_sampler(out)(4, seed=5)
    np.testing.assert_allclose(found, whole.sample(4, seed=5, options=options), atol=1e-5)
    program = jax.export.deserialize(bytearray((out / "sampler.stablehlo").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    with pytest.raises(UserError, match="no exported sampler"):
        jgen.load_sampler(tmp_path)


def test_onnx_of_a_sampler_of_steps_is_refused_by_name(run, tmp_path):
    with pytest.raises(UserError, match="to=onnx: ddpm draws in steps, or not at all, which no ONNX file holds"):
        export(run, Export(to="onnx", out=str(tmp_path / "o")))


def test_onnx_gives_the_images_of_its_noise(tmp_path):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    jgen.main(vae.Config, vae.build, vae.PRESETS, ["--name", str(tmp_path / "v"), *tiny.FLAGS["vae"]])
    out = export(tmp_path / "v", Export(to="onnx", out=str(tmp_path / "o"), batch=3))
    session = runtime.InferenceSession(str(out / "network.onnx"))
    given = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs()}
    found = session.run(None, given)[0]
    assert found.shape == (3, 8, 8, 1)
    assert abs(found).max() <= 1
