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


def soften(x: Any) -> Any:
    """Images blurred by (1, 2, 1) / 4 along both axes."""
    import jax.numpy as jnp

    from jgen.nn.fir import filter2d, setup_filter

    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return filter2d(padded, setup_filter([1, 2, 1]))[:, 1:-1, 1:-1]


def augmented(config: "Config", key: Any, low: Any) -> Any:
    """A smaller image as a super-resolution stage is trained on it (Ho et al. 2021): some blurred, all noised."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(key, 3)
    level = jax.random.uniform(keys[0], low.shape[:1], maxval=config.most_augment)
    chosen = jax.random.bernoulli(keys[1], config.blur, low.shape[:1])[:, None, None, None]
    low = jnp.where(chosen, soften(low), low)
    return told(low + level[:, None, None, None] * jax.random.normal(keys[2], low.shape), level)
