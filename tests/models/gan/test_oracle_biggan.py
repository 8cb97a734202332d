"""BigGAN and BigGAN-deep against their author's code, in float64."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.convert.biggan import DISCRIMINATOR, GENERATOR, filled, path_of, spectral
from jgen.nn.nonlocal_attention import NonLocal
from jgen.nn.standing import standing_statistics
from jgen.objectives import gan
from tests.models.whole import check_gradients
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

OF_THE_FILE = ("batch", "dim_z_total", "feature_dim")
"""Settings of what a file computes, beside the constructors' arguments."""


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def value_of(text):
    """The value of a text that Python prints of it; words are texts themselves."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def arguments(config):
    """The constructor's arguments; the files hold them as Python's text, sides of attention joined by underscores."""
    given = {k: v for k, v in config.items() if k not in OF_THE_FILE}
    return {k: value_of(v) if isinstance(v, str) and not k.endswith("_attn") else v for k, v in given.items()}


def one_hot(o, name, classes):
    """Labels [B, classes]; None where the network has no classes or the file no labels."""
    return jax.nn.one_hot(jnp.asarray(o[name]), classes, dtype=jnp.float64) if classes and name in o else None


def check_blocks(o, prefix, seen):
    """Compares the features that the file has, which leaves out images and pixels of larger ones."""
    for name in (n for n in o.names if re.match(rf"{prefix}block\d", n)):
        block = re.sub(r"_stride\d+$", "", name.removeprefix(f"{prefix}block")).replace(".", "_")
        images, _, height, _ = o[name].shape
        value = seen[f"blocks_{block}"]["__call__"][0]
        every = value.shape[1] // height
        o.check(name, value[:images, ::every, ::every], image=True)


def check_state(o, prefix, before, after, names, divide=1):
    """Compares the buffers under their official names.

    The files of BigGAN and U-Net GAN that are known hold the buffers as they were before the step, not after it: every array
    equals that of w/. What a step makes of them shows in the second call's logits and in standing images, and in
    tests/nn/test_spectral.py. A file with other numbers is compared with the state after the step.
    """
    mine = [n for n in o.names if n.startswith(prefix)]
    stale = all(np.array_equal(o[n], o[f"w/{n.removeprefix(prefix)}"].astype(o[n].dtype)) for n in mine)
    state, divide = (before, 1) if stale else (after, divide)
    for name in mine:
        stem, index = re.fullmatch(r"(.*?)(\d*)", name.removeprefix(prefix)).groups()
        if stem.endswith("accumulation_counter"):
            o.check(name, o[f"w/{stem}"] if stale else [divide])
            continue
        value = state
        for part in path_of(names)(stem):
            value = value[part]
        if index:
            o.check(name, value[int(index)].reshape(o[name].shape))
        else:
            o.check(name, value * divide if stem.endswith(("stored_mean", "stored_var")) else value)


MOVING = ["batch_stats", "spectral"]


def moving(variables):
    return [name for name in MOVING if name in variables]


def check_generator(o, net, variables, z, inputs, prefix=""):
    """The images and features in evaluation and in training, and the state after; inputs: the other inputs."""

    @jax.jit
    def run(variables, z):
        whole, seen = net.apply(variables, z, *inputs, mutable=["intermediates"], capture_intermediates=True)
        trained = net.apply(
            variables, z, *inputs, train=True, mutable=[*moving(variables), "intermediates"], capture_intermediates=True
        )
        return whole, seen["intermediates"], trained

    image, seen, (trained, state) = run(variables, z)
    o.check("out/eval/image", image, image=True)
    o.check("out/train/image", trained, image=True)
    if "out/eval/linear" in o:
        o.check("out/eval/linear", seen["linear"]["__call__"][0])
    check_blocks(o, "out/eval/", seen)
    check_blocks(o, "out/train/", state["intermediates"])
    check_state(o, "out/train_state/", variables, state, GENERATOR)


@pytest.mark.parametrize("path", [*files("biggan", "generator"), *files("biggan", "deep_generator")])
def test_generators(path):
    o = Oracle(path)
    make = convert.biggan.deep_generator if "G_depth" in o.config else convert.biggan.generator
    whole, given = convert.load_weights(path), arguments(o.config)
    net, variables = make(whole, **given)
    if "dim_z_total" in o.config:
        assert net.z_dim == o.config["dim_z_total"]
    z, label = jnp.asarray(o["in/z"], float), one_hot(o, "in/labels", net.classes)
    if "out/shared_embedding" in o:
        o.check("out/shared_embedding", net.apply(variables, label, method="embed"))
    check_generator(o, net, variables, z, (label,))

    @jax.jit
    @jax.value_and_grad
    def loss(inputs):
        params, z = inputs
        images, _ = net.apply({**variables, "params": params}, z, label, train=True, mutable=moving(variables))
        return jnp.sum(images * o.nhwc("in/cotangent")) / len(z)

    if "in/cotangent" in o:
        value, (by_params, by_z) = loss((variables["params"], z))
        o.check("out/train/loss", value)
        o.check("out/grad/z", by_z)
        check_gradients(o, lambda w: make(w, **given)[1], o.weights(), by_params, apart=("z",))
    if "in/standing_z" in o:
        labels = jnp.stack([jax.nn.one_hot(row, net.classes, dtype=float) for row in o["in/standing_labels"]])
        passes = jnp.asarray(o["in/standing_z"], float)
        still = standing_statistics(net.apply, variables, (passes, labels))
        o.check("out/standing/image", net.apply(still, z, label), image=True)
        check_state(o, "out/standing_state/", variables, still, GENERATOR, divide=len(passes))
    o.check_whole()


@pytest.mark.parametrize("path", [*files("biggan", "discriminator"), *files("biggan", "deep_discriminator")])
def test_discriminators(path):
    o = Oracle(path)
    make = convert.biggan.deep_discriminator if "D_depth" in o.config else convert.biggan.discriminator
    whole, given = convert.load_weights(path), arguments(o.config)
    net, variables = make(whole, **given)
    x, label = jnp.asarray(o.nhwc("in/x"), float), one_hot(o, "in/labels", net.classes)

    @jax.jit
    def run(variables):
        logits, seen = net.apply(variables, x, label, mutable=["intermediates"], capture_intermediates=True)
        first, state = net.apply(variables, x, label, mutable=["spectral"])
        second, _ = net.apply({**variables, **state}, x, label, mutable=["spectral"])
        return logits.logits, seen["intermediates"], first.logits, second.logits, state

    logits, seen, first, second, state = run(variables)
    o.check("out/eval/logits", logits[:, None])
    if "out/eval/linear" in o:
        o.check("out/eval/linear", seen["head"]["linear"]["__call__"][0])
    check_blocks(o, "out/eval/", seen)
    o.check("out/train/logits", first[:, None])
    if "out/train/logits_second_call" in o:
        o.check("out/train/logits_second_call", second[:, None])
    half = len(x) // 2
    o.check("out/train/hinge_loss", gan.hinge.d(first[:half], first[half:]))
    check_state(o, "out/train_state/", variables, state, DISCRIMINATOR)

    @jax.jit
    @jax.grad
    def mean(inputs):
        params, x = inputs
        return jnp.mean(net.apply({**variables, "params": params}, x, label, mutable=["spectral"])[0].logits)

    by_params, by_x = mean((variables["params"], x))
    o.check("out/grad/x", by_x, image=True)
    check_gradients(o, lambda w: make(w, **given)[1], o.weights(), by_params, apart=("x",))
    o.check_whole()


@pytest.mark.parametrize("path", files("biggan", "attention"))
def test_attention(path):
    o = Oracle(path)
    whole, c = convert.load_weights(path), o.config
    values = c.get("num_svs", 1), c.get("num_itrs", 1)
    net = NonLocal(spectral("SN" if c.get("spectral_norm", True) else "", c.get("SN_eps", 1e-12), *values, "G"))
    x, moves = jnp.asarray(o.nhwc("in/x"), float), ["spectral"] if c.get("mode") == "train" else []
    place = lambda w: filled(net, w, {}, jnp.zeros(x.shape))  # noqa: E731
    variables = place(whole)

    @jax.jit
    def run(params, x):
        return net.apply({**variables, "params": params}, x, mutable=moves)

    y, pull, state = jax.vjp(run, variables["params"], x, has_aux=True)
    by_params, by_x = pull(jnp.asarray(o.nhwc("in/cotangent"), float))
    if o.under("out/train_state/"):
        check_state(o, "out/train_state/", variables, state, {})
    o.check("out/y", y, image=True)
    o.check("out/grad/x", by_x, image=True)
    check_gradients(o, place, o.weights(), by_params, apart=("x",))
    o.check_whole()
