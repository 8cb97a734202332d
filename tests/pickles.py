"""Files as torch and NVIDIA's code write them, made without either."""

import io
import pickle
import sys
import types
import zipfile
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from jgen.convert import part


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args, self.state) if self.state is not None else (self.function, self.args)


def fake_torch_file(path, content, storages):
    """A checkpoint as torch.save writes it: a zip with data.pkl and raw storages, written without torch."""

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return obj.pid if isinstance(obj, Storage) else None

    data = io.BytesIO()
    Writer(data, protocol=2).dump(content)
    # The stand-ins for torch's own functions are renamed in the stream.
    raw = data.getvalue().replace(f"c{__name__}\nrebuild\n".encode(), b"ctorch._utils\n_rebuild_tensor_v2\n")
    raw = raw.replace(f"c{__name__}\nFloatStorage\n".encode(), b"ctorch\nFloatStorage\n")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())


def rebuild(*args):
    raise AssertionError("never called")


def FloatStorage():
    raise AssertionError("never called")


class Storage:
    def __init__(self, key, count):
        self.pid = ("storage", FloatStorage, key, "cpu", count)


def fake_modules(monkeypatch):
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


def old_storage(fakes, values):
    """The bytes that torch.save of a storage writes in its old format."""
    key, file = "7", io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", fakes.storage.FloatStorage, key, "cpu", len(values), None) if obj == "the storage" else None

    for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(head, file, 2)
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


def network(fakes, source, parameters=None, buffers=None, modules=None, options=None):
    state = {"_parameters": parameters or {}, "_buffers": buffers or {}, "_modules": modules or {}}
    state |= {"_init_args": (), "_init_kwargs": {"a": 1} if options is None else options}
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Net", "state": state}
    return Call(fakes.persistence._reconstruct_persistent_obj, meta)


def nvidia_file(path, networks):
    """A pickle of networks {name: (arguments of its constructor, {official name: array}, {module: arguments of its own})}."""

    def built(fakes, weights, options=None, of_modules=MappingProxyType({})):
        groups = {name.split(".")[0] for name in weights if "." in name}
        modules = {group: built(fakes, part(weights, group), of_modules.get(group)) for group in groups}
        own = {name: tensor(fakes, array) for name, array in weights.items() if "." not in name}
        return network(fakes, "", own, modules=modules, options=options)

    with pytest.MonkeyPatch.context() as patch:  # others would take the stand-ins for torch itself
        fakes = fake_modules(patch)
        content = {name: built(fakes, weights, options, *more) for name, (options, weights, *more) in networks.items()}
        path.write_bytes(pickle.dumps(content, 4))


def torch_file(path, content):
    """A checkpoint of nested dicts of arrays and plain values."""
    storages = {}

    def stored(value):
        if isinstance(value, Mapping):
            return {name: stored(each) for name, each in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        array, key = np.ascontiguousarray(value, np.float32), str(len(storages))
        storages[key] = array
        strides = tuple(stride // 4 for stride in array.strides)
        return Call(rebuild, Storage(key, array.size), 0, value.shape, strides[: value.ndim], False, {})

    fake_torch_file(path, stored(content), storages)
