"""PixelCNNs and the mixture of logistics against the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.pixelcnn import gated_pixelcnn, pixelcnn
from jgen.objectives import likelihood
from jgen.samplers.autoregressive import decoder, raster
from tests.oracle import Oracle, files, official_gradient

pytestmark = pytest.mark.oracle


OF_THE_FILE = ("cls", "B", "H", "W", "levels")
"""Settings of what a file computes, beside the constructor's arguments."""


def law_of(o):
    """The likelihood of a file's outputs: one logit a channel, or one a level of each channel, channel by channel."""
    config = o.config
    levels, channels = config["levels"], config["in_channels"]
    if config["out_channels"] == channels:
        return likelihood.bernoulli(channels, low=0.0)
    assert config["out_channels"] == levels * channels
    values = jnp.unique(jnp.asarray(o["in/x"]))
    assert len(values) <= levels

    def logits(outputs):
        return jax.nn.log_softmax(outputs.reshape(*outputs.shape[:-1], channels, levels))

    def log_prob(outputs, x):
        place = jnp.round(x * (levels - 1)).astype(jnp.int32)
        return jnp.sum(jnp.take_along_axis(logits(outputs), place[..., None], -1)[..., 0], -1)

    def draw(outputs, uniforms):
        below = jnp.cumsum(jnp.exp(logits(outputs)), -1)
        return jnp.minimum(jnp.sum(uniforms[..., None] >= below, -1), levels - 1) / (levels - 1)

    return likelihood.Likelihood(config["out_channels"], log_prob, draw, channels, lambda outputs: outputs)


@pytest.mark.parametrize("path", [*files("pixelcnn", "pixelcnn"), *files("pixelcnn", "gated_pixelcnn")])
def test_pixelcnn_logits_gradients_and_samples(path):
    o = Oracle(path)
    arguments = {k: v for k, v in o.config.items() if k not in OF_THE_FILE}
    convert, weights = gated_pixelcnn if o.config["cls"] == "GatedPixelCNN" else pixelcnn, load_weights(path)
    net, variables = convert(weights, **arguments)
    x, continuous = o.nhwc("in/x"), o.nhwc("in/x_continuous")
    law = law_of(o)

    @jax.jit
    def outputs(variables, x, continuous):
        def nll(variables, x):
            return -jnp.sum(law.log_prob(net.apply(variables, x), x), (1, 2))

        def middle(x):
            return jnp.sum(net.apply(variables, x)[:, x.shape[1] // 2, x.shape[2] // 2])

        gradient = jax.grad(lambda v: jnp.mean(nll(v, x)))(variables)["params"]
        return (
            net.apply(variables, x),
            net.apply(variables, continuous),
            nll(variables, x),
            gradient,
            jax.grad(middle)(continuous),
        )

    logits, on_continuous, nll, gradient, causal = outputs(variables, x, continuous)
    o.check("out/logits", logits, image=True)
    o.check("out/logits_continuous", on_continuous, image=True)
    o.check("out/nll", nll)
    o.check("out/grad/in/x_continuous", causal, image=True)
    for name in (n.removeprefix("out/grad/w/") for n in o.names if n.startswith("out/grad/w/")):
        found = official_gradient(lambda w: convert(w, **arguments)[1], weights, name, gradient)
        # What a mask hides has no place here, and a gradient in theirs where the mask is put on outside of the weight.
        want = np.where(found == 0, 0, o[f"out/grad/w/{name}"]) if ".weight" in name else o[f"out/grad/w/{name}"]
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
        o.checked.add(f"out/grad/w/{name}")

    b, h, w, c = x.shape
    u = jnp.asarray(o["in/u"].reshape(h, w, b, c).transpose(0, 2, 1, 3))

    @jax.jit
    def sample(variables, given, known):
        return raster(decoder(net, variables, x.shape), law.draw, lambda row: u[row], x.shape, given, known)

    o.check("out/sample", sample(variables, jnp.zeros(x.shape), jnp.zeros((h, w), bool)), 1e-6, image=True)
    partial = o.nhwc("in/x_partial")
    o.check("out/sample_conditioned", sample(variables, partial, partial[..., 0] >= 0), 1e-6, image=True)
    check_blocks(o, net, variables, x)
    o.check_whole()


def check_blocks(o, net, variables, x):
    """Compares what the layers give, of both stacks where there are two."""
    how = dict(capture_intermediates=lambda module, method: True, mutable=["intermediates"])
    seen = jax.jit(lambda v, x: net.apply(v, x, **how)[1]["intermediates"])(variables, x)
    if o.config["cls"] == "GatedPixelCNN":
        found = {}
        for i in range(1 + net.layers):
            (v, _), (h, skip) = (seen[f"stack_{i}"][method][0] for method in ("vertical", "horizontal"))
            name = f"_gated_layers.{i - 1}" if i else "_input"
            found |= {f"{name}/vstack": v, f"{name}/hstack": h, f"{name}/skip": skip}
    else:  # a block's result has the shortcut once, and the network adds it again
        h = seen["above"]["__call__"][0] + seen["left"]["__call__"][0]
        found = {"_input": h}
        for i in range(net.layers):
            found[f"_causal_layers.{i}"] = h + seen[f"blocks_{i}"]["__call__"][0]
            h = h + found[f"_causal_layers.{i}"]
    for name in o.under("out/block/"):
        o.check(f"out/block/{name}", found[name], image=True)


@pytest.mark.parametrize("path", files("pixelcnn", "dmol_loss"))
def test_mixture_of_logistics_loss(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        law = likelihood.logistic_mixture(o.config["nr_mix"], low_bit=o.config["low_bit"])
        x, outputs = o["in/x"].astype(np.float64), jnp.asarray(o["in/l"].astype(np.float64))

        def per_dim(outputs):
            return -jnp.sum(law.log_prob(outputs, x), (1, 2)) / np.prod(x.shape[1:])

        o.check("out/nll_per_dim", per_dim(outputs))
        o.check("out/nll_per_pixel", -law.log_prob(outputs, x))
        o.check("out/grad/l", jax.grad(lambda p: jnp.sum(per_dim(p)))(outputs))
        o.check_whole()


@pytest.mark.parametrize("path", files("pixelcnn", "dmol_sample"))
def test_mixture_of_logistics_sample(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        law = likelihood.logistic_mixture(o.config["nr_mix"])
        uniforms = jnp.concatenate([o["in/u_mix"], o["in/u"]], -1).astype(jnp.float64)
        x = law.draw(o["in/l"].astype(np.float64), uniforms)
        o.check("out/x", x)
        levels = np.clip((np.asarray(x) + 1) * 127.5, 0, 255).astype(np.uint8)
        o.check_equal("out/uint8", levels)
        o.check_whole()
