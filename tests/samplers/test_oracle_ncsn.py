"""RefineNets, score matching and annealed Langevin dynamics against NCSN's authors'.

Sizes, options and names of layers come from the files, of which every result is compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.arrays import dot, expand_dims_like
from jgen.convert.common import linen_path
from jgen.objectives import score as objectives
from jgen.samplers import image_keys, langevin
from tests.oracle import Oracle, files, find
from tests.samplers.score_files import CAPTURE, double, image, results

pytestmark = pytest.mark.oracle


def check_gradients(o, grads, prefix):
    """Compares gradients of a RefineNet's weights, which are of convolutions, norms and embeddings."""
    for name in results(o, prefix):
        leaf = find(grads, name)
        o.check(prefix + name, leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf)


def refinenet(o):
    """(network, variables, whether of version 1)."""
    kind = o.config["cls"]
    build = convert.ncsn.ncsn if kind in convert.ncsn.V1 else convert.ncsn.ncsnv2
    weights = convert.load_weights(o.path)
    return *build(weights, network=kind, **o.config["model"], **o.config["data"]), kind in convert.ncsn.V1


@pytest.mark.slow
@pytest.mark.parametrize("path", files("ncsn", "ncsn_v"))
def test_refinenets(path):
    o = Oracle(path)
    net, variables, first = refinenet(o)
    x, label, sigmas, eps = image(o, "in/x"), jnp.asarray(o["in/labels"]), jnp.asarray(o["in/sigmas"]), image(o, "in/eps")
    sigma, level = sigmas[label], label if first else sigmas[label]

    def score(params, x):
        return net.apply({"params": params}, x, level)

    @jax.jit
    def run(params):
        by_x = jax.grad(lambda x: jnp.sum(score(params, x) * eps))(x)

        def dsm(params):
            return jnp.mean(objectives.denoising(lambda x, s: score(params, x), x, sigma, eps, power))

        return net.apply({"params": params}, x, level, **CAPTURE), by_x, *jax.value_and_grad(dsm)(params)

    power = o.config.get("anneal_power", 2.0)
    (y, seen), by_x, loss, grads = run(variables["params"])
    o.check("out/score", y, image=True)
    for name in results(o, "out/block/"):
        o.check(f"out/block/{name}", seen["intermediates"][linen_path(name)[0]]["__call__"][0], image=True)
    for name, value in (("out/grad/in/x_of_score_dot_eps", by_x), ("out/dsm_loss", loss)):
        if name in o:
            o.check(name, value, image=value.ndim == 4)
    check_gradients(o, grads, "out/grad/w/")
    if "out/ssm_vr_loss" in o:
        directions = image(o, "in/projections").reshape(-1, *x.shape)
        loss, grads = sliced_loss(score, x + expand_dims_like(sigma, x) * eps, sigma, directions)(variables["params"])
        o.check("out/ssm_vr_loss", loss)
        check_gradients(o, grads, "out/ssm_grad/w/")
    o.check_whole()


def sliced_loss(score, noisy, sigma, directions):
    """params -> (sliced score matching along directions [n, B, ...], weighed by sigma^2, and its gradient)."""

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        # One projection after the other: a second copy of this program would take as long to compile again.
        terms = jax.lax.map(lambda v: sigma**2 * objectives.sliced(lambda x: score(params, x), noisy, v), directions)
        return jnp.mean(terms)

    return loss


@pytest.mark.parametrize(
    "version,option,message",
    [
        (1, {"normalisation": "InstanceNorm"}, r"normalisation: no option of .* \(did you mean normalization"),
        (1, {"batch_norm": True}, "batch_norm=True: must be False here"),
        (1, {"network": "NCSNv2"}, "network=NCSNv2: must be one of CondRefineNetDilated"),
        (2, {"network": "NCSN"}, "network=NCSN: must be one of NCSNv2, NCSNv2Deeper, NCSNv2Deepest"),
        (2, {"nonlinearity": "gelu"}, "nonlinearity=gelu: must be elu or relu or lrelu or swish"),
        (2, {"normalization": "BatchNorm"}, "normalization=BatchNorm: must be InstanceNorm"),
        (1, {"network": "NCSN", "spec_norm": True}, "spec_norm=True: must be False here"),
        (2, {"spec_norm": True}, "weights do not match the network"),  # which is not read there, and changes nothing
        (2, {"dilation": 2}, "dilation: no option of NCSN's configurations"),
    ],
)
def test_refinenets_refuse_options_by_name(version, option, message):
    with pytest.raises(ValueError, match=message):
        (convert.ncsn.ncsn if version == 1 else convert.ncsn.ncsnv2)({}, **option)


def sliced_case(name, o, x, v, many, unit):
    """(points, directions, whether reduced) of a case of sliced score matching, by the name that the file has for it."""
    repeated = jnp.concatenate([x] * (len(many) // len(x)))
    if name.startswith("energy_ssm_"):
        kind = name.rsplit("_", 1)[1]
        sphere = v / jnp.linalg.norm(v, axis=-1, keepdims=True) * v.shape[1] ** 0.5
        return x, {"radermacher": jnp.sign(v), "sphere": sphere, "gaussian": v}[kind], "_vr_" in name
    return (repeated, many, True) if name.endswith("_vr") else (repeated, unit, False)


@pytest.mark.parametrize("path", files("ncsn", "score_matching_losses"))
def test_score_matching_losses(path):
    o = Oracle(path)
    with jax.enable_x64(True):
        weights = {n.removeprefix("w/"): double(o, n) for n in o.names if n.startswith("w/")}
        x, v, many, eps = (double(o, f"in/{k}") for k in ("x", "projections", "projections_particles", "eps"))
        sigma, n = double(o, "in/sigmas")[o["in/labels"]], len(many) // len(x)
        unit = many / jnp.linalg.norm(many, axis=-1, keepdims=True)

        def energy(w):
            return lambda x: jax.nn.softplus(x @ w["A"] + w["b"][None]) @ w["v"] + 0.5 * (x**2) @ w["sig"]

        def score(w):
            return lambda x: jnp.tanh(x @ w["A"] + w["b"][None]) @ w["C"] + w["c"][None] - w["sig"][None] * x

        def field(name, w):
            return objectives.of_energy(energy(w)) if name.startswith("energy") else score(w)

        def noisy(w):
            return lambda x, s: score(w)(x) / s[:, None]

        def losses(name, w):
            """One a point, of the case of a name."""
            if "_dsm_power" in name:
                return objectives.denoising(noisy(w), x, sigma, eps, float(name.partition("power")[2]))
            if "_dsm_" in name:
                level = jnp.full(len(x), float(name.rpartition("_")[2]))
                power = 4.0 if name.startswith("energy") else 0.0
                return objectives.denoising(lambda y, _: field(name, w)(y), x, level, eps, power)
            if name == "annealed_ssm_vr":
                levels, points = jnp.concatenate([sigma] * n), jnp.concatenate([x + sigma[:, None] * eps] * n)
                return levels**2 * objectives.sliced(lambda y: noisy(w)(y, levels), points, many)
            points, directions, reduced = sliced_case(name, o, x, v, many, unit)
            return objectives.sliced(field(name, w), points, directions, reduced=reduced)

        for name in sorted({n.split("/")[0] for n in results(o, "out/") if "/" in n}):
            loss, grads = jax.value_and_grad(lambda w, name=name: jnp.mean(losses(name, w)))(weights)
            for part in results(o, f"out/{name}/"):
                if part == "loss":
                    o.check(f"out/{name}/loss", loss)
                elif part.startswith("grad/w/"):
                    o.check(f"out/{name}/{part}", grads[part.removeprefix("grad/w/")])
                else:  # the two terms of the loss, or what they are made of
                    points, directions, reduced = sliced_case(name, o, x, v, many, unit)
                    s, pull = jax.vjp(field(name, weights), points)
                    square = 0.5 * (dot(s, s) if reduced else dot(directions, s) ** 2)
                    found = {"grad_logp": s, "hvp": pull(directions)[0], "loss1": jnp.mean(square)}
                    found["loss2"] = jnp.mean(losses(name, weights) - square)
                    o.check(f"out/{name}/{part}", found[part])
        for name, value in (("out/energy", energy), ("out/score", score)):
            if name in o:
                o.check(name, value(weights)(x))
    o.check_whole()


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
    denoise = bool(config.get("denoise"))
    found, states = langevin.annealed_langevin(
        score, x0, sigmas, image_keys(0, len(x0)), steps_each=config["n_steps_each"], step_size=config["step_lr"],
        denoise=denoise, trace=lambda x, s: x,
    )  # fmt: skip
    after = np.asarray(states).reshape(-1, *x0.shape)
    before = np.concatenate([x0[None], after[:-1]])
    trajectories = {
        "pre_step": before,
        "images_clamped": np.clip(before, 0, 1),
        "images": np.concatenate([after, found[None]]) if denoise else after,
        "score_inputs": np.concatenate([before, after[-1:]]) if denoise else before,
    }
    for name in results(o, "out/"):
        if name == "step_sizes":
            o.check("out/step_sizes", config["step_lr"] * (sigmas / sigmas[-1]) ** 2)
        else:
            o.check(f"out/{name}", trajectories[name], image=True)
    o.check_whole()
