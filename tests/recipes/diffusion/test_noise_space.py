"""Images brought to noise and back by DDIM, and the commands for pictures of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jgen
from jgen.errors import UserError
from jgen.objectives.conditioning import by_label
from jgen.recipes.diffusion.model import DiffusionModel, NoiseLevels
from jgen.recipes.diffusion.noise_space import condition_of, ddim_chain, noise_space
from tests import tiny


def gaussian(classes=0, drop=0.0):
    """The exact denoiser of pixels that are normal with deviation 0.5, whose mean is a third of the class."""

    def denoise(params, x, sigma, condition):
        mean = 0.0 if condition.label is None else condition.label[:, None, None, None] / 3.0
        share = 0.25 / (0.25 + jnp.reshape(sigma, (-1, 1, 1, 1)) ** 2)
        return mean + share * (x - mean)

    conditioning = by_label(classes, drop) if classes else by_label(0)
    return DiffusionModel((4, 4, 1), denoise, NoiseLevels(0.002, 80.0), conditioning, classes)


def test_noise_of_a_gaussian_s_images_is_normal_and_leads_back():
    model = gaussian()
    space = noise_space(model, lambda *_: lambda x, sigma: x, condition_of(model))
    images = jnp.clip(0.5 * jax.random.normal(jax.random.key(0), (64, 4, 4, 1)), -1, 1)
    noise = space.invert({}, {}, images, -1, 200)
    np.testing.assert_allclose(noise, 2 * images, atol=0.1)  # the exact way scales an image by 1 / deviation
    near, far = (space.draw({}, {}, space.invert({}, {}, images, -1, n), -1, n) - images for n in (200, 100))
    assert np.abs(near).max() < 0.03
    assert 1.8 < np.abs(far).max() / np.abs(near).max() < 2.2  # of order 1


def test_a_class_moves_the_way_back_by_its_mean():
    model = gaussian(3, drop=0.1)
    space = noise_space(model, lambda *_: lambda x, sigma: x, condition_of(model))
    images = 0.1 * jax.random.normal(jax.random.key(0), (8, 4, 4, 1))
    noise = space.invert({}, {}, images, 0, 200)
    np.testing.assert_allclose(space.draw({}, {}, noise, 1, 200), images + 1 / 3, atol=0.02)
    for label, match in ((3, "from_label=3: must be from 0 to 2"), (-2, "must be from 0")):
        with pytest.raises(UserError, match=match):
            space.invert({}, {}, images, label, 5)
    with pytest.raises(UserError, match="from_label=-1: the model was trained with all labels"):
        condition_of(gaussian(3))(-1, 1)
    with pytest.raises(UserError, match="from_label=1: this model is not class-conditional"):
        condition_of(gaussian())(1, 1)


def test_a_chain_has_at_most_its_own_steps():
    stage = tiny.stage()
    assert stage.noise is not None
    assert len(ddim_chain(gaussian(), 7)) == 7


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, shape in (("a", (8, 8)), ("b", (20, 30, 3))):
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(np.pad(np.full((8, 4), 255, np.uint8), ((0, 0), (4, 0)))).save(folder / "mask.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "nothing.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    classes = ("--conditional", "--drop-label", "0.1")
    return {"classes": tiny.stored("ddpm", folder / "c", *classes), "plain": tiny.stored("ddpm", folder / "p")}


def command(name, *words):
    module = tiny.module(name)
    jgen.main(module.Config, module.build, module.PRESETS, [str(word) for word in words])


def columns(path):
    """How many pictures of 8 pixels stand side by side in a sheet of two rows, with lines between."""
    width, height = Image.open(path).size
    return (19 * width / height - 1) / 9


@pytest.mark.slow
def test_the_commands_write_rows_of_source_inversion_and_edits(runs, photos, tmp_path, capsys):
    both, out = ("--image", photos / "a.png", "--image", photos / "b.png"), tmp_path / "sheet.png"
    where = ("--run", runs["classes"], "--out", out)
    command("ddpm", "invert", *where, *both, "--inversion-steps", 3)
    assert np.load(out.with_suffix(".npy")).shape == (2, 8, 8, 1)
    assert columns(out) == 2
    for words, count in (
        (("edit", "--edit-from", "2"), 8),
        (("edit", "--mask-image", photos / "mask.png", "--sampler", "ddpm", "--resamplings", "2", "--steps", "4"), 8),
        (("edit", "--method", "ddim", "--label", "3", "--guidance", "2", "--inversion-steps", "3"), 3),
        (("mix", "--by", "0.5", "0.8", "--inversion-steps", "3", "--from-label", "1"), 4),
    ):
        command("ddpm", words[0], *where, *both, *words[1:])
        assert columns(out) == count
    said = capsys.readouterr().out
    assert "20x30, resized to 8x8, its middle" in said
    assert said.count("dB PSNR") == 6


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_2(runs, photos, tmp_path, capsys):
    image, plain, classes = ("--image", photos / "a.png"), ("--run", runs["plain"]), ("--run", runs["classes"])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for name, words, says in (
        ("vae", ("edit", *image), "edit: experiments.vae has no such command"),
        ("ddpm", ("generate", *plain, "--text", "x"), "generate: is a command of StyleGANs"),
        ("ddpm", ("edit", *plain), "image: name at least one picture"),
        ("ddpm", ("edit", *plain, "--image", "none.png"), "image=none.png: no such file"),
        ("ddpm", ("edit", *plain, "--image", text), "can't be read; must be a PNG, JPEG or WebP picture"),
        ("ddpm", ("edit", *plain, *image, "--method", "ddim"), "method=ddim needs the class that pictures become; this"),
        ("ddpm", ("edit", *classes, *image, "--method", "ddim"), "needs the class that pictures become, such as --label 3"),
        ("ddpm", ("edit", *plain, *image, "--method", "sdedit", "--mask", "left"), "method=sdedit: removes nothing"),
        ("ddpm", ("edit", *plain, *image, "--mask-image", photos / "nothing.png"), "removes nothing; must be white"),
        ("ddpm", ("edit", *plain, *image, "--out", "x.jpg"), "out=x.jpg: must be a .png"),
        ("ddpm", ("mix", *plain, *image), "image: 1 given; must be two"),
        ("ddpm", ("mix", *plain, *image, *image, "--by", "1.5"), "by=1.5: must be from 0 to 1"),
        ("ddpm", ("invert", *plain, *image, "--from-label", "3"), "from_label=3: this model is not class-conditional"),
        ("edm", ("edit", *plain, *image), "is a run of experiments.ddpm, not of experiments.edm"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            command(name, *words)
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert says in said, said
        assert said.count("\n") == 1
