"""StyleGAN-XL's files: a table of class embeddings, and a classifier that guides it."""

from importlib import resources

import jax
import numpy as np
import pytest
from PIL import Image

from jgen.app.load import load
from jgen.errors import UserError
from jgen.recipes.gan.class_table import WIDTH, read_class_table
from jgen.train.stage import first_batch
from tests import tiny

CLASSIFIER = f"cnn:{resources.files('jgen.metrics') / 'weights' / 'digits_cnn.npz'}"
DIGITS = ("--data.name", "digits", "--data.resolution", "0", "--stem-side", "8")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """(a file of more classes than there are, its array)."""
    path, rows = tmp_path_factory.mktemp("table") / "table.npz", np.random.default_rng(0).normal(size=(100, WIDTH))
    np.savez(path, **{"embed.weight": rows})
    return path, rows.astype(np.float32)


def test_a_table_is_read_from_a_file_and_checked(table, tmp_path):
    path, rows = table
    np.testing.assert_array_equal(read_class_table(str(path), 10), rows[:10])
    for name, arrays, says in (
        ("narrow", {"x": np.zeros((9, 64))}, r"must hold one array \[classes, 320\], has 0 \(first: x \[9, 64\]\)"),
        ("two", {"x": np.zeros((9, 320)), "y": np.zeros((9, 320))}, "has 2"),
        ("few", {"x": np.zeros((9, 320))}, "has 9 rows, the set 10 classes"),
        ("nan", {"x": np.full((10, 320), np.nan)}, "holds NaN or infinity"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(UserError, match=says):
            read_class_table(str(tmp_path / f"{name}.npz"), 10)
    with pytest.raises(UserError, match="no such file"):
        read_class_table(str(tmp_path / "none.npz"), 10)


@pytest.mark.slow
def test_a_run_has_the_table_in_its_checkpoints_and_loads_without_the_file(table, tmp_path):
    path, rows = table
    own = tmp_path / "own.npz"
    own.write_bytes(path.read_bytes())
    folder = tiny.stored("stylegan_xl", tmp_path / "run", "--class-file", str(own))
    own.unlink()
    run = load(folder)
    tables = [leaf for name, leaf in jax.tree_util.tree_leaves_with_path(run.extra) if "embedding" in str(name[-1])]
    assert len(tables) >= 2  # G's, and D's for every scale
    for each in tables:
        np.testing.assert_array_equal(each, rows[: len(each)])
    assert np.isfinite(run.sample(2)).all()


@pytest.mark.slow
def test_guidance_adds_the_cross_entropy_of_a_classifier_in_a_file():
    glyphs = CLASSIFIER.replace("digits", "glyphs")
    with_it = ("--guidance", "3", "--guidance-classifier", glyphs)
    stages = [tiny.stages(tiny.module("stylegan_xl"), "stylegan_xl", *flags)[1] for flags in ((), with_it)]
    params, extra = tiny.fresh(stages[0])
    batch = first_batch(stages[0], stages[0].open_source())
    found = [jax.jit(stage.phases[0].loss)(params, extra, jax.random.key(3), batch) for stage in stages]
    (plain, _), (guided, (_, metrics)) = found
    assert metrics["guidance"] > 1
    np.testing.assert_allclose(guided, plain + 3 * metrics["guidance"], rtol=1e-5)


@pytest.mark.parametrize("flags,says", [
    (("--guidance", "1"), "acts after the stem, so needs a stem_side below the images' 8 pixels"),
    (("--guidance", "1", "--no-conditional"), "guidance=1.0: is by the class, so needs --conditional"),
    (("--guidance-classifier", CLASSIFIER), "has no effect without --guidance"),
    (("--class-file", "x.npz", "--no-conditional"), "class_file=x.npz: has no effect without --conditional"),
])  # fmt: skip
def test_options_without_effect_are_refused(flags, says):
    with pytest.raises(UserError, match=says):
        tiny.stages(tiny.module("stylegan_xl"), "stylegan_xl", *DIGITS, *flags)


@pytest.mark.parametrize("name,says", [
    ("", "jgen has no classifier of folder:.*; train one"),
    (CLASSIFIER, r"is of other images than folder:.*'s \[16, 16, 3\]"),
    ("efficientnet_lite0", "efficientnet_lite0: has 1000 classes, folder:.* has 2"),
    ("cnn:none.npz", "none.npz"),
])  # fmt: skip
def test_a_classifier_that_cannot_guide_is_refused(name, says, tmp_path):
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (16, 16), "red").save(tmp_path / kind / "1.png")
    classifier = ("--guidance-classifier", name) if name else ()
    with pytest.raises(UserError, match=says):
        tiny.stages(
            tiny.module("stylegan_xl"), "stylegan_xl", "--data.name", f"folder:{tmp_path}", "--guidance", "1", *classifier
        )
