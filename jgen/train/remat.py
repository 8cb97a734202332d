"""Recomputation of activations in the backward pass, for any stage."""

from collections.abc import Sequence
from typing import Any

import jax

from jgen.train.stage import Stage
from jgen.train.step import Phase


def keeps(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether the backward pass keeps what an operation gives: products and convolutions, which are dear to compute again."""
    return primitive.name in ("dot_general", "conv_general_dilated")


def phases(stage: Stage) -> Sequence[Phase]:
    """A stage's updates; with train.remat their losses keep products alone, unless its networks recompute block by block."""
    if not stage.train.remat or "remat" in stage.supports:
        return stage.phases
    return [phase._replace(loss=jax.checkpoint(phase.loss, policy=keeps)) for phase in stage.phases]
