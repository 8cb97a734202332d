"""A sampler's bar moves within a batch, and its images are the same with and without it."""

import jax
import numpy as np
import pytest

from jgen.sharding import make_mesh
from jgen.steps import heard
from jgen.train.draw import drawn
from tests import tiny


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_steps_are_told_and_change_no_bit(sampler):
    stage = tiny.stage(sampling=tiny.changed(tiny.config().sampling, {"sampler": sampler, "steps": 4}))
    (params, extra), told = tiny.fresh(stage), []
    plain = np.asarray(next(drawn(stage, params, extra, make_mesh(), num=4)))
    with heard(told.append):
        images = np.asarray(next(drawn(stage, params, extra, make_mesh(), num=4, tells=True)))
        jax.effects_barrier()
    np.testing.assert_array_equal(images, plain)
    assert sorted(set(told))[-1] == 1.0
    assert len(set(told)) >= 4
