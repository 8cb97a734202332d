"""The smaller images that super-resolution stages are given, as Ho et al. 2021 (arXiv:2106.15282) augment them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.cascade import Config


def shrink(x: Any, side: int) -> Any:
    """Images averaged down to a side that divides theirs."""
    b, height, width, c = x.shape
    return x.reshape(b, side, height // side, side, width // side, c).mean((2, 4))


def told(low: Any, level: Any) -> Any:
    """A smaller image [B, h, w, C] with a channel that says how much noise [B] is on it."""
    import jax.numpy as jnp

    return jnp.concatenate([low, jnp.broadcast_to(level[:, None, None, None], (*low.shape[:3], 1))], -1)


def soften(x: Any, sigma: Any) -> Any:
    """Images [B, h, w, C] blurred by Gaussians of these deviations [B] in pixels, as 3x3 filters."""
    import jax.numpy as jnp

    beside = jnp.exp(-0.5 / sigma**2)[:, None, None, None]
    for axis in (1, 2):
        ends = [(0, 0)] * 4
        ends[axis] = (1, 1)
        first, last = (jnp.take(jnp.pad(x, ends, mode="edge"), start + jnp.arange(x.shape[axis]), axis) for start in (0, 2))
        x = (x + beside * (first + last)) / (1 + 2 * beside)
    return x


def augmented(config: "Config", key: Any, low: Any) -> Any:
    """A smaller image as a super-resolution stage is trained on it (Ho et al. 2021): some blurred, all noised.

    The blur's deviation is from 0.4 to 0.6 pixels, which the paper found to be best (section 4.4).
    """
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(key, 4)
    level = jax.random.uniform(keys[0], low.shape[:1], maxval=config.most_augment)
    chosen = jax.random.bernoulli(keys[1], config.blur, low.shape[:1])[:, None, None, None]
    sigma = jax.random.uniform(keys[3], low.shape[:1], minval=0.4, maxval=0.6)
    low = jnp.where(chosen, soften(low, sigma), low)
    return told(low + level[:, None, None, None] * jax.random.normal(keys[2], low.shape), level)
