"""TorchScript programs, built by hand as torch's C++ writes them: weights are read, code is not, and the rest is refused."""

import struct
import zipfile

import numpy as np
import pytest

from jgen.convert import clip, load_weights
from jgen.errors import UserError
from tests.models.test_clip import official

KINDS = {"float32": b"FloatStorage", "float16": b"HalfStorage", "int64": b"LongStorage"}


class Program:
    """A data.pkl in the making: opcodes in the order of torch's C++ pickler, and the storages."""

    def __init__(self):
        self.storages = []

    def text(self, value):
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    def number(self, value):
        return b"J" + struct.pack("<i", value)

    def tensor(self, array):
        key, kind = str(len(self.storages)), KINDS[array.dtype.name]
        self.storages.append(array.tobytes())
        strides = [s // array.itemsize for s in np.ascontiguousarray(array).strides][: array.ndim]
        sizes = [b"(" + b"".join(map(self.number, each)) + b"t" for each in (array.shape, strides)]
        place = b"(" + self.text("storage") + b"ctorch\n" + kind + b"\n" + self.text(key) + self.text("cuda:0")
        place += self.number(array.size) + b"tQ"
        hooks = b"ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + self.number(0) + sizes[0] + sizes[1] + b"\x89" + hooks + b"tR"

    def module(self, tree, name="CLIP"):
        made = b"c__torch__.multimodal.model\n" + name.encode() + b"\n)\x81}("
        for key, value in {"training": False, **tree}.items():
            made += self.text(key)
            if isinstance(value, dict):
                made += self.module(value, f"Part_{key}")
            else:
                made += b"\x89" if value is False else self.tensor(value)
        return made + b"ub"

    def lists(self):
        return b"ctorch.jit._pickle\nbuild_intlist\n(](" + self.number(3) + b"etR"


def nested(weights):
    tree = {}
    for name, value in weights.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def archive(path, data, storages, program=True):
    with zipfile.ZipFile(path, "w") as file:
        if program:
            file.writestr("ViT-B-32/constants.pkl", b"\x80\x02).")
            file.writestr("ViT-B-32/code/__torch__/multimodal/model.py", "raise SystemExit('this code is never run')")
        file.writestr("ViT-B-32/data.pkl", b"\x80\x02" + data + b".")
        for key, raw in enumerate(storages):
            file.writestr(f"ViT-B-32/data/{key}", raw)
    return path


def weights_of_a_program():
    found = {name: value.astype(np.float16) for name, value in official().items()}
    buffers = {"input_resolution": 8, "context_length": 7, "vocab_size": 11}
    return found | {name: np.asarray(value, np.int64) for name, value in buffers.items()}


def test_official_files_of_clip_are_read_as_they_are(tmp_path):
    weights, program = weights_of_a_program(), Program()
    data = program.module(nested(weights))
    found = load_weights(archive(tmp_path / "ViT-B-32.pt", data, program.storages))
    assert set(found) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value)
    net, variables = clip.clip(found, transformer_heads=2)
    assert net.visual.side == 8
    np.testing.assert_array_equal(variables["params"]["logit_scale"], weights["logit_scale"])


def test_lists_of_a_program_are_passed_over(tmp_path):
    program = Program()
    data = program.module({"a": np.ones(2, np.float32)})[:-2] + program.text("sizes") + program.lists() + b"ub"
    assert set(load_weights(archive(tmp_path / "a.pt", data, program.storages))) == {"a"}


@pytest.mark.parametrize("data, match", [
    (b"cos\nsystem\n)R", "refused, the file asks to load os.system"),
    (b"c__torch__evil\nA\n)\x81}b", "refused, the file asks to load __torch__evil.A"),
    (b"ctorch.jit._pickle\nexec\n)R", "refused, the file asks to load torch.jit._pickle.exec"),
    (b"c__torch__.a\nA\n)\x81]b", "no dict"),
    (b"c__torch__.a\nA\n)\x81q\x00}(X\x01\x00\x00\x00mh\x00ub", "refused, its modules lie more than 64 deep"),
    (b"c__torch__.a\nA\n)\x81}b", "holds no tensors"),
])  # fmt: skip
def test_nothing_but_tensors_is_taken_from_a_program(tmp_path, data, match):
    with pytest.raises(UserError, match=match):
        load_weights(archive(tmp_path / "a.pt", data, []))


def test_classes_of_a_checkpoint_that_is_no_program_are_refused(tmp_path):
    program = Program()
    data = program.module({"a": np.ones(2, np.float32)})
    with pytest.raises(UserError, match="refused, the file asks to load __torch__.multimodal.model.CLIP"):
        load_weights(archive(tmp_path / "a.pt", data, program.storages, program=False))
