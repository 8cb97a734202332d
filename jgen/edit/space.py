"""The space of styles of a generator, and that of noise of a diffusion model, as functions: what inversion and editing of
any of them work on."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jgen.types import Array, Extra, Params


class StyleSpace(NamedTuple):
    """Mapping and synthesis of a run, and its encoder where one was trained."""

    num_ws: int
    w_dim: int
    styles: Callable[..., Array]
    """(params, extra, one key an image, label=-1, z=None) -> random ws [B, num_ws, D] of a class, or of latents z [B, z_dim],
    without truncation; -1 draws a class for each. Raises UserError for a class that the generator does not have."""
    synthesize: Callable[..., Array]
    """(params, extra, ws, noise={}) -> images [B, H, W, C] of the set's size; not clipped, so that gradients pass. noise:
    {layer: [B, side, side, 1]} of `noise_sides`, or of none of them."""
    mean: Callable[..., Array]
    """(extra, label=-1) -> the mean style [D]: of a class where the generator keeps one for each, else of all."""
    z_dim: int
    """Numbers of a latent."""
    noise_sides: Mapping[str, int] = MappingProxyType({})
    """{layer: side} of the noise inputs that the generator has."""
    state: tuple[str, ...] = ("w_avg",)
    """The entries of extra that these functions read."""
    encode: Callable[[Params, Extra, Array], Array] | None = None
    """(params, extra, images [B, H, W, C]) -> ws [B, num_ws, D]."""
    from_sketch: Callable[[Params, Extra, Array], Array] | None = None
    """(params, extra, sketches [B, H, W, C]) -> ws [B, num_ws, D], where the encoder was shown sketches."""
    describe: Callable[[Params, Extra, Array], Array] | None = None
    """(params, extra, captions [B, L] or features of them) -> ws [B, num_ws, D], where a text encoder was trained too."""


class NoiseSpace(NamedTuple):
    """DDIM's way between images and noise, of a diffusion model (Song et al. 2021, arXiv:2010.02502, section 5.4)."""

    invert: Callable[[Params, Extra, Array, int, int], Array]
    """(params, extra, images [B, H, W, C], the class that they show or -1, steps) -> noise [B, h, w, c]."""
    draw: Callable[[Params, Extra, Array, int, int], Array]
    """(params, extra, noise, class or -1, steps) -> images [B, H, W, C] in [-1, 1], without guidance: the way back."""
    guided: Callable[[Params, Extra, Array, Any, int], Array]
    """(params, extra, noise, options of sampling, steps) -> images of the class or text that the options name, guided."""
