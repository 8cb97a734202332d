"""SDEdit (Meng et al. 2021, arXiv:2108.01073): an image or a sketch, noised to a middle level and sampled from there."""

from collections.abc import Callable
from typing import Any

from jgen.errors import UserError
from jgen.samplers.common import check_keys, noise
from jgen.samplers.linear import levels
from jgen.types import Array, Denoise, Key


def sdedit(
    sampler: Callable[..., Any], denoise: Denoise, image: Array, sigmas: Any, keys: Key, *, sigma: float, **options: Any
) -> Any:
    """Images near `image` [B, H, W, C]: the nearer, the lower the level sigma that it is noised to.

    sampler: any of the continuous coordinates, such as `euler`; it runs on the levels of `sigmas` below sigma. Raises
    UserError for a sigma outside of them.
    """
    check_keys(keys, image)
    grid = levels(sigmas)
    rest = grid[grid < sigma]
    if not len(rest) or not grid[-1] < sigma <= grid[0]:
        raise UserError(f"sigma={sigma}: must be from {grid[-1]:.4g} to {grid[0]:.4g}, the levels of sigmas")
    return sampler(denoise, image + sigma * noise(keys, image.shape[1:]), [sigma, *rest], keys, **options)
