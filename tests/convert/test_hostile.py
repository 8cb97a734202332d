"""Hostile weight files: crafted ones, and mutations of good ones in a process of its own, end in a value or in one line."""

import io
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.errors import UserError
from jgen.untrusted import FACTOR, FLOOR

MUTATIONS = 2400
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def storage(key="0", count=6, kind=b"ctorch\nFloatStorage\n"):
    """A persistent id, in the pickle's own opcodes."""
    return b"(X\x07\0\0\0storage" + kind + text(key) + text("cpu") + number(count) + b"tQ"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    data = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*values):
    return b"(" + b"".join(number(v) for v in values) + b"t"


def tensor(where=None, offset=0, size=(2, 3), stride=(3, 1)):
    return TENSOR + b"(" + (where or storage()) + number(offset) + tuple_of(*size) + tuple_of(*stride) + b"\x89}tR"


def items(*pairs):
    return b"}(" + b"".join(text(name) + value for name, value in pairs) + b"u"


def torch_file(path, body, entries=None, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + body + b".")
        for name, data in (entries or {"0": np.arange(6, dtype=np.float32).tobytes()}).items():
            archive.writestr(f"a/data/{name}", data)
    return path


def pickle_file(path, body):
    path.write_bytes(b"\x80\x04" + body + b".")
    return path


def old_file(path, body, numbers):
    """torch's format before its zip."""
    magic = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    body = b"\x80\x02" + body + b"." + pickle.dumps(["0"], 2)
    path.write_bytes(b"".join(magic) + body + np.int64(len(numbers)).tobytes() + numbers.tobytes())
    return path


def network(weight):
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(" + items(("state", weight)) + b"tR"


def parameters(value):
    return items(("_parameters", items(("w", value))))


def numpy_array(kind, shape, data, version=b"\x8a\x01\x01"):
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + tuple_of(0) + b"C\x01btR"
    dtype = b"cnumpy\ndtype\n(" + text(kind) + b"\x89\x88tR"
    return made + b"(" + version + tuple_of(*shape) + dtype + b"\x89B" + struct.pack("<I", len(data)) + data + b"tb"


def test_the_forms_these_tests_are_made_of_load(tmp_path):
    for path in (torch_file(tmp_path / "a.pt", items(("w", tensor()))), old_file(tmp_path / "b.pth", items(("w", tensor())),
                 np.arange(6, dtype=np.float32))):  # fmt: skip
        assert load_weights(path)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    array = numpy_array("f4", (2,), np.float32([1, 2]).tobytes())
    assert load_weights(pickle_file(tmp_path / "c.pkl", network(parameters(array))))["w"].tolist() == [1, 2]


BAD_TENSORS = {
    "zero strides": tensor(size=(2**20, 2**20), stride=(0, 0)),
    "one stride of zero": tensor(size=(7, 1), stride=(0, 1)),
    "an empty storage": tensor(storage(count=0), size=(1,), stride=(1,)),
    "a negative offset": tensor(offset=-4),
    "a negative stride": tensor(stride=(-3, 1)),
    "an offset behind the end": tensor(offset=2**62),
    "a shape that overflows": tensor(size=(2**33, 2**31), stride=(1, 1)),
    "more numbers than there are": tensor(storage(count=2**40)),
    "fewer numbers than there are": tensor(storage(count=5)),
    "a dtype that is a function": tensor(storage(kind=TENSOR)),
    "shape and strides of other lengths": tensor(size=(2, 3), stride=(1,)),
    "a key that is not there": tensor(storage(key="../../x")),
    "a tensor of a tensor": tensor(tensor()),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_do_not_fit_their_storage_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"x\.pt"):
        load_weights(torch_file(tmp_path / "x.pt", items(("w", BAD_TENSORS[name]))))


BAD_ARRAYS = {
    "objects over given bytes": numpy_array("O", (1,), b"\x41" * 8),
    "objects by their code": numpy_array("O8", (1,), b"\x41" * 8),
    "fewer bytes than its shape": numpy_array("f4", (3,), b"\0" * 8),
    "a shape that overflows": numpy_array("f4", (2**32, 2**32), b"\0" * 8),
    "records": numpy_array("f,f", (1,), b"\0" * 8),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_of_objects_or_of_another_size_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"x\.pkl"):
        load_weights(pickle_file(tmp_path / "x.pkl", network(parameters(BAD_ARRAYS[name]))))


@pytest.mark.parametrize(
    "module, name",
    [("numpy.f2py.__main__", "dtype"), ("numpy.core", "scalar"), ("numpy.testing", "ndarray"), ("numpy", "load"),
     ("torch.storage", "os.system"), ("builtins", "eval"), ("torch", "load"), ("torch.nn", "Module.__init__.__globals__")],
)  # fmt: skip
def test_only_exact_names_stand_for_anything(module, name, tmp_path):
    body = f"c{module}\n{name}\n".encode() + b")R"
    for path in (torch_file(tmp_path / "x.pt", body), pickle_file(tmp_path / "x.pkl", body)):
        with pytest.raises(UserError, match=f"refused, the file asks to load {module}.{name}"):
            load_weights(path)


def doubled(times, begin=b"]", double=b"2\x86"):
    return begin + double * times


def zeros(path):
    np.savez_compressed(path, w=np.zeros(2**26, np.float32))
    return path


def modules(times):
    """2^times paths to one layer."""
    body = network(parameters(tensor(b"ctorch.storage\n_load_from_bytes\n(B\0\0\0\0tR"))) if times < 0 else network(items())
    for _ in range(times):
        body += b"q\x010" + network(items(("_modules", items(("a", b"h\x01"), ("b", b"h\x01")))))
    return body


GREEDY = {
    "a far memo": lambda p: pickle_file(p / "x.pkl", b"Nr\xff\xff\xff\x7f"),
    "a long byte array": lambda p: pickle_file(p / "x.pkl", b"\x96" + struct.pack("<Q", 2**36)),
    "long bytes": lambda p: pickle_file(p / "x.pkl", b"\x8e" + struct.pack("<Q", 2**36)),
    "a doubled key": lambda p: pickle_file(p / "x.pkl", b"}" + doubled(60, b")") + b"Ns"),
    "a deep key": lambda p: pickle_file(p / "x.pkl", b"}" + b")" + b"\x85" * 200_000 + b"Ns"),
    "many paths": lambda p: pickle_file(p / "x.pkl", modules(40)),
    "a zip that expands": lambda p: torch_file(
        p / "x.pt", items(("w", tensor(storage(count=2**26), size=(2**26,), stride=(1,)))), {"0": b"\0" * 2**28},
        zipfile.ZIP_DEFLATED,
    ),
    "bzip2": lambda p: torch_file(p / "x.pt", items(("w", tensor())), compress=zipfile.ZIP_BZIP2),
    "an npz that expands": lambda p: zeros(p / "x.npz"),
    "one storage copied": lambda p: torch_file(
        p / "x.pt",
        items(*((f"w{i}", tensor(storage(count=2**18), size=(2**18,), stride=(1,))) for i in range(8000))),
        {"0": b"\0" * 2**20},
    ),
    "colliding keys": lambda p: pickle_file(
        p / "x.pkl", b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(50_000)) + b"u"
    ),
    "a huge number": lambda p: pickle_file(p / "x.pkl", b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6),
}  # fmt: skip


@pytest.mark.parametrize("name", GREEDY)
def test_memory_and_time_are_in_proportion_to_the_file(name, tmp_path):
    path, began = GREEDY[name](tmp_path), time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            load_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 60  # far below what any of them would take
    assert peak < FLOOR + (FACTOR + 10) * path.stat().st_size


def test_an_npz_whose_header_promises_more_than_it_holds_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", w=np.zeros((4, 4), np.float32))
    data = (tmp_path / "x.npz").read_bytes()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(UserError, match="w has 64 bytes"):
        load_weights(tmp_path / "x.npz")
    (tmp_path / "y.npz").write_bytes(data[:-30])
    with pytest.raises(UserError, match="not a readable"):
        load_weights(tmp_path / "y.npz")


def good_files(folder):
    """One of every form that is read."""
    from safetensors.numpy import save_file

    weights = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}
    np.savez(folder / "plain.npz", **weights)
    np.savez_compressed(folder / "small.npz", **weights)
    save_file(weights, folder / "x.safetensors")
    body = items(("model", items(("w", tensor()), ("v", tensor(size=(3, 2), stride=(1, 3))))), ("step", number(7)))
    torch_file(folder / "zip.pt", body)
    old_file(folder / "old.pth", body, np.arange(6, dtype=np.float32))
    old = (folder / "old.pth").read_bytes()
    held = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(old)) + old + b"tR"
    array = numpy_array("f4", (2,), np.float32([1, 2]).tobytes())
    layer = network(items(("_buffers", items(("s", array))), ("_parameters", items(("w", array), ("x", held)))))
    pickle_file(folder / "net.pkl", items(("G_ema", network(items(("_modules", items(("a", layer), ("b", layer))))))))
    with h5py.File(folder / "weights.h5", "w") as file:
        file.create_dataset("a/w:0", data=np.arange(60, dtype=np.float32).reshape(3, 20))
        file.create_dataset("b", data=np.arange(500), chunks=(100,), compression="gzip")


def mutated(data, random_):
    """The bytes with some of them changed, taken out, put in, or made extreme; those of a zip's entries with sums that fit."""
    data = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        place, kind = random_.randrange(len(data)), random_.randrange(5)
        if kind == 0:
            data[place] = random_.randrange(256)
        elif kind == 1:
            data[place] ^= 1 << random_.randrange(8)
        elif kind == 2:
            del data[place : place + random_.choice((1, 4, 64))]
        elif kind == 3:
            data[place:place] = bytes(random_.choice((b"\x80", b"R", b"b", b"(", b"t", b"0", b"\xff" * 8, b"2", b"h\x01")))
        else:
            data[place : place + 4] = random_.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"))
        data = data or bytearray(b".")
    return bytes(data)


def mutated_file(path, random_):
    if not zipfile.is_zipfile(path) or random_.random() < 0.3:
        return mutated(path.read_bytes(), random_)
    file = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(file, "w") as after:
        changed = random_.choice(before.namelist())
        for name in before.namelist():
            after.writestr(name, mutated(before.read(name), random_) if name == changed else before.read(name))
    return file.getvalue()


def run_mutations(folder):
    """In a process of its own: loads mutations of every good file of a folder, and prints how many gave a value."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began = peak_megabytes()
    files, random_, counts = sorted(folder.glob("*.*")), random.Random(7), {"values": 0, "errors": 0}
    for i in range(MUTATIONS):
        good = files[i % len(files)]
        (folder / "mutated").mkdir(exist_ok=True)
        path = folder / "mutated" / good.name
        path.write_bytes(mutated_file(good, random_))
        try:
            found = load_weights(path)
        except UserError as error:
            if not str(error).startswith(str(path)):
                raise
            counts["errors"] += 1
        else:
            for value in found.values():
                assert isinstance(value, np.ndarray), good
                value.tobytes()
            counts["values"] += 1
    print(counts["values"], counts["errors"], peak_megabytes() - began)


def peak_megabytes():
    """The most memory of this process so far, as the kernel counts it for this program alone."""
    lines = Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else ["VmHWM: 0"]
    return next(int(line.split()[1]) // 2**10 for line in lines if line.startswith("VmHWM"))


def test_mutations_of_good_files_end_in_a_value_or_one_clear_error(tmp_path):
    good_files(tmp_path)
    for path in tmp_path.glob("*.*"):
        assert load_weights(path)
    code = (
        f"import pathlib; from tests.convert.test_hostile import run_mutations; run_mutations(pathlib.Path({str(tmp_path)!r}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    values, errors, megabytes = map(int, done.stdout.split())
    assert values > 100
    assert errors > 1000
    assert values + errors == MUTATIONS
    assert megabytes < 200
