"""Images of a stage: options that a compiled sampler takes as arguments."""

import typing
from dataclasses import replace

import jax
import numpy as np
import pytest

from jgen.config import MeshConfig, Traced
from jgen.samplers import image_keys
from jgen.sharding import make_mesh
from jgen.train import draw as module
from jgen.train.draw import draw
from jgen.train.stage import first_batch
from tests import tiny


@pytest.mark.parametrize(
    "name, values",
    [
        ("stylegan2", [dict(psi=1.0), dict(psi=0.5), dict(psi=0)]),
        ("glow", [dict(temperature=0.7), dict(temperature=0.0)]),
        ("vdvae", [dict(temperatures=(1.0, 0.5)), dict(temperatures=(0.3, 2.0))]),
    ],
)
def test_another_value_of_a_traced_option_compiles_nothing(name, values):
    (stage,) = tiny.module(name).build(tiny.parsed(name)).stages
    hints = typing.get_type_hints(type(stage.options), include_extras=True)
    assert all(Traced() in hints[key].__metadata__ for key in values[0])
    mesh = make_mesh(MeshConfig(devices=1))
    params, extra = jax.jit(stage.init)(jax.random.key(1), first_batch(stage, stage.open_source()))
    params, traces = tiny.moved(params, 0.1), 0

    def counted(params, extra, keys, options):
        nonlocal traces
        traces += 1
        return stage.sample(params, extra, keys, options)

    watched, seen = replace(stage, sample=counted), []
    for value in values:
        options = replace(stage.options, **value)
        seen.append(draw(watched, params, extra, mesh, num=2, seed=3, options=options))
        wanted = jax.jit(lambda keys, options=options: stage.sample(params, extra, keys, options))(image_keys(3, 2))
        np.testing.assert_allclose(seen[-1], wanted, atol=1e-4, err_msg=str(value))
    assert traces == 1
    assert all(np.abs(other - seen[0]).max() > 1e-3 for other in seen[1:])


def test_options_without_a_traced_one_stay_as_they_are():
    stage = tiny.stage()
    assert module._divided(stage.options) == (stage.options, {})
    assert module._divided(None) == (None, {})
