"""TensorFlow Hub's BigGAN by its own names, against the network written out from its description."""

from itertools import pairwise

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jgen.convert import biggan_tf, load_weights
from jgen.errors import UserError

CH, CHUNK, CLASSES, SHARED, EPS = 2, 3, 5, 4, 1e-4
CHANNELS = [16 * CH, 16 * CH, 8 * CH, 4 * CH, 2 * CH]
ATTENDED = 3
"""The block that attention comes before, at 32 pixels and 4 CH channels."""
G = "module/Generator"


def official(seed=0):
    """Random weights under the official names, the averages those that count."""
    random, weights = np.random.default_rng(seed), {}

    def put(name, value, averaged=True):
        if averaged:
            weights[f"{name}:0"] = np.full_like(value, 7.0)
            name = f"{name}/ema_b999900"
        weights[f"{name}:0"] = value

    def layer(name, *shape, bias=True, spectral=True):
        put(f"{name}/w", random.normal(size=shape))
        if bias:
            put(f"{name}/b", random.normal(size=shape[-1]))
        if spectral:
            put(f"{name}/u0", random.normal(size=(1, shape[-1])), averaged=False)

    def statistics(name, channels):
        put(f"{name}/accumulated_mean", random.normal(size=channels), averaged=False)
        put(f"{name}/accumulated_var", random.uniform(0.5, 2, size=channels), averaged=False)
        put(f"{name}/accumulation_counter", np.ones(()), averaged=False)

    layer("module/linear", CLASSES, SHARED, bias=False, spectral=False)
    layer(f"{G}/G_Z/G_linear", CHUNK, 16 * CHANNELS[0])
    for i, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
        block = f"{G}/GBlock{f'_{i}' if i else ''}"
        for name, shape in (("conv0", (3, 3, inputs)), ("conv1", (3, 3, outputs)), ("conv_sc", (1, 1, inputs))):
            layer(f"{block}/{name}", *shape, outputs)
        for suffix, channels in (("", inputs), ("_1", outputs)):
            for part in ("gamma", "beta"):
                layer(f"{block}/HyperBN{suffix}/{part}", CHUNK + SHARED, channels, bias=False)
            statistics(f"{block}/CrossReplicaBN{suffix}", channels)
    wide = CHANNELS[ATTENDED]
    for name, into, out in (
        ("theta", wide, wide // 8),
        ("phi", wide, wide // 8),
        ("g", wide, wide // 2),
        ("o_conv", wide // 2, wide),
    ):
        layer(f"{G}/attention/{name}", 1, 1, into, out, bias=False)
    put(f"{G}/attention/gamma", random.normal(size=()))
    put(f"{G}/ScaledCrossReplicaBN/gamma", random.normal(size=CHANNELS[-1]))
    put(f"{G}/ScaledCrossReplicaBN/beta", random.normal(size=CHANNELS[-1]))
    statistics(f"{G}/ScaledCrossReplicaBNbn", CHANNELS[-1])
    layer(f"{G}/conv_2d", 3, 3, CHANNELS[-1], 3)
    return weights


class Reference:
    """The network of ajbrock's TFHub/biggan.py, in evaluation, channels last."""

    def __init__(self, weights):
        self.w = weights

    def get(self, name):
        return self.w[f"{name}/ema_b999900:0"]

    def weight(self, name):
        w = self.get(f"{name}/w")
        matrix, u = w.reshape(-1, w.shape[-1]).T, self.w[f"{name}/u0:0"].ravel()
        v = matrix.T @ u
        v = v / (np.linalg.norm(v) + EPS)
        u = matrix @ v
        u = u / (np.linalg.norm(u) + EPS)
        return w / (u @ matrix @ v)

    def conv(self, name, x, bias=True):
        y = lax.conv_general_dilated(x, self.weight(name), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y + self.get(f"{name}/b")[None, None, None] if bias else y

    def normed(self, statistics, x, gain, shift):
        mean, var = (self.w[f"{statistics}/accumulated_{kind}:0"][None, None, None] for kind in ("mean", "var"))
        return jax.nn.relu((x - mean) / np.sqrt(var + EPS) * gain + shift)

    def hyper(self, block, suffix, x, y):
        gain, shift = (y @ self.weight(f"{block}/HyperBN{suffix}/{part}") for part in ("gamma", "beta"))
        return self.normed(f"{block}/CrossReplicaBN{suffix}", x, 1 + gain[:, None, None], shift[:, None, None])

    def attention(self, x):
        pool = lambda v: lax.reduce_window(v, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")  # noqa: E731
        flat = lambda v: v.reshape(len(v), -1, v.shape[-1])  # noqa: E731
        theta, phi, g = (self.conv(f"{G}/attention/{name}", x, bias=False) for name in ("theta", "phi", "g"))
        shares = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", flat(theta), flat(pool(phi))), -1)
        seen = jnp.einsum("bqk,bkc->bqc", shares, flat(pool(g))).reshape(*x.shape[:3], -1)
        return x + self.get(f"{G}/attention/gamma") * self.conv(f"{G}/attention/o_conv", seen, bias=False)

    def images(self, z, label):
        larger = lambda v: jnp.repeat(jnp.repeat(v, 2, 1), 2, 2)  # noqa: E731
        codes, embedded = np.split(z, len(CHANNELS), 1), label @ self.get("module/linear/w")
        h = codes[0] @ self.weight(f"{G}/G_Z/G_linear") + self.get(f"{G}/G_Z/G_linear/b")[None]
        h = jnp.asarray(h.reshape(len(z), 4, 4, -1))
        for i, code in enumerate(codes[1:]):
            block = f"{G}/GBlock{f'_{i}' if i else ''}"
            h = self.attention(h) if i == ATTENDED else h
            y = np.concatenate([code, embedded], 1)
            inner = self.conv(f"{block}/conv0", larger(self.hyper(block, "", h, y)))
            inner = self.conv(f"{block}/conv1", self.hyper(block, "_1", inner, y))
            h = inner + self.conv(f"{block}/conv_sc", larger(h))
        gain, shift = (self.get(f"{G}/ScaledCrossReplicaBN/{part}")[None, None, None] for part in ("gamma", "beta"))
        return jnp.tanh(self.conv(f"{G}/conv_2d", self.normed(f"{G}/ScaledCrossReplicaBNbn", h, gain, shift)))


@pytest.mark.slow
def test_images_are_those_of_the_network_written_out():
    weights, random = official(), np.random.default_rng(1)
    z, label = random.normal(size=(2, CHUNK * 5)), np.eye(CLASSES)[[1, 3]]
    with jax.enable_x64(True):
        net, variables = biggan_tf.generator(weights)
        found = jax.jit(net.apply)(variables, jnp.asarray(z), jnp.asarray(label))
        want = Reference(weights).images(z, label)
    assert (net.side, net.attention, found.shape) == (64, (32,), (2, 64, 64, 3))
    np.testing.assert_allclose(found, want, atol=1e-8)
    other = biggan_tf.generator(weights, average=False)[1]
    np.testing.assert_allclose(other["params"]["bn"]["scale"], 7.0)


def test_an_h5_file_gives_its_arrays_and_others_get_one_line(tmp_path):
    weights = {name: value.astype(np.float32) for name, value in official().items()}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, value in weights.items():
            file.create_dataset(name, data=value)
    found = load_weights(tmp_path / "x.h5")
    assert set(found) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value)
    assert set(load_weights(tmp_path / "x.h5", "module/linear")) == {"w:0", "w/ema_b999900:0"}
    with pytest.raises(UserError, match=r"weights=mod: .*x.h5 has no group of this name; there are module"):
        load_weights(tmp_path / "x.h5", "mod")
    with pytest.raises(UserError, match="not those of TensorFlow Hub's BigGAN"):
        biggan_tf.generator({"a": np.zeros(1)})
    bad = {
        "huge": lambda file: file.create_dataset("a", shape=(2**40,), dtype="f4", chunks=(2**16,)),
        "words": lambda file: file.create_dataset("a", data="b"),
        "outside": lambda file: file.create_dataset("a", shape=(4,), dtype="u1", external=[(str(tmp_path / "x.h5"), 0, 4)]),
    }
    for name, write in bad.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            write(file)
        with pytest.raises(UserError, match="refused") as refused:
            load_weights(tmp_path / f"{name}.h5")
        assert "\n" not in str(refused.value)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:2000])
    with pytest.raises(UserError, match="cut.h5: not a readable .h5 file"):
        load_weights(tmp_path / "cut.h5")
