"""NVIDIA's pickles, made here as its code makes them, are read without running what they carry."""

import io
import pickle
import sys
import types

import numpy as np
import pytest

from jgen.convert import load_weights


@pytest.fixture
def fakes(monkeypatch):
    """Modules under the names that the pickles refer to."""

    def module(name, **content):
        made = types.ModuleType(name)
        for key, value in content.items():
            value.__module__, value.__qualname__, value.__name__ = name, key, key
            setattr(made, key, value)
        for i in range(name.count(".")):
            parent = name.rsplit(".", i + 1)[0]
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))
        monkeypatch.setitem(sys.modules, name, made)
        return made

    def made():
        return lambda *a: None

    return types.SimpleNamespace(
        persistence=module("torch_utils.persistence", _reconstruct_persistent_obj=made()),
        utils=module("torch._utils", _rebuild_tensor_v2=made(), _rebuild_parameter=made()),
        storage=module("torch.storage", _load_from_bytes=made(), FloatStorage=type("FloatStorage", (), {})),
        container=module("torch.nn.modules.container", ModuleDict=type("ModuleDict", (), {})),
        projected=module("pg_modules.discriminator", ProjectedDiscriminator=type("ProjectedDiscriminator", (), {})),
    )


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args, self.state) if self.state is not None else (self.function, self.args)


def old_storage(fakes, values):
    """The bytes that torch.save of a storage writes in its old format."""
    key, file = "7", io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", fakes.storage.FloatStorage, key, "cpu", len(values), None) if obj == "the storage" else None

    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, file, 2)
    Pickler(file, 2).dump("the storage")
    pickle.dump([key], file, 2)
    file.write(np.int64(len(values)).tobytes() + np.asarray(values, np.float32).tobytes())
    return file.getvalue()


def tensor(fakes, array):
    array = np.asarray(array, np.float32)
    storage = Call(fakes.storage._load_from_bytes, old_storage(fakes, array.reshape(-1)))
    strides = tuple(s // 4 for s in array.strides)
    plain = Call(fakes.utils._rebuild_tensor_v2, storage, 0, array.shape, strides, False, {})
    return Call(fakes.utils._rebuild_parameter, plain, True, {})


def network(fakes, source, parameters=None, buffers=None, modules=None):
    state = {"_parameters": parameters or {}, "_buffers": buffers or {}, "_modules": modules or {}, "_init_kwargs": {"a": 1}}
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Net", "state": state}
    return Call(fakes.persistence._reconstruct_persistent_obj, meta)


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
