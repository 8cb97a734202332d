"""The layers of alias-free generators, from their design equations: cut-offs, transition bands, rates, sizes and filters.

StyleGAN3 (Karras et al. 2021, arXiv:2106.12423), section 3.2 and appendix C.1, and the growth of StyleGAN-XL (Sauer et al.
2022, arXiv:2202.00273), section 3.2. Frequencies are in cycles an image, rates in samples an image, sizes in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jgen.errors import UserError
from jgen.nn.lowpass import lowpass_filter


class Design(NamedTuple):
    """The settings that all layers share."""

    conv_kernel: int = 3
    """Side of the kernels: 3 in config T, 1 in config R."""
    filter_size: int = 6
    """Taps of a filter for each step of its factor."""
    lrelu_upsampling: int = 2
    """Rate at which the leaky ReLU works, relative to the larger of a layer's two."""
    use_radial_filters: bool = False
    """Radially symmetric filters on the way down, but for critically sampled layers: config R."""
    margin_size: int = 10
    """Pixels beyond each edge of the image."""


class Layer(NamedTuple):
    """One layer: what comes in, what goes out, and the design that leads from one to the other."""

    index: int
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    in_rate: int
    out_rate: int
    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    critical: bool
    """Critically sampled: its band ends at half its rate."""
    to_rgb: bool
    design: Design = Design()

    @property
    def name(self) -> str:
        return f"L{self.index}_{self.out_size}_{self.out_channels}"

    @property
    def kernel(self) -> int:
        return 1 if self.to_rgb else self.design.conv_kernel

    @property
    def rate(self) -> int:
        """The rate between the two resamplings."""
        return max(self.in_rate, self.out_rate) * (1 if self.to_rgb else self.design.lrelu_upsampling)

    @property
    def up(self) -> int:
        return self.rate // self.in_rate

    @property
    def down(self) -> int:
        return self.rate // self.out_rate

    @property
    def up_taps(self) -> int:
        return self.design.filter_size * self.up if self.up > 1 and not self.to_rgb else 1

    @property
    def down_taps(self) -> int:
        return self.design.filter_size * self.down if self.down > 1 and not self.to_rgb else 1

    @property
    def radial(self) -> bool:
        return self.design.use_radial_filters and not self.critical

    @property
    def up_filter(self) -> np.ndarray | None:
        """[up_taps]; None for a layer that keeps its rate."""
        return lowpass_filter(self.up_taps, self.in_cutoff, 2 * self.in_half_width, self.rate) if self.up_taps > 1 else None

    @property
    def down_filter(self) -> np.ndarray | None:
        """[down_taps], or [down_taps, down_taps] where radial."""
        if self.down_taps == 1:
            return None
        return lowpass_filter(self.down_taps, self.out_cutoff, 2 * self.out_half_width, self.rate, self.radial)

    @property
    def padding(self) -> tuple[int, int]:
        """Pixels before and after, of the upsampled image; samples keep their places (appendix C.3)."""
        wanted = (self.out_size - 1) * self.down + 1
        total = wanted - (self.in_size + self.kernel - 1) * self.up + self.up_taps + self.down_taps - 2
        before = (total + self.up) // 2
        return before, total - before


class Bands(NamedTuple):
    """Numbers of the input and of the outputs of all layers, one an output; the first layer keeps those of the input."""

    cutoffs: np.ndarray
    stopbands: np.ndarray
    rates: np.ndarray
    sizes: np.ndarray
    channels: np.ndarray


def _progression(first: tuple[float, float], last: tuple[float, float], layers: int, critical: int) -> tuple[np.ndarray, ...]:
    """Cut-offs and stop bands of layers + 1 outputs: geometric up to the last `critical`, then constant."""
    share = np.minimum(np.arange(layers + 1) / (layers - critical), 1)
    return tuple(a * (b / a) ** share for a, b in zip(first, last))


def _bands(
    first: tuple[float, float], resolution: int, rel: float, layers: int, critical: int, margin: int, base: int, most: int
) -> Bands:
    last = resolution / 2, resolution / 2 * rel
    cutoffs, stopbands = _progression(first, last, layers, critical)
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, resolution))))
    sizes = rates + 2 * margin
    sizes[-2:] = resolution
    return Bands(cutoffs, stopbands, rates, sizes, np.rint(np.minimum(base / 2 / cutoffs, most)))


def _layers(bands: Bands, critical: int, first_index: int, design: Design) -> list[Layer]:
    """The layers between successive outputs; the first keeps the input's."""
    half_widths = np.maximum(bands.stopbands, bands.rates / 2) - bands.cutoffs
    count = len(bands.rates) - 1
    found = []
    for i in range(count + 1):
        at = max(i - 1, 0)
        found.append(
            Layer(
                first_index + i,
                *(int(bands.channels[k]) for k in (at, i)),
                *(int(bands.sizes[k]) for k in (at, i)),
                *(int(bands.rates[k]) for k in (at, i)),
                *(float(bands.cutoffs[k]) for k in (at, i)),
                *(float(half_widths[k]) for k in (at, i)),
                critical=i >= count - critical,
                to_rgb=i == count,
                design=design,
            )
        )
    return found


def alias_free_layers(
    resolution: int,
    image_channels: int,
    *,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband_rel: float = 2**0.3,
    design: Design = Design(),  # noqa: B008
) -> tuple[Layer, ...]:
    """num_layers layers and toRGB. The first layer's input is that of the network: `input_of` describes it.

    Raises UserError for a resolution that is no power of 2, or too few layers, channels or pixels for the settings.
    """
    _check(resolution, num_layers, num_critical, channel_base, channel_max)
    first = first_cutoff, first_stopband
    bands = _bands(
        first, resolution, last_stopband_rel, num_layers, num_critical, design.margin_size, channel_base, channel_max
    )
    bands.channels[-1] = image_channels
    return tuple(_layers(bands, num_critical, 0, design))


def _check(resolution: int, layers: int, critical: int, base: int, most: int) -> None:
    if resolution < 8 or resolution & (resolution - 1):
        raise UserError(f"resolution={resolution}: must be a power of 2, at least 8")
    if not 0 <= critical < layers:
        raise UserError(f"num_layers={layers}: must be above num_critical={critical}, of at least 0")
    if base < resolution or most < 1:
        raise UserError(f"channel_base={base}, channel_max={most}: must be at least {resolution} (the images' side) and 1")


def grown_layers(
    stem: Sequence[Layer],
    resolution: int,
    image_channels: int,
    head_layers: int,
    *,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_critical: int = 2,
    last_stopband_rel: float = 2**0.3,
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """(layers kept of the stem, new layers): StyleGAN-XL's growth from a stem to a larger resolution.

    The stem loses its critically sampled layers and toRGB; head_layers layers and a toRGB go on from the last one that is left.
    Their numbers start at the count of layers left plus 1, as in the authors' code: the first growth skips a number. The new
    layers have the authors' defaults (`Design`) but for the margin, which is the stem's. Raises UserError where nothing of the
    stem is left, and for a resolution that isn't 2, 4, 8 or 16 times the stem's.
    """
    kept = tuple(layer for layer in stem if not layer.critical)
    before = stem[-1].out_size
    if resolution not in [before * factor for factor in (2, 4, 8, 16)]:
        raise UserError(f"resolution={resolution}: must be 2, 4, 8 or 16 times the stem's {before}")
    if not kept:
        raise UserError("stem: all of its layers are critically sampled; it needs others to grow from")
    _check(resolution, head_layers, 2, channel_base, channel_max)
    end = kept[-1]
    design = Design(margin_size=end.design.margin_size)
    first = end.out_cutoff, end.out_cutoff + end.out_half_width
    bands = _bands(first, resolution, last_stopband_rel, head_layers, 2, design.margin_size, channel_base, channel_max)
    bands.rates[0] = end.out_rate
    bands.sizes[0] = end.out_rate + 2 * design.margin_size
    bands.channels[0], bands.channels[-1] = end.out_channels, image_channels
    return kept, tuple(_layers(bands, num_critical, len(kept) + 1, design))
