"""Schedules, posteriors, losses and the bound against guided-diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules
from jgen.objectives import diffusion, importance, vlb
from jgen.samplers.ancestral import reverse_log_variance, reverse_mean
from jgen.samplers.common import on_clean, shorten
from tests.oracle import Oracle, analytic, files

pytestmark = pytest.mark.oracle

TABLES = {
    "betas": lambda s: s.betas,
    "alphas_cumprod": lambda s: s.alpha_bar,
    "alphas_cumprod_prev": lambda s: s.alpha_bar_prev,
    "alphas_cumprod_next": lambda s: s.alpha_bar_next,
    "sqrt_alphas_cumprod": lambda s: np.sqrt(s.alpha_bar),
    "sqrt_one_minus_alphas_cumprod": lambda s: np.sqrt(1 - s.alpha_bar),
    "log_one_minus_alphas_cumprod": lambda s: np.log(1 - s.alpha_bar),
    "sqrt_recip_alphas_cumprod": lambda s: np.sqrt(1 / s.alpha_bar),
    "sqrt_recipm1_alphas_cumprod": lambda s: s.sigma,
    "posterior_variance": lambda s: s.posterior_variance,
    "posterior_log_variance_clipped": lambda s: s.posterior_log_variance,
    "posterior_mean_coef1": lambda s: s.posterior_mean_x0,
    "posterior_mean_coef2": lambda s: s.posterior_mean_xt,
    "fixed_large_log_variance": lambda s: s.large_log_variance,
    "log_betas": lambda s: np.log(s.betas),
}


def make_schedule(name, text):
    steps = int(text.split("T=")[1].split(",")[0])
    if name.startswith(("linear", "cosine")):
        return {"l": schedules.linear, "c": schedules.cosine}[name[0]](steps)
    if name.startswith("sigmoid"):
        return schedules.sigmoid(steps)
    ends = {"quad": (1e-4, 0.02), "scaled_linear_ldm": (0.0015, 0.0195), "scaled_linear": (0.00085, 0.012)}
    return schedules.scaled_linear(steps, *next(v for k, v in ends.items() if name.startswith(k)))


@pytest.mark.parametrize("path", files("diffusion", "schedules"))
def test_schedule_tables(path):
    oracle = Oracle(path)
    for name, text in oracle.config.items():
        schedule, index = make_schedule(name, text), oracle[f"in/{name}/index"]
        for table, values in TABLES.items():
            oracle.check(f"out/{name}/{table}", values(schedule)[index])
        oracle.check(f"out/{name}/sum_alphas_cumprod", schedule.alpha_bar.sum(keepdims=True))


@pytest.mark.parametrize("path", files("diffusion", "respacing"))
def test_shortened_chains(path):
    oracle = Oracle(path)
    for name, run in oracle.config.items():
        if "spec" not in run:
            continue  # latent diffusion's own subsets, which belong to its sampler
        full = {"linear": schedules.linear, "cosine": schedules.cosine}[run["schedule"]](run["T"])
        spec = run["spec"]
        if isinstance(spec, str) and spec.startswith("ddim"):
            steps = schedules.strided(run["T"], int(spec[4:]))
        else:
            counts = [int(n) for n in spec.split(",")] if isinstance(spec, str) else spec
            steps = schedules.sections(run["T"], counts)
        assert steps.tolist() == oracle[f"out/{name}/timesteps"].tolist()
        chain = full.respace(steps)
        for table in ("betas", "alphas_cumprod", "posterior_log_variance_clipped", "posterior_mean_coef1"):
            oracle.check(f"out/{name}/{table}", TABLES[table](chain))


MEANS = ("eps", "x0", "xprev")


@pytest.mark.parametrize("path", files("diffusion", "gaussian_moments"))
def test_forward_process_and_one_step_back(path):
    oracle = Oracle(path)
    chain, t = schedules.linear(1000), jnp.asarray(oracle["in/t"])
    x0, noise, xt = (jnp.asarray(oracle.nhwc(f"in/{k}")) for k in ("x_start", "noise", "x_t"))
    oracle.check("out/q_sample", diffusion.q_sample(chain, x0, t, noise), image=True)
    alpha_bar = chain.alpha_bar[np.asarray(t)][:, None, None, None]
    still = diffusion.q_sample(chain, x0, t, jnp.zeros_like(noise))
    oracle.check("out/q_mean_variance/mean", still, image=True)
    spread = np.asarray(diffusion.q_sample(chain, jnp.zeros_like(x0), t, jnp.ones_like(noise)), float) ** 2
    oracle.check("out/q_mean_variance/variance", spread, image=True)
    oracle.check("out/q_mean_variance/log_variance", np.broadcast_to(np.log1p(-alpha_bar), x0.shape), image=True)
    mean, log_variance = diffusion.q_posterior(chain, x0, xt, t)
    clipped = (np.asarray(t) == 0)[:, None, None, None]  # the first step's has no logarithm
    variance = np.where(clipped, 0.0, np.broadcast_to(np.exp(log_variance), x0.shape))
    oracle.check("out/q_posterior/variance", variance, image=True)
    oracle.check("out/q_posterior/mean", mean, image=True)
    oracle.check("out/q_posterior/log_variance_clipped", jnp.broadcast_to(log_variance, x0.shape), image=True)
    oracle.check("out/predict_xstart_from_eps", diffusion.x0_from_eps(chain, xt, t, noise), image=True)
    found = diffusion.x0_from_xprev(chain, xt, t, noise)
    oracle.check("out/predict_xstart_from_xprev", found, image=True)
    oracle.check("out/prior_bpd", vlb.prior_bits(chain, x0))
    oracle.check("out/predict_eps_from_xstart", diffusion.eps_from_x0(chain, xt, t, x0), image=True)
    kinds = {"fixed_small": "small", "fixed_large": "large", "learned": "learned", "learned_range": "learned_range"}
    for kind, variance in kinds.items():
        net = kind if kind.startswith("learned") else "single"
        network, _ = analytic(oracle, net)
        for mean_type in MEANS:
            for clip in (0, 1):
                predict = diffusion.predictor(network, chain, mean_type)
                predict = samplers.clip(predict) if clip else predict
                prediction = predict(xt, t)
                name = f"out/p_mean_variance/{mean_type}/{kind}/clip{clip}"
                oracle.check(f"{name}/pred_xstart", prediction.x0, image=True)
                oracle.check(f"{name}/mean", reverse_mean(chain, xt, prediction, t), image=True)
        variances = []
        for i, time in enumerate(oracle["in/t"]):
            v = None if prediction.v is None else prediction.v[i]
            found = jnp.broadcast_to(reverse_log_variance(chain, jnp.asarray(time), v, variance), x0.shape[1:])
            want = oracle.nhwc(f"out/p_mean_variance/{kind}/log_variance")[i]
            np.testing.assert_allclose(found, want, rtol=2e-4, atol=1e-5)
            variances.append(jnp.exp(found))
        found = jnp.where(clipped, 0.0, jnp.stack(variances)) if kind == "fixed_small" else jnp.stack(variances)
        oracle.check(f"out/p_mean_variance/{kind}/variance", found, image=True)
    moved = on_clean(diffusion.predictor(analytic(oracle, "single")[0], chain), lambda x0: 0.5 * x0 + 0.1)
    prediction = samplers.clip(moved)(xt, t)
    oracle.check("out/p_mean_variance/denoised_fn/pred_xstart", prediction.x0, image=True)
    oracle.check("out/p_mean_variance/denoised_fn/mean", reverse_mean(chain, xt, prediction, t), image=True)
    heard = []
    diffusion.predictor(lambda x, t: heard.append(t) or jnp.zeros_like(x), chain)(xt, jnp.asarray(chain.timesteps)[t])
    oracle.check("out/network_time", heard[0])


@pytest.fixture
def double():
    """In float64: the decoder's bins are too narrow for float32 where its variance is tiny."""
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("path", files("diffusion", "gaussian_losses"))
def test_losses_and_their_gradients(path, double):
    oracle = Oracle(path)
    chain, t = schedules.linear(1000), jnp.asarray(oracle["in/t"])
    x0, noise = (jnp.asarray(oracle.nhwc(f"in/{k}"), float) for k in ("x_start", "noise"))
    runs = sorted({n.split("/", 1)[1].rsplit("/", 1)[0] for n in oracle.names if n.startswith("out/") and n.endswith("/loss")})
    assert len(runs) >= 13
    for run in runs:
        mean, kind, loss = run.split("/")
        network, weights = analytic(oracle, kind if kind.startswith("learned") else "single")
        variance = kind.removeprefix("fixed_")

        def terms(weights, network=network, mean=mean, variance=variance, loss=loss):
            own = lambda x, t: network(x, t, *weights)  # noqa: E731
            if loss.endswith("mse"):
                weight = len(chain) / 1000 if loss == "rescaled_mse" else 1.0
                values, parts = vlb.hybrid_terms(own, chain, x0, t, noise, mean, variance, weight)
                parts = {"mse": parts["mse"]} | ({"vb": weight * parts["vb"]} if "vb" in parts else {})
                return jnp.mean(values), {"loss": values, **parts}
            xt = diffusion.q_sample(chain, x0, t, noise)
            values = vlb.vb_terms(diffusion.predictor(own, chain, mean), chain, x0, xt, t, variance)[0]
            values = values * (len(chain) if loss == "rescaled_kl" else 1)
            return jnp.mean(values), {"loss": values}

        grads, found = jax.grad(terms, has_aux=True)(weights)
        for name, value in found.items():
            oracle.check(f"out/{run}/{name}", value)
        for name, grad in zip("ABC", grads):
            oracle.check(f"out/grad/{run}/{name}", grad)
    network, _ = analytic(oracle, "learned_range")
    for clip in (0, 1):
        predict = diffusion.predictor(network, chain)
        predict = samplers.clip(predict) if clip else predict
        values, found = vlb.vb_terms(predict, chain, x0, diffusion.q_sample(chain, x0, t, noise), t)
        oracle.check(f"out/vb_terms_bpd/clip{clip}", values)
        oracle.check(f"out/vb_terms_bpd/pred_xstart_clip{clip}", found, image=True)
    mean, scale, log_variance = (
        jnp.asarray(oracle.nhwc(f"in/{k}"), float) for k in ("decoder_mean", "decoder_log_scale", "kl_logvar2")
    )
    oracle.check("out/discretized_gaussian_log_likelihood", vlb.discretized_gaussian(x0, mean, scale), image=True)
    oracle.check("out/normal_kl", vlb.normal_kl(mean, scale, noise, log_variance), image=True)
    oracle.check("out/approx_standard_normal_cdf", vlb.approximate_cdf(2 * noise), image=True)


@pytest.mark.parametrize("path", files("diffusion", "vlb_bpd"))
def test_the_bound_term_by_term(path, double):
    oracle = Oracle(path)
    full = schedules.linear(1000)
    chain = shorten(full, int(oracle.config["respacing"]))
    x0, draws = (jnp.asarray(oracle.nhwc(f"in/{k}"), float) for k in ("x_start", "noise"))
    for mean, kind, clip in oracle.config["combos"]:
        network, _ = analytic(oracle, kind if kind.startswith("learned") else "single")
        predict = diffusion.predictor(network, full, mean)
        predict = samplers.clip(predict) if clip else predict
        found = vlb.bound(predict, chain, x0, lambda t: draws[len(chain) - 1 - t], kind.removeprefix("fixed_"))
        at = f"out/{mean}/{kind}/clip{int(clip)}"
        for name, value in zip(("total_bpd", "prior_bpd", "vb", "xstart_mse", "mse"), found):
            oracle.check(f"{at}/{name}", value)


@pytest.mark.parametrize("path", files("diffusion", "loss_aware_sampler"))
def test_timesteps_by_the_size_of_their_losses(path):
    with jax.enable_x64(True):
        oracle = Oracle(path)
        size, kept = oracle.config["T"], oracle.config["history_per_term"]
        history = importance.History(jnp.zeros((size, kept), jnp.float64), jnp.zeros(size, jnp.int32))
        for i, (t, losses) in enumerate(zip(oracle["in/timesteps"], oracle["in/losses"])):
            history = importance.update(history, jnp.asarray(t), jnp.asarray(losses))
            want = oracle["out/weights"][i] / oracle["out/weights"][i].sum()
            np.testing.assert_allclose(importance.probabilities(history, oracle.config["uniform_prob"]), want, rtol=1e-6)
            assert bool(jnp.all(history.count == kept)) == bool(oracle["out/warmed_up"][i])
        oracle.check("out/history", history.losses)
        p = importance.probabilities(history, oracle.config["uniform_prob"])
        oracle.check("out/importance_weights", 1 / (size * p[oracle["in/sampled_indices"]]))
