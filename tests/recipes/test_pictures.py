"""Stages' pictures as sheets of images."""

import math

import jax
import pytest

from jgen.data import open_source
from jgen.train.stage import first_batch
from tests import tiny

pytestmark = pytest.mark.slow


def test_the_rows_of_a_picture_are_those_of_its_sheet():
    """A sheet is as wide as it is high, so a picture of rows must be so too; traversals of few latents are not."""
    ragged = []
    for name in tiny.EXPERIMENTS:
        for stage in tiny.stages(tiny.module(name), name):
            if not stage.pictures:
                continue
            batch = first_batch(stage, open_source(stage.data))
            some = {key: jax.ShapeDtypeStruct((64, *value.shape[1:]), value.dtype) for key, value in batch.items()}
            params, extra = tiny.shapes_of(stage)[:2]
            for picture, make in stage.pictures.items():
                count = jax.eval_shape(make, params, extra, jax.random.key(0), some).shape[0]
                ragged += [(name, picture)] if math.isqrt(count) ** 2 != count else []
    assert ragged == [("vae", "traversals")]
