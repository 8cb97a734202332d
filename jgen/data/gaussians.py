"""The ring and the grid of Gaussians in the plane, on which a GAN's lost modes can be counted.

As in VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and PacGAN (Lin et al. 2018, arXiv:1712.04086): eight Gaussians on the
unit circle with deviation 0.01, and 25 at -4, -2, ..., 4 in both directions with deviation 0.05.
"""

from typing import NamedTuple

import jax
import numpy as np

from jgen.types import Array, Key


class Gaussians(NamedTuple):
    """A mixture of Gaussians of equal weight."""

    means: np.ndarray
    """float32 [K, 2]."""
    deviation: float
    """In both directions."""

    def draw(self, key: Key, num: int) -> Array:
        """Points float32 [num, 2]."""
        which, noise = jax.random.split(key)
        return jax.random.choice(which, self.means, (num,)) + self.deviation * jax.random.normal(noise, (num, 2))


def _ring() -> np.ndarray:
    angles = 2 * np.pi * np.arange(8) / 8
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)


def _grid() -> np.ndarray:
    places = np.arange(-4, 5, 2)
    return np.stack(np.meshgrid(places, places), -1).reshape(-1, 2).astype(np.float32)


GAUSSIANS = {"ring": Gaussians(_ring(), 0.01), "grid": Gaussians(_grid(), 0.05)}
"""The two sets by name."""
