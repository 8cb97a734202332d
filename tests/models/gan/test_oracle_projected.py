"""Projected GAN's generator and discriminator, and Diffusion-GAN's with a time, against their authors' numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.convert import projected_gan
from jgen.errors import UserError
from jgen.models.gan.fastgan import noise_planes
from tests.oracle import Oracle, files, official_gradient

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def labels(o, name="in/c"):
    """Classes [B] of one-hot labels, or None."""
    return jnp.argmax(jnp.asarray(o[name]), 1) if name in o else None


def run_modes(net, found, o, inputs):
    """{"eval", "train"} -> (the call of one input, which gives outputs and state)."""
    state = [k for k in found if k not in ("params", "buffers")]
    apply = lambda params, train, *x: net.apply({**found, "params": params}, *x, *inputs, train=train, mutable=state)  # noqa: E731
    return {"eval": lambda p, *x: apply(p, False, *x), "train": lambda p, *x: apply(p, True, *x)}


@pytest.mark.parametrize("path", files("diffusion_gan", "projection"))
def test_projections(path):
    o = Oracle(path)
    weights = convert.load_weights(path)
    c = o.config
    net, found = projected_gan.projection(
        weights, in_channels=c["in_channels"], cout=c["cout"], expand=c["expand"], proj_type=c["proj_type"]
    )
    features = [jnp.asarray(o.nhwc(f"in/feature{i}")) for i in range(len(c["in_channels"]))]
    for i, mixed in enumerate(jax.jit(net.apply)(found, features)):
        o.check(f"out/mixed{i}", mixed, image=True)
        assert mixed.shape[-1] == c["out_channels"][i]
    o.check_whole()


def noise_of(o, mode, net, batch):
    """The generator's noise planes of a file, whatever the file calls them: in the order of the layers."""
    planes = noise_planes(net.resolution, net.lite)
    natural = lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]  # noqa: E731
    given = sorted((n for n in o.names if n.startswith("in/") and "noise" in n), key=natural)
    own = [n for n in given if f"/{mode}/" in n] or given
    if not own:
        return None
    assert len(own) == len(planes), own
    return {name: jnp.asarray(o.nhwc(n)) for name, n in zip(planes, own)}


@pytest.mark.parametrize("path", files("diffusion_gan", "fastgan"))
def test_generators(path):
    o = Oracle(path)
    net, found = projected_gan.generator(convert.load_weights(path), **o.config)
    z, label = jnp.asarray(o["in/z"]), labels(o)
    for mode in ("eval", "train"):
        noise = noise_of(o, mode, net, len(z))
        images = jax.jit(run_modes(net, found, o, (label, noise))[mode])(found["params"], z)[0]
        o.check(f"out/{mode}/img", images[:1], image=True)
        flat = images.reshape(len(images), -1)
        for name, value in (("mean", jnp.mean(flat, 1)), ("std", jnp.std(flat, 1, ddof=1))):
            if f"out/{mode}/img_{name}" in o:
                o.check(f"out/{mode}/img_{name}", value)
    o.check_whole()


HEAD_OPTIONS = (
    "channels",
    "resolutions",
    "num_discs",
    "ndf",
    "separable",
    "patch",
    "cond",
    "c_dim",
    "cmap_dim",
    "embedding_dim",
)


def head_options(config):
    """The constructor's options of a file, wherever it states them."""
    given = {**config, **(config.get("head_kwargs") or {})}
    return {k: v for k, v in given.items() if k in HEAD_OPTIONS}


def state_at(found, convert, weights, name):
    """An official buffer's new numbers, from the state of a converted tree."""
    marked = {k: np.zeros_like(v, np.float64) for k, v in weights.items()}
    marked[name] = np.arange(1.0, 1 + weights[name].size).reshape(weights[name].shape)
    value = np.zeros(weights[name].size)
    placed = convert(marked)
    for collection, new in found.items():
        for at, leaf in zip(jax.tree.leaves(placed[collection]), jax.tree.leaves(new), strict=True):
            here = np.asarray(at) > 0
            value[np.asarray(at)[here].astype(int) - 1] = np.asarray(leaf)[here]
    return value.reshape(weights[name].shape)


@pytest.mark.parametrize("path", files("diffusion_gan", "multiscale_disc"))
def test_discriminators(path):
    o = Oracle(path)
    weights, options = convert.load_weights(path), head_options(o.config)
    if any(".cls." in name for name in weights):
        options = {"cond": 1, **options}
    read = lambda w: projected_gan.discriminator(w, **options)[1]  # noqa: E731
    net, found = projected_gan.discriminator(weights, **options)
    features = [jnp.asarray(o.nhwc(f"in/feature{i}")) for i in range(o.config["num_discs"])]
    label, cotangent = labels(o), jnp.asarray(o["in/cotangent"])
    for mode, call in run_modes(net, found, o, (label,)).items():

        @jax.jit
        def run(params, features, call=call):
            logits, pull, state = jax.vjp(call, params, features, has_aux=True)
            return logits, pull(cotangent), state

        logits, (by_weights, by_features), state = run(found["params"], features)
        o.check(f"out/{mode}/logits", logits)
        for i, grad in enumerate(by_features):
            o.check(f"out/{mode}/grad/feature{i}", grad, image=True)
        for name in (n for n in o.names if n.startswith(f"out/{mode}/grad/") and n not in o.checked):
            o.check(name, official_gradient(read, weights, name.removeprefix(f"out/{mode}/grad/"), by_weights))
        for name in (n for n in o.names if n.startswith(f"out/{mode}/state_after/")):
            o.check(name, state_at(state, read, weights, name.removeprefix(f"out/{mode}/state_after/")))
    o.check_whole()


@pytest.mark.parametrize("path", files("diffusion_gan", "discriminator_t"))
def test_discriminators_with_a_time(path):
    """The time is the last of the labels, as it is."""
    o = Oracle(path)
    options = dict(o.config)
    options["c_dim"] += options.pop("t_dim")
    net, found = convert.stylegan2.discriminator(convert.load_weights(path), **options)
    given = [jnp.asarray(o[n], jnp.float32) for n in ("in/c", "in/t") if n in o]
    label = jnp.concatenate(given, 1)
    logits, seen = net.apply(found, jnp.asarray(o.nhwc("in/img")), label, capture_intermediates=True)
    o.check("out/logits", logits[:, None])
    o.check("out/cmap", seen["intermediates"]["mapping"]["__call__"][0])
    o.check_whole()


def test_options_without_effect_are_refused():
    for call, options, message in (
        (projected_gan.generator, {"synthesis_kwargs": {"heavy": 1}}, "heavy"),
        (projected_gan.discriminator, {"channels": [1], "resolutions": [64], "num_discs": 2}, "num_discs=2: must be from 1 to"),
        (projected_gan.projection, {"in_channels": [1], "proj_type": 3}, "proj_type=3"),
    ):
        with pytest.raises(UserError, match=message):
            call({}, **options)
