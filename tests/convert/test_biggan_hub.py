"""TensorFlow Hub's BigGAN-deep by the names of its copy in PyTorch, against the network written out from its description."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jgen.convert import biggan_hub
from jgen.errors import UserError

Z, WIDTH, CLASSES, ROWS, EPS = 6, 4, 5, 51, 1e-4
LAYERS = [[False, 4, 4], [True, 4, 4]] * 3
CONFIG = {
    "output_dim": 32, "z_dim": Z, "class_embed_dim": Z, "channel_width": WIDTH, "num_classes": CLASSES, "layers": LAYERS,
    "attention_layer_position": 4, "eps": EPS, "n_stats": ROWS,
}  # fmt: skip


def official(seed=0):
    """Random weights under the official names."""
    random, weights = np.random.default_rng(seed), {}

    def add(name, *shape, bias=True):
        weights[f"{name}.weight_orig"] = random.normal(size=shape)
        weights[f"{name}.weight_u"] = random.normal(size=shape[0])
        weights[f"{name}.weight_v"] = random.normal(size=int(np.prod(shape[1:])))
        if bias:
            weights[f"{name}.bias"] = random.normal(size=shape[0])

    def norm(name, channels, conditional=True):
        weights[f"{name}.running_means"] = random.normal(size=(ROWS, channels))
        weights[f"{name}.running_vars"] = random.uniform(0.5, 2, size=(ROWS, channels))
        for part in ("scale", "offset") if conditional else ():
            add(f"{name}.{part}", channels, 2 * Z, bias=False)
        if not conditional:
            weights[f"{name}.weight"], weights[f"{name}.bias"] = random.normal(size=(2, channels))

    weights["embeddings.weight"] = random.normal(size=(Z, CLASSES))
    add("generator.gen_z", 16 * 4 * WIDTH, 2 * Z)
    layers = list(LAYERS)
    layers.insert(CONFIG["attention_layer_position"], None)
    for i, layer in enumerate(layers):
        name, wide = f"generator.layers.{i}", 4 * WIDTH
        if layer is None:
            for part, out, into in (("theta", 2, 16), ("phi", 2, 16), ("g", 8, 16), ("o_conv", 16, 8)):
                add(f"{name}.snconv1x1_{part}", out, into, 1, 1, bias=False)
            weights[f"{name}.gamma"] = random.normal(size=1)
            continue
        for k, (into, out, size) in enumerate(((wide, WIDTH, 1), (WIDTH, WIDTH, 3), (WIDTH, WIDTH, 3), (WIDTH, wide, 1))):
            norm(f"{name}.bn_{k}", into)
            add(f"{name}.conv_{k}", out, into, size, size)
    norm("generator.bn", 4 * WIDTH, conditional=False)
    add("generator.conv_to_rgb", WIDTH, 4 * WIDTH, 3, 3)
    return weights


class Reference:
    """The network in the layout of its copy in PyTorch; row: of the statistics."""

    def __init__(self, weights, row):
        self.w, self.row = weights, row

    def weight(self, name):
        orig, u, v = (self.w[f"{name}.weight_{kind}"] for kind in ("orig", "u", "v"))
        return orig / (u @ orig.reshape(len(orig), -1) @ v)

    def conv(self, name, x):
        weight = self.weight(name)
        y = lax.conv(x, weight.astype(x.dtype), (1, 1), "SAME")
        bias = self.w.get(f"{name}.bias")
        return y if bias is None else y + bias[None, :, None, None]

    def normed(self, name, x, y=None):
        mean, var = (self.w[f"{name}.running_{kind}"][self.row][None, :, None, None] for kind in ("means", "vars"))
        x = (x - mean) / np.sqrt(var + EPS)
        if y is None:
            gain, shift = (self.w[f"{name}.{kind}"][None] for kind in ("weight", "bias"))
        else:
            gain, shift = 1 + y @ self.weight(f"{name}.scale").T, y @ self.weight(f"{name}.offset").T
        return jax.nn.relu(x * gain[:, :, None, None] + shift[:, :, None, None])

    def attention(self, name, x):
        pool = lambda v: lax.reduce_window(v, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")  # noqa: E731
        flat = lambda v: v.reshape(*v.shape[:2], -1)  # noqa: E731
        theta = flat(self.conv(f"{name}.snconv1x1_theta", x))
        phi, g = (flat(pool(self.conv(f"{name}.snconv1x1_{part}", x))) for part in ("phi", "g"))
        shares = jax.nn.softmax(jnp.einsum("bcq,bck->bqk", theta, phi), -1)
        seen = jnp.einsum("bck,bqk->bcq", g, shares).reshape(len(x), -1, *x.shape[2:])
        return x + self.w[f"{name}.gamma"][0] * self.conv(f"{name}.snconv1x1_o_conv", seen)

    def block(self, name, x, y, up):
        larger = (lambda v: jnp.repeat(jnp.repeat(v, 2, 2), 2, 3)) if up else (lambda v: v)
        h = self.conv(f"{name}.conv_0", self.normed(f"{name}.bn_0", x, y))
        h = self.conv(f"{name}.conv_1", larger(self.normed(f"{name}.bn_1", h, y)))
        h = self.conv(f"{name}.conv_2", self.normed(f"{name}.bn_2", h, y))
        return self.conv(f"{name}.conv_3", self.normed(f"{name}.bn_3", h, y)) + larger(x)

    def images(self, z, label):
        y = np.concatenate([z, label @ self.w["embeddings.weight"].T], 1)
        h = y @ self.weight("generator.gen_z").T + self.w["generator.gen_z.bias"][None]
        h = jnp.moveaxis(jnp.asarray(h.reshape(len(z), 4, 4, -1)), -1, 1)
        layers = list(LAYERS)
        layers.insert(CONFIG["attention_layer_position"], None)
        for i, layer in enumerate(layers):
            name = f"generator.layers.{i}"
            h = self.attention(name, h) if layer is None else self.block(name, h, y, layer[0])
        return jnp.tanh(self.conv("generator.conv_to_rgb", self.normed("generator.bn", h)))[:, :3]


@pytest.mark.slow
def test_images_are_those_of_the_network_written_out():
    weights, random = official(), np.random.default_rng(1)
    z, label = random.normal(size=(2, Z)), np.eye(CLASSES)[[1, 3]]
    with jax.enable_x64(True):
        net, variables = biggan_hub.generator(weights, CONFIG, truncation=0.4)
        found = jax.jit(net.apply)(variables, jnp.asarray(z), jnp.asarray(label))
        want = jnp.moveaxis(Reference(weights, 20).images(z, label), 1, -1)
    np.testing.assert_allclose(found, want, atol=1e-8)


def test_bad_options_and_truncation_are_one_line():
    with pytest.raises(UserError, match="truncation=1.5"):
        biggan_hub.generator(official(), CONFIG, truncation=1.5)
    with pytest.raises(UserError, match="attention_layer_position=3"):
        biggan_hub.generator(official(), {**CONFIG, "attention_layer_position": 3}, truncation=1.0)
    with pytest.raises(UserError, match="n_stat: no option"):
        biggan_hub.generator(official(), {**CONFIG, "n_stat": 3}, truncation=1.0)
