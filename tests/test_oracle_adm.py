"""The U-Nets and the classifier against guided-diffusion and improved-diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.convert.common import linen_path
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle
KINDS = {"unet": "unet", "iddpm_unet": "unet", "superres": "super_res", "classifier": "classifier"}


CASES = [pytest.param(k, *p.values, marks=p.marks, id=p.id) for k in KINDS for p in files("adm", k)]


@pytest.mark.parametrize("prefix,path", CASES)
def test_output_and_gradients(prefix, path):
    oracle = Oracle(path)
    net, variables = getattr(convert.adm, KINDS[prefix])(convert.load_weights(path), **oracle.config)
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
            y = net.apply({"params": params}, inputs["x"], t, **label, **rest)
            return jnp.sum(y * cotangent), y

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inputs)

    (grads, input_grads), y = run(variables["params"], inputs)
    oracle.check("out/y", y, image=image)
    checked = 0
    for name in oracle.names:
        if name.startswith("out/grad/in/"):
            oracle.check(name, input_grads[name.removeprefix("out/grad/in/")], image=True)
        elif name.startswith("out/grad/") and not name.endswith((".qkv.bias", "qkv.weight")):
            leaf = find(grads, name.removeprefix("out/grad/"))
            oracle.check(name, leaf.T if name.endswith("0.weight") and leaf.ndim == 2 and "label" not in name else leaf)
            checked += 1
    assert checked >= 2
    if prefix == "classifier":
        labels = jnp.asarray(oracle["in/labels"])[:, None]

        def log_probability(x):
            return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(net.apply(variables, x, t)), labels, 1))

        oracle.check("out/guidance_gradient", jax.jit(jax.grad(log_probability))(inputs["x"]), image=True)


def find(tree, name):
    path = linen_path(name)
    for part in path[:-1]:
        tree = tree[part]
    names = {"weight": ("kernel", "scale", "embedding")}.get(path[-1], (path[-1],))
    return next(tree[n] for n in names if n in tree)


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
