"""Schedules, posteriors, the simple loss and whole sampling trajectories against guided-diffusion and DDIM."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import samplers, schedules, sigmas
from jgen.objectives import diffusion, edm, importance, vlb
from jgen.samplers import guidance
from jgen.samplers.ancestral import ancestral_step, reverse_log_variance, reverse_mean
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


MEANS = ("eps", "x0", "xprev")


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
        for i, time in enumerate(oracle["in/t"]):
            v = None if prediction.v is None else prediction.v[i]
            found = jnp.broadcast_to(reverse_log_variance(chain, jnp.asarray(time), v, variance), x0.shape[1:])
            want = oracle.nhwc(f"out/p_mean_variance/{kind}/log_variance")[i]
            np.testing.assert_allclose(found, want, rtol=2e-4, atol=1e-5)


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
    hat, wide = x / alpha[:, None, None, None], (alpha * level)[:, None, None, None]

    def noise_of(denoise, x=hat, sigma=level):
        return (x - denoise(x, sigma)) / sigma[:, None, None, None]

    names = {"noise": "eps", "x_start": "x0", "v": "v", "score": None}
    for theirs, ours in names.items():
        form = edm.chain(chain, ours) if ours else None

        def denoiser(label, form=form, theirs=theirs):
            if form is None:  # score = -eps / sigma, in coordinates x_t
                eps = lambda x, time: -network(x, time, label) * wide  # noqa: E731
                return edm.denoiser(eps, edm.chain(chain))
            flip = -1 if theirs == "v" else 1  # their v is the negative of Salimans and Ho's
            return edm.denoiser(lambda x, time: flip * flip * network(x, time, label), form)

        null = jnp.full_like(y, 3)
        oracle.check(f"out/uncond/{theirs}", noise_of(denoiser(None)), image=True)
        for scale in oracle.config["scales"]:
            free = guidance.cfg(denoiser(y), denoiser(null), scale)
            oracle.check(f"out/cfg/{theirs}/scale{scale}", noise_of(free), image=True)
            if form is not None:
                once = guidance.cfg_batched(
                    lambda x, s, label, form=form: edm.denoiser(lambda x, t: network(x, t, label), form)(x, s), y, 3, scale
                )
                np.testing.assert_allclose(once(hat, level), free(hat, level), atol=1e-4)
            led = guidance.classifier_denoiser(denoiser(None), log_probability, scale)
            oracle.check(f"out/classifier/{theirs}/scale{scale}", noise_of(led), image=True)


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
        _, (xs, _) = samplers.plms(denoise, x / float(np.sqrt(chain.alpha_bar[steps[-1]])), levels, trace=keep)
        oracle.check(f"out/ldm_plms/cfg{scale}/x", xs * alpha[:, None, None, None, None], image=True)
