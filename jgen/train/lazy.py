"""StyleGAN2's arithmetic of training: lazy regularisation (arXiv:1912.04958, appendix B), and the average's half-life.

A regulariser is a phase of its own: `Phase(every=interval)`, its loss multiplied by interval, on its player's optimizer.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from jgen.errors import UserError
from jgen.train.rates import rated_adam
from jgen.types import Array


def lazy_rates(learning_rate: float, b1: float, b2: float, interval: int) -> tuple[float, float, float]:
    """(learning rate, b1, b2) for interval + 1 updates in the place of interval ones. Raises UserError for interval < 1.

    >>> lazy_rates(0.0025, 0.0, 0.99, 4)[0]
    0.002
    """
    if interval < 1:
        raise UserError(f"interval={interval}: must be at least 1")
    ratio = interval / (interval + 1)
    return learning_rate * ratio, b1**ratio, b2**ratio


def lazy_adam(
    learning_rate: float, b1: float = 0.0, b2: float = 0.99, eps: float = 1e-8, interval: int = 16
) -> optax.GradientTransformation:
    """Adam for a player that is also updated by a regulariser every `interval` steps.

    The rates as of a player without one; they are corrected by `lazy_rates`. Raises UserError for interval < 1.
    """
    rate, b1, b2 = lazy_rates(learning_rate, b1, b2, interval)
    return rated_adam(rate, b1, b2, eps)


def ema_decay(batch: int, kimg: float = 10.0, rampup: float | None = 0.05) -> Callable[[Array], Array]:
    """An EMA decay, as a function of the step, that halves a weight's part in `kimg` thousand images.

    With rampup the half-life is at most that share of the images so far: at step 0 the average copies the weights.
    Raises UserError for batch < 1, kimg <= 0 or rampup <= 0.
    """
    if batch < 1 or kimg <= 0 or (rampup is not None and rampup <= 0):
        raise UserError(f"batch={batch}, kimg={kimg}, rampup={rampup}: must be at least 1, above 0, and above 0 or None")

    def decay(step: Array) -> Array:
        half_life = kimg * 1000 / batch  # in steps, since step x batch would in time overflow int32
        if rampup is not None:
            half_life = jnp.minimum(half_life, step * float(rampup))
        return 0.5 ** (1 / jnp.maximum(half_life, 1e-12))

    return decay
