"""The narrow function types that everything else is built from.

Images are float32 [B, H, W, C] in [-1, 1]. Two coordinate systems for noise live side by side, as in the papers:
discrete (x_t, t, alpha-bar) and continuous (x, sigma). `jgen.objectives.edm.chain` makes a denoiser of a chain's network,
`jgen.schedules.denoiser` of any predictor, and `jgen.schedules.predictor` a predictor of any denoiser.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array
PyTree = Any
Dtype = jnp.dtype | None
"""The type that a network computes in; None is that of its input and weights."""

Batch = Mapping[str, Array]
""""image": float32 [B, H, W, C] in [-1, 1]; "label": int32 [B]; more keys where a set has them."""

Params = Mapping[str, PyTree]
"""The top level names the player: {"net": ...}, {"g": ..., "d": ...}, {"encoder": ..., "prior": ...}."""

Extra = Mapping[str, PyTree]
"""State that no gradient moves: batch statistics, EMA codebooks, ADA's p, path-length mean, w_avg, fade-in alpha."""

Metrics = Mapping[str, Array]


class Condition(flax.struct.PyTreeNode):
    """All that a network may take besides the image and the noise level; every field is [B, ...], or None."""

    label: Array | None = None
    """int32 [B]."""
    caption: Array | None = None
    """uint8 [B, L] bytes, or float32 [B, L, D] features of a language model."""
    low_res: Array | None = None
    """[B, h, w, C + 1]: a smaller image, and a channel that says how much noise is on it."""
    augment: Array | None = None
    """float32 [B, A]: how the image was augmented."""
    features: Array | None = None
    """float32 [B, D] of norm 1: a frozen network's features of an instance (IC-GAN)."""
    noise_key: Array | None = None
    """uint32 [B, 2]: data of the key of noise that a network adds to its features, or of augmentations that it draws itself."""


class DiscriminatorOutput(NamedTuple):
    """A discriminator's output for images."""

    logits: Array | tuple[Array, ...]
    """[B], or [B, H, W] of patches or pixels: how real. Several heads are a tuple of such."""
    class_logits: Array | None = None
    """[B, classes] of an auxiliary classifier."""
    twin_logits: Array | None = None
    """[B, classes] of a classifier that knows fakes alone."""
    embedding: Array | None = None
    """[B, E] of the image,"""
    proxy: Array | None = None
    """[B, E]: that of its class, which it is compared with."""


class LossFn(Protocol):
    """(params, extra, key, batch) -> (scalar, (extra, metrics)); pure."""

    def __call__(self, params: Params, extra: Extra, key: Key, batch: Batch, /) -> tuple[Array, tuple[Extra, Metrics]]: ...


class Prediction(NamedTuple):
    """A discrete-time network's output at x_t: the clean image, and how it sets the variance of the step back."""

    x0: Array
    """[B, H, W, C]: the expected clean image."""
    v: Array | None = None
    """[B, H, W, C]: the raw variance output of a network that learns it; None where the sampler fixes it."""
    mean: Array | None = None
    """[B, H, W, C]: the mean of the step back, of a network that predicts it; None where it follows from x0."""
    guide: Array | None = None
    """[B, H, W, C]: the gradient at x_t of what the sample is steered to, scaled; samplers add it to the score."""


def as_prediction(output: Prediction | Array) -> Prediction:
    """The output of a `Predict`, which may be the clean image alone."""
    return output if isinstance(output, Prediction) else Prediction(output)


Predict = Callable[[Array, Array], Prediction | Array]
"""(x_t [B, H, W, C], t int32 [B]) -> Prediction, or the clean image alone. The discrete coordinate system."""

Denoise = Callable[[Array, Array], Array]
"""(x [B, H, W, C], sigma float32 [B]) -> expected clean image [B, H, W, C]. The continuous coordinate system."""

Sample = Callable[[Params, Extra, Key, Any], Array]
"""(params, extra, one key per image [B], options) -> images [B, H, W, C]; options is an experiment's own dataclass."""

Score = Callable[[Array, Array], Array]
"""(x [B, ...], noise level sigma or time t, float32 [B]) -> gradient of the log-density at x, of x's shape."""
