"""Schedules, posteriors, the simple loss and whole sampling trajectories against guided-diffusion and DDIM."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules
from jgen.objectives import diffusion
from jgen.samplers.ancestral import reverse_log_variance
from jgen.samplers.common import shorten
from tests.oracle import Oracle, files

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


def analytic(oracle, net):
    """The stand-in network of these files, channels last."""
    a, b, c = (jnp.asarray(oracle[f"w/{net}/{k}"]) for k in "ABC")

    def apply(x, t, a=a, b=b, c=c):
        time = (b[None, :] * t[:, None] / 1000)[:, None, None]
        return jnp.einsum("oc,bhwc->bhwo", a, x) + time + jnp.moveaxis(c, 0, -1)[None]

    return apply, (a, b, c)


MEANS = ("eps", "x0")


@pytest.mark.parametrize("path", files("diffusion", "gaussian_moments"))
def test_forward_process_and_one_step_back(path):
    oracle = Oracle(path)
    chain, t = schedules.linear(1000), jnp.asarray(oracle["in/t"])
    x0, noise, xt = (jnp.asarray(oracle.nhwc(f"in/{k}")) for k in ("x_start", "noise", "x_t"))
    oracle.check("out/q_sample", diffusion.q_sample(chain, x0, t, noise), image=True)
    mean, log_variance = diffusion.q_posterior(chain, x0, xt, t)
    oracle.check("out/q_posterior/mean", mean, image=True)
    oracle.check("out/q_posterior/log_variance_clipped", jnp.broadcast_to(log_variance, x0.shape), image=True)
    oracle.check("out/predict_xstart_from_eps", diffusion.x0_from_eps(chain, xt, t, noise), image=True)
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
                oracle.check(f"{name}/mean", diffusion.q_posterior(chain, prediction.x0, xt, t)[0], image=True)
        for i, time in enumerate(oracle["in/t"]):
            v = None if prediction.v is None else prediction.v[i]
            found = jnp.broadcast_to(reverse_log_variance(chain, jnp.asarray(time), v, variance), x0.shape[1:])
            want = oracle.nhwc(f"out/p_mean_variance/{kind}/log_variance")[i]
            np.testing.assert_allclose(found, want, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("path", files("diffusion", "gaussian_losses"))
def test_simple_loss_and_its_gradient(path):
    oracle = Oracle(path)
    chain, t = schedules.linear(1000), jnp.asarray(oracle["in/t"])
    x0, noise = (jnp.asarray(oracle.nhwc(f"in/{k}")) for k in ("x_start", "noise"))
    for run, net in (
        ("eps/fixed_large", "single"),
        ("x0/fixed_small", "single"),
        ("eps/learned_range", "learned_range"),
    ):
        network, weights = analytic(oracle, net)

        def mse(weights, network=network, run=run):
            own = lambda x, t: network(x, t, *weights)  # noqa: E731
            terms = diffusion.simple_terms(own, chain, x0, t, noise, run.split("/")[0])
            return jnp.mean(terms), terms

        grads, terms = jax.grad(mse, has_aux=True)(weights)
        oracle.check(f"out/{run}/mse/mse", terms)
        if net == "single":  # the others' gradients include the variance's loss
            for name, grad in zip("ABC", grads):
                oracle.check(f"out/grad/{run}/mse/{name}", grad)


@pytest.mark.parametrize("path", files("diffusion", "gaussian_sampling"))
def test_sampling_trajectories(path, monkeypatch):
    oracle = Oracle(path)
    full = schedules.linear(1000)
    chain = shorten(full, int(oracle.config["respacing"]))
    assert chain.timesteps.tolist() == oracle["out/timestep_map"].tolist()
    draws = jnp.asarray(oracle.nhwc("in/noise"))
    for sampler in (samplers.ancestral, samplers.ddim):
        monkeypatch.setattr(sys.modules[sampler.__module__], "noise", lambda keys, shape, index: draws[9 - index])
    x, keys = jnp.asarray(oracle.nhwc("in/x_T")), samplers.image_keys(0, 2)
    keep = lambda x, x0: (x, x0)  # noqa: E731
    done = 0
    for name, run in oracle.config["runs"].items():
        if run["mean"] not in MEANS or "sampler" not in run:
            continue
        kind = run["variance"]
        network, _ = analytic(oracle, kind if kind.startswith("learned") else "single")
        predict = diffusion.predictor(network, full, run["mean"])
        predict = samplers.clip(predict) if run["clip"] else predict
        if run["sampler"] == "ddim":
            _, traces = samplers.ddim(predict, full, x, keys, timesteps=10, eta=run["eta"], trace=keep)
        else:
            variance = kind.removeprefix("fixed_")
            _, traces = samplers.ancestral(predict, full, x, keys, timesteps=10, variance=variance, trace=keep)
        oracle.check(f"out/{name}/samples", traces[0], image=True)
        oracle.check(f"out/{name}/pred_xstart", traces[1], image=True)
        done += 1
    assert done >= 8


@pytest.mark.parametrize("path", files("diffusion", "ddim_variants"))
def test_trajectories_of_the_ddim_repository(path, monkeypatch):
    oracle = Oracle(path)
    chain = schedules.linear(1000)
    a, b, c = (jnp.asarray(oracle[f"w/{k}"]) for k in "ABC")

    def network(x, t):
        time = (b[None, :] * t[:, None] / 1000)[:, None, None]
        return jnp.einsum("oc,bhwc->bhwo", a, x) + time + jnp.moveaxis(c, 0, -1)[None]

    draws = jnp.asarray(oracle.nhwc("in/noise"))
    monkeypatch.setattr(sys.modules[samplers.ddim.__module__], "noise", lambda keys, shape, index: draws[9 - index])
    predict, x = diffusion.predictor(network, chain), jnp.asarray(oracle.nhwc("in/x_T"))
    for sequence in ("uniform", "quad"):
        for eta in oracle.config["etas"]:
            steps = oracle[f"out/sequence/{sequence}"]
            _, (xs, x0s) = samplers.ddim(
                predict, chain, x, samplers.image_keys(0, 2), timesteps=steps, eta=eta, trace=lambda x, x0: (x, x0)
            )
            oracle.check(f"out/generalized/{sequence}/eta{eta}/x", xs, image=True)
            oracle.check(f"out/generalized/{sequence}/eta{eta}/x0", x0s, image=True)
