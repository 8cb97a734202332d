"""Score matching, Langevin dynamics and SDE samplers on Gaussians, whose answers are known; their errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, sde
from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.objectives import score as objectives
from jgen.samplers import langevin, pc
from jgen.samplers.common import explain
from jgen.sharding import make_mesh
from jgen.train.draw import draw
from tests import tiny

MEAN = np.array([0.5, -1.0])
COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])
PRECISION = np.linalg.inv(COVARIANCE)


def gaussian_score(x):
    return -(x - MEAN[None]) @ PRECISION


def test_explicit_score_matching_is_exact_and_its_sliced_forms_agree_in_the_mean():
    a = jnp.array([[1.0, 0.3], [-0.2, 0.5]])
    field = lambda x: jnp.tanh(x @ a)  # noqa: E731
    x = jax.random.normal(jax.random.key(0), (3, 2))
    by_hand = 0.5 * jnp.sum(field(x) ** 2, -1) + ((1 - field(x) ** 2) * jnp.diag(a)[None]).sum(-1)
    assert np.allclose(objectives.explicit(field, x), by_hand, atol=1e-6)
    for kind in ("rademacher", "sphere", "gaussian"):
        draws = objectives.projections(jax.random.key(1), (4000, *x.shape), kind)
        mean = jnp.mean(jax.vmap(lambda v: objectives.sliced(field, x, v))(draws), 0)
        assert np.allclose(mean, by_hand, atol=0.08), kind
        assert np.allclose(jnp.mean(draws**2), 1.0, atol=0.05)


def test_every_score_matching_loss_is_least_at_the_score():
    """For N(m, 1): the minimiser over m of explicit, sliced and denoising score matching is the data's mean."""
    x = 0.7 + jax.random.normal(jax.random.key(0), (20_000, 1))
    eps, v, sigma = jax.random.normal(jax.random.key(1), x.shape), jnp.ones_like(x), jnp.full(len(x), 0.5)
    energy = lambda m: objectives.of_energy(lambda x: 0.5 * jnp.sum((x - m) ** 2, -1))  # noqa: E731
    losses = {
        "explicit": lambda m: objectives.explicit(energy(m), x),
        "sliced": lambda m: objectives.sliced(energy(m), x, v),
        "denoising": lambda m: objectives.denoising(lambda x, s: -(x - m) / 1.25, x, sigma, eps),
    }
    for name, loss in losses.items():
        slopes = [float(jax.grad(lambda m, loss=loss: jnp.mean(loss(m)))(m)) for m in (0.6, 0.8)]
        assert slopes[0] < 0 < slopes[1], name


def moments(x):
    return np.mean(x, 0), np.cov(np.asarray(x).T)


def test_langevin_settles_on_the_gaussian_and_its_bias_falls_with_the_step():
    keys, start = samplers.image_keys(0, 20_000), jnp.zeros((20_000, 2))
    for size, steps in ((0.4, 60), (0.1, 240)):
        x = samplers.unadjusted_langevin(gaussian_score, start, keys, steps=steps, step_size=size)
        mean, covariance = moments(x)
        # x <- (I - eps P) x + sqrt(2 eps) z has the stationary covariance 2 eps (I - (I - eps P)^2)^-1.
        keep = np.eye(2) - size * PRECISION
        stationary = 2 * size * np.linalg.inv(np.eye(2) - keep @ keep)
        assert np.allclose(mean, MEAN, atol=0.04)
        assert np.allclose(covariance, stationary, atol=0.07), size
    assert np.abs(stationary - COVARIANCE).max() < 0.1  # at the smaller step


def test_metropolis_adjustment_takes_the_bias_away():
    log_density = lambda x: -0.5 * jnp.einsum("bi,ij,bj->b", x - MEAN[None], PRECISION, x - MEAN[None])  # noqa: E731
    keys, start = samplers.image_keys(0, 20_000), jnp.zeros((20_000, 2))
    x, accepted = samplers.metropolis_langevin(log_density, start, keys, steps=80, step_size=0.4)
    mean, covariance = moments(x)
    assert np.allclose(mean, MEAN, atol=0.04)
    assert np.allclose(covariance, COVARIANCE, atol=0.07)
    assert 0.5 < float(accepted.mean()) < 0.99


def noisy_score(x, sigma):
    """The score of pixels N(0.3, 0.6^2) with noise of level sigma added."""
    return -(x - 0.3) / expand_dims_like(0.36 + sigma**2, x)


@pytest.mark.parametrize("kind", ["annealed", "consistent"])
def test_annealed_sampling_ends_with_the_moments_of_the_data(kind):
    keys = samplers.image_keys(0, 400)
    if kind == "annealed":
        sigmas = langevin.geometric(5.0, 0.05, 30)
        size = samplers.step_size_for(sigmas, 20)
        x = samplers.annealed_langevin(
            noisy_score, 5 * samplers.noise(keys, (4, 4, 1)), sigmas, keys, steps_each=20, step_size=size
        )
    else:
        sigmas = langevin.geometric(5.0, 0.05, 300)
        x = samplers.consistent_langevin(noisy_score, 5 * samplers.noise(keys, (4, 4, 1)), sigmas, keys, share=0.05)
    assert abs(float(x.mean()) - 0.3) < 0.03
    assert abs(float(x.std()) - 0.6) < 0.05


def data_score(process, mean=0.3, deviation=0.6):
    def score(x, t):
        a, std = (expand_dims_like(f(t), x) for f in (process.mean, process.std))
        return -(x - a * mean) / (a**2 * deviation**2 + std**2)

    return score


@pytest.mark.parametrize("name", ["ve", "vp", "sub_vp"])
@pytest.mark.parametrize("corrector", [None, "langevin"])
def test_predictor_corrector_ends_with_the_moments_of_the_data(name, corrector):
    process = sde.ve(0.01, 10.0, 200) if name == "ve" else getattr(sde, name)(steps=200)
    keys = samplers.image_keys(0, 300)
    x = process.prior_std * samplers.noise(keys, (4, 4, 1))
    corrector = corrector and partial(pc.langevin, snr=0.05)  # a longer step has more bias
    x = pc.predictor_corrector(process, data_score(process), x, keys, corrector=corrector)
    assert abs(float(x.mean()) - 0.3) < 0.05
    assert abs(float(x.std()) - 0.6) < 0.06


def test_an_image_does_not_depend_on_its_neighbours():
    process, keys = sde.vp(steps=20 + 20), samplers.image_keys(0, 6)
    x = samplers.noise(keys, (4, 4, 1))
    whole = pc.predictor_corrector(process, data_score(process), x, keys)
    assert np.allclose(whole[2:4], pc.predictor_corrector(process, data_score(process), x[2:4], keys[2:4]), atol=1e-5)


def test_a_score_model_runs_under_the_samplers_of_the_continuous_coordinates():
    from jgen import sigmas

    for process in (sde.vp(), sde.sub_vp(), sde.ve(0.01, 50.0)):
        denoise = sde.denoiser(process, data_score(process))
        x = 5 * samplers.noise(samplers.image_keys(0, 4), (4, 4, 1))
        found = samplers.heun(denoise, x, sigmas.karras(60, 0.02, 5.0))
        assert np.allclose(found, 0.3 + (x - 0.3) * 0.6 / np.sqrt(0.36 + 25), atol=5e-3)


@pytest.mark.slow
def test_the_probability_flow_round_trip_and_likelihood_of_a_gaussian():
    from jgen.samplers import probability_flow

    process = sde.vp()
    score = data_score(process)
    x = 0.3 + 0.6 * samplers.noise(samplers.image_keys(0, 3), (2, 2, 1))
    probes = objectives.projections(jax.random.key(1), x.shape)

    @jax.jit
    def both(x, probes):
        value, z = probability_flow.log_likelihood(process, score, x, probes)
        together, _ = probability_flow.log_likelihood(process, score, x, probes, together=True)
        return value, together, probability_flow.flow(process, score, z, end=1e-5)

    value, together, back = both(x, probes)
    exact = jnp.sum((-0.5 * ((x - 0.3) / 0.6) ** 2 - np.log(0.6) - 0.5 * np.log(2 * np.pi)).reshape(3, -1), -1)
    assert np.allclose(value, exact, atol=2e-2)
    assert np.allclose(together, exact, atol=2e-2)
    assert np.allclose(back, x, atol=1e-3)


FLAT = jnp.zeros((1, 2, 2, 1))
BAD = [
    (lambda: langevin.falling([1.0, 2.0]), r"sigmas=\[1\. 2\.\]: must fall, and stay above 0"),
    (lambda: langevin.geometric(0.1, 1.0, 3), "0 < sigma_min < sigma_max"),
    (lambda: annealed(steps_each=0, step_size=1e-3), "steps_each=0: a sampler needs at least 1"),
    (lambda: annealed(steps_each=1, step_size=0.0), "step_size=0.0: must be above 0"),
    (lambda: annealed(steps_each=1, step_size=float("nan")), "step_size=nan"),
    (lambda: samplers.consistent_langevin(noisy_score, FLAT, [1.0, 0.1], None, share=0.5), "share=0.5"),
    (lambda: sde.vp(steps=10), "steps=10: betas reach 2"),
    (lambda: sde.ve(2.0, 1.0), "sigma_min=2.0, sigma_max=1.0"),
    (lambda: pc.predictor_corrector(sde.vp(), noisy_score, FLAT, None, corrector_steps=-1), "corrector_steps=-1"),
    (lambda: pc.ancestral(sde.sub_vp(), noisy_score, FLAT, jnp.ones(1), FLAT), "the sub-VP process has none"),
]


def annealed(**how):
    return samplers.annealed_langevin(noisy_score, FLAT, [1.0, 0.5], None, **how)


@pytest.mark.parametrize("call,message", BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_the_step_at_which_a_score_fails_is_named():
    keys = samplers.image_keys(0, 2)

    def breaks(x, sigma):
        return jnp.where(expand_dims_like(sigma, x) < 0.5, jnp.nan, noisy_score(x, sigma))

    def run(keys):
        x = samplers.noise(keys, (2, 2, 1))
        return samplers.annealed_langevin(breaks, x, [2.0, 1.0, 0.4], keys, steps_each=4, step_size=1e-3)

    assert np.isnan(jax.jit(run)(keys)).all()  # outside of `explain` the checks do nothing
    assert "the score is not finite at step 8 (level 0.4" in explain(run, keys)


@pytest.mark.slow
def test_sampling_from_broken_weights_says_so():
    (stage,) = tiny.module("ncsn").build(tiny.parsed("ncsn")).stages
    params, extra = (jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), tree) for tree in tiny.shapes_of(stage))
    with pytest.raises(UserError, match="the score is not finite at step 0"):
        draw(stage, params, extra, make_mesh(), num=4)


@pytest.mark.slow
def test_the_mixture_shows_its_point(tmp_path):
    from jgen.recipes.score import mixture

    found = mixture.study(steps=600, num=2000)
    shares = found["share at (5, 5), 0.2 in the data"]
    assert shares["Langevin, exact score"] > 0.35
    assert abs(shares["annealed, exact score"] - 0.2) < 0.03
    assert abs(shares["annealed, learned score"] - 0.2) < 0.06  # 4,000 steps bring it within 0.03
    assert found["relative score error elsewhere"] > 3 * found["relative score error near the modes"]
