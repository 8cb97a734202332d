"""Whole sampling trajectories and guidance against guided-diffusion, DDIM and latent diffusion."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules, sigmas
from jgen.objectives import diffusion, edm
from jgen.samplers import guidance
from jgen.samplers.ancestral import ancestral_step
from tests.chains import NAMED, chain_of, timed
from tests.oracle import Oracle, analytic, files

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("path", files("diffusion", "classifier_guidance"))
def test_classifier_guidance_of_steps_and_loops(path, monkeypatch):
    oracle = Oracle(path)
    full, (chain, factor) = NAMED[oracle.config["schedule"]](oracle.config["T"]), chain_of(oracle.config)
    y, t, xt = jnp.asarray(oracle["in/y"]), jnp.asarray(oracle["in/t"]), jnp.asarray(oracle.nhwc("in/x_t"))
    w1, b1, v, w2, b2 = (jnp.asarray(oracle[f"w/classifier/{k}"]) for k in ("W1", "b1", "v", "W2", "b2"))

    def logits(x, time):
        flat = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        return jnp.tanh(flat @ w1.T + b1[None] + v[None] * time[:, None] / 1000) @ w2.T + b2[None]

    def log_probability(x, time):
        return jnp.take_along_axis(jax.nn.log_softmax(logits(x, time)), y[:, None], 1)[:, 0]

    def network(net):
        plain, known = timed(analytic(oracle, net)[0], factor), f"w/{net}/E" in oracle
        classes = jnp.asarray(oracle[f"w/{net}/E"])[y][:, None, None] if known else 0.0
        return lambda x, time: plain(x, time) + classes

    def net_of(kind):
        return kind if kind.startswith("learned") else "single"

    times, scale = jnp.asarray(chain.timesteps)[t], oracle.config["single_step_scale"]
    recorded = timed(log_probability, factor)
    oracle.check("out/classifier_logits", logits(xt, t))  # these two at the chain's own index
    oracle.check("out/classifier_grad", scale * guidance.log_gradient(log_probability, xt, t), image=True)
    for kind in oracle.under("out/condition_mean/"):
        predict = samplers.clip(diffusion.predictor(network(net_of(kind)), full))
        prediction = guidance.classifier(predict, recorded, scale)(xt, times)
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
        monkeypatch.setattr(sys.modules[sampler.__module__], "noise", lambda keys, shape, index: draws[len(chain) - 1 - index])
    x, keys = jnp.asarray(oracle.nhwc("in/x_T")), samplers.image_keys(0, len(y))
    for name, run in oracle.config["runs"].items():
        predict = diffusion.predictor(network(net_of(run["variance"])), full)
        predict = samplers.clip(predict) if run["clip"] else predict
        predict = guidance.classifier(predict, recorded, run["classifier_scale"])
        options = dict(timesteps=chain.timesteps, trace=lambda x, x0: (x, x0))
        if run["sampler"] == "ddim":
            _, traces = samplers.ddim(predict, full, x, keys, eta=run["eta"], **options)
        else:
            _, traces = samplers.ancestral(predict, full, x, keys, variance=run["variance"].removeprefix("fixed_"), **options)
        oracle.check(f"out/{name}/samples", traces[0], image=True)
        oracle.check(f"out/{name}/pred_xstart", traces[1], image=True)
    oracle.check_whole()


@pytest.mark.parametrize("path", files("diffusion", "guided_noise_model"))
def test_guidance_of_every_parametrisation(path):
    oracle = Oracle(path)
    kind = oracle.config["schedule"]
    curve, form_of = process_of(kind, oracle.config["t_end"])
    unit = 1000 if kind["kind"] == "discrete" else 1  # a network of a chain hears times in 0..1000
    a, b, c, e = (jnp.asarray(oracle[f"w/{k}"]) for k in "ABCE")
    w, v = jnp.asarray(oracle["w/classifier/W"]), jnp.asarray(oracle["w/classifier/v"])
    t, y = oracle["in/t"].astype(np.float64), jnp.asarray(oracle["in/y"])
    oracle.check("out/network_time", curve.network_time(t) if kind["kind"] == "discrete" else t)
    alpha, level = (jnp.asarray(x, jnp.float32) for x in (curve.alpha(t), curve.sigma(t)))

    def network(x, time, label=None):
        known = 0 if label is None else e[label][:, None, None]
        time = (b[None] * time[:, None] / unit)[:, None, None]
        return jnp.einsum("oc,bhwc->bhwo", a, x) + time + jnp.moveaxis(c, 0, -1)[None] + known

    def log_probability(x, sigma):  # in the coordinates x / alpha, as the denoiser
        flat = jnp.moveaxis(x / jnp.sqrt(1 + sigma**2)[:, None, None, None], -1, 1).reshape(len(x), -1)
        time = form_of("eps").noise(sigma) / unit
        logits = jnp.tanh(flat) @ w.T + v[None] * time[:, None]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]

    x = jnp.asarray(oracle.nhwc("in/x"))
    hat = x / alpha[:, None, None, None]

    def noise_of(denoise, x=hat, sigma=level):
        return (x - denoise(x, sigma)) / sigma[:, None, None, None]

    names = {"noise": "eps", "x_start": "x0", "v": "v", "score": None}
    for theirs, ours in ((theirs, names[theirs]) for theirs in oracle.under("out/uncond/")):
        form = form_of(ours) if ours else None

        def denoiser(label, form=form, theirs=theirs):
            if form is None:  # of x_t = alpha x; by Tweedie's formula

                def by_score(x, sigma):
                    a, s = (v[:, None, None, None] for v in (1 / jnp.sqrt(1 + sigma**2), sigma))
                    return x + s**2 * a * network(a * x, form_of("eps").noise(sigma), label)

                return by_score
            return edm.denoiser(lambda x, time: network(x, time, label), form)

        null = jnp.full_like(y, len(e) - 1)
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
    oracle.check_whole()


def process_of(config, end):
    """(the curve of a schedule of DPM-Solver, what a network predicts -> its precondition, which hears the curve's time)."""
    if config["kind"] == "discrete":
        chain = NAMED[config["schedule"]](config["T"])
        return sigmas.discrete(chain, end), lambda prediction: edm.chain(chain, prediction)
    first, last = config["beta_0"], config["beta_1"]
    noise_seen = edm.vp(last - first, first, 2).noise
    some = schedules.linear()  # only the time is a chain's own
    return sigmas.vp_linear(first, last, end), lambda prediction: dataclasses.replace(
        edm.chain(some, prediction), noise=noise_seen
    )


@pytest.mark.parametrize("path", files("diffusion", "gaussian_sampling"))
def test_sampling_trajectories(path, monkeypatch):
    oracle = Oracle(path)
    full, (chain, factor) = NAMED[oracle.config["schedule"]](oracle.config["T"]), chain_of(oracle.config)
    oracle.check_equal("out/timestep_map", chain.timesteps)
    draws = jnp.asarray(oracle.nhwc("in/noise"))
    for sampler in (samplers.ancestral, samplers.ddim):
        monkeypatch.setattr(sys.modules[sampler.__module__], "noise", lambda keys, shape, index: draws[len(chain) - 1 - index])
    x = jnp.asarray(oracle.nhwc("in/x_T"))
    keys, steps = samplers.image_keys(0, len(x)), chain.timesteps
    keep = lambda x, x0: (x, x0)  # noqa: E731
    for name, run in oracle.config["runs"].items():
        kind = run["variance"]
        network = timed(analytic(oracle, kind if kind.startswith("learned") else "single")[0], factor)
        predict = diffusion.predictor(network, chain if run["mean"] == "xprev" else full, run["mean"])
        predict = samplers.clip(predict) if run["clip"] else predict
        if "sampler" not in run:  # the ODE, from an image upwards
            start = jnp.asarray(oracle.nhwc("in/x_encode"))
            end, traces = samplers.ddim_invert(predict, full, start, timesteps=steps, beyond=True, trace=keep)
            shorter = samplers.ddim_invert(predict, full, start, timesteps=steps)
            np.testing.assert_allclose(shorter, traces[0][-2], atol=1e-5)
            np.testing.assert_array_equal(end, traces[0][-1])
        elif run["sampler"] == "ddim":
            _, traces = samplers.ddim(predict, full, x, keys, timesteps=steps, eta=run["eta"], trace=keep)
        else:
            variance = kind.removeprefix("fixed_")
            _, traces = samplers.ancestral(predict, full, x, keys, timesteps=steps, variance=variance, trace=keep)
        oracle.check(f"out/{name}/samples", traces[0], image=True)
        oracle.check(f"out/{name}/pred_xstart", traces[1], image=True)
    oracle.check_whole()


@pytest.mark.parametrize("path", files("diffusion", "ddim_variants"))
def test_trajectories_of_the_ddim_repository(path, monkeypatch):
    oracle = Oracle(path)
    chain, count = schedules.linear(oracle.config["T"], rescale=False), oracle.config["steps"]
    a, b, c = (jnp.asarray(oracle[f"w/{k}"]) for k in "ABC")

    def network(x, t):
        time = (b[None, :] * t[:, None] / 1000)[:, None, None]
        return jnp.einsum("oc,bhwc->bhwo", a, x) + time + jnp.moveaxis(c, 0, -1)[None]

    draws = jnp.asarray(oracle.nhwc("in/noise"))

    def draw_for(steps):
        """Puts the given draws in place of the samplers' noise, the first at the last of the steps."""
        for sampler in (samplers.ancestral, samplers.ddim):
            own = lambda keys, shape, index: draws[len(steps) - 1 - index]  # noqa: E731
            monkeypatch.setattr(sys.modules[sampler.__module__], "noise", own)

    predict, x = diffusion.predictor(network, chain), jnp.asarray(oracle.nhwc("in/x_T"))
    total, keys = oracle.config["T"], samplers.image_keys(0, len(x))
    sequences = {
        "uniform": np.arange(0, total, total // count),
        "quad": np.square(np.linspace(0, np.sqrt(0.8 * total), count)).astype(int),
    }
    for sequence in oracle.under("out/sequence/"):
        steps = sequences[sequence]
        draw_for(steps)
        oracle.check_equal(f"out/sequence/{sequence}", steps)
        for eta in oracle.config["etas"]:
            _, (xs, x0s) = samplers.ddim(predict, chain, x, keys, timesteps=steps, eta=eta, trace=lambda x, x0: (x, x0))
            oracle.check(f"out/generalized/{sequence}/eta{eta}/x", xs, image=True)
            oracle.check(f"out/generalized/{sequence}/eta{eta}/x0", x0s, image=True)
        keep = lambda x, x0: (x, x0)  # noqa: E731
        clipped = samplers.clip(predict)
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
    check_latent_diffusion(oracle, network, x, draw_for)
    oracle.check_whole()


def check_latent_diffusion(oracle, network, x, draw_for):
    """Its DDIM ends at the chain's first level; its PLMS is a table of the continuous coordinates."""
    chain = schedules.scaled_linear(oracle.config["T"], *oracle.config["ldm_betas"])
    steps = schedules.shifted(oracle.config["T"], oracle.config["steps"])
    oracle.check_equal("out/ldm_ddim/timesteps", steps)
    draw_for(steps)
    e, y, keys = jnp.asarray(oracle["w/E"]), jnp.asarray(oracle["in/y"]), samplers.image_keys(0, len(x))

    def known(label):
        return lambda x, t: network(x, t) + e[label][:, None, None]

    def guided(scale, make):
        null = jnp.full_like(y, len(e) - 1)
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
