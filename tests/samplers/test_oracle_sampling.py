"""Whole sampling trajectories and guidance against guided-diffusion, DDIM and latent diffusion."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules, sigmas
from jgen.objectives import diffusion, edm
from jgen.samplers import guidance
from jgen.samplers.ancestral import ancestral_step
from jgen.samplers.common import shorten
from tests.oracle import Oracle, analytic, files

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("path", files("diffusion", "classifier_guidance"))
def test_classifier_guidance_of_steps_and_loops(path, monkeypatch):
    oracle = Oracle(path)
    full = schedules.linear(1000)
    chain = shorten(full, int(oracle.config["respacing"]))
    y, t, xt = jnp.asarray(oracle["in/y"]), jnp.asarray(oracle["in/t"]), jnp.asarray(oracle.nhwc("in/x_t"))
    w1, b1, v, w2, b2 = (jnp.asarray(oracle[f"w/classifier/{k}"]) for k in ("W1", "b1", "v", "W2", "b2"))

    def logits(x, time):
        flat = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        return jnp.tanh(flat @ w1.T + b1[None] + v[None] * time[:, None] / 1000) @ w2.T + b2[None]

    def log_probability(x, time):
        return jnp.take_along_axis(jax.nn.log_softmax(logits(x, time)), y[:, None], 1)[:, 0]

    def network(net):
        plain, _ = analytic(oracle, net)
        classes = jnp.asarray(oracle[f"w/{net}/E"])[y][:, None, None]
        return lambda x, time: plain(x, time) + classes

    def net_of(kind):
        return kind if kind.startswith("learned") else "single"

    times, scale = jnp.asarray(chain.timesteps)[t], oracle.config["single_step_scale"]
    oracle.check("out/classifier_logits", logits(xt, t))  # these two at the chain's own index
    oracle.check("out/classifier_grad", scale * guidance.log_gradient(log_probability, xt, t), image=True)
    for kind in ("fixed_small", "fixed_large", "learned_range"):
        predict = samplers.clip(diffusion.predictor(network(net_of(kind)), full))
        prediction = guidance.classifier(predict, log_probability, scale)(xt, times)
        steps = [
            ancestral_step(xt[i], jax.tree.map(lambda p, i=i: p[i], prediction), chain, t[i], 0.0, kind.removeprefix("fixed_"))
            for i in range(len(t))
        ]
        oracle.check(f"out/condition_mean/{kind}", jnp.stack(steps), image=True)
        x0 = schedules.guided_x0(prediction, xt, schedules.at(chain.alpha_bar, t, 4))
        oracle.check(f"out/condition_score/{kind}/pred_xstart", x0, image=True)
        oracle.check(f"out/condition_score/{kind}/mean", diffusion.q_posterior(chain, x0, xt, t)[0], image=True)
    draws = jnp.asarray(oracle.nhwc("in/noise"))
    for sampler in (samplers.ancestral, samplers.ddim):
        monkeypatch.setattr(sys.modules[sampler.__module__], "noise", lambda keys, shape, index: draws[9 - index])
    x, keys = jnp.asarray(oracle.nhwc("in/x_T")), samplers.image_keys(0, 3)
    for name, run in oracle.config["runs"].items():
        predict = diffusion.predictor(network(net_of(run["variance"])), full)
        predict = samplers.clip(predict) if run["clip"] else predict
        predict = guidance.classifier(predict, log_probability, run["classifier_scale"])
        options = dict(timesteps=10, trace=lambda x, x0: (x, x0))
        if run["sampler"] == "ddim":
            _, traces = samplers.ddim(predict, full, x, keys, eta=run["eta"], **options)
        else:
            _, traces = samplers.ancestral(predict, full, x, keys, variance=run["variance"].removeprefix("fixed_"), **options)
        oracle.check(f"out/{name}/samples", traces[0], image=True)
        oracle.check(f"out/{name}/pred_xstart", traces[1], image=True)


@pytest.mark.parametrize("path", files("diffusion", "guided_noise_model"))
def test_guidance_of_every_parametrisation(path):
    oracle = Oracle(path)
    chain = schedules.linear(1000)
    curve = sigmas.discrete(chain, oracle.config["t_end"])
    a, b, c, e = (jnp.asarray(oracle[f"w/{k}"]) for k in "ABCE")
    w, v = jnp.asarray(oracle["w/classifier/W"]), jnp.asarray(oracle["w/classifier/v"])
    t, y = oracle["in/t"].astype(np.float64), jnp.asarray(oracle["in/y"])
    oracle.check("out/network_time", curve.network_time(t))
    alpha, level = (jnp.asarray(x, jnp.float32) for x in (curve.alpha(t), curve.sigma(t)))

    def network(x, time, label=None):
        known = 0 if label is None else e[label][:, None, None]
        time = (b[None] * time[:, None] / 1000)[:, None, None]
        return jnp.einsum("oc,bhwc->bhwo", a, x) + time + jnp.moveaxis(c, 0, -1)[None] + known

    def log_probability(x, sigma):  # in the coordinates x / alpha, as the denoiser
        flat = jnp.moveaxis(x / jnp.sqrt(1 + sigma**2)[:, None, None, None], -1, 1).reshape(len(x), -1)
        time = edm.chain(chain).noise(sigma) / 1000
        logits = jnp.tanh(flat) @ w.T + v[None] * time[:, None]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]

    x = jnp.asarray(oracle.nhwc("in/x"))
    hat = x / alpha[:, None, None, None]

    def noise_of(denoise, x=hat, sigma=level):
        return (x - denoise(x, sigma)) / sigma[:, None, None, None]

    names = {"noise": "eps", "x_start": "x0", "v": "v", "score": None}
    for theirs, ours in names.items():
        form = edm.chain(chain, ours) if ours else None

        def denoiser(label, form=form, theirs=theirs):
            if form is None:  # of x_t = alpha x; by Tweedie's formula

                def by_score(x, sigma):
                    a, s = (v[:, None, None, None] for v in (1 / jnp.sqrt(1 + sigma**2), sigma))
                    return x + s**2 * a * network(a * x, edm.chain(chain).noise(sigma), label)

                return by_score
            return edm.denoiser(lambda x, time: network(x, time, label), form)

        null = jnp.full_like(y, 3)
        oracle.check(f"out/uncond/{theirs}", noise_of(denoiser(None)), image=True)
        for scale in oracle.config["scales"]:
            free = guidance.cfg(denoiser(y), denoiser(null), scale)
            oracle.check(f"out/cfg/{theirs}/scale{scale}", noise_of(free), image=True)
            if form is not None:
                once = guidance.cfg_batched(
                    lambda x, s, label, form=form: edm.denoiser(lambda x, t: network(x, t, label), form)(x, s), y, null, scale
                )
                np.testing.assert_allclose(once(hat, level), free(hat, level), atol=1e-4)
            led = guidance.classifier_denoiser(denoiser(None), log_probability, scale)
            oracle.check(f"out/classifier/{theirs}/scale{scale}", noise_of(led), image=True)
        # Six steps of DPM-Solver++(2M), even in time, scale 3.
        times = curve.times(6)
        start = jnp.asarray(oracle.nhwc("in/x_T")) / curve.alpha(times[0])
        images = samplers.dpm_solver(guidance.cfg(denoiser(y), denoiser(null), 3.0), start, curve.sigma(times))
        oracle.check(f"out/sample_cfg/{theirs}", curve.alpha(times[-1]) * np.asarray(images), image=True)


@pytest.mark.parametrize("path", files("diffusion", "respacing"))
def test_subsets_of_latent_diffusion(path):
    oracle = Oracle(path)
    for name, run in oracle.config.items():
        if "discretize" not in run:
            continue
        full = schedules.scaled_linear(run["T"], run["linear_start"], run["linear_end"])
        steps = schedules.shifted(run["T"], run["steps"], run["discretize"])
        assert steps.tolist() == oracle[f"out/{name}/timesteps"].tolist()
        chain = full.respace(steps)
        before = np.append(full.alpha_bar[0], chain.alpha_bar[:-1])
        oracle.check(f"out/{name}/alphas", chain.alpha_bar)
        oracle.check(f"out/{name}/alphas_prev", before)
        a = chain.alpha_bar
        oracle.check(f"out/{name}/sigmas", run["eta"] * np.sqrt((1 - before) / (1 - a) * (1 - a / before)))


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
        if "sampler" not in run:
            continue
        kind = run["variance"]
        network, _ = analytic(oracle, kind if kind.startswith("learned") else "single")
        predict = diffusion.predictor(network, chain if run["mean"] == "xprev" else full, run["mean"])
        predict = samplers.clip(predict) if run["clip"] else predict
        if run["sampler"] == "ddim":
            _, traces = samplers.ddim(predict, full, x, keys, timesteps=10, eta=run["eta"], trace=keep)
        else:
            variance = kind.removeprefix("fixed_")
            _, traces = samplers.ancestral(predict, full, x, keys, timesteps=10, variance=variance, trace=keep)
        oracle.check(f"out/{name}/samples", traces[0], image=True)
        oracle.check(f"out/{name}/pred_xstart", traces[1], image=True)
        done += 1
    assert done >= 10
    for mean, net in (("eps", "single"), ("x0", "learned_range")):
        predict = diffusion.predictor(analytic(oracle, net)[0], full, mean)
        start = jnp.asarray(oracle.nhwc("in/x_encode"))
        x, traces = samplers.ddim_invert(predict, full, start, timesteps=10, beyond=True, trace=keep)
        oracle.check(f"out/ddim_reverse_{mean}/samples", traces[0], image=True)
        oracle.check(f"out/ddim_reverse_{mean}/pred_xstart", traces[1], image=True)
        shorter = samplers.ddim_invert(predict, full, start, timesteps=10)
        oracle.check(f"out/ddim_reverse_{mean}/samples", jnp.concatenate([traces[0][:8], shorter[None], x[None]]), image=True)


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
        monkeypatch.setattr(sys.modules[samplers.ancestral.__module__], "noise", lambda keys, shape, index: draws[9 - index])
        keep = lambda x, x0: (x, x0)  # noqa: E731
        clipped, keys = samplers.clip(predict), samplers.image_keys(0, 2)
        _, (xs, x0s) = samplers.ancestral(clipped, chain, x, keys, timesteps=steps, variance="large", trace=keep)
        oracle.check(f"out/ddpm_noisy/{sequence}/x", xs, image=True)
        oracle.check(f"out/ddpm_noisy/{sequence}/x0", x0s, image=True)
    x0, noise, t = (
        jnp.asarray(oracle.nhwc("in/x_start")),
        jnp.asarray(oracle.nhwc("in/noise_loss")),
        jnp.asarray(oracle["in/t"]),
    )
    summed = diffusion.simple_terms(network, chain, x0, t, noise) * x0[0].size
    oracle.check("out/sum_squared_loss_per_sample", summed)
    oracle.check("out/sum_squared_loss", jnp.mean(summed))
    check_latent_diffusion(oracle, network, x, monkeypatch)


def check_latent_diffusion(oracle, network, x, monkeypatch):
    """Its DDIM ends at the chain's first level; its PLMS is a table of the continuous coordinates."""
    chain = schedules.scaled_linear(1000, *oracle.config["ldm_betas"])
    steps = schedules.shifted(1000, oracle.config["steps"])
    assert steps.tolist() == oracle["out/ldm_ddim/timesteps"].tolist()
    e, y, keys = jnp.asarray(oracle["w/E"]), jnp.asarray(oracle["in/y"]), samplers.image_keys(0, 2)

    def known(label):
        return lambda x, t: network(x, t) + e[label][:, None, None]

    def guided(scale, make):
        null = jnp.full_like(y, 3)
        return make(known(y)) if scale == 1 else guidance.cfg(make(known(y)), make(known(null)), scale)

    keep = lambda x, x0: (x, x0)  # noqa: E731
    for eta, scale in oracle.config["ldm_runs"]:
        predict = guided(scale, lambda net: diffusion.predictor(net, chain))
        _, (xs, x0s) = samplers.ddim(predict, chain, x, keys, timesteps=steps, eta=eta, last=chain.alpha_bar[0], trace=keep)
        oracle.check(f"out/ldm_ddim/eta{eta}_cfg{scale}/x", xs, image=True)
        oracle.check(f"out/ldm_ddim/eta{eta}_cfg{scale}/x0", x0s, image=True)
    levels = np.append(chain.sigma[steps[::-1]], chain.sigma[0])
    alpha = np.sqrt(np.append(chain.alpha_bar[steps[::-1]][1:], chain.alpha_bar[0])).astype(np.float32)
    form = edm.chain(chain)
    for scale in oracle.config["plms_scales"]:
        denoise = guided(scale, lambda net: edm.denoiser(net, form))
        start = x / float(np.sqrt(chain.alpha_bar[steps[-1]]))
        _, (xs, _) = samplers.plms(denoise, start, levels, trace=keep)
        oracle.check(f"out/ldm_plms/cfg{scale}/x", xs * alpha[:, None, None, None, None], image=True)
        # Its clean image is where the line of a step meets level 0: the slopes are mixed, of which a trace shows one.
        slopes = jnp.diff(xs, axis=0, prepend=start[None]) / np.diff(levels).astype(np.float32)[:, None, None, None, None]
        x0s = xs - levels[1:].astype(np.float32)[:, None, None, None, None] * slopes
        oracle.check(f"out/ldm_plms/cfg{scale}/x0", x0s, image=True)
