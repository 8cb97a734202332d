"""Networks, SDEs, losses, predictors, correctors and the probability-flow ODE against score_sde's.

Sizes, options and names of layers come from the files, of which every result is compared.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert, sde
from jgen.arrays import dot, expand_dims_like
from jgen.objectives import score as objectives
from jgen.objectives.diffusion import simple_terms
from jgen.samplers import image_keys, langevin, pc, predictor_corrector
from jgen.schedules import Schedule
from tests.oracle import Oracle, files, official_gradient
from tests.samplers.score_files import CAPTURE, double, image, results

pytestmark = pytest.mark.oracle


def process_of(name, config, steps=None):
    """The process of one of the names that the files have for them."""
    steps = config["N"] if steps is None else steps
    if name == "ve":
        return sde.ve(config["sigma_min"], config["sigma_max"], steps)
    return {"vp": sde.vp, "subvp": sde.sub_vp}[name](config["beta_min"], config["beta_max"], steps)


def processes_in(o):
    """The names of the processes that a file has results of."""
    return [name for name in ("vp", "subvp", "ve") if results(o, f"out/{name}/")]


def exact_score(o, process):
    """The score of data N(m, diag(s^2)) at every time, in the precision of what it is given."""
    m, s = o.nhwc("in/m"), o.nhwc("in/s")

    def score(x, t):
        a, std = (expand_dims_like(f(t), x) for f in (process.mean, process.std))
        return -(x - a * m.astype(x.dtype)) / (a**2 * s.astype(x.dtype) ** 2 + std**2)

    return score


def check_found(o, prefix, found):
    """Compares those of the results {name: value} that a file has; those in float64 are images where they have four axes."""
    for name in results(o, prefix):
        if name in found:
            value = found[name]
            o.check(prefix + name, value, image=np.ndim(value) == 4)


@pytest.mark.parametrize("path", files("score_sde", "sde"))
def test_coefficients_of_sdes(path):
    o = Oracle(path)
    steps = o.config["N"]
    with jax.enable_x64(True):
        t, x, x0 = (double(o, f"in/{k}") for k in ("t", "x", "x0"))
        knots = jnp.linspace(0.0, 1.0, steps)
        for name in processes_in(o):
            process = process_of(name, o.config)
            score = exact_score(o, process)
            found = {
                "sde_drift": expand_dims_like(process.rate(t), x) * x,
                "sde_diffusion": process.diffusion(t),
                "marginal_mean": expand_dims_like(process.mean(t), x0) * x0,
                "marginal_std": process.std(t),
                "prior_logp": sde.prior_log_density(process, x),
                "discretize_f": expand_dims_like(process.shift(t), x) * x,
                "discretize_G": process.spread(t),
                "score": score(x, t),
                "reverse_diffusion": process.diffusion(t),
                "reverse_discretize_G": process.spread(t),
            }
            for i, ode in enumerate((False, True)):
                found[f"reverse_drift_pf{i}"] = sde.reverse_drift(process, score, x, t, ode)
                share = 0.5 if ode else 1.0
                spread = expand_dims_like(process.spread(t), x)
                found[f"reverse_discretize_f_pf{i}"] = found["discretize_f"] - share * spread**2 * score(x, t)
            squares = np.asarray(process.spread(knots), np.float64) ** 2
            if name == "ve":
                found["discrete_sigmas"] = np.sqrt(np.cumsum(squares))
            else:
                kept = np.cumprod(1 - squares)
                found |= {"discrete_betas": squares, "alphas_cumprod": kept, "sqrt_1m_alphas_cumprod": np.sqrt(1 - kept)}
            check_found(o, f"out/{name}/", found)
            levels = process.std(t) / process.mean(t)
            assert np.allclose(process.time(levels), t, atol=1e-6), name
        if "out/timestep" in o:
            o.check("out/timestep", sde._lookup(np.arange(steps))(jnp.asarray(o["in/t"], jnp.float32)))
    o.check_whole()


@pytest.mark.parametrize("path", files("score_sde", "losses"))
def test_losses_of_sdes(path):
    o = Oracle(path)
    c = o.config
    with jax.enable_x64(True):
        x0, z, m = (double(o, f"in/{k}") for k in ("x0", "z", "m"))
        t = double(o, "in/u") * (1 - c["eps"]) + c["eps"]
        for name in processes_in(o):
            process = process_of(name, c)
            score = exact_score(o, process)
            found = {"score_at_perturbed": score(sde.perturb(process, x0, t, z), t)}
            for weight in (0, 1):
                for mean in (0, 1):
                    terms = objectives.along(process, score, x0, t, z, likelihood=bool(weight), mean=bool(mean))
                    found[f"loss_lw{weight}_mean{mean}"] = jnp.mean(terms)
            check_found(o, f"out/{name}/", found)
        label = jnp.asarray(o["in/labels"]) if "in/labels" in o else None
        toy = lambda x, number: -0.1 * x + m + 0.001 * expand_dims_like(number.astype(x.dtype), x)  # noqa: E731
        pixels = x0[0].size
        if results(o, "out/smld_"):
            sigmas = jnp.asarray(langevin.geometric(c["sigma_max"], c["sigma_min"], c["N"]))
            smld = jnp.mean(objectives.denoising(lambda x, s: toy(x, label), x0, sigmas[label], z, 2.0))
            check_found(o, "out/", {"smld_mean0": smld, "smld_mean1": 2 * smld / pixels})
        if results(o, "out/ddpm_"):
            betas = np.linspace(c["beta_min"] / c["N"], c["beta_max"] / c["N"], c["N"])
            ddpm = jnp.mean(simple_terms(toy, Schedule(betas, np.arange(len(betas))), x0, label, z))
            check_found(o, "out/", {"ddpm_mean1": ddpm, "ddpm_mean0": ddpm * pixels / 2})
    o.check_whole()


PREDICTORS = {
    "euler_maruyama": pc.euler_maruyama,
    "reverse_diffusion": pc.reverse_diffusion,
    "ancestral_sampling": pc.ancestral,
}


def correctors(config):
    return {
        "langevin": partial(pc.langevin, snr=config["snr"], together=True),
        "ald": partial(pc.annealed, snr=config["snr"]),
        "none": None,
    }


@pytest.mark.parametrize("path", files("score_sde", "pc_sampling"))
def test_predictors_and_correctors(path, drawn):
    o = Oracle(path)
    known = correctors(o.config)
    for name in processes_in(o):
        process = process_of(name, o.config)
        score, x = exact_score(o, process), image(o, "in/x")
        each = jnp.asarray(o["in/t_each"])
        for kind in sorted({n.split("/")[0] for n in results(o, f"out/{name}/")}):
            if kind == "reverse_diffusion_pf":
                steps = {"": pc.euler_ode(process, score, x, each, image(o, "in/z_pred"))}
            elif kind in PREDICTORS:
                times = {"t_same/": jnp.asarray(o["in/t"]), "t_each/": each}
                steps = {at: PREDICTORS[kind](process, score, x, t, image(o, "in/z_pred")) for at, t in times.items()}
            else:
                now, mean = x, x
                for draw in o.nhwc("in/z_corr"):
                    now, mean = known[kind](process, score, now, each, jnp.asarray(draw))
                steps = {"": (now, mean)}
            for at, values in steps.items():
                check_found(o, f"out/{name}/{kind}/{at}", dict(zip(("x", "x_mean"), values)))
    for run in sorted({n.split("/")[0] for n in results(o, "out/pc/")}):
        draws = o.nhwc("in/traj_noise")
        name, rest = run.split("_", 1)
        predictor = next(p for p in PREDICTORS if rest.startswith(p))
        process = process_of(name, o.config, o.config.get("N_trajectory", o.config["N"]))
        process = dataclasses.replace(process, end=o.config["eps"][name])
        drawn(draws[1:])
        how = dict(corrector=known[rest.removeprefix(f"{predictor}_")], corrector_steps=o.config["corrector_steps"])
        start = jnp.asarray(draws[0]) * process.prior_std
        for denoise, part in ((True, "denoised"), (False, "noisy")):
            found, states = predictor_corrector(
                process, exact_score(o, process), start, image_keys(0, len(start)), predictor=PREDICTORS[predictor], **how,
                denoise=denoise, trace=lambda x, m: x,
            )  # fmt: skip
            check_found(o, f"out/pc/{run}/", {part: found})
        if f"out/pc/{run}/trajectory" in o:
            o.check(f"out/pc/{run}/trajectory", states, image=True)
    o.check_whole()


@pytest.mark.slow
@pytest.mark.parametrize("path", files("score_sde", "ode_likelihood"))
def test_probability_flow(path):
    from jgen.samplers import probability_flow

    o = Oracle(path)
    c = o.config
    tight, start = dict(rtol=c["rtol"], atol=c["atol"]), c["eps_likelihood"]
    more = 0 if c["centered"] else 1  # bits for images in [0, 1], where those in [-1, 1] are twice as large
    with jax.enable_x64(True):
        for name in processes_in(o):
            process = process_of(name, c)
            score, at = exact_score(o, process), f"out/{name}"

            def drift(x, process=process, score=score):
                return sde.reverse_drift(process, score, x, double(o, "in/t"), True)

            x0, first = double(o, "in/x0"), jnp.asarray(start, jnp.float64)
            mean, spread = process.mean(first), jnp.hypot(process.mean(first) * o.nhwc("in/s"), process.std(first))
            density = jax.scipy.stats.norm.logpdf(x0, mean * o.nhwc("in/m"), spread)
            found = {"exact_bpd_at_eps": 7 + more - jnp.mean(density, (1, 2, 3)) / jnp.log(2.0)}
            if f"{at}/pf_drift" in o or f"{at}/divergence" in o:
                probe = double(o, "in/eps_gaussian")
                moved, pull = jax.vjp(drift, double(o, "in/x"))
                found |= {"pf_drift": moved, "divergence": dot(probe, pull(probe)[0])}
            for kind in sorted({n.split("/")[0] for n in results(o, f"{at}/") if "/" in n}):
                probes = double(o, f"in/eps_{kind}")
                bits, z = probability_flow.bits_per_dim(process, score, x0, probes, start=start, **tight)
                # They estimate the divergence of the linear drift too, where ours is exact; Gaussian probes tell.
                ends = [process.mean(jnp.asarray(t, jnp.float64)) for t in (start, 1.0)]
                estimated = jnp.mean(jnp.square(probes), (1, 2, 3)) - 1
                found |= {f"{kind}/bpd": bits + more - estimated * jnp.log2(ends[1] / ends[0]), f"{kind}/z": z}
            if f"{at}/ode_sample" in o:
                prior = double(o, "in/eps_gaussian") * process.prior_std
                found["ode_sample"] = probability_flow.flow(process, score, prior, end=c["eps_sampling"], **tight)
            check_found(o, f"{at}/", found)
    o.check_whole()


def check_gradient(o, name, value):
    """Compares a gradient; where the authors' is 0 but for rounding, ours must be 0 beside the output.

    It is so for the embedding where norms of a channel a group cancel what the embedding adds.
    """
    scale = np.max(np.abs(o["out/out"]))
    if np.max(np.abs(o[name])) > 1e-12 * scale:
        o.check(name, value)
    else:
        o.checked.add(name)
        assert value.shape == o[name].shape, name
        assert np.max(np.abs(value)) <= o.meta["rtol_suggested"] * scale, name


SCORE_SDE = {"ncsnpp": convert.score_sde.ncsnpp, "ddpm": convert.score_sde.ddpm}
"""{network of a file's configuration: its converter}."""


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for kind in SCORE_SDE for p in files("score_sde", kind)])
def test_networks_of_score_sde(path):
    o = Oracle(path)
    sections = {name: o.config[name] for name in ("model", "data")}
    build, weights = partial(SCORE_SDE[o.config["name"]], **sections), convert.load_weights(path)
    net, variables = build(weights)
    x, label, eps = image(o, "in/x"), jnp.asarray(o["in/labels"]), image(o, "in/eps")

    @jax.jit
    def run(params, x):
        def weighed(params, x):
            y, seen = net.apply({"params": params}, x, label, **CAPTURE)
            return jnp.sum(y * eps), (y, seen["intermediates"])

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, x)

    (grads, by_x), (y, seen) = run(variables["params"], x)
    o.check("out/out", y, image=True)
    for name in results(o, "out/module/"):
        value = seen[f"all_modules_{name.split('_')[0]}"]["__call__"][0]
        o.check(f"out/module/{name}", value, image=value.ndim == 4)
    for name in results(o, "out/grad/w/"):
        check_gradient(o, f"out/grad/w/{name}", official_gradient(lambda w: build(w)[1], weights, name, grads))
    if "out/grad/in/x" in o:
        o.check("out/grad/in/x", by_x, image=True)
    o.check_whole()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


MODEL = {
    "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4], "fir": True, "skip_rescale": True,
    "resblock_type": "biggan", "progressive": "none", "progressive_input": "residual", "embedding_type": "fourier",
    "scale_by_sigma": False,
}  # fmt: skip


DATA = {"image_size": 8, "num_channels": 3, "centered": True}


@pytest.mark.parametrize(
    "kind,model,message",
    [
        ("ncsnpp", {"attention_type": "none"}, "attention_type=none: must be ddpm here"),
        ("ncsnpp", {"normalization": "InstanceNorm"}, "normalization=InstanceNorm: must be GroupNorm here"),
        ("ncsnpp", {"conv_size": 5}, "conv_size=5: must be 3 here"),
        ("ncsnpp", {"nonlinearity": "gelu"}, "nonlinearity=gelu: must be elu or relu"),
        ("ncsnpp", {"progressive_combine": "mean"}, "progressive_combine=mean: must be sum or cat here"),
        ("ncsnpp", {"progressive": "residual"}, "progressive=residual: not with fir=True"),
        ("ncsnpp", {"resblock_type": "ddpm"}, "resblock_type=ddpm: not with fir=True and resamp_with_conv=True"),
        ("ncsnpp", {"num_resblocks": 2}, r"num_resblocks: no option of .* \(did you mean num_res_blocks"),
        ("ncsnpp", {"scale_by_sigma": True}, "sigma_min, sigma_max, num_scales: missing"),
        ("ncsnpp", {"name": "ddpm"}, "name=ddpm: must be ncsnpp here"),
        ("ddpm", {"resamp_with_conv": "never"}, "resamp_with_conv=never: must be False or True here"),
        ("ddpm", {"label_dim": 10}, "label_dim: no option of score_sde's section model"),
    ],
)
def test_score_sde_refuses_options_by_name(kind, model, message):
    with pytest.raises(ValueError, match=message):
        SCORE_SDE[kind]({}, model={**MODEL, **model}, data=DATA)


def test_score_sde_refuses_sections_by_name():
    with pytest.raises(ValueError, match="datum: no option of score_sde's configurations"):
        SCORE_SDE["ncsnpp"]({}, model=MODEL, data=DATA, datum={})
    with pytest.raises(ValueError, match="channels: no option of score_sde's section data"):
        SCORE_SDE["ncsnpp"]({}, model=MODEL, data={**DATA, "channels": 3})
    with pytest.raises(ValueError, match="centered: missing in the options of score_sde's section data"):
        SCORE_SDE["ncsnpp"]({}, model=MODEL, data={"image_size": 8, "num_channels": 3})
