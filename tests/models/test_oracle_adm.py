"""The U-Nets and the classifier against guided-diffusion and improved-diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from tests.oracle import PLAIN_RESAMPLING, Oracle, check_blocks, check_gradients, files

pytestmark = pytest.mark.oracle
KINDS = {"unet": "unet", "iddpm_unet": "unet", "superres": "super_res", "classifier": "classifier"}


CASES = [pytest.param(k, *p.values, marks=p.marks, id=p.id) for k in KINDS for p in files("adm", k)]


@pytest.mark.parametrize("prefix,path", CASES)
def test_output_gradients_and_blocks(prefix, path):
    oracle = Oracle(path)
    weights, convert_to = convert.load_weights(path), getattr(convert.adm, KINDS[prefix])
    net, variables = convert_to(weights, **oracle.config)
    inputs = {"x": jnp.asarray(oracle.nhwc("in/x"))}
    if "in/low_res" in oracle:
        inputs["low_res"] = jnp.asarray(oracle.nhwc("in/low_res"))
    label = {"label": jnp.asarray(oracle["in/labels"])} if oracle.config.get("num_classes") else {}
    t = jnp.asarray(oracle["in/timesteps"])
    image = oracle["out/y"].ndim == 4
    cotangent = jnp.asarray(oracle.nhwc("in/cotangent/y") if image else oracle["in/cotangent/y"])

    @jax.jit
    def run(params, inputs):
        def weighed(params, inputs):
            rest = {k: v for k, v in inputs.items() if k != "x"}
            how: dict = dict(capture_intermediates=True, mutable=["intermediates"])
            y, seen = net.apply({"params": params}, inputs["x"], t, **label, **rest, **how)
            return jnp.sum(y * cotangent), (y, seen)

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inputs)

    (grads, input_grads), (y, seen) = run(variables["params"], inputs)
    oracle.check("out/y", y, image=image)
    for name, grad in input_grads.items():
        oracle.check(f"out/grad/in/{name}", grad, image=True)
    check_gradients(oracle, lambda w: convert_to(w, **oracle.config)[1], weights, grads)
    check_blocks(oracle, seen["intermediates"], {} if oracle.config.get("resblock_updown") else PLAIN_RESAMPLING)
    if prefix == "classifier":
        labels = jnp.asarray(oracle["in/labels"])[:, None]

        def log_probability(x):
            return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(net.apply(variables, x, t)), labels, 1))

        oracle.check("out/guidance_gradient", jax.jit(jax.grad(log_probability))(inputs["x"]), image=True)


@pytest.mark.parametrize("path", files("adm", "unet"))
def test_weights_that_do_not_fit_are_named(path):
    config, weights = Oracle(path).config, convert.load_weights(path)
    missing = {k: v for k, v in weights.items() if k != "out.2.bias"}
    with pytest.raises(ValueError, match="missing out_2/bias; left over none"):
        convert.adm.unet(missing, **config)
    with pytest.raises(ValueError, match="left over extra.weight"):
        convert.adm.unet({**weights, "extra.weight": np.zeros(3)}, **config)
    with pytest.raises(ValueError, match=r"out.2.bias: shape \(7,\)"):
        convert.adm.unet({**weights, "out.2.bias": np.zeros(7)}, **config)
