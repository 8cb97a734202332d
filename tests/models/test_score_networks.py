"""Options of the score networks that no file of golden numbers has: norms, depths, and the published configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import ncsn, score_sde
from jgen.errors import UserError
from jgen.models.ncsn import NCSNv2
from jgen.models.ncsn_norm import LevelNorm
from jgen.models.ncsnpp import NCSNpp, Style

X = np.random.default_rng(0).normal(1.0, 2.0, (2, 4, 6, 5)).astype(np.float32)
GAMMA, BETA = np.linspace(0.5, 1.5, 5, dtype=np.float32), np.linspace(-1, 1, 5, dtype=np.float32)


def standardised(x, ddof, centre=True):
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True, ddof=ddof)
    return (x - centre * mean) / np.sqrt(variance + 1e-5)


@pytest.mark.parametrize(
    "kind,rows,expected",
    [
        ("InstanceNorm", [GAMMA, BETA], standardised(X, 0) * GAMMA + BETA),
        ("VarianceNorm", [GAMMA], standardised(X, 1, centre=False) * GAMMA),
        ("NoneNorm", [GAMMA, BETA], X * GAMMA + BETA),
    ],
)
def test_norms_of_a_level_are_the_formulas(kind, rows, expected):
    table = np.stack([np.zeros(5 * len(rows), np.float32), np.concatenate(rows)])
    params = {"embed": {"embedding": jnp.asarray(table)}}
    found = LevelNorm(2, kind).apply({"params": params}, jnp.asarray(X), jnp.array([1, 1]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind,params,expected",
    [
        ("InstanceNorm", {}, standardised(X, 0)),
        ("VarianceNorm", {"alpha": GAMMA}, standardised(X, 1, centre=False) * GAMMA),
        ("NoneNorm", {}, X),
    ],
)
def test_norms_without_levels_are_the_formulas(kind, params, expected):
    np.testing.assert_allclose(LevelNorm(0, kind).apply({"params": params}, jnp.asarray(X)), expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_norm_or_depth_is_refused():
    with pytest.raises(UserError, match=r"normalization=LayerNorm: must be InstanceNorm\+\+"):
        LevelNorm(0, "LayerNorm").init(jax.random.key(0), jnp.zeros((1, 2, 2, 4)))  # pyright: ignore
    with pytest.raises(UserError, match="depth=deep: must be one of"):
        jax.eval_shape(NCSNv2(4, depth="deep").init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.ones(1))  # pyright: ignore


def test_the_deepest_network_halves_three_times():
    net, x = NCSNv2(4, depth="deepest"), jnp.zeros((1, 16, 16, 3))
    _, state = jax.eval_shape(
        lambda key: net.init_with_output(key, x, jnp.ones(1), capture_intermediates=True), jax.random.key(0)
    )
    seen = {name: part["__call__"][0].shape for name, part in state["intermediates"].items() if name.startswith("res")}
    shapes = {name: seen[f"res{name}_1"][1:] for name in ("1", "2", "3", "31", "4", "5")}
    assert shapes == {
        "1": (16, 16, 4), "2": (8, 8, 8), "3": (4, 4, 8), "31": (2, 2, 8), "4": (2, 2, 16), "5": (2, 2, 16)
    }  # fmt: skip
    with pytest.raises(UserError, match="image of 12x12: sides must be multiples of 8"):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 12, 12, 3)), jnp.ones(1))


def test_the_last_plain_norm_has_the_number_of_levels_as_epsilon(monkeypatch):
    """By a quirk of the authors' constructor."""
    monkeypatch.setattr(ncsn, "fill", lambda shapes, *rest: {})
    assert ncsn.ncsnv2({}, ngf=4, num_classes=7, normalization="InstanceNorm")[0].last_epsilon == 7
    assert ncsn.ncsnv2({}, ngf=4, num_classes=7)[0].last_epsilon == 1e-5


PUBLISHED = dict(
    scale_by_sigma=True, sigma_max=378, sigma_min=0.01, num_scales=2000, ema_rate=0.999, normalization="GroupNorm",
    nonlinearity="swish", attn_resolutions=(16,), dropout=0.0, resamp_with_conv=True, conditional=True, fir=True,
    fir_kernel=[1, 3, 3, 1], skip_rescale=True, resblock_type="biggan", progressive="output_skip",
    progressive_input="input_skip", progressive_combine="sum", attention_type="ddpm", init_scale=0.0, fourier_scale=16,
    conv_size=3, embedding_type="fourier", beta_min=0.1, beta_max=20.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "size,shape,parameters",
    [
        (256, dict(nf=128, ch_mult=(1, 1, 2, 2, 2, 2, 2), num_res_blocks=2), 65_574_549),
        (1024, dict(nf=16, ch_mult=(1, 2, 4, 8, 16, 32, 32, 32), num_res_blocks=1), 105_785_896),
    ],
)
def test_the_published_pyramids_are_built(size, shape, parameters, monkeypatch):
    """LSUN, CelebA-HQ and FFHQ at 256, and FFHQ at 1024."""
    seen = {}
    monkeypatch.setattr(score_sde, "fill", lambda shapes, *rest: seen.update(shapes))
    data = dict(dataset="LSUN", image_size=size, random_flip=True, uniform_dequantization=False, centered=False, num_channels=3)
    net, _ = score_sde.ncsnpp({}, model={**PUBLISHED, **shape}, data=data, training={}, seed=42)
    assert sum(leaf.size for leaf in jax.tree.leaves(seen)) == parameters
    assert net.scale_by_sigma
    assert not net.centered


def test_time_steps_stand_for_noise_levels():
    """The result is divided by the level of its step, noisiest first."""
    net = NCSNpp(
        channels=8, channel_mult=(1, 1), num_res_blocks=1, attention_resolutions=(), embedding="positional", input="none",
        style=Style(rescale=True), scale_by_sigma=True, sigma_max=20.0, sigma_min=0.2, num_scales=3,
    )  # fmt: skip
    x, label = jnp.ones((3, 4, 4, 3)), jnp.array([0, 1, 2])
    variables = net.init(jax.random.key(0), x, label)
    plain = net.clone(scale_by_sigma=False).apply(variables, x, label)
    np.testing.assert_allclose(net.apply(variables, x, label), plain / np.array([20, 2, 0.2])[:, None, None, None], rtol=1e-5)
    inside = net.clone(centered=False).apply(variables, 0.5 * (x + 1), label)
    np.testing.assert_allclose(inside, net.apply(variables, x, label), rtol=1e-5)


def test_a_filtered_convolution_upwards_is_refused():
    net = NCSNpp(channels=8, channel_mult=(1, 1), num_res_blocks=1, style=Style(taps=(1, 3, 3, 1)), output="residual")
    with pytest.raises(UserError, match="taps: a convolution to twice the size with a filter is not built"):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)), jnp.ones(1))
