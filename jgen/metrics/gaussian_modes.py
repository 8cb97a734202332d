"""How many of a mixture's Gaussians a generator found, and the share of its points that are near one.

The measures of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) on the ring and the grid of Gaussians in the plane: a point is
of high quality within three deviations of the nearest mean, and a mode is found where at least one such point is nearest to it.
"""

from typing import NamedTuple

import numpy as np

from jgen.errors import UserError
from jgen.types import Array

WITHIN = 3.0
"""Deviations of a mode that a point of high quality is within."""


class GaussianModes(NamedTuple):
    """The two measures."""

    found: int
    """Modes that at least one point of high quality is nearest to."""
    high_quality: float
    """Share of the points within three deviations of the nearest mode."""


def gaussian_modes(points: np.ndarray | Array, means: np.ndarray, deviation: float) -> GaussianModes:
    """The measures of points [N, D] for Gaussians of means [K, D] and one deviation in every direction.

    Raises UserError for no points, or points of another dimension.

    >>> gaussian_modes(np.array([[0.0, 0.2], [5.0, 5.0]]), np.array([[0.0, 0.0], [1.0, 1.0]]), 0.1)
    GaussianModes(found=1, high_quality=0.5)
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not len(points) or points.shape[1] != means.shape[1]:
        raise UserError(f"points of shape {points.shape}: must be [N, {means.shape[1]}], with N at least 1")
    distances = np.linalg.norm(points[:, None] - means[None], axis=-1)
    nearest = distances.argmin(1)
    good = distances.min(1) <= WITHIN * deviation
    return GaussianModes(len(np.unique(nearest[good])), float(good.mean()))
