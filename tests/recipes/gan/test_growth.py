"""The stages of a growing GAN, and the updates of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.config import GrowthConfig, TrainConfig
from jgen.errors import UserError
from jgen.objectives.gan_penalties import gradient_penalty
from jgen.objectives.style_losses import added
from jgen.recipes.gan.growth import growth_at, plan


def test_a_plan_has_a_stage_for_every_resolution():
    stages = plan(GrowthConfig(300, last_steps=7), 100, 16, 1e-3, 32)
    assert [(s.side, s.steps, s.batch, s.rate) for s in stages] == [
        (4, 300, 16, 1e-3), (8, 100, 16, 1e-3), (16, 100, 16, 1e-3), (32, 7, 16, 1e-3),
    ]  # fmt: skip
    config = GrowthConfig(first_side=8, stage_steps=(1, 2, 3), stage_batches=(8, 4, 2), stage_rates=(0.1, 0.2, 0.3))
    assert [tuple(s) for s in plan(config, 100, 16, 1e-3, 32)] == [(8, 1, 8, 0.1), (16, 2, 4, 0.2), (32, 3, 2, 0.3)]


def test_settings_by_stage_are_as_many_as_stages():
    with pytest.raises(UserError, match="stage_rates: has 1 values; must be one for each of 4, 8 pixels"):
        plan(GrowthConfig(stage_rates=(0.1,)), 100, 16, 1e-3, 8)


def test_a_level_comes_in_over_a_share_of_its_stage_or_over_images():
    train = TrainConfig(steps=1000)
    assert growth_at(GrowthConfig(), train, 16, skip=1, first=True).fade_steps == 0
    assert growth_at(GrowthConfig(fade=0.5), train, 16, skip=1, first=False).fade_steps == 500
    assert growth_at(GrowthConfig(fade_images=1600), train, 16, skip=0, first=False).fade_steps == 100


def test_a_penalty_holds_the_slope_at_its_target():
    x, alphas = jnp.ones((3, 2, 2, 1)), jnp.full(3, 0.5)
    steep = lambda x: 375.0 * jnp.sum(x, (1, 2, 3))  # noqa: E731
    np.testing.assert_allclose(gradient_penalty(steep, x, x, alphas, 750.0), 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient_penalty(steep, x, x, alphas, 250.0), (750 - 250) ** 2 / 250**2, rtol=1e-5)


def test_two_losses_of_one_update_add_up_and_draw_apart():
    def drawn(params, extra, key, batch):
        return jnp.sum(params["g"]) * jax.random.normal(key), ({**extra, "n": extra["n"] + 1}, {})

    params, key = {"g": jnp.ones(2)}, jax.random.key(0)
    value, (extra, _) = added(drawn, drawn)(params, {"n": 0}, key, {})
    assert extra["n"] == 2
    expected = 2 * (jax.random.normal(key) + jax.random.normal(jax.random.fold_in(key, 1)))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
