"""The training of a chain's network: weightings, clipping, widths that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import ddpm
from jgen.config import OptimizerConfig
from jgen.config import check as check_ranges
from jgen.data import resolve
from jgen.recipes.common import adam
from jgen.recipes.diffusion.chain import chain_recipe, simple_objective
from tests import tiny
from tests.tiny import stages


def test_channels_that_the_norms_of_a_unet_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="channels=30, channel_mult=1: must be multiples of 7, as many as the norms have"):
        stages(ddpm, "ddpm", "--channels", "30")


def test_min_snr_changes_the_loss_and_nothing_else():
    config = tiny.config()
    recipe = chain_recipe(config.network, config.chain, config.labels, resolve(config.data), config.train, False)
    recipe = recipe._replace(apply=lambda params, x, t, condition, **_: 0.1 * x)
    batch = {"image": jax.random.normal(jax.random.key(0), (256, 8, 8, 1))}
    losses = (simple_objective(recipe, gamma, False)(True) for gamma in (0.0, 5.0))
    values = [loss({"net": {}}, {}, jax.random.key(1), batch)[0] for loss in losses]
    assert 0 < values[1] < values[0]


def test_gradients_are_clipped_on_request():
    gradient = {"w": jnp.array([3.0, 4.0])}
    for norm, seen in ((1.0, 0.2), (0.0, 1.0)):
        tx = adam(OptimizerConfig(clip=norm), 10)
        _, (_, (moments, *_)) = tx.update(gradient, tx.init(gradient), gradient)
        np.testing.assert_allclose(moments.mu["w"], 0.1 * seen * gradient["w"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"clip=-1.0: must be at least 0"):
        check_ranges(OptimizerConfig(clip=-1.0))
