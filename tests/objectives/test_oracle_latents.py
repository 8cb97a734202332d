"""Latents moved before a step, against StudioGAN's LOGAN and DeepMind's CS-GAN, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jgen.objectives import gan
from jgen.objectives.latent_moves import (
    gradient_steps,
    measurement_error,
    natural_gradient,
    restricted_isometry,
    squared_distance,
)
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def linear(weights, x):
    return x @ weights["weight"].T + weights["bias"][None]


def hidden(weights, x):
    return linear(weights["l1"], x.reshape(len(x), -1))


def generate(weights, z, label=None):
    """The files' G; images stay in their own layout [n, C, H, W] flattened."""
    h = hidden(weights, z) + (0 if label is None else weights["emb"]["weight"][label])
    return jnp.tanh(linear(weights["l2"], jax.nn.softplus(h)))


def judge(weights, x):
    return linear(weights["l2"], jax.nn.softplus(hidden(weights, x)))


def tree(o, network):
    found = {}
    for name, value in o.weights(network).items():
        layer, kind = name.split(".")
        found.setdefault(layer, {})[kind] = jnp.asarray(value, float)
    return found


def check_gradients(o, prefix, grads):
    """grads: {the file's network: its gradients}."""
    for name in (n for n in o.names if n.startswith(f"{prefix}/") and n.count(".") == 2):
        network, layer, kind = name.removeprefix(f"{prefix}/").split(".")
        if network in grads:
            o.check(name, grads[network][layer][kind])


def check_logan(o, kind):
    label, z = jnp.asarray(o["in/labels"]) if "in/labels" in o else None, jnp.asarray(o[f"in/z_{kind}"], float)
    g, d = tree(o, "G"), tree(o, "D_projection")

    def score(g, z):
        h = jax.nn.softplus(hidden(d, generate(g, z, label)))
        logits = linear(d["l2"], h)[:, 0]
        return logits if label is None else logits + jnp.sum(d["emb"]["weight"][label] * h, -1)

    o.check(f"out/raw_z_grad/{kind}", jax.jit(jax.grad(lambda z: jnp.sum(score(g, z))))(z))
    for name, config in o.config["logan"].items():
        prefix = f"studiogan/{kind}/{name}"
        settings = {k: config[f"lo_{k}"] for k in ("rate", "alpha", "beta", "steps")}

        def loss(g, settings=settings):
            moved, cost = natural_gradient(
                partial(score, g), z, jnp.asarray(o["in/drop_uniform"], float), **settings, form="studiogan"
            )
            return -jnp.mean(score(g, moved)), (moved, cost)

        (value, (moved, cost)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(g)
        o.check(f"out/{prefix}/z_optimised", moved)
        o.check(f"out/{prefix}/transport_cost", cost)
        o.check(f"out/{prefix}/g_loss_after", value)
        check_gradients(o, f"out/grad/{prefix}", {"G": grads})


def cs_parts(o, kind, projection):
    """The losses of a CS-GAN ("gan"), or of compressed sensing ("cs"), as (weights) -> (G's loss, all numbers)."""
    config, z, data = o.config["cs_gan"], jnp.asarray(o["in/z_gaussian"], float), jnp.asarray(o["in/data"], float)
    data = data.reshape(len(data), -1)

    def parts(w):
        log_step = w["log_step"]
        measure = partial(judge, w.get("measure"))
        real_logit = lambda x: jnp.diff(judge(w["disc"], x), axis=-1)[:, 0]  # noqa: E731

        def move_loss(z):
            samples = generate(w["G"], z)
            if kind == "cs":
                return jnp.sum(measurement_error(measure, data, samples))
            return gan.non_saturating.g(real_logit(samples), real_logit(data))

        steps = dict(step_size=jnp.exp(log_step), steps=config["iters"], projection=projection)
        path = gradient_steps(move_loss, z, **steps)
        samples, initial = generate(w["G"], path[-1]), generate(w["G"], z)
        found = {"z_trajectory": path, "z_step_size": jnp.exp(log_step), "opt_cost": squared_distance(path[-1], z)}
        if kind == "gan":
            logits = real_logit(data), real_logit(samples)
            found["gen_loss"] = gan.non_saturating.g(logits[1], logits[0])
            found["disc_data_loss"] = jnp.mean(jax.nn.softplus(-logits[0]))
            found["disc_sample_loss"] = jnp.mean(jax.nn.softplus(logits[1]))
            found["disc_loss"] = gan.non_saturating.d(*logits)
            total = found["gen_loss"] + config["cost_weight"] * found["opt_cost"]
        else:
            pairs = (samples, initial), (samples, data), (initial, data)
            found["rip_loss"] = jnp.mean(sum(restricted_isometry(measure, *pair) for pair in pairs) / 3)
            found["gen_loss"] = jnp.mean(measurement_error(measure, data, samples))
            found["recons_loss"] = jnp.mean(jnp.linalg.norm(samples - data, axis=-1))
            total = found["gen_loss"] + found["rip_loss"]
        return total, {**found, "optimised_loss": total}

    return parts


def check_cs(o, kind, projection):
    prefix, parts = f"cs_gan/{kind}/{projection}", cs_parts(o, kind, projection)
    log_step = jnp.log(o[f"out/{prefix}/z_step_size"].astype(float))
    judges = {"disc": tree(o, "D_two_logits")} if kind == "gan" else {"measure": tree(o, "measure")}
    weights = {"G": tree(o, "G"), "log_step": log_step, **judges}
    (_, found), grads = jax.jit(jax.value_and_grad(parts, has_aux=True))(weights)
    for name, value in found.items():
        if f"out/{prefix}/{name}" in o:
            o.check(f"out/{prefix}/{name}", value)
    o.check(f"out/grad/{prefix}/log_step_size", grads["log_step"])
    check_gradients(o, f"out/grad/{prefix}", grads)
    if kind == "gan":
        by_disc = jax.jit(jax.grad(lambda w: parts(w)[1]["disc_loss"]))(weights)["disc"]
        check_gradients(o, f"out/grad/{prefix}/disc", {"D": by_disc})


@pytest.mark.parametrize("path", files("csgan", ""))
def test_moves_of_latents(path):
    o = Oracle(path)
    for kind in sorted({n.split("/")[2] for n in o.names if n.startswith("out/studiogan/")}):
        check_logan(o, kind)
    for kind, projection in sorted({tuple(n.split("/")[2:4]) for n in o.names if n.startswith("out/cs_gan/")}):
        check_cs(o, kind, projection)
    o.check_whole()
