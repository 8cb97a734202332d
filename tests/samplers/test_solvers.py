"""Samplers of the continuous coordinates on Gaussians, whose answers are known: order of convergence, moments, guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules, sigmas
from jgen.nn.resample import downsample, upsample
from jgen.objectives import diffusion, edm, importance
from jgen.samplers import adaptive, guidance
from jgen.types import Prediction

MEAN, DEVIATION = 0.3, 0.6


def denoise(x, sigma):
    """Exact where images are N(MEAN, DEVIATION^2)."""
    s2 = jnp.square(sigma).reshape(-1, *[1] * (x.ndim - 1))
    return (DEVIATION**2 * x + s2 * MEAN) / (DEVIATION**2 + s2)


def exact(x, start, end):
    """Where the probability-flow ODE takes x."""
    return MEAN + (x - MEAN) * np.sqrt((DEVIATION**2 + end**2) / (DEVIATION**2 + start**2))


ODE = {
    "euler": (samplers.euler, {}, 1),
    "heun": (samplers.heun, {}, 2),
    "ralston": (samplers.heun, {"alpha": 2 / 3}, 2),
    "dpm_2": (samplers.dpm_2, {}, 2),
    "lms2": (samplers.lms, {"order": 2}, 2),
    "lms3": (samplers.lms, {"order": 3}, 3),
    "dpm1": (samplers.dpm_solver, {"order": 1}, 1),
    "dpm++1s": (samplers.dpm_solver, {"order": 1, "method": "singlestep"}, 1),
    "dpm++2m": (samplers.dpm_solver, {"order": 2}, 2),
    "dpm++3m": (samplers.dpm_solver, {"order": 3}, 2),  # as in the authors' code
    "dpm3m": (samplers.dpm_solver, {"order": 3, "parameterization": "noise"}, 2),
    "dpm2m": (samplers.dpm_solver, {"order": 2, "parameterization": "noise"}, 2),
    "dpm++2s": (samplers.dpm_solver, {"order": 2, "method": "singlestep"}, 2),
    "dpm++2s taylor": (samplers.dpm_solver, {"order": 2, "method": "singlestep", "form": "taylor"}, 2),
    "unipc2": (samplers.unipc, {"order": 2}, 2),
    "unipc3": (samplers.unipc, {"order": 3}, 3),
    "generalized": (samplers.ablation, {}, 2),
    "sde without noise": (lambda d, x, s: samplers.dpmpp_multistep_sde(d, x, s, None, eta=0.0), {}, 2),
    "sde3 without noise": (lambda d, x, s: samplers.dpmpp_multistep_sde(d, x, s, None, eta=0.0, order=3), {}, 2),
}


@pytest.mark.parametrize("name", ODE)
def test_order_of_convergence(name):
    sampler, options, order = ODE[name]
    with jax.enable_x64(True):
        x = jnp.array([-9.0, 2.0, 7.0])[:, None, None, None]
        errors = [
            float(jnp.max(jnp.abs(sampler(denoise, x, np.geomspace(10, 0.2, n + 1), **options) - exact(x, 10, 0.2))))
            for n in (48, 96)
        ]
    assert errors[1] < 0.02
    assert np.log2(errors[0] / errors[1]) > order - 0.25, errors


@pytest.mark.parametrize("spacing", ["time", "quadratic", "log_snr"])
def test_third_order_singlestep_on_every_grid(spacing):
    curve = sigmas.vp_linear(end=1e-2)
    with jax.enable_x64(True):
        x, errors = jnp.array([-60.0, 90.0])[:, None, None, None], []
        for n in (60, 120):
            grid = curve.sigma(curve.times(n, spacing))
            orders = [3] * (n // 3)
            found = samplers.dpm_solver(denoise, x, grid, method="singlestep", orders=orders)
            errors.append(float(jnp.max(jnp.abs(found - exact(x, grid[0], grid[-1])))))
    assert np.log2(errors[0] / errors[1]) > 2.6


SDE = {
    "euler_ancestral": samplers.euler_ancestral,
    "dpm_2_ancestral": samplers.dpm_2_ancestral,
    "dpmpp_2s_ancestral": samplers.dpmpp_2s_ancestral,
    "dpmpp_sde": samplers.dpmpp_sde,
    "dpmpp_2m_sde": samplers.dpmpp_multistep_sde,
    "dpmpp_3m_sde": lambda *a: samplers.dpmpp_multistep_sde(*a, order=3),
    "heun with churn": lambda *a: samplers.heun(*a, churn=samplers.Churn(20.0)),
}


@pytest.mark.parametrize("name", SDE)
def test_moments_of_stochastic_samplers(name):
    grid = np.append(np.geomspace(20, 0.05, 200), 0.0)
    keys = samplers.image_keys(0, 64)
    x = grid[0] * samplers.noise(keys, (16, 16, 1))
    images = np.asarray(jax.jit(lambda x, keys: SDE[name](denoise, x, grid, keys))(x, keys))
    count = images.size
    assert abs(images.mean() - MEAN) < 5 * DEVIATION / np.sqrt(count)
    assert abs(images.std() - DEVIATION) < 0.02


def test_image_does_not_depend_on_its_batch_and_the_network_is_traced_once():
    calls, grid, keys = [], sigmas.karras(6, 0.01, 10), samplers.image_keys(3, 5)

    def counted(x, sigma):
        calls.append(sigma)
        return denoise(x, sigma)

    x = grid[0] * samplers.noise(keys, (4, 4, 1))
    churn = samplers.Churn(3.0)
    many = samplers.heun(counted, x, grid, keys, churn=churn)
    assert len(calls) == 1  # eleven evaluations, one network in the program
    few = samplers.heun(denoise, x[2:4], grid, keys[2:4], churn=churn)
    np.testing.assert_allclose(many[2:4], few, atol=1e-5)


@pytest.mark.parametrize("tolerance, error", [(1e-3, 2e-3), (1e-7, 2e-6)])
def test_rk45_is_as_exact_as_asked(tolerance, error):
    with jax.enable_x64(True):
        x = jnp.array([-90.0, 20.0, 70.0])[:, None, None, None] * jnp.array([1.0, 0.5]).reshape(1, 1, 1, 2)
        found = samplers.rk45(denoise, x, 0.01, 80.0, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found, exact(x, 80.0, 0.01), atol=error)
        alone = samplers.rk45(denoise, x[1:2], 0.01, 80.0, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(alone, found[1:2], rtol=1e-12)
    with pytest.raises(ValueError, match="rtol=0, atol=0.1: must be above 0"):
        samplers.rk45(denoise, x, 0.01, 80.0, rtol=0, atol=0.1)


def test_rk45_s_pair_has_orders_5_and_4():
    """The conditions of order, as far as stages weigh powers of their times."""
    nodes = np.array([0.0, *(sum(row) for row in adaptive.DORMAND_PRINCE)])
    fifth, fourth = (np.array([*row, *[0.0] * (7 - len(row))]) for row in (adaptive.DORMAND_PRINCE[-1], adaptive.FOURTH))
    for k in range(5):
        assert fifth @ nodes**k == pytest.approx(1 / (k + 1))
        assert (fourth @ nodes**k == pytest.approx(1 / (k + 1))) == (k < 4)


def test_adaptive_steps_are_an_image_s_own():
    curve = sigmas.vp_linear()
    with jax.enable_x64(True):
        x = curve.sigma(1.0) * np.array([-2.0, 0.1, 3.0])[:, None, None, None]
        many = samplers.dpm_solver_adaptive(denoise, jnp.asarray(x), curve, rtol=1e-4, atol=1e-4)
        alone = samplers.dpm_solver_adaptive(denoise, jnp.asarray(x[1:2]), curve, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(many[1:2], alone, atol=1e-9)
        np.testing.assert_allclose(many, exact(x, curve.sigma(1.0), curve.sigma(curve.end)), atol=1e-3)


def test_the_control_of_adaptive_steps():
    """The factor of a length is that of the errors, each to its power, bent to lie within 1 - pi/4 and 1 + pi/2."""
    one, past = jnp.array([4.0, 1.0]), jnp.array([[2.0, 1.0], [8.0, 1.0]])
    np.testing.assert_allclose(adaptive.CONTROL.factor(one, past, 2.0), 1 + np.arctan([1.0, 0.0]), rtol=1e-6)
    mixed = adaptive.Control(0.5, 1.0, 0.5).factor(one, past, 1.0)
    np.testing.assert_allclose(mixed, 1 + np.arctan([4.0**2 * 2.0**-1.5 * 8.0**0.5 - 1, 0.0]), rtol=1e-6)
    x = jnp.array([-2.0, 0.1, 3.0])[:, None, None, None] * 10
    how = dict(rtol=1e-3, atol=1e-3, control=adaptive.Control(0.2, 0.8, 0.05, 0.9))
    np.testing.assert_allclose(samplers.dpm_adaptive(denoise, x, 0.1, 10.0, **how), exact(x, 10.0, 0.1), atol=5e-3)


@pytest.mark.parametrize("form", ["midpoint", "taylor"])
@pytest.mark.parametrize("parameterization", ["data", "noise"])
def test_a_long_adaptive_step_is_the_fixed_one(parameterization, form):
    """With every step accepted, the first one goes all the way."""
    curve = sigmas.vp_linear()
    with jax.enable_x64(True):
        start, end = curve.sigma(1.0), curve.sigma(curve.end)
        x = jnp.asarray(start * np.array([-2.0, 0.1, 3.0])[:, None, None, None])
        for order in (2, 3):
            how = dict(parameterization=parameterization, form=form)
            long = dict(rtol=1e9, atol=1e9, h_init=1e9)
            found = samplers.dpm_solver_adaptive(denoise, x, curve, order=order, **how, **long)
            grid = np.geomspace(start, end, order + 1)
            fixed = samplers.dpm_solver(denoise, x, grid, order=order, method="singlestep", orders=[order], **how)
            np.testing.assert_allclose(found, fixed, rtol=1e-6)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("eta,factor", [(1.0, 1.0), (0.6, 1.0), (0.8, 1.2)])
def test_moments_of_adaptive_steps_with_noise(order, eta, factor):
    """The variance V at level u^(1/2) of short steps obeys dV/du = (1 + eta^2) V / (d^2 + u) - (factor eta)^2."""
    start, end, count = 10.0, 0.05, 20_000

    def level(sigma):
        return DEVIATION**2 + sigma**2

    with jax.enable_x64(True):
        x = MEAN + jnp.sqrt(level(start)) * samplers.common.noise(samplers.image_keys(1, count), (1, 1, 1))
        how = dict(
            order=order, parameterization="data", rtol=3e-3, atol=3e-3, together=True, keys=samplers.image_keys(0, count)
        )
        found = jax.jit(lambda x: samplers.dpm_adaptive(denoise, x, end, start, eta=eta, s_noise=factor, **how))(x)
        found = np.asarray(found)
    shrunk = (level(end) / level(start)) ** (1 + eta**2)
    variance = factor**2 * level(end) + (1 - factor**2) * level(start) * shrunk
    assert found.mean() == pytest.approx(MEAN, abs=5 * (variance / count) ** 0.5 + 1e-3)
    assert found.var() == pytest.approx(variance, rel=0.04)


def test_adaptive_noise_is_an_image_s_own_and_needs_keys():
    x, keys = jnp.array([-40.0, 3.0, 60.0])[:, None, None, None], samplers.image_keys(0, 3)
    many = samplers.dpm_adaptive(denoise, x, 0.02, 50.0, eta=1.0, keys=keys)
    alone = samplers.dpm_adaptive(denoise, x[1:2], 0.02, 50.0, eta=1.0, keys=keys[1:2])
    np.testing.assert_allclose(many[1:2], alone, rtol=1e-4)
    assert not np.allclose(many, samplers.dpm_adaptive(denoise, x, 0.02, 50.0, eta=1.0, keys=samplers.image_keys(1, 3)))
    without = samplers.dpm_adaptive(denoise, x, 0.02, 50.0)
    np.testing.assert_array_equal(samplers.dpm_adaptive(denoise, x, 0.02, 50.0, eta=0.0, s_noise=3.0, keys=keys), without)
    with pytest.raises(ValueError, match="eta=0.5, keys=None: this sampler draws noise"):
        samplers.dpm_adaptive(denoise, x, 0.02, 50.0, eta=0.5)


@pytest.mark.parametrize("sampler", [samplers.rk45, samplers.dpm_adaptive])
def test_an_image_that_is_lost_holds_no_other_up(sampler):
    """NaN ends it at once, and steps that go astray get shorter."""
    calls = []

    def fails(x, sigma):
        jax.debug.callback(lambda: calls.append(1))
        astray = jnp.where(jnp.abs(x - 50.0) > 30, jnp.nan, denoise(x, sigma))
        return jnp.where(jnp.isnan(x), jnp.nan, jnp.where(jnp.arange(3)[:, None, None, None] == 2, astray, denoise(x, sigma)))

    x = jnp.array([20.0, jnp.nan, 50.0])[:, None, None, None] * jnp.ones((1, 2, 2, 1))
    found = np.asarray(sampler(fails, x, 0.01, 50.0))
    jax.effects_barrier()
    assert np.isfinite(found).all((1, 2, 3)).tolist() == [True, False, False]
    np.testing.assert_allclose(found[0], exact(20.0, 50.0, 0.01), atol=0.02)
    assert len(calls) < 400


def test_adaptive_steps_that_do_not_arrive_are_no_image(monkeypatch):
    monkeypatch.setattr(adaptive, "MOST", 3)
    images = samplers.dpm_adaptive(denoise, jnp.full((1, 2, 2, 1), 50.0), 0.01, 50.0)
    assert np.isnan(images).all()


def test_bad_solver_input_gets_one_line():
    x = jnp.zeros((1, 2, 2, 1))
    for grid in ([1.0, 2.0, 0.0], [1.0], [2.0, 0.0, -1.0], [1.0, 1.0]):
        with pytest.raises(ValueError, match="sigmas"):
            samplers.euler(denoise, x, grid)
    with pytest.raises(ValueError, match="steps=0: a sampler needs at least 1"):
        sigmas.karras(0)
    with pytest.raises(ValueError, match="order=4: must be 1, 2 or 3"):
        samplers.dpm_solver(denoise, x, [2.0, 1.0], order=4)
    with pytest.raises(ValueError, match="keys=None: this sampler draws noise"):
        samplers.euler_ancestral(denoise, x, [2.0, 1.0], None)
    with pytest.raises(ValueError, match="must be 1 to 3 and add up to the 2 intervals"):
        samplers.dpm_solver(denoise, x, [3.0, 2.0, 1.0], method="singlestep", orders=[3])
    with pytest.raises(ValueError, match="plms ends above 0"):
        samplers.plms(denoise, x, [1.0, 0.0])
    with pytest.raises(ValueError, match="low=2.0 must be below high=1.0"):
        guidance.interval(denoise, denoise, 2.0, 1.0)
    with pytest.raises(ValueError, match="xprev: has no form in continuous"):
        edm.chain(schedules.linear(), "xprev")


CHAIN = schedules.linear(1000)


def predict(x, t):
    """`denoise` in the discrete coordinates."""
    a = schedules.at(CHAIN.alpha_bar, t, x.ndim)
    return Prediction(denoise(x / jnp.sqrt(a), jnp.asarray(CHAIN.sigma, jnp.float32)[t]))


def test_ddim_encodes_an_image_and_decodes_it_back():
    x = jnp.linspace(-0.9, 0.9, 16).reshape(1, 4, 4, 1)
    for steps, most in ((20, 0.3), (100, 0.06), (1000, 0.01)):
        latent = samplers.ddim_invert(predict, CHAIN, x, timesteps=steps)
        back = samplers.ddim(predict, CHAIN, latent, samplers.image_keys(0, 1), timesteps=steps)
        assert jnp.max(jnp.abs(back - x)) < most


def test_a_discrete_model_runs_under_continuous_samplers():
    form = edm.chain(CHAIN)

    def network(x, t):  # the noise in x_t, at the fractional time t
        sigma = jnp.exp(jnp.interp(t, jnp.arange(1000.0), jnp.log(jnp.asarray(CHAIN.sigma, jnp.float32))))[:, None, None, None]
        hat = x * jnp.sqrt(1 + sigma**2)
        return (hat - denoise(hat, sigma[:, 0, 0, 0])) / sigma

    grid = sigmas.exponential(20, float(CHAIN.sigma[0]), float(CHAIN.sigma[-1]))
    x = grid[0] * jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    found = samplers.dpm_solver(edm.denoiser(network, form), x, grid)
    np.testing.assert_allclose(found, exact(x, grid[0], 0), atol=2e-2)
    np.testing.assert_allclose(edm.denoiser(network, form)(x, jnp.full(2, 3.0)), denoise(x, jnp.full(2, 3.0)), atol=1e-3)


def test_flow_matching_is_a_straight_path():
    """For one image the velocity is constant along the path, and a single Euler step takes noise to the image."""
    image = jnp.array([0.2, -0.7]).reshape(2, 1, 1, 1)

    def velocity(xt, t):  # n - x_0 = (x_t - x_0) / t
        return (xt - image) / t[:, None, None, None]

    form, sigma = edm.flow(), 4.0
    x = image + sigma * jnp.array([1.5, -0.5]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(samplers.euler(edm.denoiser(velocity, form), x, [sigma, 0.0]), image, atol=1e-5)
    draws = edm.flow_levels(logit_normal=False)
    np.testing.assert_allclose(form.noise(draws.sigma(jnp.array([0.25, 0.5, 0.75]))), [0.25, 0.5, 0.75], rtol=1e-5)


def test_guidance_of_gaussians_is_what_the_formulas_say():
    """Two unit-variance classes at -1 and 1: guidance by the exact classifier is the class's own denoiser."""

    def of(mean):
        return lambda x, sigma: (
            (x + jnp.square(sigma)[:, None, None, None] * mean) / (1 + jnp.square(sigma))[:, None, None, None]
        )

    def log_density(x, sigma, mean):
        return -0.5 * jnp.square(x[:, 0, 0, 0] - mean) / (1 + jnp.square(sigma))

    def log_probability(x, sigma):
        a, b = log_density(x, sigma, 1.0), log_density(x, sigma, -1.0)
        return a - jnp.logaddexp(a, b)

    def mixture(x, sigma):
        share = jnp.exp(log_probability(x, sigma))[:, None, None, None]
        return share * of(1.0)(x, sigma) + (1 - share) * of(-1.0)(x, sigma)

    x, sigma = jnp.array([-2.0, 0.3, 4.0]).reshape(3, 1, 1, 1), jnp.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(guidance.classifier_denoiser(mixture, log_probability)(x, sigma), of(1.0)(x, sigma), atol=1e-5)
    free = guidance.cfg(of(1.0), mixture, 3.0)(x, sigma)
    np.testing.assert_allclose(free, mixture(x, sigma) + 3 * (of(1.0)(x, sigma) - mixture(x, sigma)), atol=1e-5)
    inside = guidance.interval(of(1.0), of(-1.0), 0.4, 2.0)
    for level, mean in ((1.0, 1.0), (3.0, -1.0)):
        np.testing.assert_allclose(inside(x, jnp.full(3, level)), of(mean)(x, jnp.full(3, level)), atol=1e-6)
    each = guidance.interval(of(1.0), of(-1.0), 0.4, 2.0, by_image=True)(x, sigma)  # the last is beyond 2
    np.testing.assert_allclose(each[:2], of(1.0)(x, sigma)[:2], atol=1e-6)
    np.testing.assert_allclose(each[2:], of(-1.0)(x, sigma)[2:], atol=1e-6)


def test_inpainting_keeps_what_is_known_and_sdedit_stays_near():
    known = jnp.full((1, 4, 4, 1), 0.8)
    mask = jnp.zeros((1, 4, 4, 1), bool).at[:, :2].set(True)
    grid, keys = sigmas.karras(12, 0.01, 10), samplers.image_keys(0, 1)
    x = grid[0] * samplers.noise(keys, (4, 4, 1))
    found = samplers.euler(guidance.replace_known(denoise, known, mask), x, grid)
    np.testing.assert_allclose(found[:, :2], 0.8, atol=1e-4)
    image = jnp.linspace(-1, 1, 16).reshape(1, 4, 4, 1)
    near = samplers.sdedit(samplers.euler, denoise, image, grid, keys, sigma=0.1)
    far = samplers.sdedit(samplers.euler, denoise, image, grid, keys, sigma=5.0)
    assert float(jnp.mean(jnp.abs(near - image))) < 0.15 < float(jnp.mean(jnp.abs(far - image)))
    with pytest.raises(ValueError, match=r"sigma=99.0: must be from .* to 10"):
        samplers.sdedit(samplers.euler, denoise, image, grid, keys, sigma=99.0)


def test_known_pixels_heed_no_guide_and_no_predicted_mean():
    known, mask = jnp.full((1, 2, 2, 1), 0.8), jnp.array([True, False, False, True]).reshape(1, 2, 2, 1)
    x, t = jnp.ones((1, 2, 2, 1)), jnp.array([900])
    predicted = Prediction(0.1 * x, mean=5 * x, guide=7 * x)
    found = guidance.replace_known(lambda x, t: predicted, known, mask)(x, t)
    assert found.mean is None
    np.testing.assert_allclose(found.x0, jnp.where(mask, 0.8, 0.1))
    np.testing.assert_allclose(found.guide, jnp.where(mask, 0.0, 7.0))


def test_losses_drawn_by_importance_keep_their_mean():
    history = importance.new_history(5, kept=2)
    size = jnp.array([1.0, 2.0, 3.0, 4.0, 50.0])
    for _ in range(2):
        history = importance.update(history, jnp.arange(5), size)
    t, weight = importance.draw(history, jax.random.key(0), (200_000,))
    np.testing.assert_allclose(jnp.mean(weight * size[t]), jnp.mean(size), rtol=1e-3)  # one loss a step: no variance left
    assert float(jnp.mean(t == 4)) > 0.8


def test_min_snr_weights():
    weights = diffusion.min_snr(CHAIN, "eps", 5.0)
    snr = CHAIN.alpha_bar / (1 - CHAIN.alpha_bar)
    np.testing.assert_allclose(weights[snr < 5], 1.0)
    np.testing.assert_allclose((weights * snr)[snr > 5], 5.0)
    with pytest.raises(ValueError, match="prediction=xprev"):
        diffusion.min_snr(CHAIN, "xprev")


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 2, 5, 4)])
def test_resampling_up_is_four_times_the_transpose_of_down(taps):
    x, y = (jax.random.normal(jax.random.key(i), (2, 2 * s, 2 * s, 3)) for i, s in enumerate((4, 2)))
    left, right = jnp.sum(downsample(x, taps) * y), jnp.sum(x * upsample(y, taps)) / 4
    np.testing.assert_allclose(left, right, rtol=1e-4)
    if taps[0] == taps[-1]:
        np.testing.assert_allclose(downsample(jnp.ones((1, 8, 8, 1)), taps)[:, 1:-1, 1:-1], 1.0, rtol=1e-6)
