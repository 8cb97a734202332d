"""Scores of images: references, and the commands around them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jgen
from jgen.app.evaluation import evaluate
from jgen.app.images_out import write_images
from jgen.app.training import train
from jgen.config import DataConfig, Evaluation, changed
from jgen.data import ArraySource, open_source, resolve
from jgen.errors import UserError
from jgen.metrics import extract, record, scores
from jgen.metrics import reference as reference_module
from jgen.metrics.collect import collect
from jgen.metrics.image_sets import image_batches, read_images
from jgen.metrics.reference import collect_reference, make_reference
from jgen.sharding import make_mesh
from tests import tiny
from tests.metrics.toy import images, linear_extractor

MESH = make_mesh()


def test_scores_of_images_do_not_depend_on_batches_or_on_uint8_against_float():
    extractor, data = linear_extractor(), images(50)
    source = ArraySource({"image": data})
    metrics = ("fd", "kid", "is", "pr", "dc", "auth")
    real = collect(image_batches(ArraySource({"image": images(60, 1)}), 60, 60), extractor, MESH, 60, metrics)

    def measured(batches):
        found = scores.scores(metrics, collect(batches, extractor, MESH, 50, metrics), real, extractor)
        return {name: value for name, (value, _) in found.items()}

    whole = measured(image_batches(source, 50, 50))
    parts = measured(image_batches(source, 50, 16))
    as_float = measured(jnp.asarray(b / np.float32(127.5) - 1) for b in image_batches(source, 50, 16))
    assert {
        "fd_toy",
        "kid_toy",
        "is_toy",
        "precision_toy",
        "recall_toy",
        "density_toy",
        "coverage_toy",
        "authenticity_toy",
    } <= set(whole)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        assert as_float[name] == pytest.approx(parts[name], rel=1e-6, abs=1e-9), name
    assert extract.Extractor("inception_v3", "", "", None, None).short("fd") == "fid"


def test_features_that_are_not_finite_are_refused():
    bad = jnp.zeros((8, 8, 8, 1)).at[3, 0, 0, 0].set(jnp.nan)
    with pytest.raises(UserError, match="hold NaN or infinity"):
        collect([bad], linear_extractor(), MESH, 8, ["fd"])
    with pytest.raises(UserError, match="8 images, 9 were asked for"):
        collect([jnp.zeros((8, 8, 8, 1))], linear_extractor(), MESH, 9, ["fd"])


def test_reference_statistics_are_kept_by_hash_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("JGEN_CACHE", str(tmp_path))
    data, extractor = DataConfig("digits"), linear_extractor()
    reference = make_reference(open_source(data), data, 100)
    first = collect_reference(reference, extractor, MESH, ["fd", "kid"], 50)
    monkeypatch.setattr(reference_module, "collect", lambda *a, **k: pytest.fail("not taken from the cache"))
    again = collect_reference(reference, extractor, MESH, ["fd", "kid"], 50)
    np.testing.assert_array_equal(first.moments.scatter, again.moments.scatter)
    np.testing.assert_array_equal(first.features, again.features)
    with pytest.raises(pytest.fail.Exception):  # other images: another hash
        collect_reference(make_reference(open_source(data), data, 101), extractor, MESH, ["fd"], 50)


def test_bad_folders_of_images_get_one_line(tmp_path):
    for name, shape in (("a", (8, 8, 1)), ("b", (8, 9, 1))):
        write_images(images(1, shape=shape) / np.float32(127.5) - 1, tmp_path / name)
        (tmp_path / name / "000000.png").rename(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="a.png is 8x8x1, b.png is 8x9x1"):
        read_images(tmp_path)
    (tmp_path / "b.png").unlink()
    Image.fromarray(images(1, shape=(8, 8, 3))[0]).save(tmp_path / "c.png")
    with pytest.raises(UserError, match="a.png is 8x8x1, c.png is 8x8x3"):
        read_images(tmp_path)
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="c.png: truncated or not an image"):
        read_images(tmp_path)
    for option in ("against", "a"):
        with pytest.raises(UserError, match=f"^{option}=.*none: no such folder"):
            read_images(tmp_path / "none", option=option)


@pytest.mark.slow
def test_a_run_and_the_folder_of_its_samples_score_alike(tmp_path, monkeypatch):
    """evaluate --metrics equals sample --out FOLDER and evaluate --against FOLDER; and compare takes both."""
    from experiments import ddpm
    from jgen.app.metrics_command import main as command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JGEN_CACHE", str(tmp_path / "cache"))
    train("experiments.ddpm", "digits", ddpm.build, tiny.config(train__steps=2), tmp_path / "run")

    run = jgen.load("run")

    def scored(options=run.stage.options, **given):
        return evaluate(run.folder, Evaluation(**given), options)

    scored(metrics="fd,kid", num=20, batch=8, out="a.json")
    write_images(run.sample(20), tmp_path / "pictures")
    scored(metrics="fd,kid", against="pictures", out="b.json")
    for row in record.compare(record.read(tmp_path / "a.json"), record.read(tmp_path / "b.json")):
        assert row[1] == pytest.approx(row[2], rel=1e-4)
    facts = json.loads((tmp_path / "a.json").read_text())["records"][0]
    assert facts["subject"]["step"] == 2
    assert facts["subject"]["sampling"]["sampler"] == "ddim"
    assert facts["subject"]["sampling"]["steps"] == 4
    assert len(facts["protocol"]["reference_sha256"]) == 64
    scored(changed(run.stage.options, {"steps": 2}), metrics="fd,kid", num=20, batch=8, out="fewer.json")
    command(["steps", "a.json", "fewer.json"])
    assert (tmp_path / "by_steps.png").read_bytes().startswith(b"\x89PNG")
    command(["compare", "a.json", "b.json"])
    command(["pairs", "pictures", "pictures", "--metrics", "psnr"])
    scored(metrics="fd", against="pictures", num=10, out="c.json")
    with pytest.raises(SystemExit) as stopped:
        command(["compare", "a.json", "c.json"])
    assert stopped.value.code == 2
    for given, match in [
        (dict(metrics="fid"), "metrics=fid"),
        (dict(metrics="pr", num=3), "pr needs at least 4"),
        (dict(against="pictures"), "name at least one"),
        (dict(metrics="fd", reference_num=5000), "has 1500 images"),
        (dict(metrics="fd", num=-1), "num=-1"),
    ]:
        with pytest.raises(UserError, match=match):
            scored(**given)


@pytest.mark.slow
def test_a_classifier_is_exported_and_scores_with_its_own_name(tmp_path, monkeypatch):
    import tyro

    from experiments import classifier
    from jgen.app.metrics_command import main as command
    from jgen.recipes.classifier import network

    monkeypatch.chdir(tmp_path)
    config = tyro.cli(classifier.Config, args=[*tiny.FLAGS["classifier"], "--train.steps", "2"])
    train("experiments.classifier", "digits", classifier.build, config, tmp_path / "run")
    command(["export", "run"])
    run, extractor = jgen.load("run"), extract.cnn_extractor(tmp_path / "digits_cnn.npz")
    x = images(5)
    features, logits = extractor.apply(extractor.variables, x.astype(np.float32))
    net = network(run.config.network, run.config.data)
    want = net.apply({"params": run.params["net"]}, jnp.asarray(x / np.float32(127.5) - 1))
    np.testing.assert_allclose(logits, want[1], atol=2e-3)  # float16 weights
    np.testing.assert_allclose(features, want[0], atol=2e-3)
    with pytest.raises(UserError, match="takes images of 1 channel"):
        extractor.apply(extractor.variables, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match="has no sampler"):
        run.sample(2)


def test_a_noisy_classifier_learns_at_every_time_and_needs_them():
    from experiments import classifier
    from jgen.recipes.classifier import network

    config = tiny.parsed("classifier", "--noisy", "--shift", "1", "--smoothing", "0.1")
    (stage,) = classifier.build(config).stages
    params, extra = tiny.shapes_of(stage)
    batch = {"image": jnp.zeros((4, 8, 8, 1)), "label": jnp.zeros(4, jnp.int32)}
    loss, _ = jax.eval_shape(stage.phases[0].loss, params, extra, jax.random.key(0), batch)
    assert loss.shape == ()
    with pytest.raises(UserError, match="needs their times"):
        jax.eval_shape(
            lambda p: network(config.network, resolve(config.data)).apply({"params": p["net"]}, batch["image"]), params
        )
