"""EQ-T, EQ-T_frac and EQ-R of any generator whose input has a place, as metrics of `evaluate`."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jgen.config import StyleSampling
from jgen.errors import UserError
from jgen.recipes.evaluation.equivariance import equivariance_of
from jgen.sharding import make_mesh
from tests import tiny

MESH = make_mesh()


def measured(stage, params, extra, *names):
    return equivariance_of(stage, params, extra, MESH, names, 6, 0, StyleSampling(), 4)


@pytest.mark.slow
def test_waves_that_follow_their_input_are_equivariant_and_still_ones_are_not():
    across, down = jnp.meshgrid(*[(jnp.arange(64) + 0.5) / 64 - 0.5] * 2)

    def waves(params, extra, keys, options, transform):
        x, y = (row[0] * across + row[1] * down + row[2] for row in transform[:2])
        phase = jax.vmap(jax.random.uniform)(keys)[:, None, None]
        return jnp.sin(2 * jnp.pi * ((3 * x + 2 * y)[None] + phase))[..., None] * params

    stage = dataclasses.replace(tiny.stage(), moved=waves)
    found = measured(stage, jnp.ones(()), {}, "eqt", "eqr")
    assert list(found) == ["eqt", "eqr"]
    assert min(found.values()) > 50
    still = dataclasses.replace(stage, moved=lambda *given: waves(*given[:4], jnp.eye(3)))
    assert measured(still, jnp.ones(()), {}, "eqt")["eqt"] < 30


def test_a_generator_without_a_place_is_refused_by_name():
    with pytest.raises(UserError, match="metrics=eqt: ddpm has no input that can be moved"):
        measured(tiny.stage(), {}, {}, "eqt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stylegan", "stylegan2"])
def test_style_based_generators_are_measured(name):
    stage = tiny.stages(tiny.module(name), name)[-1]
    params, extra = tiny.fresh(stage)
    assert set(measured(stage, params, extra, "eqt", "eqt_frac")) == {"eqt", "eqt_frac"}
    with pytest.raises(UserError, match="metrics=eqr: images of 8 pixels"):
        measured(stage, params, extra, "eqr")
