"""Schedules, posteriors, losses and the bound against guided-diffusion."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules
from jgen.objectives import diffusion, importance, vlb
from jgen.samplers.ancestral import reverse_log_variance, reverse_mean
from jgen.samplers.common import on_clean
from tests.chains import NAMED, chain_of, respaced, timed
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


def make_schedule(name, text, betas):
    """The schedule that a file describes in words: its kind, T (else the number at the end of its name), and a..b.

    betas: the file's, whose first and last are the ends where the words leave them out for latent diffusion's.
    """
    found = re.search(r"T=(\d+)", text)
    steps = int(found[1] if found else name.rsplit("_", 1)[1])
    ends = re.search(r"(?<!\[)(?<!over )\b([\d.e-]+)\.\.([\d.e-]+)", text)
    own = "scaled_linear_ldm" if "LDM image" in text else "scaled_linear" if "Stable" in text else ""
    known = {"scaled_linear_ldm": (0.0015, 0.0195), "scaled_linear": (0.00085, 0.012), "": (1e-4, 0.02)}[own]
    if text.startswith("LDM sqrt") and not ends:
        known = (betas[0], betas[-1]) if "linear" in text else (betas[0] ** 2, betas[-1] ** 2)
    low, high = (float(v) for v in ends.groups()) if ends else known
    ramp = np.linspace(low, high, steps, dtype=np.float64)
    if "sqrt_linear" in text or "no rescale" in text or "repo linear" in text:
        return schedules.linear(steps, low, high, rescale=False)
    if "sqrt(beta)" in text or "quad" in text:
        return schedules.scaled_linear(steps, low, high)
    if "sigmoid" in text:
        return schedules.sigmoid(steps, low, high)
    if "cosine" in text:
        return schedules.cosine(steps)
    if "const" in text:
        return schedules.from_betas(np.full(steps, high))
    if "jsd" in text:
        return schedules.from_betas(1 / np.linspace(steps, 1, steps))
    if "sqrt" in text:
        return schedules.from_betas(ramp**0.5)
    assert text.startswith("linear"), text
    return schedules.linear(steps, low, high)


@pytest.mark.parametrize("path", files("diffusion", "schedules"))
def test_schedule_tables(path):
    oracle = Oracle(path)
    for name, text in oracle.config.items():
        schedule, index = make_schedule(name, text, oracle[f"out/{name}/betas"]), oracle[f"in/{name}/index"]
        for table, values in TABLES.items():
            if f"out/{name}/{table}" in oracle:
                oracle.check(f"out/{name}/{table}", values(schedule)[index])
        oracle.check(f"out/{name}/sum_alphas_cumprod", schedule.alpha_bar.sum(keepdims=True))
    oracle.check_whole()


@pytest.mark.parametrize("path", files("diffusion", "respacing"))
def test_shortened_chains(path):
    oracle = Oracle(path)
    for name, run in oracle.config.items():
        if "spec" not in run:
            check_latent_diffusion_s_subset(oracle, name, run)
            continue
        full = NAMED[run["schedule"]](run["T"])
        steps = respaced(run["T"], run["spec"])
        oracle.check(f"out/{name}/timesteps", steps)
        chain = full.respace(steps)
        for table in TABLES:
            if f"out/{name}/{table}" in oracle:
                oracle.check(f"out/{name}/{table}", TABLES[table](chain))
    oracle.check_whole()


def check_latent_diffusion_s_subset(oracle, name, run):
    """Its steps, and DDIM's sigma where the chain ends at alpha_bar[0] rather than 1."""
    full = schedules.scaled_linear(run["T"], run["linear_start"], run["linear_end"])
    steps = schedules.shifted(run["T"], run["steps"], run["discretize"])
    oracle.check(f"out/{name}/timesteps", steps)
    alpha = full.alpha_bar[steps]
    before = np.append(full.alpha_bar[0], alpha[:-1])
    oracle.check(f"out/{name}/alphas", alpha)
    oracle.check(f"out/{name}/alphas_prev", before)
    sigma = run["eta"] * np.sqrt((1 - before) / (1 - alpha) * (1 - alpha / before))
    oracle.check(f"out/{name}/sigmas", sigma)


MEANS = ("eps", "x0", "xprev")


@pytest.mark.parametrize("path", files("diffusion", "gaussian_moments"))
def test_forward_process_and_one_step_back(path):
    oracle = Oracle(path)
    (chain, factor), t = chain_of(oracle.config), jnp.asarray(oracle["in/t"])
    heard_t = jnp.asarray(chain.timesteps)[t]
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
        network = timed(analytic(oracle, net)[0], factor)
        for mean_type in MEANS:
            for clip in (0, 1):
                predict = diffusion.predictor(network, chain, mean_type)
                predict = samplers.clip(predict) if clip else predict
                prediction = predict(xt, heard_t)
                name = f"out/p_mean_variance/{mean_type}/{kind}/clip{clip}"
                oracle.check(f"{name}/pred_xstart", prediction.x0, image=True)
                oracle.check(f"{name}/mean", reverse_mean(chain, xt, prediction, t), image=True)
        variances, logs = [], []
        for i, time in enumerate(oracle["in/t"]):
            v = None if prediction.v is None else prediction.v[i]
            found = jnp.broadcast_to(reverse_log_variance(chain, jnp.asarray(time), v, variance), x0.shape[1:])
            logs.append(found)
            variances.append(jnp.exp(found))
        oracle.check(f"out/p_mean_variance/{kind}/log_variance", jnp.stack(logs), image=True)
        found = jnp.where(clipped, 0.0, jnp.stack(variances)) if kind == "fixed_small" else jnp.stack(variances)
        oracle.check(f"out/p_mean_variance/{kind}/variance", found, image=True)
    moved = on_clean(diffusion.predictor(timed(analytic(oracle, "single")[0], factor), chain), lambda x0: 0.5 * x0 + 0.1)
    prediction = samplers.clip(moved)(xt, heard_t)
    oracle.check("out/p_mean_variance/denoised_fn/pred_xstart", prediction.x0, image=True)
    oracle.check("out/p_mean_variance/denoised_fn/mean", reverse_mean(chain, xt, prediction, t), image=True)
    heard = []
    diffusion.predictor(lambda x, t: heard.append(t) or jnp.zeros_like(x), chain)(xt, heard_t)
    oracle.check("out/network_time", heard[0] * factor)
    oracle.check_whole()


@pytest.fixture
def double():
    """In float64: the decoder's bins are too narrow for float32 where its variance is tiny."""
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("path", files("diffusion", "gaussian_losses"))
def test_losses_and_their_gradients(path, double):
    oracle = Oracle(path)
    (chain, factor), t = chain_of(oracle.config), jnp.asarray(oracle["in/t"])
    x0, noise = (jnp.asarray(oracle.nhwc(f"in/{k}"), float) for k in ("x_start", "noise"))
    runs = sorted({n.split("/", 1)[1].rsplit("/", 1)[0] for n in oracle.names if n.startswith("out/") and n.endswith("/loss")})
    assert runs
    for run in runs:
        mean, kind, loss = run.split("/")
        network, weights = analytic(oracle, kind if kind.startswith("learned") else "single")
        network, variance = timed(network, factor), kind.removeprefix("fixed_")

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
    network = timed(analytic(oracle, "learned_range")[0], factor)
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
    oracle.check_whole()


@pytest.mark.parametrize("path", files("diffusion", "vlb_bpd"))
def test_the_bound_term_by_term(path, double):
    oracle = Oracle(path)
    config = oracle.config
    full, (chain, factor) = NAMED[config["schedule"]](config["T"]), chain_of(config)
    x0, draws = (jnp.asarray(oracle.nhwc(f"in/{k}"), float) for k in ("x_start", "noise"))
    for mean, kind, clip in oracle.config["combos"]:
        network = timed(analytic(oracle, kind if kind.startswith("learned") else "single")[0], factor)
        predict = diffusion.predictor(network, chain if mean == "xprev" else full, mean)
        predict = samplers.clip(predict) if clip else predict
        found = vlb.bound(predict, chain, x0, lambda t: draws[len(chain) - 1 - t], kind.removeprefix("fixed_"))
        at = f"out/{mean}/{kind}/clip{int(clip)}"
        for name, value in zip(("total_bpd", "prior_bpd", "vb", "xstart_mse", "mse"), found):
            oracle.check(f"{at}/{name}", value)
    oracle.check_whole()


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
        oracle.check_whole("out/weights", "out/warmed_up")  # compared above, step by step
