"""A tiny GAN, its e4e encoder, and the commands for pictures of one's own."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jgen
from experiments import inversion
from jgen.app import edit
from jgen.app.export import export
from jgen.config import MeshConfig
from jgen.config.export import Export
from jgen.config.inversion import Edit, Inversion, Mix
from jgen.edit.latent_losses import delta_loss
from jgen.errors import UserError
from jgen.metrics.perceptual import open_perceptual
from jgen.recipes.inversion.encoder import splits
from jgen.recipes.inversion.invert import Editor
from jgen.recipes.inversion.run_directions import style_matrices
from tests import tiny

pytestmark = pytest.mark.slow
MESH = MeshConfig(devices=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run of both stages, one of the GAN alone)."""
    folder = tmp_path_factory.mktemp("runs")
    return [tiny.stored(name, folder / name) for name in ("inversion", "stylegan2")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Names of two pictures, of which one is of another size and aspect."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, shape in (("a", (8, 8)), ("b", (20, 30, 3))):
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(folder / f"{name}.png")
    return str(folder / "a.png"), str(folder / "b.png")


def test_the_generator_stays_as_the_gan_left_it_and_inversions_are_pictures(runs):
    run, gan = jgen.load(runs[0]), jgen.load(runs[0], stage="stylegan2")
    jax.tree.map(np.testing.assert_array_equal, run.params["g"], gan.params["g"])
    np.testing.assert_array_equal(run.extra["w_avg"], gan.extra["w_avg"])
    assert {phase.player for phase in run.stage.phases} == {"encoder", "w_d"}
    assert run.sample(2).shape == (2, 8, 8, 1)


def test_an_encoder_is_trained_for_a_run_and_refuses_others(runs, tmp_path):
    config = tiny.parsed("inversion", "--gan", str(runs[1]), *tiny.WITH_GAN, *tiny.PSP)
    (stage,) = inversion.build(config).stages
    assert set(tiny.shapes_of(stage)[0]) == {"g", "encoder"}
    for gan, match in (
        (runs[0], "is a run of an encoder; must be that of a StyleGAN"),
        (tmp_path, "no run there"),
    ):
        with pytest.raises(UserError, match=match):
            inversion.build(tiny.parsed("inversion", "--gan", str(gan), *tiny.WITH_GAN))
    with pytest.raises(UserError, match="makes images of 8x8x1; data.name=fashion_mnist has 28x28x1"):
        inversion.build(tiny.parsed("inversion", "--gan", str(runs[1]), *tiny.WITH_GAN, "--data.name", "fashion_mnist"))


def test_an_encoder_is_exported_with_its_generator_and_loads_alone(runs, photos, tmp_path):
    """The folders that both were trained in are gone when it is loaded."""
    gan, run = shutil.copytree(runs[1], tmp_path / "gan_run"), tmp_path / "run"
    tiny.stored("inversion", run, "--gan", str(gan), *tiny.WITH_GAN, *tiny.PSP)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 1)).astype(np.float32)

    def codes(folder):
        found = jgen.load(folder)
        return found.stage.space.encode(found.params, found.extra, image)

    before, out = codes(run), export(run, Export(out=str(tmp_path / "first")))
    again = export(out, Export(out=str(tmp_path / "second")))
    shutil.rmtree(gan), shutil.rmtree(run), shutil.rmtree(out)
    moved = again.rename(tmp_path / "moved")
    np.testing.assert_array_equal(codes(moved), before)
    edit.edit(moved, Inversion(photos[:1]), Edit("sefa:0"), str(tmp_path / "sheet.png"), MESH)
    assert str(tmp_path) not in (moved / "config.json").read_text()


@pytest.mark.parametrize("method", ["z", "w", "w_plus", "encoder", "encoder_plus", "pti"])
def test_pictures_are_inverted_and_edited(runs, photos, tmp_path, capsys, method):
    short = {"encoder": {}, "pti": {"tuning_steps": 3, "locality_weight": 0.1}}
    given = Inversion(photos, method, **short.get(method, {"inversion_steps": 3}))
    out = tmp_path / "sheet.png"
    edit.edit(runs[0], given, Edit("pca:1", (-1.0, 1.0), "coarse"), str(out), MESH)
    said = capsys.readouterr().out
    assert "20x30, resized to 8x8, its middle" in said
    assert said.count("dB PSNR") == 2
    width, height = Image.open(out).size
    assert width * 19 == height * 37  # two rows of four pictures of 8 pixels, with lines between


def test_less_weight_of_the_domain_brings_the_optimisation_nearer_to_the_picture(runs):
    run = jgen.load(runs[0])
    editor = Editor(run.params, run.extra, run.stage.space, open_perceptual("", "digits"))
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)), jnp.float32)

    def error(weight):
        found = editor.invert(images, Inversion(method="encoder_plus", inversion_steps=20, domain_weight=weight))
        return float(jnp.mean(jnp.square(editor.pictures(found, found.ws) - images)))

    assert error(0.0) < error(100.0)


def test_a_class_gives_the_style_to_begin_from(tmp_path, photos):
    folder = tiny.stored("stylegan2", tmp_path / "run", "--conditional")
    run = jgen.load(folder)
    editor = Editor(run.params, run.extra, run.stage.space, open_perceptual("", "digits"))
    means = [editor.samples_of(label).mean(0) for label in (-1, 3, 4)]
    assert all(np.abs(means[i] - means[j]).max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    edit.invert(folder, Inversion(photos[:1], "w", inversion_steps=2, from_class=3), str(tmp_path / "sheet.png"), MESH)
    with pytest.raises(UserError, match="from_class=10: must be from 0 to 9"):
        edit.invert(folder, Inversion(photos[:1], "w", from_class=10), str(tmp_path / "sheet.png"), MESH)


def test_runs_of_the_gan_alone_are_enough(runs, photos, tmp_path):
    given, out = Inversion(photos, inversion_steps=2), tmp_path / "sheet.png"
    edit.invert(runs[1], given, str(out), MESH)
    assert np.load(out.with_suffix(".npy")).shape == (2, 4, 4)
    edit.mix(runs[1], given, Mix("0-1"), str(out), MESH)
    np.save(tmp_path / "way.npy", np.ones(4))
    for direction in ("sefa:0", str(tmp_path / "way.npy")):
        edit.edit(runs[1], given, Edit(direction), str(out), MESH)


@pytest.mark.parametrize("name, flags, rows", [
    ("stylegan", ("--channel-base", "32"), range(4)),
    ("stylegan2", ("--data.name", "glyphs", "--data.resolution", "64", "--channel-base", "128"), range(10)),
    ("stylegan3", (), range(1, 5)),
    ("stylegan3", ("--layers", "11"), range(1, 13)),
])  # fmt: skip
def test_styles_are_made_by_the_matrices_of_their_rows(name, flags, rows):
    """Where the other matrices are zero, the image follows the row of the one, and no other row."""
    stage = tiny.stages(tiny.module(name), name, *flags)[-1]
    space, (params, extra) = stage.space, tiny.fresh(stage)
    extra = {**extra, "fade_step": 1000}  # of StyleGAN's newest level, which has come in
    assert space is not None
    flat, tree = jax.tree_util.tree_flatten_with_path(tiny.moved(params["g"], 0.2))
    names = ["/".join(entry.key for entry in path) for path, _ in flat]
    numbered = [np.full(leaf.shape, i, np.float32) for i, (_, leaf) in enumerate(flat)]
    found = style_matrices(jax.tree.unflatten(tree, numbered), 4, space.num_ws)
    assert sorted(found) == list(rows)
    assert space.num_ws == rows[-1] + 1
    image = jax.jit(lambda ws, leaves: space.synthesize({**params, "g": jax.tree.unflatten(tree, leaves)}, extra, ws))
    base = jnp.ones((1, space.num_ws, 4))
    for row, matrix in found.items():
        chosen = int(matrix.flat[0])
        own = [
            leaf * (i == chosen) if re.search(r"/(affine|style)/kernel$", name) else leaf
            for i, (name, (_, leaf)) in enumerate(zip(names, flat))
        ]
        moved, others = base.at[:, row].multiply(3.0), base.at[:, np.arange(space.num_ws) != row].multiply(3.0)
        np.testing.assert_allclose(image(others, own), image(base, own), rtol=1e-4, atol=1e-4)
        assert np.abs(image(moved, own) - image(base, own)).max() > 1e-4, names[chosen]


def test_an_attribute_of_the_set_gives_a_direction(runs, photos, tmp_path):
    """Of InterFaceGAN; one without another is across it."""
    out = tmp_path / "sheet.png"
    edit.edit(runs[0], Inversion(photos[:1]), Edit("label:3", keep=("label:4", "pca:0")), str(out), MESH)
    assert out.is_file()


def test_an_edit_says_what_it_changed(runs, photos, tmp_path, capsys):
    edit.edit(runs[0], Inversion(photos), Edit("pca:0", (-3.0, 0.0, 3.0), measure=True), str(tmp_path / "sheet.png"), MESH)
    said = capsys.readouterr().out
    assert "judge of examples that it did not learn from: right in label" in said
    assert "by 0: of 2 pictures changed label in 0" in said
    assert said.count("of 2 pictures changed label in") == 3


def test_bad_input_is_told_in_one_line(runs, photos, tmp_path):
    given, out = Inversion(photos, inversion_steps=2), str(tmp_path / "sheet.png")
    np.save(tmp_path / "way.npy", np.ones(5))
    np.save(tmp_path / "zero.npy", np.zeros(4))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no numbers")
    for call, match in (
        (lambda: edit.invert(runs[1], Inversion(), out, MESH), "image: name at least one picture"),
        (lambda: edit.invert(runs[1], Inversion(("none.png",)), out, MESH), "image=none.png: no such file"),
        (lambda: edit.invert(runs[1], Inversion((str(tmp_path / "text.png"),)), out, MESH), "text.png"),
        (lambda: edit.invert(runs[1], Inversion(photos, "encoder"), out, MESH), "method: this run has no encoder"),
        (lambda: edit.mix(runs[1], replace(given, image=photos[:1]), Mix(), out, MESH), "image: 1 given; must be two"),
        (lambda: edit.mix(runs[1], given, Mix("9"), out, MESH), "rows=9: must be coarse, middle, fine, or from 0 to 3"),
        (lambda: edit.edit(runs[1], given, Edit(layers="top"), out, MESH), "layers=top: must be coarse"),
        (
            lambda: edit.edit(runs[1], given, Edit("tone"), out, MESH),
            "direction=tone: must be pca:N, sefa:N, a .npy file, or an attribute: label",
        ),
        (lambda: edit.edit(runs[0], Inversion(photos), Edit("label:12"), out, MESH), "direction=label:12: must be from 0 to 9"),
        (lambda: edit.edit(runs[1], given, Edit("pca:4"), out, MESH), "direction=pca:4: must be pca:N or sefa:N, N below 4"),
        (lambda: edit.edit(runs[1], given, Edit(str(tmp_path / "way.npy")), out, MESH), "this run's styles have 4 numbers"),
        (lambda: edit.edit(runs[1], given, Edit(str(tmp_path / "text.npy")), out, MESH), "no .npy file of numbers"),
        (
            lambda: edit.edit(runs[1], given, Edit(str(tmp_path / "zero.npy")), out, MESH),
            r"zero.npy: must hold finite numbers, not all of them zero",
        ),
        (lambda: edit.edit(runs[1], given, Edit("label:3"), out, MESH), "direction=label:3: an attribute needs a run with"),
        (lambda: edit.edit(runs[1], given, Edit(keep=("label",)), out, MESH), "keep=label: an attribute needs a run with"),
        (
            lambda: edit.edit(runs[1], given, Edit(keep=("pca:0",)), out, MESH),
            "keep=pca:0: nothing is left of direction=pca:0 without them",
        ),
        (lambda: edit.edit(runs[1], given, Edit(by=(1e38,)), out, MESH), "edited: column 3 of 3: 2 of 2 images are not finite"),
        (lambda: edit.invert(runs[0], given, out, MESH), "inversion_steps=2: has no effect on method encoder"),
        (
            lambda: edit.invert(runs[1], replace(given, tuning_rate=1.0), out, MESH),
            "tuning_rate=1.0: has no effect on method w_plus; leave it out",
        ),
    ):
        with pytest.raises(UserError, match=match) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_a_run_without_styles_is_refused(photos, tmp_path):
    tiny.stored("ddpm", tmp_path / "run")
    with pytest.raises(UserError, match="has no styles; must be of a StyleGAN or experiments.inversion"):
        edit.invert(Path(tmp_path / "run"), Inversion(photos), "", MESH)


def test_rows_follow_the_generator_and_zero_deltas_have_no_gradient():
    assert [splits(n) for n in (4, 8, 10, 18)] == [(1, 3), (3, 5), (3, 7), (3, 7)]
    assert np.isfinite(jax.grad(lambda codes: delta_loss(codes, 2))(jnp.ones((2, 3, 4)))).all()
