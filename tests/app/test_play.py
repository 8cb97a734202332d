"""The playground's functions: controls of every family, pictures that change with them, and what is refused."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jgen.app import play
from jgen.app.load import Run
from jgen.app.play_styles import WALK, transform
from jgen.config import DataConfig, changed
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.train.stage import Experiment, first_batch
from tests import tiny


def untrained(name: str, *flags: str) -> Run:
    """A run of an experiment shrunk to a toy, at step 0."""
    config = tiny.parsed(name, *flags)
    experiment: Experiment = tiny.module(name).build(config)
    stage = experiment.stages[-1]
    state = stage.create(jax.random.key(0), first_batch(stage, stage.open_source()))
    return Run(Path("run"), config, experiment, stage, 0, state, make_mesh())


def differ(run, first, second, image=None):
    """Whether two settings show different pictures of one size."""
    a, b = (play.show(run, {"num": 4, **values}, image) for values in (first, second))
    assert a.frames.dtype == np.uint8
    assert a.frames.shape[1:] == b.frames.shape[1:]
    return a.frames.shape != b.frames.shape or bool((a.frames != b.frames).any())


@pytest.fixture(scope="module")
def diffusion():
    return untrained("ddpm")


@pytest.mark.slow
def test_diffusion(diffusion, tmp_path):
    assert play.kind_of(diffusion.stage) == "diffusion"
    assert differ(diffusion, {"steps": 2, "seed": 0}, {"steps": 2, "seed": 1})
    moving = play.show(diffusion, {"show": "denoising", "steps": 3, "num": 1, "sampler": "ddim"})
    assert len(moving.frames) == 4
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "a.png")
    image = play.image_of(diffusion, tmp_path / "a.png")
    assert image.shape == (8, 8, 1)
    edited = play.show(diffusion, {"show": "edit", "steps": 4, "edit_from": 1.0}, image)
    assert len(edited.frames) == 1
    with pytest.raises(UserError, match="needs an image"):
        play.show(diffusion, {"show": "edit"})
    names = {each.name for each in play.controls(diffusion)}
    assert "eta" in names
    assert not names & {"label", "guidance"}  # of a model without classes


def test_a_bad_upload_is_one_line(tmp_path):
    """Another kind of file, an empty one, one that was cut short, and a small file of a huge picture."""
    run = SimpleNamespace(stage=SimpleNamespace(data=DataConfig("digits", shape=(8, 8, 1))))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    huge = Image.new("1", (20_000, 20_000))
    huge.save(tmp_path / "huge.png")
    files = {"text.png": b"no image", "empty.jpg": b"", "short.png": whole[: len(whole) // 2], "drawing.svg": b"<svg/>"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "huge.png", "missing.png"):
        with pytest.raises(UserError, match=f"{re.escape(name)}: can't be read; must be a PNG, JPEG or WebP picture"):
            play.image_of(run, tmp_path / name)
    modes = {"L": 7, "LA": (9, 128), "RGBA": (1, 2, 3, 0), "P": 3, "I;16": 40_000}
    for mode, value in modes.items():
        Image.new(mode, (3, 50), value).save(tmp_path / "odd.png")
        image = play.image_of(run, tmp_path / "odd.png")
        assert image.shape == (8, 8, 1)
        assert np.abs(image).max() <= 1


@pytest.mark.slow
def test_values_of_an_address_are_checked(diffusion):
    found = play.checked(diffusion, {"seed": "7", "sampler": "heun", "other": "x"})
    assert found["seed"] == 7
    assert found["sampler"] == "heun"
    assert "other" not in found
    with pytest.raises(UserError, match="did you mean heun"):
        play.checked(diffusion, {"sampler": "hean"})
    beyond = changed(diffusion.stage.options, {"edit_from": 20.0})
    strong = replace(diffusion, stage=replace(diffusion.stage, options=beyond))
    assert play.checked(strong, {})["edit_from"] == 20.0  # a run's own value is in range, however large
    for bad in ("nan", "-1", "x", "1e99"):
        with pytest.raises(UserError, match="seed="):
            play.checked(diffusion, {"seed": bad})


@pytest.mark.slow
def test_styles_and_transforms():
    run = untrained("stylegan3", "--conditional")
    assert play.kind_of(run.stage) == "styles"
    assert differ(run, {"psi": 1.0}, {"psi": 0.0})
    assert differ(run, {"label": 3}, {"label": 4})
    assert differ(run, {}, {"show": "mixing", "rows_from": 0})
    assert differ(run, {}, {"show": "directions", "amount": 5})
    of_class = {"label": 3, "psi": 0.5}
    assert not differ(run, of_class, {"show": "transform", **of_class})
    assert differ(run, of_class, {"show": "transform", "move_x": 0.3, **of_class})
    walk = play.show(run, {"show": "walk", "num": 2, **of_class})
    assert len(walk.frames) == WALK
    assert "psi=0.5, label=3" in walk.caption
    assert (walk.frames != walk.frames[:1]).any()
    still = play.show(run, {"show": "walk", "num": 2, "label": 3, "psi": 0.0}).frames
    assert (still == still[:1]).all()  # at psi 0 there is the mean alone


@pytest.mark.slow
def test_latents_and_pixels():
    run = untrained("vae")
    assert play.kind_of(run.stage) == "latents"
    assert differ(run, {"show": "interpolation", "place": 0}, {"show": "interpolation", "place": 1})
    assert differ(run, {"deviation": 1.0}, {"deviation": 0.0})
    pixels = untrained("pixelcnn")
    assert play.kind_of(pixels.stage) == "pixels"
    image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    assert len(play.show(pixels, {"show": "completion"}, image).frames) == 1


def test_a_transform_is_the_inverse_of_what_happens():
    np.testing.assert_allclose(transform(0, 0, 0), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(transform(0.25, 0, 0)[:2, 2], [-0.25, 0], atol=1e-7)
    turned = transform(0, 0, 90)
    np.testing.assert_allclose(turned @ turned, np.diag([-1, -1, 1]), atol=1e-6)
