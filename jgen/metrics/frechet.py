"""The Fréchet distance of two sets of features, from moments that are gathered batch by batch on the devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.types import Array


class Moments(NamedTuple):
    """Count, mean and scatter of the features seen so far. `add` keeps them; nothing else of the set is kept."""

    count: Array
    """float: rows seen."""
    mean: Array
    """[D]."""
    scatter: Array
    """[D, D]: the sum of (x - mean)(x - mean)^T."""

    def covariance(self, ddof: int = 1) -> np.ndarray:
        """float64 [D, D]; ddof=1 divides by n - 1 as TTUR and clean-fid do, ddof=0 by n as StyleGAN2 and 3 do."""
        return np.asarray(self.scatter, np.float64) / max(float(self.count) - ddof, 1.0)


def no_moments(dim: int) -> Moments:
    """The moments of nothing yet, for features of so many dimensions."""
    kind = jnp.result_type(float)
    return Moments(jnp.zeros((), kind), jnp.zeros((dim,), kind), jnp.zeros((dim, dim), kind))


def add(moments: Moments, features: Array, weights: Array | None = None) -> Moments:
    """The moments with a batch [B, D] joined to them; weights [B] of 0 leave rows out (the padding of a last batch).

    Groups are merged as by Chan, Golub & LeVeque (1983), so that float32 loses nothing that matters on large sets.
    """
    x = features.astype(moments.mean.dtype)
    weights = jnp.ones(len(x), x.dtype) if weights is None else weights.astype(x.dtype)
    size = jnp.sum(weights)
    x = jnp.where(weights[:, None] > 0, x, 0)
    mean = jnp.matmul(weights, x, precision=lax.Precision.HIGHEST) / jnp.maximum(size, 1)
    centred = (x - mean[None]) * weights[:, None]
    scatter = jnp.matmul(centred.T, centred, precision=lax.Precision.HIGHEST)
    total = moments.count + size
    gap, share = mean - moments.mean, size / jnp.maximum(total, 1)
    between = jnp.outer(gap, gap) * (moments.count * share)
    return Moments(total, moments.mean + gap * share, moments.scatter + scatter + between)


def feature_moments(features: np.ndarray | Array, batch: int = 2048) -> Moments:
    """The moments of features [N, D] that are all there, joined in batches of one shape. Raises UserError for other shapes."""
    if np.ndim(features) != 2:
        raise UserError(f"features of shape {list(np.shape(features))}; must be [N, D], of an extractor: images have none yet")
    features = features if hasattr(features, "shape") else np.asarray(features, np.float32)
    join, moments = jax.jit(add, donate_argnums=0), no_moments(features.shape[1])
    for start in range(0, len(features), batch):
        rows = np.asarray(features[start : start + batch])
        count = len(rows)
        rows = np.pad(rows, ((0, batch - count), (0, 0))) if start else rows
        moments = join(moments, rows, np.arange(len(rows)) < count)
    return moments


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of means [D] and covariances [D, D] (Dowson & Landau 1982).

    The trace of the root is the sum of the roots of the eigenvalues of L^T C2 L with C1 = L L^T: symmetric, so exact
    for covariances without full rank, where a general matrix root of C1 C2 loses half of the digits. float64
    throughout. Raises UserError for shapes that do not fit or numbers that are not finite.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(x, np.float64) for x in (mean1, cov1, mean2, cov2))
    if mean1.shape != mean2.shape or cov1.shape != cov2.shape or cov1.shape != 2 * mean1.shape:
        shapes = f"{mean1.shape} and {cov1.shape}, {mean2.shape} and {cov2.shape}"
        raise UserError(f"moments: shapes {shapes} must be [D] and [D, D], twice the same D")
    if not all(np.isfinite(x).all() for x in (mean1, cov1, mean2, cov2)):
        raise UserError("moments: hold NaN or infinity")
    root = _root(cov1)
    spectrum = np.linalg.eigvalsh(root.T @ cov2 @ root)
    overlap = np.sqrt(np.maximum(spectrum, 0)).sum()
    return float(np.square(mean1 - mean2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap)


def distance(a: Moments, b: Moments, ddof: int = 1) -> float:
    """The Fréchet distance of two sets from their moments. Raises UserError for fewer than two rows."""
    for name, moments in (("first", a), ("second", b)):
        if float(moments.count) < 2:
            raise UserError(f"{name} set: {int(moments.count)} rows, the Fréchet distance needs at least 2")
    return frechet_distance(np.asarray(a.mean), a.covariance(ddof), np.asarray(b.mean), b.covariance(ddof))


def _root(covariance: np.ndarray) -> np.ndarray:
    """L with L L^T = covariance: Cholesky's, which is fast, or where there is no full rank the eigenvectors'."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0))
