"""The report: one page for all stages, pictures at whole multiples of their pixels, nothing loaded, nothing trusted."""

import json

import numpy as np
from PIL import Image

from jgen import pictures
from jgen.metrics import record
from jgen.train.figure import figure
from jgen.train.over_training import STEPS, over_training, save_over_training
from jgen.train.report import Part, report, show_scores


def make(folder):
    """The report of a run of two stages."""
    images = np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1))
    for stage in ("first", "prior"):
        (folder / stage / "samples").mkdir(parents=True)
        for step in (10, 20):
            pictures.save(pictures.grid(images), folder / stage / "samples" / f"{step:08d}.png")
        pictures.save(pictures.grid(images), folder / stage / "samples.png", "Samples (psi=0.7): 16 images, seed <3>")
        save_over_training(folder / stage, (8, 8, 1))
        records = [json.dumps({"step": i, "loss": 1 / i}) for i in range(1, 30)]
        (folder / stage / "metrics.jsonl").write_text("\n".join(records))
    found = [record.Record("fd_digits_cnn", 1.5, {"num": 10, "reference": "digits", "extractor": "x"}, {"step": 20})]
    record.write(found, folder / "scores-fd-10.json")
    parts = [Part(name, folder / name, {"step": "20 of 20", "parameters": "net 5"}) for name in ("first", "prior")]
    return report(folder, "experiments.x digits", "A model.", {"a": 1}, parts, ["python -m experiments.x"])


def test_one_page_holds_all_stages_with_captions_and_scores(tmp_path):
    page = make(tmp_path).read_text()
    for text in ("Stage first", "Stage prior", "fd_digits_cnn", "lower is better", "prefers-color-scheme:dark", "viewport"):
        assert text in page
    assert "seed &lt;3&gt;" in page
    assert "<3>" not in page
    assert page.count("<img") == page.count('<img alt="') == 10
    assert 'alt=""' not in page
    assert page.count('alt="The same noise over training: 8 images, a row each, after 10, 20 steps from left to right"') == 2
    assert 'src="http' not in page


def test_a_picture_follows_the_same_noise_over_training(tmp_path):
    """Every pixel is one that the run wrote; other files and the grids of other pictures are passed over."""
    images = np.random.default_rng(0).integers(0, 256, (3 * STEPS, 20, 6, 8, 1), np.uint8)
    (tmp_path / "samples").mkdir()
    for i, each in enumerate(images):
        pictures.save(pictures.grid(each), tmp_path / "samples" / f"{100 * (i + 1):08d}.png")
    for name in ("00000150.png", "00000100-map.png", "own.png"):
        (tmp_path / "samples" / name).write_text("no picture")
    pictures.save(pictures.grid(images[0, :, :5]), tmp_path / "samples" / "00000250.png")
    steps, found = over_training(tmp_path, (6, 8, 1))
    assert len(steps) == STEPS
    assert (steps[0], steps[-1]) == (100, 100 * len(images))
    for column, step in enumerate(steps):
        np.testing.assert_array_equal(found[:, column], np.repeat(images[step // 100 - 1, :8], 3, -1))
    save_over_training(tmp_path, (6, 8, 1))
    with Image.open(tmp_path / "over_training.png") as picture:
        np.testing.assert_array_equal(pictures.tiles(picture, 6, 8).reshape(found.shape), found)
    (tmp_path / "one" / "samples").mkdir(parents=True)
    save_over_training(tmp_path / "one", (6, 8, 1))
    assert not (tmp_path / "one" / "over_training.png").exists()


def test_scores_are_renewed_in_place(tmp_path):
    make(tmp_path)
    record.write([record.Record("recall_x", 0.5, {}, {})], tmp_path / "scores-pr-10.json")
    show_scores(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("recall_x") == 1
    assert page.count("<h2>Scores</h2>") == 1


def test_enlarged_pictures_are_stored_at_their_own_size():
    small = np.random.default_rng(0).integers(0, 255, (5, 7), np.uint8)
    html = figure(Image.fromarray(small.repeat(6, 0).repeat(6, 1)), "x")
    assert 'width="7" height="5"' in html
    assert "class='pixels'" in html
    assert "class=''" in figure(Image.fromarray(small), "x")
