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
    given = {name: c[name] for name in ("in_channels", "cout", "expand", "proj_type") if name in c}
    net, found = projected_gan.projection(weights, **given)
    features = [jnp.asarray(o.nhwc(f"in/feature{i}")) for i in range(len(c["in_channels"]))]
    for i, mixed in enumerate(jax.jit(net.apply)(found, features)):
        o.check(f"out/mixed{i}", mixed, image=True)
        assert mixed.shape[-1] == c.get("out_channels", {i: mixed.shape[-1]})[i]
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
        kept = len(o[f"out/{mode}/img"]) if f"out/{mode}/img" in o else 0
        o.check(f"out/{mode}/img", images[:kept], image=True)
        flat = images.reshape(len(images), -1)
        for name, value in (("mean", jnp.mean(flat, 1)), ("std", jnp.std(flat, 1, ddof=1))):
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
    features = [jnp.asarray(o.nhwc(f"in/feature{i}")) for i in range(options.get("num_discs", 4))]
    label = labels(o)
    for mode, call in run_modes(net, found, o, (label,)).items():

        @jax.jit
        def run(params, features, call=call):
            logits, pull, state = jax.vjp(call, params, features, has_aux=True)
            return logits, pull(jnp.asarray(o["in/cotangent"]) if "in/cotangent" in o else jnp.ones_like(logits)), state

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
    options["c_dim"] = options.get("c_dim", 0) + options.pop("t_dim")
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


def spectral(name, *shape, bias=False, out=0):
    """The arrays of an official layer with a spectral norm; out: the axis of its outputs."""
    rest = int(np.prod(shape)) // shape[out]
    arrays = {"weight_orig": shape, "weight_u": (shape[out],), "weight_v": (rest,), **({"bias": (shape[out],)} if bias else {})}
    return {f"{name}.{k}": np.ones(v) for k, v in arrays.items()}


def norm(name, width):
    return {f"{name}.{k}": np.ones(width) for k in ("weight", "bias", "running_mean", "running_var")}


def heads(separable, patch, cond):
    """An official state dict of one head of three blocks of 4 channels on a map of 3."""
    found, width = {}, 3
    for i in range(1 if patch else 3):
        at = f"mini_discs.0.main.{i}.main"
        inside = f"{at}.0.main" if patch else at
        if separable:
            found |= spectral(f"{inside}.0.depthwise", width, 1, 3, 3) | spectral(f"{inside}.0.pointwise", 4, width, 1, 1)
        else:
            found |= spectral(f"{inside}.0", 4, width, 4, 4, bias=True)
        found |= norm(f"{inside}.1", 4)
        if patch:
            found |= spectral(f"{at}.1", 4, 4, 1, 1) | norm(f"{at}.2", 4)
        width = 4
    if not cond:
        return found | spectral(f"mini_discs.0.main.{1 if patch else 3}", 1, 4, 4, 4)
    classes = {"embed.weight": (7, 5), "embed_proj.0.weight": (6, 5), "embed_proj.0.bias": (6,)}
    return found | spectral("mini_discs.0.cls", 6, 4, 4, 4) | {f"mini_discs.0.{k}": np.ones(v) for k, v in classes.items()}


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("patch", [False, True])
@pytest.mark.parametrize("cond", [0, 1])
def test_heads_of_every_kind_are_read_by_name(separable, patch, cond):
    """Shapes and names alone, where no file of golden numbers has the kind."""
    classes = {"c_dim": 7, "cmap_dim": 6, "embedding_dim": 5} if cond else {}
    net, found = projected_gan.discriminator(
        heads(separable, patch, cond), channels=[3], resolutions=[64], num_discs=1, ndf=4, separable=separable, patch=patch,
        cond=cond, **classes,
    )  # fmt: skip
    side = 16 if patch else 32
    logits = net.apply(found, [jnp.ones((2, side, side, 3))], jnp.zeros(2, jnp.int32) if cond else None)
    assert logits.shape == (2, 25 if patch else 1)


def fastgan(lite, cond):
    """An official state dict of a generator of 32 pixels, width 2 and latents of 6; layers that it leaves unused are there."""
    widths = {4: 32, 8: 16, 16: 8, 32: 4, 64: 4, 128: 2, 256: 1}
    found = spectral("synthesis.init.init.0", 6, 64, 4, 4, out=1) | norm("synthesis.init.init.1", 64)
    found |= spectral("synthesis.to_big", 1, 4, 3, 3, bias=True)
    if cond:
        found["synthesis.embed.weight"] = np.ones((7, 6))
    for side in (8, 16, 32, 64, 128, 256):
        at, width, before = f"synthesis.feat_{side}", widths[side], widths[side // 2]
        names = (("conv", "bn"),) if lite else (("conv1", "bn1"), ("conv2", "bn2"))
        names = names if cond else (("1", "2"),) if lite else (("1", "3"), ("5", "7"))
        for i, (conv, bn) in enumerate(names):
            found |= spectral(f"{at}.{conv}", 2 * width, width if i else before, 3, 3)
            if cond:
                for part in ("gain", "bias"):
                    found |= spectral(f"{at}.{bn}.{part}", 2 * width, 6, bias=True)
                found |= {f"{at}.{bn}.stored_{k}": np.ones(2 * width) for k in ("mean", "var")}
            else:
                found |= norm(f"{at}.{bn}", 2 * width)
        noise = () if lite else ("noise",) if cond else ("2", "6")
        found |= {f"{at}.{name}.weight": np.ones(1) for name in noise}
    for side, coarse in ((64, 4), (128, 8), (256, 16)):
        at = f"synthesis.se_{side}.main"
        found |= spectral(f"{at}.1", widths[side], widths[coarse], 4, 4) | spectral(f"{at}.3", widths[side], widths[side], 1, 1)
    return found


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize("cond", [0, 1])
def test_generators_of_every_kind_are_read_by_name(lite, cond):
    kind = {"lite": lite, **({"num_classes": 7} if cond else {})}
    net, found = projected_gan.generator(
        fastgan(lite, cond), z_dim=6, img_resolution=32, img_channels=1, ngf=2, cond=cond, synthesis_kwargs=kind
    )
    images = net.apply(found, jnp.ones((2, 6)), jnp.zeros(2, jnp.int32) if cond else None)
    assert images.shape == (2, 32, 32, 1)
