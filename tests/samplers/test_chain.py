"""Samplers on Gaussian data, where the perfect predictor and the answer are known in closed form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules
from jgen.objectives import diffusion
from jgen.samplers import guidance
from jgen.samplers.repaint import levels
from jgen.schedules import at
from jgen.types import Prediction

STD, MEAN = 0.5, 0.3
CHAIN = schedules.linear(1000)
SHAPE = (4, 4, 1)


def perfect(x, t):
    """E[x_0 | x_t] for data N(MEAN, STD^2)."""
    a = at(CHAIN.alpha_bar, t, x.ndim)
    gain = jnp.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)
    return Prediction(MEAN + gain * (x - jnp.sqrt(a) * MEAN))


def start(num, seed=0):
    keys = samplers.image_keys(seed, num)
    return samplers.noise(keys, SHAPE), keys


SAMPLERS = {
    "ddim": lambda x, k, **kw: samplers.ddim(perfect, CHAIN, x, k, **kw),
    "ddim-eta1": lambda x, k, **kw: samplers.ddim(perfect, CHAIN, x, k, eta=1.0, **kw),
    "ancestral-small": lambda x, k, **kw: samplers.ancestral(perfect, CHAIN, x, k, variance="small", **kw),
    "ancestral-large": lambda x, k, **kw: samplers.ancestral(perfect, CHAIN, x, k, variance="large", **kw),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_mean_and_variance_of_the_samples(name):
    x = np.asarray(jax.jit(lambda x, k: SAMPLERS[name](x, k, timesteps=200))(*start(1024)))
    error = STD / np.sqrt(x.size)
    assert abs(x.mean() - MEAN) < 4 * error
    assert abs(x.std() - STD) < 0.02 + 3 * error  # 200 of 1000 steps leave a bias of a percent or so


def propagate(steps, variance):
    """Closed form of an ancestral chain on this data: every update is affine, so mean and variance follow exactly."""
    chain = CHAIN.respace(schedules.evenly(1000, steps))
    mean, var = 0.0, 1.0
    for i in range(steps)[::-1]:
        a = chain.alpha_bar[i]
        gain = np.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)
        slope = chain.posterior_mean_x0[i] * gain + chain.posterior_mean_xt[i]
        shift = chain.posterior_mean_x0[i] * (MEAN - gain * np.sqrt(a) * MEAN)
        log = chain.posterior_log_variance if variance == "small" else chain.large_log_variance
        mean, var = slope * mean + shift, slope**2 * var + (np.exp(log[i]) if i else 0.0)
    return mean, np.sqrt(var)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [5, 20])
def test_ancestral_moments_at_few_steps_match_the_closed_form(steps, variance):
    run = jax.jit(lambda x, k: samplers.ancestral(perfect, CHAIN, x, k, timesteps=steps, variance=variance))
    x = np.asarray(run(*start(2048)))
    mean, std = propagate(steps, variance)
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(x.size)
    assert abs(x.std() - std) < 4 * std / np.sqrt(2 * x.size)


def test_ddim_converges_to_the_flow_at_first_order():
    x, keys = start(4)
    # The flow of a Gaussian maps x_T affinely: mean to mean, standard deviation to standard deviation.
    a = CHAIN.alpha_bar[-1]
    exact = MEAN + STD * (x - np.sqrt(a) * MEAN) / np.sqrt(a * STD**2 + 1 - a)
    errors = [float(jnp.max(jnp.abs(SAMPLERS["ddim"](x, keys, timesteps=s) - exact))) for s in (25, 50, 100)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 0.8), (errors, orders)
    assert np.all(orders < 2.2), (errors, orders)


def test_eta_1_is_the_ancestral_sampler_with_the_small_variance():
    x, keys = start(3)
    one = SAMPLERS["ddim-eta1"](x, keys, timesteps=50)
    np.testing.assert_allclose(one, SAMPLERS["ancestral-small"](x, keys, timesteps=50), atol=2e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_image_i_depends_on_its_own_key_alone(name):
    x, keys = start(6)
    run = jax.jit(lambda x, k: SAMPLERS[name](x, k, timesteps=10))
    np.testing.assert_allclose(run(x, keys)[2:4], run(x[2:4], keys[2:4]), atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_traced_once_and_its_trace_is_opt_in(name):
    run = jax.jit(chex.assert_max_traces(lambda x, k: SAMPLERS[name](x, k, timesteps=7), n=1))
    chex.clear_trace_counter()
    x = run(*start(2))
    run(*start(2, seed=1))
    y, xs = SAMPLERS[name](*start(2), timesteps=7, trace=lambda x, x0: x)
    assert xs.shape == (7, 2, *SHAPE)
    np.testing.assert_allclose(xs[-1], y)
    np.testing.assert_allclose(x, y, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_memory_does_not_grow_with_the_steps(name):
    x, keys = start(2)
    sizes = []
    for steps in (10, 1000):
        program = jax.jit(lambda x, k, steps=steps: SAMPLERS[name](x, k, timesteps=steps)).lower(x, keys).compile()
        sizes.append(program.memory_analysis().temp_size_in_bytes)
    assert sizes[1] <= sizes[0] + 64 * 1000  # the tables of the chain alone


def test_weights_in_a_closure_are_not_baked_into_an_eager_call():
    weights = jnp.ones((64, 64, 9))

    def predict(x, t):
        return Prediction(x * jnp.mean(weights))

    jaxpr = jax.make_jaxpr(lambda x, k: samplers.ddim(predict, CHAIN, x, k, timesteps=3))(*start(1))
    assert any(const is weights for const in jaxpr.consts)


@pytest.mark.parametrize("steps", [0, 1001, -1])
def test_step_counts_outside_the_chain_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps={steps}: must be from 1 to the schedule's 1000"):
        samplers.ddim(perfect, CHAIN, *start(1), timesteps=steps)


@pytest.mark.parametrize("steps", [[], [3, 2], [5, 1000]])
def test_subsets_that_are_no_subset_are_refused(steps):
    with pytest.raises(ValueError, match="timesteps="):
        samplers.ddim(perfect, CHAIN, *start(1), timesteps=steps)


def test_learned_variance_needs_a_network_that_learns_it():
    with pytest.raises(ValueError, match="variance=learned_range: the network has no variance output"):
        samplers.ancestral(perfect, CHAIN, *start(1), timesteps=5, variance="learned_range")


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_three_predictions_are_one_model(prediction):
    """A network that puts out exactly its target gives back the clean image, whatever the target is."""
    x0, z = np.random.default_rng(0).normal(size=(2, 5, 4, 4, 1)).astype(np.float32)
    t = jnp.array([0, 10, 500, 900, 999])
    xt = diffusion.q_sample(CHAIN, x0, t, z)
    predict = diffusion.predictor(lambda x, t: diffusion.target(CHAIN, x0, t, z, prediction), CHAIN, prediction)
    np.testing.assert_allclose(predict(xt, t).x0, x0, atol=2e-3)
    terms = diffusion.simple_terms(
        lambda x, t: diffusion.target(CHAIN, x0, t, z, prediction) + 0.5, CHAIN, x0, t, z, prediction
    )
    np.testing.assert_allclose(terms, 0.25, rtol=1e-4)


@pytest.mark.parametrize("many", [False, True])
def test_guidance_makes_both_calls_at_once_or_on_a_cpu_with_many_images_in_turn(many):
    seen, images = [], guidance.MANY * jax.device_count() if many else 3

    def predict(x, t, label):
        seen.append(len(x))
        return Prediction(x * label[:, None, None, None] + t[:, None, None, None])

    random = np.random.default_rng(0)
    x, t = jnp.asarray(random.normal(size=(images, 2, 2, 1)), jnp.float32), jnp.arange(images)
    label, null = jnp.asarray(random.integers(0, 5, images)), jnp.full(images, 5)
    found = guidance.cfg_batched(predict, label, null, 3.0)(x, t)
    assert seen == [images if many else 2 * images]
    parts = guidance.cfg(lambda x, t: predict(x, t, label), lambda x, t: predict(x, t, null), 3.0)(x, t)
    np.testing.assert_allclose(found.x0, parts.x0, rtol=1e-5, atol=1e-5)
    assert found.mean is None


def test_the_bridge_to_sigma_agrees_at_the_chain_own_levels():
    t = jnp.array([0, 200, 999])
    x = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    sigma = jnp.asarray(CHAIN.sigma, jnp.float32)[t]
    scaled = x / at(np.sqrt(CHAIN.alpha_bar), t, 4)
    np.testing.assert_allclose(schedules.denoiser(perfect, CHAIN)(scaled, sigma), perfect(x, t).x0, rtol=1e-4)


def test_any_denoiser_runs_along_a_chain():
    """The bridge back: at a chain's own levels a predictor of the denoiser of a predictor is that predictor."""
    t = jnp.array([0, 200, 999])
    x = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    back = schedules.predictor(schedules.denoiser(perfect, CHAIN), CHAIN)
    np.testing.assert_allclose(back(x, t).x0, perfect(x, t).x0, rtol=1e-4)
    levels_of = np.array([0.1, 1.0, 30.0])
    chain = schedules.of_levels(levels_of)
    np.testing.assert_allclose(chain.sigma, levels_of)
    np.testing.assert_allclose(chain.alpha_bar, 1 / (1 + levels_of**2))


@pytest.mark.parametrize("make,match", [
    (lambda: schedules.of_levels(np.array([1.0, 0.5])), "sigma=.*must be levels above 0 that increase"),
    (lambda: schedules.of_levels(np.array([0.0, 0.5])), "sigma=.*must be levels above 0"),
    (lambda: schedules.linear(20), "steps=20: the linear schedule needs more than 20"),
    (lambda: schedules.cosine(1), "steps=1: a schedule needs at least 2"),
    (lambda: schedules.from_betas(np.array([0.1, 0.0])), "must be at least 2 numbers in"),
    (lambda: schedules.strided(10, 7), "steps=7: no whole stride"),
])  # fmt: skip
def test_impossible_schedules_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("name", ["linear", "cosine", "scaled_linear", "sigmoid"])
@pytest.mark.parametrize("steps", [40, 100, 250])
def test_a_short_chain_ends_in_noise_too(name, steps):
    assert schedules.named(name, steps).alpha_bar[-1] < 0.01


def test_a_single_step_of_ddim_begins_at_the_noisy_end():
    x, keys = start(256)
    images = samplers.ddim(perfect, CHAIN, x, keys, timesteps=1)
    np.testing.assert_allclose(images, MEAN, atol=0.02)  # the best guess from noise alone


def test_the_walk_of_repaint():
    path = levels(12, 4, 3)
    assert path[0] == 12
    assert path[-1] == 0
    assert set(np.abs(np.diff(path))) == {1}
    # As in the authors' code: up again twice from the levels 1 and 5 (before their steps 0 and 4), but not from 9.
    assert [list(path).count(n) for n in (0, 1, 3, 5, 7, 9, 11)] == [1, 3, 5, 5, 5, 3, 1]
    with pytest.raises(ValueError, match="jump=0"):
        levels(12, 0)


@pytest.mark.slow
def test_repaint_comes_closer_to_the_conditional_law_than_replacement():
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]]) * 0.5  # two pixels; the first is known to be 1

    def predict(x, t):
        a = jnp.asarray(CHAIN.alpha_bar, jnp.float32)[t[0]]
        gain = jnp.sqrt(a) * jnp.linalg.solve(a * covariance + (1 - a) * jnp.eye(2), covariance).T
        return Prediction(jnp.einsum("ij,bj->bi", gain, x[:, 0, :, 0])[:, None, :, None])

    known, mask = jnp.ones((1, 1, 2, 1)), jnp.array([True, False]).reshape(1, 1, 2, 1)
    keys = samplers.image_keys(0, 1000)
    x = samplers.noise(keys, (1, 2, 1))
    found = []
    for resamplings in (1, 10):
        run = jax.jit(lambda x, k, r=resamplings: samplers.repaint(
            predict, CHAIN, x, known, mask, k, timesteps=100, jump=2, resamplings=r
        ))  # fmt: skip
        images = np.asarray(run(x, keys))[:, 0, :, 0]
        assert (images[:, 0] == 1).all()
        found.append(images[:, 1].mean())
    assert found[0] < found[1] - 0.15
    assert abs(found[1] - 0.9) < 0.05  # E[second | first = 1]


def test_a_plain_function_of_the_clean_image_is_a_predictor():
    """A function handed to a sampler may give the image alone."""
    chain, x, keys = schedules.linear(100), jnp.ones((2, 4, 4, 1)), samplers.image_keys(0, 2)
    for sampler in (samplers.ddim, samplers.ancestral):
        plain = sampler(lambda x, t: 0.5 * x, chain, x, keys, timesteps=5)
        named = sampler(lambda x, t: Prediction(0.5 * x), chain, x, keys, timesteps=5)
        np.testing.assert_array_equal(plain, named)
