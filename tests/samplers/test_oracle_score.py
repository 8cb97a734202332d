"""Score networks, score matching, Langevin dynamics, SDEs and the probability-flow ODE against their authors'."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert, sde
from jgen.arrays import expand_dims_like
from jgen.objectives import score as objectives
from jgen.objectives.diffusion import simple_terms
from jgen.samplers import image_keys, langevin, pc, predictor_corrector
from jgen.schedules import Schedule
from tests.oracle import Oracle, files, find

pytestmark = pytest.mark.oracle


def image(o, name):
    return jnp.asarray(o.nhwc(name))


def check_gradients(o, grads, prefix):
    names = [n for n in o.names if n.startswith(prefix)]
    assert len(names) > 3
    for name in names:
        leaf = find(grads, name.removeprefix(prefix))
        o.check(name, leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf)


# The first has a loss of second derivatives besides, which takes a minute to compile.
@pytest.mark.parametrize(
    "version,path",
    [pytest.param(1, *p.values, marks=[*p.marks, pytest.mark.slow], id=p.id) for p in files("ncsn", "ncsn_v1")]
    + [pytest.param(2, *p.values, marks=p.marks, id=p.id) for p in files("ncsn", "ncsn_v2")],
)
def test_refinenets(version, path):
    o = Oracle(path)
    build = convert.ncsn.ncsn if version == 1 else convert.ncsn.ncsnv2
    net, variables = build(convert.load_weights(path), **o.config["model"], channels=o.config["data"]["channels"])
    x, label, sigmas, eps = image(o, "in/x"), o["in/labels"], jnp.asarray(o["in/sigmas"]), image(o, "in/eps")
    sigma = sigmas[label]

    def score(params, x):
        return net.apply({"params": params}, x, jnp.asarray(label) if version == 1 else sigma)

    @jax.jit
    def run(params):
        by_x = jax.grad(lambda x: jnp.sum(score(params, x) * eps))(x)

        def dsm(params):
            return jnp.mean(objectives.denoising(lambda x, s: score(params, x), x, sigma, eps, 2.0))

        return score(params, x), by_x, *jax.value_and_grad(dsm)(params)

    y, by_x, loss, grads = run(variables["params"])
    o.check("out/score", y, image=True)
    o.check("out/grad/in/x_of_score_dot_eps", by_x, image=True)
    o.check("out/dsm_loss", loss)
    check_gradients(o, grads, "out/grad/w/")
    if version == 2:
        return

    @jax.jit
    def sliced(params):
        def loss(params):
            v = image(o, "in/projections").reshape(2, *x.shape)
            noisy = x + sigma[:, None, None, None] * eps
            # One projection after the other: a second copy of this program would take as long to compile again.
            terms = jax.lax.map(lambda v: sigma**2 * objectives.sliced(lambda x: score(params, x), noisy, v), v)
            return jnp.mean(terms)

        return jax.value_and_grad(loss)(params)

    loss, grads = sliced(variables["params"])
    o.check("out/ssm_vr_loss", loss)
    check_gradients(o, grads, "out/ssm_grad/w/")


@pytest.mark.parametrize("path", files("ncsn", "score_matching_losses"))
def test_score_matching_losses(path):
    o = Oracle(path)
    with jax.enable_x64(True):
        given = {
            k: jnp.asarray(o[f"in/{k}"].astype(np.float64))
            for k in ("x", "projections", "projections_particles", "eps", "sigmas")
        }
        weights = {n[2:]: jnp.asarray(o[n].astype(np.float64)) for n in o.names if n.startswith("w/")}
        x, sigma = given["x"], given["sigmas"][o["in/labels"]]
        twice = jnp.concatenate([x, x])
        v, many = given["projections"], given["projections_particles"]
        unit = many / jnp.linalg.norm(many, axis=-1, keepdims=True)
        sphere = v / jnp.linalg.norm(v, axis=-1, keepdims=True) * v.shape[1] ** 0.5

        def energy(w):
            return lambda x: jax.nn.softplus(x @ w["A"] + w["b"][None]) @ w["v"] + 0.5 * (x**2) @ w["sig"]

        def score(w):
            return lambda x: jnp.tanh(x @ w["A"] + w["b"][None]) @ w["C"] + w["c"][None] - w["sig"][None] * x

        of_energy = lambda w: objectives.of_energy(energy(w))  # noqa: E731
        noisy = lambda w: lambda x, s: score(w)(x) / s[:, None]  # noqa: E731
        sliced = objectives.sliced
        level = lambda name: jnp.full(4, float(name))  # noqa: E731
        losses = {
            "energy_ssm_radermacher": lambda w: sliced(of_energy(w), x, jnp.sign(v), reduced=False),
            "energy_ssm_sphere": lambda w: sliced(of_energy(w), x, sphere, reduced=False),
            "energy_ssm_gaussian": lambda w: sliced(of_energy(w), x, v, reduced=False),
            "energy_ssm_vr_gaussian": lambda w: sliced(of_energy(w), x, v),
            "energy_sliced_score_matching": lambda w: sliced(of_energy(w), twice, unit, reduced=False),
            "energy_sliced_score_matching_vr": lambda w: sliced(of_energy(w), twice, many),
            "score_sliced_score_estimation": lambda w: sliced(score(w), twice, unit, reduced=False),
            "score_sliced_score_estimation_vr": lambda w: sliced(score(w), twice, many),
            "annealed_ssm_vr": lambda w: jnp.concatenate([sigma, sigma]) ** 2 * sliced(
                lambda y: noisy(w)(y, jnp.concatenate([sigma, sigma])),
                jnp.concatenate([x + sigma[:, None] * given["eps"]] * 2), many,
            ),
        }  # fmt: skip
        for name in o.names:
            head, _, tail = name.removeprefix("out/").partition("/")
            if tail != "loss":
                continue
            if head.startswith("energy_dsm_"):
                s = level(head.rsplit("_", 1)[1])
                losses[head] = lambda w, s=s: objectives.denoising(lambda y, _: of_energy(w)(y), x, s, given["eps"], 4.0)
            if head.startswith("score_dsm_"):
                s = level(head.rsplit("_", 1)[1])
                losses[head] = lambda w, s=s: objectives.denoising(lambda y, _: score(w)(y), x, s, given["eps"])
            if head.startswith("annealed_dsm_power"):
                losses[head] = lambda w, p=float(head[-1]): objectives.denoising(noisy(w), x, sigma, given["eps"], p)
            value, grads = jax.value_and_grad(lambda w, f=losses[head]: jnp.mean(f(w)))(weights)
            o.check(name, value)
            for other in o.names:
                if other.startswith(f"out/{head}/grad/w/"):
                    o.check(other, grads[other.rsplit("/", 1)[1]])
        o.check("out/energy", energy(weights)(x))
        o.check("out/score", score(weights)(x))


@pytest.fixture
def drawn(monkeypatch):
    """Puts the given draws in place of the samplers' noise."""

    def place(draws):
        draws = jnp.asarray(draws)
        for module in (langevin, pc):
            monkeypatch.setattr(module, "noise", lambda keys, shape, index: draws[index])

    return place


@pytest.mark.parametrize("path", files("ncsn", "langevin"))
def test_annealed_langevin(path, drawn):
    o = Oracle(path)
    mu, s, pi = (jnp.asarray(o[f"in/{k}"]) for k in ("mu", "s", "pi"))
    shape = o["in/x0"].shape[1:]

    def score(x, sigma):  # of a mixture of Gaussians, over the flattened image in the order C, H, W
        flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        variance = s[None] ** 2 + sigma[:, None] ** 2
        gap = mu[None] - flat[:, None]
        logits = jnp.log(pi)[None] - 0.5 * jnp.sum(gap**2, -1) / variance - 0.5 * flat.shape[1] * jnp.log(variance)
        out = jnp.sum((jax.nn.softmax(logits) / variance)[..., None] * gap, 1)
        return out.reshape(len(x), *shape).transpose(0, 2, 3, 1)

    drawn(o.nhwc("in/noise"))
    x0, sigmas, config = image(o, "in/x0"), o["in/sigmas"], o.config
    found, states = langevin.annealed_langevin(
        score, x0, sigmas, image_keys(0, len(x0)), steps_each=config["n_steps_each"], step_size=config["step_lr"],
        denoise=bool(config["denoise"]), trace=lambda x, s: x,
    )  # fmt: skip
    states = np.asarray(states).reshape(-1, *x0.shape)
    o.check("out/step_sizes", config["step_lr"] * (sigmas / sigmas[-1]) ** 2)
    if "out/pre_step" in o:
        o.check("out/pre_step", np.concatenate([x0[None], states[:-1]]), image=True)
    else:
        o.check("out/images", np.concatenate([states, found[None]]), image=True)


def processes(config):
    steps = config.get("N_trajectory", config["N"])
    beta, sigma = (config["beta_min"], config["beta_max"]), (config["sigma_min"], config["sigma_max"])
    return {
        "vp": lambda steps=steps: sde.vp(*beta, steps),
        "subvp": lambda steps=steps: sde.sub_vp(*beta, steps),
        "ve": lambda steps=steps: sde.ve(*sigma, steps),
    }


def exact_score(o, process):
    """The score of data N(m, diag(s^2)) at every time."""
    m, s = image(o, "in/m"), image(o, "in/s")

    def score(x, t):
        a, std = (expand_dims_like(f(t), x) for f in (process.mean, process.std))
        return -(x - a * m) / (a**2 * s**2 + std**2)

    return score


@pytest.mark.parametrize("path", files("score_sde", "sde"))
def test_coefficients_of_sdes(path):
    o = Oracle(path)
    t, x, x0 = jnp.asarray(o["in/t"]), image(o, "in/x"), image(o, "in/x0")
    for name, make in processes(o.config).items():
        process = make()
        score, at = exact_score(o, process), f"out/{name}"
        o.check(f"{at}/sde_drift", expand_dims_like(process.rate(t), x) * x, image=True)
        o.check(f"{at}/sde_diffusion", process.diffusion(t))
        o.check(f"{at}/marginal_mean", expand_dims_like(process.mean(t), x0) * x0, image=True)
        o.check(f"{at}/marginal_std", process.std(t))
        o.check(f"{at}/prior_logp", sde.prior_log_density(process, x))
        o.check(f"{at}/discretize_f", expand_dims_like(process.shift(t), x) * x, rtol=2e-5, image=True)
        o.check(f"{at}/discretize_G", process.spread(t))
        o.check(f"{at}/score", score(x, t), image=True)
        for i, ode in enumerate((False, True)):
            o.check(f"{at}/reverse_drift_pf{i}", sde.reverse_drift(process, score, x, t, ode), image=True)
            f = expand_dims_like(process.shift(t), x) * x
            share = 0.5 if ode else 1.0
            reverse = f - share * expand_dims_like(process.spread(t), x) ** 2 * score(x, t)
            o.check(f"{at}/reverse_discretize_f_pf{i}", reverse, rtol=2e-5, image=True)
        levels = process.std(t) / process.mean(t)
        assert np.allclose(process.time(levels), t, atol=2e-4), name


@pytest.mark.parametrize("path", files("score_sde", "losses"))
def test_losses_of_sdes(path):
    o = Oracle(path)
    x0, z, m = image(o, "in/x0"), image(o, "in/z"), image(o, "in/m")
    t = jnp.asarray(o["in/u"]) * (1 - o.config["eps"]) + o.config["eps"]
    for name, make in processes(o.config).items():
        process = make()
        score = exact_score(o, process)
        o.check(f"out/{name}/score_at_perturbed", score(sde.perturb(process, x0, t, z), t), image=True)
        for weight in (0, 1):
            for mean in (0, 1):
                terms = objectives.along(process, score, x0, t, z, likelihood=bool(weight), mean=bool(mean))
                o.check(f"out/{name}/loss_lw{weight}_mean{mean}", jnp.mean(terms), rtol=3e-5)
    label = jnp.asarray(o["in/labels"])
    toy = lambda x, number: -0.1 * x + m + 0.001 * expand_dims_like(number.astype(jnp.float32), x)  # noqa: E731
    sigmas = jnp.asarray(np.geomspace(o.config["sigma_max"], o.config["sigma_min"], o.config["N"]), jnp.float32)
    smld = jnp.mean(objectives.denoising(lambda x, s: toy(x, label), x0, sigmas[label], z, 2.0))
    o.check("out/smld_mean0", smld)
    o.check("out/smld_mean1", 2 * smld / x0[0].size)
    betas = np.linspace(o.config["beta_min"] / o.config["N"], o.config["beta_max"] / o.config["N"], o.config["N"])
    ddpm = jnp.mean(simple_terms(toy, Schedule(betas, np.arange(len(betas))), x0, label, z))
    o.check("out/ddpm_mean1", ddpm)
    o.check("out/ddpm_mean0", ddpm * x0[0].size / 2)


@pytest.mark.parametrize("path", files("score_sde", "pc_sampling"))
def test_predictors_and_correctors(path, drawn):
    o = Oracle(path)
    x, z = image(o, "in/x"), image(o, "in/z_pred")
    predictors = {
        "euler_maruyama": pc.euler_maruyama,
        "reverse_diffusion": pc.reverse_diffusion,
        "ancestral_sampling": pc.ancestral,
    }
    correctors = {
        "langevin": partial(pc.langevin, snr=o.config["snr"], together=True),
        "ald": partial(pc.annealed, snr=o.config["snr"]),
        "none": None,
    }
    for name, make in processes(o.config).items():
        process = make(o.config["N"])
        score = exact_score(o, process)
        for kind, update in predictors.items():
            for times, key in (("t_same", "in/t"), ("t_each", "in/t_each")):
                if f"out/{name}/{kind}/{times}/x" in o:
                    found = update(process, score, x, jnp.asarray(o[key]), z)
                    for part, value in zip(("x", "x_mean"), found):
                        o.check(f"out/{name}/{kind}/{times}/{part}", value, image=True)
        found = pc.euler_ode(process, score, x, jnp.asarray(o["in/t_each"]), z)
        if f"out/{name}/reverse_diffusion_pf/x" in o:
            o.check(f"out/{name}/reverse_diffusion_pf/x", found[0], image=True)
        for kind in ("langevin", "ald"):
            if f"out/{name}/{kind}/x" not in o:
                continue
            now, mean = x, x
            for draw in o.nhwc("in/z_corr"):
                now, mean = correctors[kind](process, score, now, jnp.asarray(o["in/t_each"]), jnp.asarray(draw))
            o.check(f"out/{name}/{kind}/x", now, image=True)
            o.check(f"out/{name}/{kind}/x_mean", mean, image=True)
    draws = o.nhwc("in/traj_noise")
    for run in sorted({n.split("/")[2] for n in o.names if n.startswith("out/pc/")}):
        name, rest = run.split("_", 1)
        predictor = next(p for p in predictors if rest.startswith(p))
        corrector = correctors[rest.removeprefix(f"{predictor}_")]
        process = processes(o.config)[name]()
        drawn(draws[1:])
        how = dict(predictor=predictors[predictor], corrector=corrector, corrector_steps=o.config["corrector_steps"])
        start = jnp.asarray(draws[0]) * process.prior_std
        for denoise, part in ((True, "denoised"), (False, "noisy")):
            found, states = predictor_corrector(
                process, exact_score(o, process), start, image_keys(0, len(start)), **how, denoise=denoise, trace=lambda x, m: x
            )
            o.check(f"out/pc/{run}/{part}", found, image=True)
        o.check(f"out/pc/{run}/trajectory", states, image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("score_sde", "ode_likelihood"))
def test_probability_flow(path):
    from jgen.samplers import probability_flow

    o = Oracle(path)
    with jax.enable_x64(True):
        tight = dict(rtol=o.config["rtol"], atol=o.config["atol"])
        double = lambda name: image(o, name).astype(jnp.float64)  # noqa: E731
        for name, make in processes(o.config).items():
            process = make()
            score, at = exact_score(o, process), f"out/{name}"
            o.check(
                f"{at}/pf_drift", sde.reverse_drift(process, score, double("in/x"), jnp.asarray(o["in/t"]), True), image=True
            )
            for kind in ("rademacher", "gaussian"):
                probes = double(f"in/eps_{kind}")
                bits, z = probability_flow.bits_per_dim(process, score, double("in/x0"), probes, **tight)
                # They estimate the divergence of the linear drift too, where ours is exact; Gaussian probes tell.
                ends = [process.mean(jnp.asarray(t, jnp.float64)) for t in (probability_flow.LEAST, 1.0)]
                estimated = jnp.mean(jnp.square(probes), (1, 2, 3)) - 1
                o.check(f"{at}/{kind}/bpd", bits - estimated * jnp.log2(ends[1] / ends[0]))
                o.check(f"{at}/{kind}/z", z, image=True)
                if kind == "rademacher":  # the Jacobian is diagonal, so these are exact but for the prior
                    assert np.allclose(bits, o[f"{at}/exact_bpd_at_eps"], rtol=0.02)
            start = double("in/eps_gaussian") * process.prior_std
            end = o.config["eps_sampling"]
            o.check(f"{at}/ode_sample", probability_flow.flow(process, score, start, end=end, **tight), image=True)


@pytest.mark.parametrize("path", [*files("score_sde", "ncsnpp"), *files("score_sde", "ddpm")])
def test_networks_of_score_sde(path):
    o = Oracle(path)
    kind = o.config["name"]
    build = {"ncsnpp": convert.score_sde.ncsnpp, "ddpm": convert.score_sde.ddpm}[kind]
    net, variables = build(convert.load_weights(path), model=o.config["model"], data=o.config["data"])
    x, label, eps = image(o, "in/x"), jnp.asarray(o["in/labels"]), image(o, "in/eps")

    @jax.jit
    def run(params, x):
        def weighed(params, x):
            given = x if o.config["data"]["centered"] else 2 * x - 1
            condition = jnp.log(label) if o.config["model"].get("embedding_type") == "fourier" else label.astype(jnp.float32)
            y = net.apply({"params": params}, given, condition)
            y = y / expand_dims_like(label, y) if o.config["model"]["scale_by_sigma"] else y
            return jnp.sum(y * eps), y

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, x)

    (grads, by_x), y = run(variables["params"], x)
    o.check("out/out", y, image=True)
    o.check("out/grad/in/x", by_x, image=True)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
