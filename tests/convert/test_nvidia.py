"""NVIDIA's pickles, made here as its code makes them, are read without running what they carry."""

import pickle

import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.nvidia import load_networks
from jgen.errors import UserError
from tests.pickles import Call, fake_modules, network, tensor


@pytest.fixture
def fakes(monkeypatch):
    return fake_modules(monkeypatch)


def test_weights_of_a_network_within_containers(fakes, tmp_path):
    weight, bias = np.arange(6.0).reshape(2, 3), np.array([0.5, -1.0])
    layer = network(fakes, "raise SystemExit", {"weight": tensor(fakes, weight), "bias": tensor(fakes, bias)})
    box = Call(object.__new__, fakes.container.ModuleDict, state={"_modules": {"16x16_conv": layer}})
    box.function = fakes.container.ModuleDict
    box.args = ()
    net = network(fakes, "import os; os._exit(3)", buffers={"freqs": tensor(fakes, [1.0])}, modules={"enc": box})
    path = tmp_path / "edm.pkl"
    path.write_bytes(pickle.dumps({"ema": net, "loss_fn": None}, 4))
    found = load_weights(path)
    assert set(found) == {"freqs", "enc.16x16_conv.weight", "enc.16x16_conv.bias"}
    np.testing.assert_array_equal(found["enc.16x16_conv.weight"], weight)
    path.write_bytes(pickle.dumps({"ema": net, "loss_fn": network(fakes, "")}, 4))  # an object without tensors
    assert set(load_weights(path)) == set(found)
    path.write_bytes(pickle.dumps({"G": layer, "G_ema": layer}, 4))
    assert set(load_weights(path)) == {"G.weight", "G.bias", "G_ema.weight", "G_ema.bias"}


def test_a_file_that_holds_a_projected_discriminator_beside_g_gives_either(fakes, tmp_path):
    """StyleGAN-XL's training writes D as a plain class of its own package, which is never imported."""
    g = network(fakes, "", {"weight": tensor(fakes, np.ones(2))})
    d = Call(fakes.projected.ProjectedDiscriminator, state={"_parameters": {"bias": tensor(fakes, np.zeros(3))}})
    path = tmp_path / "xl.pkl"
    path.write_bytes(pickle.dumps({"G": g, "D": d, "G_ema": g, "augment_pipe": None}, 4))
    np.testing.assert_array_equal(load_weights(path, "G_ema")["weight"], np.ones(2))
    np.testing.assert_array_equal(load_weights(path, "D")["bias"], np.zeros(3))
    assert set(load_weights(path)) == {"G.weight", "D.bias", "G_ema.weight"}


def test_a_malicious_pickle_is_refused_by_name(tmp_path):
    import os

    path, marker = tmp_path / "bad.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {marker}")))
    with pytest.raises(ValueError, match=r"refused, the file asks to load (posix|nt)\.system"):
        load_weights(path)
    assert not marker.exists()
    for name in ("eval", "getattr", "__import__"):
        path.write_bytes(pickle.dumps(Call(getattr(__import__("builtins"), name), "1")))
        with pytest.raises(ValueError, match=f"refused, the file asks to load builtins.{name}"):
            load_weights(path)


def test_damaged_or_empty_pickles_get_one_line(fakes, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ValueError, match="x.pkl: not a readable .pkl file"):
        load_weights(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="x.pkl: holds no network"):
        load_weights(path)


def test_a_network_tells_the_arguments_that_it_was_made_by(fakes, tmp_path):
    path, weight = tmp_path / "x.pkl", {"weight": tensor(fakes, np.ones(2))}
    options = {"z_dim": 8, "mapping_kwargs": {"num_layers": 2, "taps": (1, 3)}, "conv_clamp": None}
    path.write_bytes(pickle.dumps({"G_ema": network(fakes, "", weight, options=options), "loss": network(fakes, "")}, 4))
    (found,) = load_networks(path).values()
    assert found.options == {"z_dim": 8, "mapping_kwargs": {"num_layers": 2, "taps": [1, 3]}, "conv_clamp": None}
    np.testing.assert_array_equal(found.weights["weight"], np.ones(2))
    path.write_bytes(pickle.dumps({"G": network(fakes, "", weight, options={"net": network(fakes, "")})}, 4))
    with pytest.raises(UserError, match="x.pkl: G.net: an argument of its network is Module"):
        load_networks(path)
