"""How a discriminator takes the class of an image, or names it."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.types import Array, DiscriminatorOutput

Conditioning = Literal["none", "concat", "projection", "auxiliary"]


def with_label_planes(x: Array, label: Array | None, conditioning: Conditioning) -> Array:
    """Images with the label as planes where the conditioning is "concat" (Mirza & Osindero 2014), else as they are.

    Raises UserError for a label without conditioning, and the other way round.
    """
    if (label is None) != (conditioning == "none"):
        given = "no label" if label is None else "a label"
        raise UserError(f"label: the network has conditioning={conditioning} but {given} came")
    if label is None or conditioning != "concat":
        return x
    return jnp.concatenate([x, jnp.broadcast_to(label[:, None, None], (*x.shape[:3], label.shape[-1]))], -1)


def discriminator_output(features: Array, label: Array | None, conditioning: Conditioning) -> DiscriminatorOutput:
    """The output of features [B, F], by layers of the module that calls it.

    "projection" adds the label's inner product with the features to the logit (Miyato & Koyama 2018); "auxiliary" names the
    class too (Odena et al. 2017).
    """
    logits = nn.Dense(1, name="logit")(features)[:, 0]
    if conditioning == "projection":
        assert label is not None
        logits = logits + jnp.sum(nn.Dense(features.shape[-1], use_bias=False, name="embed")(label) * features, -1)
    if conditioning != "auxiliary":
        return DiscriminatorOutput(logits)
    assert label is not None
    return DiscriminatorOutput(logits, nn.Dense(label.shape[-1], name="classes")(features))
