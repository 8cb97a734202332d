"""Kernel Inception Distance: the unbiased squared MMD under a polynomial kernel, averaged over subsets."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.metrics.rows import check_rows
from jgen.types import Array


def kid(real: np.ndarray, fake: np.ndarray, *, seed: int = 0, subsets: int = 100, size: int = 1000) -> tuple[float, float]:
    """(mean, population standard deviation) over `subsets` pairs of random subsets, of features [N, D] and [M, D].

    size: of a subset, at most that of the smaller set (Bińkowski et al. 2018, arXiv:1801.01401; 100 x 1000 as in
    StyleGAN2-ADA and clean-fid). Raises UserError for fewer than two rows, and for rows that are not finite or do not fit.
    """
    check_rows("kid", real=real, generated=fake)
    real, fake = np.asarray(real), np.asarray(fake)
    size = min(size, len(real), len(fake))
    if size < 2 or subsets < 1:
        raise UserError(f"kid: {len(real)} real and {len(fake)} generated rows, {subsets} subsets; needs 2, 2 and 1")
    random, devices = np.random.default_rng(seed), jax.local_devices()
    waiting, values = [], []
    for number in range(subsets):
        i, j = (random.choice(len(x), size, replace=False) for x in (real, fake))
        pair = jax.device_put((real[i], fake[j]), devices[number % len(devices)])
        waiting.append(_row_sums(*pair, 3, 1 / real.shape[1], 1.0))
        if len(waiting) > 2 * len(devices):  # so many are under way before the first is read
            values.append(_estimate(waiting.pop(0), size, size))
    values += [_estimate(sums, size, size) for sums in waiting]
    return float(np.mean(values)), float(np.std(values))


def mmd2(x: np.ndarray, y: np.ndarray, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> float:
    """Unbiased squared MMD of x [N, D] and y [M, D] under (gamma x.y + coef0)^degree; gamma is 1 / D unless given.

    Rows are summed on the device and the rows' sums in float64, since the result is a small difference of large ones.
    """
    gamma = 1 / x.shape[1] if gamma is None else gamma
    return _estimate(_row_sums(x, y, degree, gamma, coef0), len(x), len(y))


def _estimate(row_sums: tuple[Array, Array, Array], n: int, m: int) -> float:
    within_x, within_y, cross = (np.asarray(s, np.float64) for s in row_sums)
    return float(within_x.sum() / (n * (n - 1)) + within_y.sum() / (m * (m - 1)) - 2 * cross.sum() / (n * m))


@partial(jax.jit, static_argnums=2)
def _row_sums(x: Array, y: Array, degree: int, gamma: Array, coef0: Array) -> tuple[Array, Array, Array]:
    """Sums over the rows of the three kernel matrices, without the diagonal within a set."""

    def kernel(dots: Array) -> Array:
        return lax.integer_pow(gamma * dots + coef0, degree)

    def within(x: Array) -> Array:
        # The kernel is symmetric: three of the four blocks give all of it.
        half = len(x) // 2
        a, b = x[:half], x[half:]
        across = kernel(_dot(a, b))
        squares = [kernel(_dot(part, part)) for part in (a, b)]
        inside = [jnp.sum(k, 1) - jnp.diagonal(k) for k in squares]
        return jnp.concatenate([inside[0] + jnp.sum(across, 1), inside[1] + jnp.sum(across, 0)])

    return within(x), within(y), jnp.sum(kernel(_dot(x, y)), 1)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
