"""GANs of Gaussians in the plane: the sets, the measures, and that every kind of move trains and draws."""

import jax
import numpy as np
import pytest

from jgen.data.gaussians import GAUSSIANS
from jgen.errors import UserError
from jgen.metrics.gaussian_modes import gaussian_modes
from jgen.recipes.gan import gaussians


@pytest.mark.parametrize("name,modes", [("ring", 8), ("grid", 25)])
def test_a_set_s_own_points_find_every_mode(name, modes):
    data = GAUSSIANS[name]
    points = data.draw(jax.random.key(0), 2500)
    found = gaussian_modes(points, data.means, data.deviation)
    assert found.found == modes == len(data.means)
    assert found.high_quality == pytest.approx(1 - np.exp(-4.5), abs=0.006)  # Rayleigh's law at three deviations


def test_points_between_modes_are_of_no_mode():
    data = GAUSSIANS["ring"]
    assert gaussian_modes(np.zeros((5, 2)), data.means, data.deviation) == (0, 0.0)
    one = np.repeat(data.means[:1], 3, 0)
    assert gaussian_modes(np.concatenate([one, 0 * one]), data.means, data.deviation) == (1, 0.5)
    with pytest.raises(UserError, match=r"points of shape \(0, 2\)"):
        gaussian_modes(np.zeros((0, 2)), data.means, data.deviation)


@pytest.mark.slow
@pytest.mark.parametrize("move", list(gaussians.MOVES))
def test_every_move_trains_and_draws(move):
    """Nothing is said of how well: a plain GAN may lose modes, which the study is there to count."""
    form, data = gaussians.MOVES[move](gaussians.planar_gan()), GAUSSIANS["ring"]
    state = gaussians.train(form, data, 300)
    params, extra = form.init(jax.random.key(0), {})
    points, start = (gaussians.sample(form, each, num=200) for each in (state, state.replace(params=params, extra=extra)))
    assert int(state.step) == 300
    assert points.shape == (200, 2)
    assert np.isfinite(points).all()
    assert np.abs(points - start).max() > 0.05
