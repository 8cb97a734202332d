"""A tiny GAN of glyphs, its encoders of images and texts, a tiny scorer, and the commands that take a text."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jgen
from experiments import inversion
from jgen.app import edit, scorer
from jgen.config import MeshConfig
from jgen.config.inversion import ByText, Edit, Generate
from jgen.config.inversion import Inversion as Given
from jgen.data import open_source
from jgen.edit.in_domain import InDomainOptions
from jgen.edit.text_guided import controlled, redescribed, text_guided
from jgen.errors import UserError
from jgen.metrics.perceptual import Perceptual, open_perceptual
from jgen.recipes.inversion.attributes import Examples, examples_of, text_edits_measured
from jgen.recipes.inversion.invert import Editor
from tests import tiny

pytestmark = pytest.mark.slow
MESH = MeshConfig(devices=1)
GLYPHS = ["--data.name", "glyphs", "--data.resolution", "8", "--data.channels", "3", "--data.limit", "64"]
TEXT = "a red A on blue"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with both encoders, one of a GAN alone, and a scorer."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "both": tiny.stored(
            "inversion", folder / "both", *GLYPHS, "--text", "--text-width", "8", *tiny.PSP, "--sees", "sketches"
        ),
        "gan": tiny.stored("stylegan2", folder / "gan", *GLYPHS),
        "scorer": tiny.stored("image_text", folder / "scorer"),
    }


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    return str(path)


def test_the_text_encoder_is_a_player_that_learns_the_pictures_codes():
    stage = inversion.build(tiny.parsed("inversion", *GLYPHS, "--text", "--text-width", "8", *tiny.PSP)).stages[-1]
    params, extra = tiny.fresh(stage)
    assert [phase.player for phase in stage.phases] == ["encoder", "text"]
    source = open_source(stage.data)
    batch = {key: jnp.asarray(np.stack([source[i][key] for i in range(8)])) for key in ("image", "caption", "label")}
    batch["image"] = batch["image"] / 127.5 - 1
    loss = stage.phases[1].loss
    grads, (_, metrics) = jax.jit(jax.grad(loss, has_aux=True))(params, extra, jax.random.key(0), batch)
    assert {name for name, tree in grads.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))} == {"text"}
    pictures = stage.space.encode(params, extra, batch["image"])
    texts = stage.space.describe(params, extra, batch["caption"])
    np.testing.assert_allclose(metrics["text_distance"], np.mean((pictures - texts) ** 2), rtol=1e-4)
    with pytest.raises(UserError, match="text=True: digits has no captions; glyphs and emoji have"):
        inversion.build(tiny.parsed("inversion", "--text"))


def test_only_the_rows_of_a_text_move_and_each_picture_alone():
    """With no term but the text's, a score that is the mean pixel rises, and the other rows stay."""
    synthesize = lambda ws: jnp.tanh(ws.reshape(len(ws), 2, 2, 3))  # noqa: E731
    score = lambda images: jnp.mean(images, (1, 2, 3))  # noqa: E731
    start = jax.random.normal(jax.random.key(0), (3, 4, 3))
    rows = jnp.array([False, True, False, True])
    options = InDomainOptions(5, 0.1, pixel_weight=0.0, feature_weight=0.0, encoder_weight=0.0)
    features = lambda images: images.reshape(len(images), -1)  # noqa: E731
    codes, losses = text_guided(synthesize, None, features, synthesize(start), start, rows, score, options)
    np.testing.assert_array_equal(codes[:, ::2], start[:, ::2])
    assert (codes[:, 1::2] > start[:, 1::2]).all()
    np.testing.assert_allclose(losses[:, 0], 2 * (1 - score(synthesize(start))), rtol=1e-5)
    alone = text_guided(synthesize, None, features, synthesize(start[1:2]), start[1:2], rows, score, options)[0]
    np.testing.assert_allclose(alone[0], codes[1], rtol=1e-6)
    np.testing.assert_array_equal(controlled(start, codes, rows)[:, 1::2], codes[:, 1::2])


def test_a_text_in_place_of_another_moves_rows_by_what_they_differ_by():
    content, before, after = jax.random.normal(jax.random.key(0), (3, 2, 4, 5))
    rows = jnp.array([False, True, False, True])
    moved = redescribed(content, before, after, rows)
    np.testing.assert_array_equal(moved[:, ::2], content[:, ::2])
    np.testing.assert_allclose((moved - content)[:, 1::2], (after - before)[:, 1::2], atol=1e-6)
    np.testing.assert_array_equal(redescribed(content, after, after, rows), content)


def test_pictures_are_edited_and_made_by_a_text(runs, photo, tmp_path, capsys):
    out, given = tmp_path / "sheet.png", Given((photo,))
    for run, how, by_text, columns in (
        ("both", given, ByText(TEXT, "", "fine", str(runs["scorer"]), text_steps=2), 4),
        ("both", given, ByText(TEXT, "a green B on blue"), 3),
        ("gan", replace(given, inversion_steps=2), ByText(TEXT + " zebra", scorer=str(runs["scorer"]), text_steps=2), 3),
    ):
        edit.edit(runs[run], how, Edit(), str(out), MESH, by_text)
        width, height = Image.open(out).size
        assert width / height == pytest.approx(columns, rel=0.2)
    said = capsys.readouterr().out
    assert "fit of the text: source" in said
    assert "zebra is in no caption that this run was trained on" in said
    edit.generate(
        runs["both"], Generate(3, label=3), str(out), MESH, ByText(TEXT, "", "fine", str(runs["scorer"]), text_steps=2)
    )
    edit.generate(runs["both"], Generate(4, sketch=photo), str(tmp_path / "drawn.png"), MESH, ByText(TEXT))
    width, height = Image.open(tmp_path / "drawn.png").size
    assert width == height
    width, height = Image.open(out).size
    assert height / width == pytest.approx(3 / 2, rel=0.2)


def test_clip_scores_pictures_of_any_size(tmp_path, monkeypatch):
    from tests.models.test_clip import official

    np.savez(tmp_path / "clip.npz", **{**official(), "token_embedding.weight": np.zeros((520, 8), np.float32)})
    (tmp_path / "merges.txt").write_text("#version\na b</w>\n")
    score = scorer.open_scorer(str(tmp_path / "clip.npz"), "ab", str(tmp_path / "merges.txt"))
    assert score(jnp.zeros((2, 5, 5, 1))).shape == (2,)
    with pytest.raises(UserError, match="vocabulary: CLIP's weights need its table of merges"):
        scorer.open_scorer(str(tmp_path / "clip.npz"), "ab")
    np.savez(tmp_path / "clip.npz", **official())
    with pytest.raises(UserError, match=r"has tokens to \d+; .* knows 11"):
        scorer.open_scorer(str(tmp_path / "clip.npz"), "ab", str(tmp_path / "merges.txt"))


def test_bad_input_is_one_line(runs, photo):
    given, by = Given((photo,), "w", inversion_steps=1), ByText(TEXT, scorer=str(runs["scorer"]), text_steps=1)
    edits = (
        ("gan", ByText(TEXT), "this run has no text encoder"),
        ("gan", replace(by, scorer=str(runs["gan"])), "is a run of stylegan2; must be of experiments.image_text"),
        ("gan", replace(by, scorer="nowhere"), "nowhere"),
        ("gan", replace(by, text_rows="9"), "text_rows=9: must be coarse, middle, fine, or from 0 to 3"),
        ("gan", replace(by, text="zebra"), "text=zebra: has no word of the captions of glyphs.*such as"),
        ("gan", replace(by, text="on a"), "text=on a: has no word"),
        ("both", ByText("zebra"), "text=zebra: has no word"),
        ("both", ByText(TEXT, "zebra"), "from_text=zebra: has no word"),
        ("gan", replace(by, from_text=TEXT), "from_text=a red A on blue: this run has no text encoder"),
        ("both", ByText("red " * 20), "text: 80 bytes long; captions of glyphs have at most 48"),
    )
    for run, by_text, match in edits:
        with pytest.raises(UserError, match=match) as refused:
            edit.edit(runs[run], given, Edit(), "", MESH, by_text)
        assert "\n" not in str(refused.value)
    for run, how, by_text, match in (
        (
            "both",
            Generate(),
            ByText(),
            'text: say what to make, such as --text "a red A on blue", --sketch FILE.png or --label 3',
        ),
        ("both", Generate(sketch=photo, label=3), ByText(), "sketch, label: both say where to begin"),
        ("gan", Generate(sketch=photo), ByText(), "this run has no encoder of sketches"),
        ("both", Generate(sketch="none.png"), ByText(), "sketch=none.png: no such file"),
        ("both", Generate(label=62), ByText(), "label=62: must be from 0 to 61, a class of glyphs"),
        ("gan", Generate(label=3), ByText(), "label=3: this run has no encoder"),
        ("scorer", Generate(), by, "has no styles; must be of a StyleGAN"),
    ):
        with pytest.raises(UserError, match=match):
            edit.generate(runs[run], how, "", MESH, by_text)


def test_edits_by_a_text_are_measured_by_a_judge(runs):
    """Exact encoders of pictures and captions give what a caption says and keep the rest."""
    run = jgen.load(runs["both"])
    editor = Editor(run.params, run.extra, run.stage.space, open_perceptual("", "glyphs"))
    examples = examples_of(run.stage.data, 0, 64)
    found = text_edits_measured(editor, examples, examples_of(replace(run.stage.data, split="test"), 0, 8), range(2))
    assert all(0 <= share <= 1 for share in found.values())
    two = np.tile([[0.0, 0], [0, 1], [1, 0], [1, 1]], (10, 1))
    images = np.broadcast_to(two[:, None, :, None], (40, 1, 2, 1)).astype(np.float32)
    exact = Examples(images, {"left": two[:, 0], "right": two[:, 1]}, {}, two)
    space = run.stage.space._replace(
        num_ws=1, encode=lambda params, extra, images: images[:, :, :, 0],
        synthesize=lambda params, extra, ws, noise=None: ws[..., None],
        describe=lambda params, extra, captions: jnp.asarray(captions)[:, None],
    )  # fmt: skip
    flat = lambda _, images: images.reshape(len(images), -1)  # noqa: E731
    toy = replace(editor, space=space, perceptual=Perceptual("", None, flat, flat))
    measured = text_edits_measured(toy, exact, exact, [0])
    assert measured == {
        "text, left: right": 1.0, "text, left: right kept": 1.0, "text, right: right": 1.0, "text, right: left kept": 1.0,
        "from_text, left: right": 1.0, "from_text, left: right kept": 1.0,
        "from_text, right: right": 1.0, "from_text, right: left kept": 1.0,
    }  # fmt: skip
    unmoved = text_edits_measured(toy, exact, exact, [])
    assert (unmoved["text, left: right"], unmoved["text, left: right kept"]) == (0.0, 1.0)
