"""A sampler's bar moves within a batch, and its images are the same with and without it."""

import jax
import numpy as np
import pytest

from jgen.sharding import make_mesh
from jgen.steps import listening
from jgen.train.draw import drawn
from tests import tiny


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_steps_are_reported_and_change_no_bit(sampler):
    stage = tiny.stage(sampling=tiny.changed(tiny.config().sampling, {"sampler": sampler, "steps": 4}))
    (params, extra), shares = tiny.fresh(stage), []
    plain = np.asarray(next(drawn(stage, params, extra, make_mesh(), num=4)))
    with listening(shares.append):
        images = np.asarray(next(drawn(stage, params, extra, make_mesh(), num=4, progress=True)))
        jax.effects_barrier()
    np.testing.assert_array_equal(images, plain)
    assert sorted(set(shares))[-1] == 1.0
    assert len(set(shares)) >= 4
