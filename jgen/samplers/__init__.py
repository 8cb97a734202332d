"""Samplers: plain functions of functions and arrays, each a single `lax.scan`.

Every sampler takes one key per image (`image_keys`), so image i depends on (seed, i) alone, never on the batch or on
how many devices there are. Call one under `jax.jit` with the weights as an argument to compile it once.
"""

from jgen.samplers.ancestral import ancestral, ancestral_step
from jgen.samplers.autoregressive import autoregressive, decoder
from jgen.samplers.common import class_labels, clip, image_keys, noise
from jgen.samplers.ddim import ddim, ddim_step

__all__ = [
    "ancestral", "ancestral_step", "autoregressive", "class_labels", "clip", "ddim", "ddim_step", "decoder", "image_keys",
    "noise",
]  # fmt: skip
