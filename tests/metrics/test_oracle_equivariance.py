"""The equivariance metrics and their image operators against NVIDIA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.metrics import equivariance
from jgen.models.gan.stylegan2 import repeat
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def check_moved(o, name, found, masked):
    moved, mask = found
    o.check(f"out/{name}", moved, image=True)
    o.check(f"out/{masked}", mask[None, None])


@pytest.mark.parametrize("path", files("stylegan3", "equivariance_ops"))
def test_image_operators(path):
    o = Oracle(path)
    x = jnp.asarray(o.nhwc("in/x"))
    shifts = sorted(n.split("/")[1] for n in o.names if n.startswith("in/") and n.endswith("/t"))
    turns = sorted(n.split("/")[1] for n in o.names if n.startswith("in/") and n.endswith("/angle"))
    assert shifts or turns
    for name in shifts:
        by = jnp.asarray(o[f"in/{name}/t"])
        check_moved(o, f"{name}/int", equivariance.shift_whole(x, by), f"{name}/int_mask")
        check_moved(o, f"{name}/frac", equivariance.shift_fraction(x, by), f"{name}/frac_mask")
    for name in turns:
        angle = float(o[f"in/{name}/angle"])
        check_moved(o, f"{name}/y", equivariance.turn(x, angle), f"{name}/mask")
        check_moved(o, f"{name}/pseudo", equivariance.filter_as_turned(x, angle), f"{name}/pseudo_mask")
        o.check(f"out/{name}/filter_up4", equivariance.oriented_filter(angle, 4))
        o.check(f"out/{name}/filter_up1", equivariance.oriented_filter(-angle, 1))
    o.check_whole()


@pytest.mark.parametrize("path", files("stylegan3", "equivariance_metric"))
def test_metrics(path):
    o = Oracle(path)
    net, found = convert.stylegan3.generator(convert.load_weights(path), **o.config["G"])
    variables = {name: found[name] for name in ("params", "buffers")}

    @jax.jit
    def images(z, label, transform):
        ws = repeat(net.apply(variables, z, label, method="map"), net.num_ws)
        return net.apply(variables, ws, transform, method="synthesize")

    batches = sorted({n.split("/")[1] for n in o.names if n.startswith("in/batch")})
    assert len(batches) * o.config["batch_size"] == o.config["num_samples"]
    sums = []
    for name in batches:
        z = jnp.asarray(o[f"in/{name}/z"])
        label = jnp.asarray(o[f"in/{name}/c"]) if f"in/{name}/c" in o else None
        unused = {"int": np.zeros(2), "frac": np.zeros(2), "rot": np.zeros(())}  # a metric that isn't measured draws nothing
        draws = equivariance.Draws(*(o[n] if (n := f"in/{name}/u_{kind}") in o else at for kind, at in unused.items()))
        synthesize = lambda transform, z=z, label=label: images(z, label, transform)  # noqa: E731
        sums.append(equivariance.squared_errors(synthesize, draws, o.config["translate_max"], o.config["rotate_max"]))
    value = equivariance.decibels(sums)
    for name, decibels in (("eqt_int_db", value.eq_t), ("eqt_frac_db", value.eq_t_frac), ("eqr_db", value.eq_r)):
        if f"out/{name}" in o:  # a turn that is left out is None
            o.check(f"out/{name}", np.asarray(decibels))
    o.check_whole()


def test_an_image_that_is_a_function_of_its_place_is_equivariant():
    place = jnp.stack(jnp.meshgrid(*[(jnp.arange(64) + 0.5) / 64 - 0.5] * 2), -1)

    def synthesize(transform):
        at = place @ transform[:2, :2].T + transform[None, None, :2, 2]
        return jnp.sin(2 * jnp.pi * (3 * at[..., 0] + 2 * at[..., 1]))[None, :, :, None]

    draws = equivariance.draw(jax.random.key(0))
    assert min(equivariance.decibels([equivariance.squared_errors(synthesize, draws)])) > 50
