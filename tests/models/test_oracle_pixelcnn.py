"""PixelCNNs and the mixture of logistics against the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.pixelcnn import gated_pixelcnn, pixelcnn
from jgen.objectives import likelihood
from jgen.samplers.autoregressive import decoder, raster
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("path", [*files("pixelcnn", "pixelcnn"), *files("pixelcnn", "gated_pixelcnn")])
def test_pixelcnn_logits_gradients_and_samples(path):
    o = Oracle(path)
    convert = gated_pixelcnn if o.config["cls"] == "GatedPixelCNN" else pixelcnn
    net, variables = convert(load_weights(path), **o.config)
    x, continuous = o.nhwc("in/x"), o.nhwc("in/x_continuous")
    law = likelihood.bernoulli(o.config["out_channels"], low=0.0)

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
    o.check("out/grad/w/_head.3.bias", gradient["head"]["out"]["own"]["bias"])
    if "out/grad/w/_input.weight" in o:
        want = o["out/grad/w/_input.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(gradient["above"]["own"]["kernel"], want[:3], rtol=1e-4, atol=1e-4 * np.abs(want).max())
        np.testing.assert_allclose(gradient["left"]["own"]["kernel"], want[3:4, :3], rtol=1e-4, atol=1e-4 * np.abs(want).max())
    else:
        want = o["out/grad/w/_input._vstack_1xN.weight"].transpose(2, 3, 1, 0)
        got = gradient["stack_0"]["vertical_1xn"]["own"]["kernel"]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())

    b, h, w, c = x.shape
    u = jnp.asarray(o["in/u"].reshape(h, w, b, c).transpose(0, 2, 1, 3))

    @jax.jit
    def sample(variables, given, known):
        return raster(decoder(net, variables, x.shape), law.draw, lambda row: u[row], x.shape, given, known)

    o.check("out/sample", sample(variables, jnp.zeros(x.shape), jnp.zeros((h, w), bool)), 1e-6, image=True)
    partial = o.nhwc("in/x_partial")
    o.check("out/sample_conditioned", sample(variables, partial, partial[..., 0] >= 0), 1e-6, image=True)


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


@pytest.mark.parametrize("path", files("pixelcnn", "dmol_sample"))
def test_mixture_of_logistics_sample(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        law = likelihood.logistic_mixture(o.config["nr_mix"])
        uniforms = jnp.concatenate([o["in/u_mix"], o["in/u"]], -1).astype(jnp.float64)
        x = law.draw(o["in/l"].astype(np.float64), uniforms)
        o.check("out/x", x)
        levels = np.clip((np.asarray(x) + 1) * 127.5, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(levels, o["out/uint8"])
