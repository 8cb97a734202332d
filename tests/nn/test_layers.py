"""Layers against plain formulas."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.models import unet as unets
from jgen.models.unet import UNet
from jgen.nn import Conv3x3, GroupNorm, attention, conv3x3, fir, resample, timestep_embedding, winograd
from jgen.nn.conv import SAME, conv, convolve, plain, upsampled_conv3x3
from jgen.nn.dense import Dense
from jgen.nn.norm import Affine
from jgen.nn.silu_conv import silu_conv

KEY = jax.random.key(0)


def check_gradients(conv, wanted, x, kernel):
    """Fails unless both give the same values and gradients; the values."""
    dy = jax.random.normal(jax.random.key(2), jax.eval_shape(wanted, x, kernel).shape)

    def results(f):
        def run(x, kernel, dy):
            y, back = jax.vjp(f, x, kernel)
            return y, *back(dy)

        return jax.jit(run)(x, kernel, dy)

    (y, *found), (want, *expected) = results(conv), results(wanted)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    return want


@pytest.fixture
def few_tiles(monkeypatch):
    """Small images go Winograd's way too."""
    monkeypatch.setattr(winograd, "fewest_tiles", lambda _: 0)


@pytest.mark.parametrize(
    "size,height,width,padding",
    [(3, 8, 8, SAME), (3, 7, 10, ((0, 1), (2, 0))), (2, 6, 5, ((1, 0), (0, 1))), (2, 1, 2, SAME)],
)
@pytest.mark.parametrize("channels", [(64, 64), (64, 65)])
def test_winograds_convolution_is_the_plain_one(size, height, width, padding, channels, few_tiles):
    x, kernel = (jax.random.normal(KEY, s) / 8 for s in ((2, height, width, channels[0]), (size, size, *channels)))
    assert winograd.pays(x, kernel, padding)
    check_gradients(lambda x, k: conv(x, k, padding), lambda x, k: convolve(x, k, 1, padding), x, kernel)


def test_winograds_convolution_rounds_little_more_than_the_plain_one(few_tiles):
    x, kernel = jax.random.normal(KEY, (4, 8, 8, 128)), jax.random.normal(jax.random.key(1), (3, 3, 128, 128)) / 34
    wide, taps = (np.asarray(v, np.float64) for v in (jnp.pad(x, ((0, 0), *SAME, (0, 0))), kernel))
    exact = sum(wide[:, i : i + 8, j : j + 8] @ taps[i, j] for i in range(3) for j in range(3))
    errors = [np.sqrt(np.mean((jax.jit(f)(x, kernel) - exact) ** 2)) for f in (conv3x3, plain)]
    assert errors[0] < 3.5 * errors[1]


def test_a_batch_in_parts_is_convolved_as_a_whole(monkeypatch, few_tiles):
    x, kernel = (jax.random.normal(KEY, s) / 8 for s in ((8, 6, 6, 64), (3, 3, 64, 64)))
    monkeypatch.setattr(winograd, "PIECE", 6 * 6 * 64 * 2)  # two images a part
    text = str(jax.make_jaxpr(lambda x: jax.vjp(conv3x3, x, kernel)[1](x))(x))
    assert text.count("length=4") == 3
    check_gradients(conv3x3, plain, x, kernel)


def test_few_channels_few_tiles_other_kernels_and_low_precision_take_the_plain_convolution(monkeypatch, few_tiles):
    x, kernel = jnp.zeros((1, 8, 8, 64)), jnp.zeros((3, 3, 64, 64))
    assert winograd.pays(x, kernel, SAME)
    assert not winograd.pays(x[..., :16], kernel[:, :, :16], SAME)
    assert not winograd.pays(x, kernel[:1], SAME)
    assert not winograd.pays(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), SAME)
    assert not winograd.pays(x, kernel, ((3, 3), (1, 1)))
    monkeypatch.setattr(winograd, "fewest_tiles", lambda _: 4 // jax.device_count() + 1)
    assert not winograd.pays(x, kernel, SAME)


def test_convolution_that_grows_the_image_has_the_plain_one_gradients():
    x, kernel, rim = jax.random.normal(KEY, (2, 8, 8, 3)), jax.random.normal(jax.random.key(1), (2, 1, 3, 5)), ((1, 1), (0, 0))
    check_gradients(lambda x, k: conv(x, k, rim), lambda x, k: convolve(x, k, 1, rim), x, kernel)
    # XLA turns a convolution around whose kernel is larger than its image, to one that is slow on CPUs.
    square, dy = jnp.ones((2, 2, 3, 5)), jnp.ones((2, 9, 9, 5))
    programs = [
        jax.jit(lambda k, x, dy, f=f: jax.vjp(lambda k: f(x, k), k)[1](dy)).lower(square, x, dy).compile().as_text()
        for f in (lambda x, k: conv(x, k, SAME), lambda x, k: convolve(x, k, 1, SAME))
    ]
    assert ["rhs_reversal" in program for program in programs] == [False, True]


@pytest.mark.parametrize("channels", [2, 64])
def test_convolution_can_be_differentiated_twice(channels, few_tiles):
    shapes = (1, 4, 4, channels), (3, 3, channels, channels)
    x, kernel = (jax.random.normal(jax.random.key(i), s) / channels for i, s in enumerate(shapes))

    def penalty(conv):
        return jax.jit(jax.grad(lambda k: jnp.sum(jax.grad(lambda x: jnp.sum(jnp.tanh(conv(x, k))))(x) ** 2)))(kernel)

    np.testing.assert_allclose(penalty(conv3x3), penalty(plain), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(penalty(upsampled_conv3x3), penalty(repeated), rtol=1e-3, atol=1e-3)


def silu_conv_inputs(batch, channels, features):
    shapes = (batch, 6, 6, channels), (batch, channels), (batch, channels), (3, 3, channels, features), (batch, features)
    x, gain, shift, kernel, offset = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes))
    return x, Affine(1 + gain, shift), kernel / channels, offset


def silu_then_conv(x, affine, kernel, offset, padding):
    return plain(nn.silu(affine.gain[:, None, None] * x + affine.shift[:, None, None]), kernel) + offset[:, None, None]


@pytest.mark.parametrize("images", [2, 8])
def test_convolution_after_silu_is_both_in_turn(images, monkeypatch, few_tiles):
    monkeypatch.setattr(winograd, "PIECE", 6 * 6 * 72 * images)
    inputs, dy = silu_conv_inputs(8, 64, 72), jax.random.normal(KEY, (8, 6, 6, 72))

    def results(f):
        y, back = jax.vjp(lambda *inputs: f(*inputs, SAME), *inputs)
        return y, back(dy)

    for a, b in zip(jax.tree.leaves(jax.jit(results, static_argnums=0)(silu_conv)), jax.tree.leaves(results(silu_then_conv))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.slow
def test_convolution_after_silu_can_be_differentiated_twice(few_tiles):
    def penalty(f, *inputs):
        return sum(
            jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(lambda *i: jnp.sum(jnp.tanh(f(*i, SAME))), (0, 1, 2))(*inputs))
        )

    found, wanted = (
        jax.jit(jax.grad(partial(penalty, f), (0, 1, 2, 3)))(*silu_conv_inputs(2, 64, 64)) for f in (silu_conv, silu_then_conv)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


RESAMPLED = [{}, {"resample": unets.downsample}, {"resample": unets.upsample}]


@pytest.mark.parametrize(
    "settings", [{"scale_shift_norm": True}, *(pytest.param(s, marks=pytest.mark.slow) for s in RESAMPLED)]
)
def test_wide_residual_block_is_the_same_by_the_plain_convolution(settings, few_tiles):
    block = unets.ResBlock(64, **settings)
    x, emb = jax.random.normal(KEY, (4, 8, 8, 96)), jax.random.normal(jax.random.key(1), (4, 16))
    variables = jax.tree.map(lambda v: v + 0.1, block.init(KEY, x, emb, False))

    def loss(variables):
        return jnp.sum(jnp.sin(block.apply(variables, x, emb, False)))

    found = jax.jit(jax.value_and_grad(loss))(variables)
    with winograd.off():
        wanted = jax.jit(jax.value_and_grad(lambda v: loss(v)))(variables)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


def repeated(x, kernel):
    return plain(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), kernel)


@pytest.mark.parametrize("height,width", [(4, 5), (14, 8)])
def test_upsampling_convolution_is_that_of_the_repeated_image(height, width):
    x = jax.random.normal(KEY, (2, height, width, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    want = check_gradients(upsampled_conv3x3, repeated, x, kernel)
    bias = jnp.arange(4.0)
    y = Conv3x3(4, up=True).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(y, want + bias[None, None, None], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_module_is_linen_conv_with_symmetric_padding(stride):
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    ours, theirs = Conv3x3(4, stride), nn.Conv(4, (3, 3), stride, padding=1)
    variables = ours.init(KEY, x)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_group_norm_is_linen_group_norm():
    x = 3 + 2 * jax.random.normal(KEY, (2, 5, 5, 12))
    variables = {"params": {"scale": jnp.arange(12.0), "bias": jnp.ones(12)}}
    want = nn.GroupNorm(4, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(GroupNorm(4).apply(variables, x), want, atol=2e-4)
    with pytest.raises(ValueError, match="norm groups=5: do not divide 12 channels"):
        GroupNorm(5).init(KEY, x)


def test_attention_is_the_formula():
    q, k, v = jax.random.normal(KEY, (3, 2, 6, 2, 4))
    want = np.zeros(q.shape)
    for b in range(2):
        for h in range(2):
            logits = np.asarray(q[b, :, h] @ k[b, :, h].T) / 2
            weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            want[b, :, h] = weights @ np.asarray(v[b, :, h])
    np.testing.assert_allclose(attention(q, k, v), want, atol=1e-5)


def test_timestep_embedding():
    e = np.asarray(timestep_embedding(jnp.array([0.0, 3.0]), 5))
    np.testing.assert_allclose(e[0], [1, 1, 0, 0, 0])
    np.testing.assert_allclose(e[1], [np.cos(3), np.cos(0.03), np.sin(3), np.sin(0.03), 0], rtol=1e-5)


TINY = dict(channels=8, out_channels=1, num_res_blocks=1, channel_mult=(1, 2), groups=4)


def unet(**changes):
    net = UNet(**{**TINY, **changes})
    x, t = jax.random.normal(KEY, (2, 8, 8, 1)), jnp.array([3.0, 7.0])
    label = jnp.array([0, 1]) if net.num_classes else None

    # Drawn by numpy: no program to compile, and no zero-initialised layer that hides what comes before it.
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, KEY, x, t, label)
    variables = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype), shapes)
    return net, variables, x, t, label


@pytest.mark.slow
def test_rematerialisation_changes_nothing_but_memory():
    net, variables, x, t, _ = unet()
    again = UNet(**TINY, remat=True)

    def grads(net):
        return jax.jit(jax.grad(lambda v: jnp.sum(net.apply(v, x, t, train=True) ** 2)))(variables)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads(net), grads(again))
    program = jax.make_jaxpr(jax.grad(lambda v: jnp.sum(again.apply(v, x, t))))(variables)
    assert "remat" in str(program) or "checkpoint" in str(program)


def test_pooled_context_reaches_the_time_embedding():
    net = UNet(**TINY, transformer_depth=1, pool_context=True)
    x, t, context = jax.random.normal(KEY, (1, 8, 8, 1)), jnp.array([3.0]), jax.random.normal(KEY, (1, 5, 6))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, KEY, x, t, context=context)["params"]
    params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype), shapes)
    # A bias of the time embedding that is the pooled context's part is as good as the context.
    low, mean = params.pop("context_emb"), jnp.mean(context, 1)[0]
    norm = params.pop("context_norm")
    condition = ((mean - mean.mean()) / jnp.sqrt(mean.var() + 1e-6) * norm["scale"] + norm["bias"]) @ low["kernel"] + low[
        "bias"
    ]
    last = {**params["time_embed_2"], "bias": params["time_embed_2"]["bias"] + condition}
    apply = jax.jit(lambda net, params: net.apply({"params": params}, x, t, context=context), static_argnums=0)
    pooled = apply(net, {**params, "context_emb": low, "context_norm": norm})
    without = UNet(**TINY, transformer_depth=1)
    np.testing.assert_allclose(pooled, apply(without, {**params, "time_embed_2": last}), rtol=1e-4, atol=1e-4)
    assert np.abs(pooled - apply(without, params)).max() > 1e-2
    with pytest.raises(ValueError, match="context: the network has transformer_depth=1 but none was given"):
        net.init(KEY, x, t)


def test_bfloat16_computes_low_and_keeps_float32_parameters_and_output():
    net, variables, x, t, _ = unet()
    low = UNet(**TINY, dtype=jnp.bfloat16)
    assert {v.dtype for v in jax.tree.leaves(jax.eval_shape(low.init, KEY, x, t))} == {jnp.dtype("float32")}
    y, want = jax.jit(low.apply)(variables, x, t), jax.jit(net.apply)(variables, x, t)
    assert y.dtype == jnp.float32
    error = np.abs(np.asarray(y - want)).max() / np.abs(np.asarray(want)).max()
    assert 1e-5 < error < 0.1, "bfloat16 was not used" if error <= 1e-5 else error


def test_the_class_and_the_time_matter_and_dropout_is_for_training():
    net, variables, x, t, label = unet(num_classes=3, dropout=0.5)
    apply = jax.jit(net.apply, static_argnames="train")
    y = apply(variables, x, t, label)
    assert not np.allclose(y, apply(variables, x, t, label + 1))
    assert not np.allclose(y, apply(variables, x, t + 1, label))
    a, b = (apply(variables, x, t, label, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1))
    assert not np.allclose(a, b)


@pytest.mark.parametrize("changes,shape,label,match", [
    ({}, (1, 7, 8, 1), None, "image of 7x8: 2 levels need multiples of 2"),
    ({}, (1, 8, 8, 1), jnp.zeros(1, int), "num_classes=0 but a label was given"),
    ({"num_classes": 3}, (1, 8, 8, 1), None, "num_classes=3 but no label was given"),
    ({"head_channels": 3}, (1, 8, 8, 1), None, "head_channels=3: does not divide"),
])  # fmt: skip
def test_inputs_and_settings_that_do_not_fit_are_refused(changes, shape, label, match):
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(UNet(**{**TINY, **changes}).init, KEY, jnp.zeros(shape), jnp.zeros(1), label)


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0), (1.0, 2.0, 4.0), (2.0, 1.0, 0.0, 3.0, 1.0)])
def test_gradients_of_filters_are_their_adjoints(taps):
    """<A x, y> = <x, A' y> for all that filters, and for the gradient itself."""
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    runs = {
        "down": lambda v: fir.upfirdn2d(v, np.array(taps), down=2, padding=(1, 2)),
        "up": lambda v: fir.upfirdn2d(v, np.array(taps), up=2, padding=2),
        "resample.up": lambda v: resample.upsample(v, taps),
        "resample.down": lambda v: resample.downsample(v, taps),
    }
    for name, run in runs.items():
        y = jax.random.normal(jax.random.key(1), jax.eval_shape(run, x).shape)

        @jax.jit
        def passes(x, y, run=run):
            out, back = jax.vjp(run, x)
            sent, again = jax.vjp(lambda v: back(v)[0], y)
            return out, sent, again(x)[0]

        out, sent, again = passes(x, y)
        np.testing.assert_allclose(jnp.vdot(out, y), jnp.vdot(x, sent), rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(again, out, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("features", [2, 4])
def test_dense_layers_have_the_gradients_of_flax(features):
    x = jax.random.normal(jax.random.key(0), (2 * jax.device_count(), 5, 3))
    own, other = Dense(features), nn.Dense(features)
    params = other.init(jax.random.key(1), x)

    def loss(layer, params, x):
        return jnp.sum(jnp.sin(layer.apply(params, x)))

    def penalised(layer, params, x):
        return jnp.sum(jnp.square(jax.grad(loss, 2)(layer, params, x)))

    for value in (loss, penalised):
        found, expected = (jax.grad(value, (1, 2))(layer, params, x) for layer in (own, other))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
