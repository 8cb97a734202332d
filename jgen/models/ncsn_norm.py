"""The norms of the score networks of Song & Ermon, over each channel of an image, with gains that a noise level may choose.

Sources: Song & Ermon 2019 (arXiv:1907.05600, appendix A, for InstanceNorm++), and the authors' code for the other three, which
their configurations name besides.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.precision import at_least_float32
from jgen.types import Array

Normalization = Literal["InstanceNorm++", "InstanceNorm", "VarianceNorm", "NoneNorm"]

ROWS: dict[str, tuple[str, ...]] = {
    "InstanceNorm++": ("gamma", "alpha", "beta"),
    "InstanceNorm": ("gamma", "beta"),
    "VarianceNorm": ("gamma",),
    "NoneNorm": ("gamma", "beta"),
}
"""The parameters of each kind, in their order within the row that a noise level has."""
OWN: dict[str, tuple[str, ...]] = {
    "InstanceNorm++": ("gamma", "alpha", "beta"),
    "InstanceNorm": (),
    "VarianceNorm": ("alpha",),
    "NoneNorm": (),
}
"""The parameters of each kind without levels, by the names in the authors' code."""


def near_one(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    return 1 + nn.initializers.normal(0.02)(key, shape, dtype)


def gains(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Rows [gamma, alpha, beta]: the first two near 1, the last 0."""
    third = shape[1] // 3
    return jnp.concatenate([near_one(key, (shape[0], 2 * third), dtype), jnp.zeros((shape[0], third), dtype)], 1)


def gains_and_zeros(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Rows [gamma, beta]: the first uniform in [0, 1], the last 0."""
    half = shape[1] // 2
    return jnp.concatenate([nn.initializers.uniform(1.0)(key, (shape[0], half), dtype), jnp.zeros((shape[0], half), dtype)], 1)


class LevelNorm(nn.Module):
    """A norm of x [B, H, W, C] -> float32 [B, H, W, C]; `label` int [B] chooses the gains where there are noise levels.

    InstanceNorm++: each channel less its mean and divided by its deviation, plus alpha times the z-score of the channel's mean
    among the image's channels, times gamma, plus beta. InstanceNorm: without the alpha term, and without levels without any
    parameter. VarianceNorm: divided by the deviation only. NoneNorm: gamma and beta only, and without levels nothing.
    Channel means are scaled by their unbiased variance, pixels by their biased one (VarianceNorm: unbiased), as in the
    authors' code. Raises UserError for another kind.
    """

    levels: int = 0
    """Noise levels, each with its own gains; 0 for gains that all images share."""
    kind: Normalization = "InstanceNorm++"
    epsilon: float = 1e-5

    def _parameters(self, channels: int, label: Array | None) -> dict[str, Array]:
        """{name: [B or 1, C]}; what is left out is 1 for gamma, 0 for beta."""
        if self.kind not in ROWS:
            raise UserError(f"normalization={self.kind}: must be {', '.join(get_args(Normalization))}")
        if self.levels:
            names = ROWS[self.kind]
            init = {3: gains, 2: gains_and_zeros, 1: near_one}[len(names)]
            rows = nn.Embed(self.levels, len(names) * channels, embedding_init=init, name="embed")(label)
            return dict(zip(names, jnp.split(rows, len(names), -1)))
        initializers = {"gamma": near_one, "alpha": near_one, "beta": nn.initializers.zeros}
        found = {name: self.param(name, initializers[name], (channels,))[None] for name in OWN[self.kind]}
        # Without levels the authors call the one gain of VarianceNorm alpha.
        return {"gamma": found["alpha"]} if self.kind == "VarianceNorm" else found

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> Array:
        channels = x.shape[-1]
        own = self._parameters(channels, label)
        gamma, beta = own.get("gamma", jnp.ones((1, channels))), own.get("beta", jnp.zeros((1, channels)))
        x = at_least_float32(x)
        if self.kind == "NoneNorm":
            return x * gamma[:, None, None] + beta[:, None, None]
        means = jnp.mean(x, (1, 2))
        spread = jnp.mean(jnp.square(x - means[:, None, None]), (1, 2))
        if self.kind == "VarianceNorm":
            pixels = x.shape[1] * x.shape[2]
            return x * (gamma / jnp.sqrt(spread * pixels / max(pixels - 1, 1) + self.epsilon))[:, None, None]
        gain = gamma / jnp.sqrt(spread + self.epsilon)
        shift = beta - means * gain
        if self.kind == "InstanceNorm++":
            centred = means - jnp.mean(means, -1, keepdims=True)
            scores = centred / jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) / max(channels - 1, 1) + 1e-5)
            shift = gamma * own["alpha"] * scores + shift
        return x * gain[:, None, None] + shift[:, None, None]
