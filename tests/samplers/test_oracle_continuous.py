"""Continuous coordinates against EDM, k-diffusion and DPM-Solver: grids, preconditioners, losses, trajectories."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import schedules, sigmas
from jgen.objectives import edm
from jgen.samplers import adaptive, dpm, euler_heun, generalized, image_keys, linear
from jgen.samplers.adaptive import Control, dpm_adaptive, dpm_solver_adaptive
from jgen.samplers.common import dynamic_threshold
from jgen.types import Prediction
from tests.oracle import Heard, Oracle, files

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("path", files("diffusion", "sigma_grids"))
def test_level_grids_and_the_maps_between_levels_and_times(path):
    o = Oracle(path)
    functions = {
        "karras": sigmas.karras,
        "exponential": sigmas.exponential,
        "polyexponential": sigmas.polyexponential,
        "vp": sigmas.vp,
    }
    for name, (kind, options) in o.config.items():
        if kind.startswith("get_sigmas_"):
            options = {"steps" if k == "n" else k: v for k, v in options.items()}
            o.check(f"out/{name}", functions[kind.removeprefix("get_sigmas_")](**options))
        elif kind == "discrete":
            make = {"scaled_linear": schedules.scaled_linear, "linear": partial(schedules.linear, rescale=False)}
            ends = [options[k] for k in ("b0", "b1") if k in options]
            chain = {**make, "cosine": schedules.cosine}[options["kind"]](options["T"], *ends)
            o.check(f"out/{name}/sigma_range", [chain.sigma[0], chain.sigma[-1]])
            o.check(f"out/{name}/sigmas_n", sigmas.of_schedule(chain, options["n"]))
            o.check(f"out/{name}/sigma_to_t", sigmas.time_at(chain, o[f"in/{name}/query_sigma"]))
            o.check(f"out/{name}/t_to_sigma", sigmas.sigma_at(chain, o[f"in/{name}/query_t"]))
            recorded = []
            predict = lambda x, t: recorded.append(t) or Prediction(x)  # noqa: E731, B023
            query = o[f"in/{name}/query_sigma"]
            schedules.denoiser(predict, chain)(jnp.zeros((len(query), 1, 1, 1)), jnp.asarray(query))
            o.check_equal(f"out/{name}/sigma_to_t_quantized", recorded[0])
        elif kind.startswith("precond:"):
            check_precondition_levels(o, name, kind, options)
        else:  # k-diffusion's v: a cosine chain in continuous time, sigma = tan(pi t / 2)
            query, form = jnp.asarray(o[f"in/{name}/query_sigma"]), edm.cosine_v(**options)
            o.check(f"out/{name}/sigma_to_t", form.noise(query))
            for ours, theirs in (("skip", "c_skip"), ("out", "c_out"), ("scale", "c_in")):
                o.check(f"out/{name}/{theirs}", getattr(form, ours)(query))
            o.check(f"out/{name}/t_to_sigma", np.tan(np.pi / 2 * o[f"in/{name}/query_t"]))
            np.testing.assert_allclose(form.noise(jnp.asarray(o[f"out/{name}/t_to_sigma"])), o[f"in/{name}/query_t"], rtol=1e-5)
    o.check_whole()


OURS = {"M": "steps", "epsilon_t": "epsilon", "C_1": "c_1", "C_2": "c_2", "P_mean": "mean", "P_std": "deviation"}


def renamed(options):
    """EDM's options under the names that they have here."""
    return {OURS.get(name, name): value for name, value in options.items()}


def check_precondition_levels(o, name, kind, options):
    query = jnp.asarray(o[f"in/{name}/query_sigma"])
    options = renamed(options)
    if kind.endswith("VPPrecond"):
        form, time = edm.vp(**options), generalized.vp_time(*(options[k] for k in ("beta_d", "beta_min") if k in options))
        o.check(f"out/{name}/sigma_inv", form.noise(query) / (options.get("steps", 1000) - 1), 1e-5)
        o.check(f"out/{name}/sigma_of_t", [time.sigma(t) for t in o[f"in/{name}/query_t"]])
        o.check(f"out/{name}/round_sigma", query)  # this one rounds nothing
    else:
        form, table = edm.iddpm(**options), edm.iddpm_levels(**options)
        o.check(f"out/{name}/u", table if len(table) == len(o[f"out/{name}/u"]) else table[::10])
        index = len(table) - 2 - np.asarray(form.noise(query)).astype(int)
        o.check_equal(f"out/{name}/round_index", index)
        o.check(f"out/{name}/round_sigma", table[index])
    o.check(f"out/{name}/sigma_min_max", [form.sigma_min, form.sigma_max])


FORMS = {"vp": edm.vp, "ve": edm.ve, "iddpm": edm.iddpm, "edm": edm.edm}
LEVELS = {"loss_vp": edm.vp_levels, "loss_ve": edm.ve_levels, "loss_edm": edm.edm_levels}


def stand_in(weights, label, augment=None, recorded=None):
    a, b, c, l, g = weights  # noqa: E741

    def network(x, noise):
        if recorded is not None:
            recorded.extend([x, noise])
        waves = jnp.sin(noise / 50)[:, None] * b[None, :, 0] + jnp.cos(noise)[:, None] * b[None, :, 1]
        known = label @ l.T + (augment @ g.T if augment is not None else 0)
        return jnp.einsum("oc,bhwc->bhwo", a, x) + (waves + known)[:, None, None] + jnp.moveaxis(c, 0, -1)[None]

    return network


@pytest.mark.parametrize("path", files("edm", "precond_loss"))
def test_preconditioners_and_losses(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        x, images, noise = (jnp.asarray(o.nhwc(f"in/{k}"), jnp.float64) for k in ("x", "images", "noise"))
        sigma, y = jnp.asarray(o["in/sigma"], jnp.float32), 0.9 * images + 0.05
        label, augment = (
            jnp.asarray(o[f"in/{k}"] if f"in/{k}" in o else np.zeros((len(x), 0))) for k in ("class_labels", "augment_labels")
        )
        for name in sorted({name.split("/")[0] for name in o.under("w/")}):
            form, recorded = FORMS[name](**renamed(o.config.get(name, {}))), []
            weights = weights_of(o, name, label.shape[1], augment.shape[1])
            found = edm.denoiser(stand_in(weights, label, recorded=recorded), form)(x, sigma)
            o.check(f"out/{name}/denoised", found, image=True)
            o.check(f"out/{name}/network_input", recorded[0], image=True)
            o.check(f"out/{name}/c_noise", recorded[1])
            o.check(f"out/{name}/sigma_min_max", np.minimum([form.sigma_min, form.sigma_max], 3e38))  # inf, as stored
            bare = edm.denoiser(stand_in(weights, jnp.zeros_like(label)), form)
            if f"out/{name}/denoised_no_label" in o:
                o.check(f"out/{name}/denoised_no_label", bare(x, sigma), image=True)
            pull = jax.grad(lambda x: jnp.sum(edm.denoiser(stand_in(weights, label), form)(x, sigma) * noise))  # noqa: B023
            o.check(f"out/grad/{name}/denoised_x", pull(x), image=True)
            for loss, levels in LEVELS.items():
                levels = levels(**renamed(o.config.get(f"{loss.removeprefix('loss_')}_loss", {})))
                level = levels.sigma(jnp.asarray(o["in/rnd_normal" if levels.normal else "in/rnd_uniform"])[:, 0, 0, 0])
                o.check(f"out/{name}/{loss}_sigma", level[:, None, None, None])

                def total(weights):
                    denoise = edm.denoiser(stand_in(weights, label, augment), form)  # noqa: B023
                    terms = edm.loss_terms(denoise, y, level, noise, levels.weight)  # noqa: B023
                    return jnp.sum(terms) / len(y), terms

                grads, terms = jax.grad(total, has_aux=True)(weights)
                o.check(f"out/{name}/{loss}", terms, image=True)
                for k, grad in zip("ABCLG", grads):
                    if f"out/grad/{name}/{loss}/{k}" in o:
                        o.check(f"out/grad/{name}/{loss}/{k}", grad)
        o.check_whole()


def weights_of(o, name, classes, augment):
    """A, B, C, L and G of a stand-in network, the last two without columns where there is no label and no augmentation."""
    weights = [jnp.asarray(o[f"w/{name}/{k}"]) for k in "ABC"]
    for k, columns in (("L", classes), ("G", augment)):
        there = columns and f"w/{name}/{k}" in o
        weights.append(jnp.asarray(o[f"w/{name}/{k}"]) if there else jnp.zeros((len(weights[0]), columns)))
    return weights


def mixture(o):
    """The exact denoiser of two Gaussians an element."""
    mean1, mean2 = (jnp.asarray(np.moveaxis(o[f"w/{k}"], 0, -1)) for k in ("mean1", "mean2"))
    std = jnp.asarray(o["w/std"])

    def denoise(x, sigma):
        s2 = sigma[:, None, None, None] ** 2
        v, d1, d2 = std[None, None, None] ** 2 + s2, x - mean1[None], x - mean2[None]
        r = jax.nn.sigmoid(d2**2 / (2 * v) - d1**2 / (2 * v))
        return (std[None, None, None] ** 2 * x + s2 * (r * mean1[None] + (1 - r) * mean2[None])) / v

    return denoise


@pytest.fixture
def drawn(monkeypatch):
    """Puts the given draws in place of the samplers' noise."""

    def place(draws):
        draws = jnp.asarray(draws)
        for module in (linear, adaptive):
            monkeypatch.setattr(sys.modules[module.__name__], "noise", lambda keys, shape, index: draws[index])

    return place


RANGES = {"ve": (0.02, 100), "iddpm": (0.002, 81), "edm": (0.002, 80)}
CHURN = {"S_churn": 0, "S_min": 0, "S_max": np.inf, "S_noise": 1}


@pytest.mark.parametrize("path", files("edm", "sampler"))
def test_edm_sampler_and_its_ablations(path, drawn):
    o = Oracle(path)
    denoise, latents = Heard(mixture(o)), jnp.asarray(o.nhwc("in/latents"))
    keys = image_keys(0, len(latents))
    drawn(o.nhwc("in/noise"))

    def check(name, found):
        levels, images = denoise.take()
        o.check(f"out/{name}/evaluation_sigmas", levels)
        o.check(f"out/{name}/evaluation_inputs", images, image=True)
        o.check(f"out/{name}/x", found, image=True)

    def clamped(options, low, high):
        low, high = options.pop("sigma_min", low), options.pop("sigma_max", high)
        return max(low, options.pop("net_sigma_min", 0)), min(high, options.pop("net_sigma_max", np.inf))

    def churn_of(options):
        return euler_heun.Churn(*(options.pop(k, default) for k, default in CHURN.items()))

    for name, options in o.config["edm_sampler"].items():
        options = dict(options)
        grid = sigmas.karras(options.pop("num_steps"), *clamped(options, 0.002, 80), options.pop("rho", 7))
        check(name, euler_heun.heun(denoise, latents * grid[0], grid, keys, churn=churn_of(options)))
        assert not options
    for name, options in o.config["ablation_sampler"].items():
        options = dict(options)
        kind, steps, first = options.pop("discretization", "edm"), options.pop("num_steps"), options.pop("epsilon_s", 1e-3)
        standard = generalized.vp_time()
        low, high = clamped(options, *{"vp": (standard.sigma(first), standard.sigma(1.0)), **RANGES}[kind])
        own, table = generalized.vp_time(*generalized.vp_betas(low, high, first)), {}
        table |= {OURS[k]: options.pop(k) for k in ("M", "C_1", "C_2") if k in options}
        rho = options.pop("rho", 7)
        grid = {
            "vp": lambda: np.append([own.sigma(1 + i / (steps - 1) * (first - 1)) for i in range(steps)], 0.0),  # noqa: B023
            "ve": lambda: generalized.ve_levels(steps, low, high),  # noqa: B023
            "iddpm": lambda: generalized.indexed_levels(edm.iddpm_levels(**table), steps, low, high),  # noqa: B023
            "edm": lambda: sigmas.karras(steps, low, high, rho),  # noqa: B023
        }[kind]()
        time = {"vp": own, "ve": generalized.VE_TIME, "linear": generalized.LINEAR_TIME}[options.pop("schedule", "linear")]
        found = generalized.ablation(
            denoise, latents * grid[0], grid, keys, time=time, scaling=options.pop("scaling", "none"), churn=churn_of(options),
            order=1 if options.pop("solver", "heun") == "euler" else 2, alpha=options.pop("alpha", 1.0),
        )  # fmt: skip
        assert not options
        check(name, found)
    o.check_whole()


K_SAMPLERS = {
    "sample_euler": euler_heun.euler,
    "sample_heun": euler_heun.heun,
    "sample_euler_ancestral": euler_heun.euler_ancestral,
    "sample_dpm_2": euler_heun.dpm_2,
    "sample_dpm_2_ancestral": euler_heun.dpm_2_ancestral,
    "sample_lms": lambda denoise, x, grid, keys, **o: euler_heun.lms(denoise, x, grid, **o),
    "sample_dpmpp_2s_ancestral": dpm.dpmpp_2s_ancestral,
    "sample_dpmpp_sde": dpm.dpmpp_sde,
    "sample_dpmpp_2m": dpm.dpm_solver,
    "sample_dpmpp_2m_sde": dpm.dpmpp_multistep_sde,
    "sample_dpmpp_3m_sde": lambda *a, **o: dpm.dpmpp_multistep_sde(*a, order=3, **o),
}


GRIDS = {
    "karras": sigmas.karras, "exponential": sigmas.exponential, "polyexponential": sigmas.polyexponential, "vp": sigmas.vp,
}  # fmt: skip
RENAMED = {"n": "steps", "eps_s": "epsilon"}
EVALUATIONS = {"sample_heun": 2, "sample_dpm_2": 2}
"""Of a step that is not the last."""


@pytest.mark.parametrize("path", files("diffusion", "k_samplers"))
def test_samplers_of_k_diffusion(path, drawn):
    o = Oracle(path)
    denoise, latents = Heard(mixture(o)), jnp.asarray(o.nhwc("in/unit_latents"))
    keys = image_keys(0, len(latents))
    kind, how = o.config["grid"]
    grid = GRIDS[kind](**{RENAMED.get(k, k): v for k, v in how.items()})
    o.check("out/sigmas", grid)
    drawn(o.nhwc("in/noise"))
    for name, options in o.config["runs"].items():
        options = dict(options)
        kind = options.pop("fn")
        start = latents * options.get("sigma_max", grid[0])
        if kind == "sample_dpm_fast":
            ends = [options.pop(k) for k in ("sigma_min", "sigma_max", "n")]
            found, states = dpm.dpm_fast(denoise, start, *ends, keys, **options, trace=lambda x, d: x)
            states = np.concatenate([start[None], states[:-1]])
        elif kind == "sample_dpm_adaptive":
            options["control"] = Control(**{k: options.pop(k) for k in Control._fields if k in options})
            options |= {"keys": keys} if options.get("eta") else {}
            with jax.enable_x64(True):  # the first errors are of the size of float32's, and decide how long steps are
                found = dpm_adaptive(denoise, start.astype(jnp.float64), **options, together=True)
        else:
            if kind in ("sample_euler", "sample_heun", "sample_dpm_2"):
                churn = [options.pop(k, d) for k, d in (("s_churn", 0), ("s_tmin", 0), ("s_tmax", np.inf), ("s_noise", 1))]
                options["churn"] = euler_heun.Churn(*churn) if churn[0] else None
            if "solver_type" in options:
                options["form"] = "taylor" if options.pop("solver_type") == "heun" else "midpoint"
            if kind == "sample_dpmpp_2m":
                options["lower_order_final"] = False
            found, states = K_SAMPLERS[kind](denoise, start, grid, keys, **options, trace=lambda x, d: x)
            states = np.concatenate([start[None], states[:-1]])
        levels, images = denoise.take()
        o.check(f"out/{name}/evaluation_sigmas", levels)
        if kind == "sample_dpm_adaptive":  # after an attempt, where the next one begins
            calls = options.get("order", 3)
            states = np.concatenate([images[calls::calls], found[None]])
        elif options.get("churn"):  # theirs are those after the noise of a step
            states = images[:: EVALUATIONS.get(kind, 1)]
        o.check(f"out/{name}/states", states, image=True)
        o.check(f"out/{name}/x", found, image=True)
    o.check_whole("out/*/noise_draws")  # how many of the given draws their code asked for


def curve(config, end):
    if config["kind"] == "linear":
        return sigmas.vp_linear(config["beta_0"], config["beta_1"], end)
    return sigmas.discrete(getattr(schedules, config["schedule"])(config["T"]), end)


@pytest.mark.parametrize("path", files("diffusion", "dpm_solver"))
def test_dpm_solver_and_its_schedules(path):
    o = Oracle(path)
    mean, std = jnp.asarray(np.moveaxis(o["w/mean"], 0, -1)), jnp.asarray(o["w/std"])
    curves = {name: curve(config, o.config["t_end"]) for name, config in o.config["schedules"].items()}
    for name, c in curves.items():
        t = o[f"in/schedule/{name}/t"].astype(np.float64)
        at = f"out/schedule/{name}"
        o.check(f"{at}/marginal_log_mean_coeff", c.log_alpha(t))
        o.check(f"{at}/marginal_alpha", c.alpha(t))
        o.check(f"{at}/marginal_lambda", c.log_snr(t))
        o.check(f"{at}/marginal_std", c.alpha(t) * c.sigma(t))
        o.check(f"{at}/inverse_lambda", c.time(c.log_snr(t)))
        o.check(f"{at}/total_N", c.knots)
        spacings = {"time_uniform": "time", "logSNR": "log_snr", "time_quadratic": "quadratic"}
        for name in o.under(f"{at}/steps"):
            steps, spacing = name.split("_", 1)
            o.check(f"{at}/steps{name}", c.times(int(steps), spacings[spacing]))

    def denoise(x, sigma):  # the posterior mean of a Gaussian, in the coordinates x / alpha
        s2 = sigma[:, None, None, None] ** 2
        return (std[None, None, None] ** 2 * x + s2 * mean[None]) / (std[None, None, None] ** 2 + s2)

    start = jnp.asarray(o.nhwc("in/x_T"))
    for name, c in curves.items():  # where the ODE ends, which fine steps reach
        grid = c.sigma(c.times(400, "log_snr"))
        found = dpm.dpm_solver(denoise, start / c.alpha(1.0), grid) * c.alpha(c.end)
        o.check(f"out/exact/{name}", found, image=True)
    for name, run in o.config["runs"].items():
        c = curves[run["schedule"]]
        x, of = start / c.alpha(1.0), "data" if run["algorithm"].endswith("++") else "noise"
        spacing = {"time_uniform": "time", "logSNR": "log_snr", "time_quadratic": "quadratic"}[run["skip"]]
        recorded = Heard(denoise)
        used = dynamic_threshold(recorded, run["ratio"], run["max_val"]) if "correcting_x0" in run else recorded
        if run["method"] == "adaptive":
            control = {k: run[k] for k in ("order", "atol", "rtol") if k in run}
            control["form"] = "taylor" if run.get("solver_type") == "taylor" else "midpoint"
            with jax.enable_x64(True):
                found = dpm_solver_adaptive(used, x.astype(jnp.float64), c, parameterization=of, together=True, **control)
            found = np.asarray(found, np.float32)
        else:
            options = dict(
                parameterization=of, form="taylor" if run.get("solver_type") == "taylor" else "midpoint", order=run["order"]
            )
            if run["method"] == "multistep":
                grid = c.sigma(c.times(run["steps"], spacing))
                options["lower_order_final"] = run.get("lower_order_final", True)
            else:
                fixed = run["method"] == "singlestep_fixed"
                orders = [run["order"]] * (run["steps"] // run["order"]) if fixed else dpm.orders_of(run["steps"], run["order"])
                options |= {"orders": orders, "method": "singlestep"}
                grid = c.sigma(c.times(sum(orders), spacing))
                if spacing == "log_snr":
                    grid = dpm.even_steps(orders, grid[0], grid[-1])
            found, states = dpm.dpm_solver(used, x, grid, **options, trace=lambda x, d: x)
            ends = grid[1:] if run["method"] == "multistep" else grid[np.cumsum(orders)]
            states = states * c.alpha(c.time(-np.log(ends)))[:, None, None, None, None]
            if run["method"] == "multistep":  # theirs begin with the noise
                states = np.concatenate([start[None], states])
            theirs = o.nhwc(f"out/{name}/intermediates")  # a last one to level 0 is the end below
            assert len(theirs) == len(states) + bool(run.get("denoise_to_zero"))
            np.testing.assert_allclose(states, theirs[: len(states)], atol=1e-3 * np.abs(theirs).max())
            o.checked.add(f"out/{name}/intermediates")
        if run.get("denoise_to_zero"):
            found = used(found, jnp.full(len(found), c.sigma(c.end))) * c.alpha(c.end) ** 0
        else:
            found = found * c.alpha(c.end)
        o.check(f"out/{name}/evaluation_times", c.time(-np.log(recorded.take()[0])))
        o.check(f"out/{name}/x_end", found, image=True)
    o.check_whole()
