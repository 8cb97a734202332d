"""The U-Nets and the classifier against guided-diffusion and improved-diffusion."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.errors import UserError
from jgen.models import unet
from tests.models.whole import check_network, float_inputs
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


def converter(o):
    """By what the file has: a low-resolution image, a pool, or neither."""
    if "in/low_res" in o:
        return convert.adm.super_res
    return convert.adm.classifier if "pool" in o.config else convert.adm.unet


@pytest.mark.slow
@pytest.mark.parametrize("path", files("adm", ""))
def test_output_gradients_and_blocks(path):
    o = Oracle(path)
    convert_to = converter(o)
    net = convert_to(convert.load_weights(path), **o.config)[0]
    label = {"label": jnp.asarray(o["in/labels"])} if net.num_classes else {}
    t, inputs = jnp.asarray(o["in/timesteps"]), float_inputs(o, "x", "low_res")

    def call(i):
        return (i["x"], t), {**label, **{k: v for k, v in i.items() if k != "x"}}

    variables = check_network(o, net, lambda w: convert_to(w, **o.config)[1], call, inputs)
    if "out/guidance_gradient" in o:
        labels = jnp.asarray(o["in/labels"])[:, None]

        def log_probability(x):
            return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(net.apply(variables, x, t)), labels, 1))

        o.check("out/guidance_gradient", jax.jit(jax.grad(log_probability))(inputs["x"]), image=True)
    o.check_whole()


@pytest.mark.parametrize("path", files("adm", ""))
def test_weights_that_do_not_fit_are_named(path):
    o, weights = Oracle(path), convert.load_weights(path)
    convert_to, name = converter(o), next(n for n in weights if n.startswith("out.") and n.endswith(".bias"))
    here = re.escape("/".join(convert.common.linen_path(name)))
    with pytest.raises(UserError, match=f"missing {here}; left over none"):
        convert_to({k: v for k, v in weights.items() if k != name}, **o.config)
    with pytest.raises(UserError, match="left over extra.weight"):
        convert_to({**weights, "extra.weight": np.zeros(3)}, **o.config)
    size = len(weights[name]) + 1
    with pytest.raises(UserError, match=rf"{re.escape(name)}: shape \({size},\)"):
        convert_to({**weights, name: np.zeros(size)}, **o.config)


@pytest.mark.parametrize("path", files("adm", ""))
def test_arguments_that_make_another_network_are_named(path):
    o, weights = Oracle(path), convert.load_weights(path)
    for name, value, said in (("dims", 1, "dims=1: must be 2"), ("num_head", 2, r"num_head: no .* mean num_heads")):
        with pytest.raises(UserError, match=said):
            converter(o)(weights, **{**o.config, name: value})


SMALL = dict(
    in_channels=3, model_channels=32, out_channels=3, num_res_blocks=1, attention_resolutions=(2,), channel_mult=(1, 2),
    num_heads=2,
)  # fmt: skip


def test_resampling_without_convolutions():
    """It is the mean of squares and the repeated pixel, and has no weights."""
    net = unet.UNet(**convert.adm._fields(**SMALL, conv_resample=False))
    x, t = jax.random.normal(jax.random.key(0), (1, 4, 8, 3)), jnp.ones(1)
    variables = jax.jit(net.init)(jax.random.key(1), x, t)
    assert not [name for name in variables["params"] if name.endswith(("_op", "_conv"))]
    seen = net.apply(variables, x, t, capture_intermediates=True, mutable="intermediates")[1]["intermediates"]

    def given(name):
        return seen[name]["__call__"][0]

    fine, coarse = given("input_blocks_1_0"), given("output_blocks_1_1")
    np.testing.assert_allclose(given("input_blocks_2_0_op"), fine.reshape(1, 2, 2, 4, 2, -1).mean((2, 4)), atol=1e-6)
    np.testing.assert_array_equal(given("output_blocks_1_2_conv"), coarse.repeat(2, 1).repeat(2, 2))


def test_pools_of_the_classifier():
    x, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.ones(2)
    fields = {**SMALL, "out_channels": 7}
    for pool, layers in {"adaptive": "03", "spatial": "02", "spatial_v2": "013"}.items():
        net = unet.Classifier(**convert.adm._fields(**fields), pool=pool)
        shapes = jax.eval_shape(net.init, jax.random.key(1), x, t)
        names = {name for name in shapes["params"] if name.startswith("out_")}
        assert names == {f"out_{layer}" for layer in layers}
        assert jax.eval_shape(net.apply, shapes, x, t).shape == (2, 7)
        if pool != "adaptive":  # every block's means: 32, 32, 32, 64 channels on the way down, 64 in the middle
            assert shapes["params"]["out_0"]["kernel"].shape == (32 + 32 + 32 + 64 + 64, 2048)
    with pytest.raises(UserError, match="pool=mean: must be attention, adaptive, spatial or spatial_v2"):
        jax.eval_shape(unet.Classifier(**convert.adm._fields(**fields), pool="mean").init, jax.random.key(1), x, t)
