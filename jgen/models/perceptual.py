"""VGG16 (Simonyan & Zisserman 2014, arXiv:1409.1556), AlexNet (Krizhevsky 2014, arXiv:1404.5997) and SqueezeNet 1.1
(Iandola et al. 2016, arXiv:1602.07360) as feature networks.

Layers are named by torchvision's indices, so that its weights and those of LPIPS load by name.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jgen.nn.plain import Conv
from jgen.types import Array

VGG_CHANNELS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
ALEX_CHANNELS = (64, 192, 384, 256, 256)
FIRE_CHANNELS = {
    3: (16, 64, 64), 4: (16, 64, 64), 6: (32, 128, 128), 7: (32, 128, 128), 9: (48, 192, 192), 10: (48, 192, 192),
    11: (64, 256, 256), 12: (64, 256, 256),
}  # fmt: skip
"""{torchvision's index of a fire module of SqueezeNet 1.1: channels of its squeeze, 1x1 and 3x3 convolutions}."""

# (mean, standard deviation) of ImageNet's colours, for images in [0, 1].
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VGG16(nn.Module):
    """The convolutions of VGG16, and its first two dense layers where `hidden` is given.

    Takes normalised images [B, H, W, 3]; `__call__` gives five taps, the last ReLU before each pooling: relu1_2, 2_2,
    3_3, 4_3, 5_3. `features` of 224x224 images gives the second dense layer's ReLU [B, hidden].
    """

    channels: Sequence[Sequence[int]] = VGG_CHANNELS
    hidden: int = 0

    def setup(self) -> None:
        index = 0
        for widths in self.channels:
            for width in widths:
                setattr(self, f"features_{index}", Conv(width, (3, 3), padding=1))
                index += 2
            index += 1  # the pooling
        if self.hidden:
            self.classifier_0, self.classifier_3 = nn.Dense(self.hidden), nn.Dense(self.hidden)

    def __call__(self, x: Array) -> list[Array]:
        taps, index = [], 0
        for widths in self.channels:
            x = nn.max_pool(taps[-1], (2, 2), (2, 2)) if taps else x
            for _ in widths:
                x = nn.relu(getattr(self, f"features_{index}")(x))
                index += 2
            index += 1
            taps.append(x)
        return taps

    def features(self, x: Array) -> Array:
        x = nn.max_pool(self(x)[-1], (2, 2), (2, 2))
        return _dense((self.classifier_0, self.classifier_3), x)


class AlexNet(nn.Module):
    """The convolutions of AlexNet, and its first two dense layers where `hidden` is given.

    Takes normalised images [B, H, W, 3]; `__call__` gives the five ReLUs. `features` of 224x224 images gives the
    second dense layer's ReLU [B, hidden].
    """

    channels: Sequence[int] = ALEX_CHANNELS
    hidden: int = 0

    def setup(self) -> None:
        widths = self.channels
        self.features_0 = Conv(widths[0], (11, 11), 4, padding=2)
        self.features_3 = Conv(widths[1], (5, 5), padding=2)
        self.features_6, self.features_8, self.features_10 = (Conv(w, (3, 3), padding=1) for w in widths[2:])
        if self.hidden:
            self.classifier_1, self.classifier_4 = nn.Dense(self.hidden), nn.Dense(self.hidden)

    def __call__(self, x: Array) -> list[Array]:
        taps = []
        for layer in (self.features_0, self.features_3, self.features_6, self.features_8, self.features_10):
            x = nn.max_pool(x, (3, 3), (2, 2)) if len(taps) in (1, 2) else x
            x = nn.relu(layer(x))
            taps.append(x)
        return taps

    def features(self, x: Array) -> Array:
        x = nn.max_pool(self(x)[-1], (3, 3), (2, 2))
        return _dense((self.classifier_1, self.classifier_4), x)


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side, each followed by a ReLU."""

    squeezed: int
    ones: int
    threes: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(Conv(self.squeezed, (1, 1), name="squeeze")(x))
        parts = Conv(self.ones, (1, 1), name="expand1x1")(x), Conv(self.threes, (3, 3), padding=1, name="expand3x3")(x)
        return nn.relu(jnp.concatenate(parts, -1))


class SqueezeNet(nn.Module):
    """The convolutions of SqueezeNet 1.1.

    Takes normalised images [B, H, W, 3] and gives LPIPS's seven taps: the first ReLU, the fire modules before a pooling, and
    the last four.
    """

    first: int = 64
    fires: Sequence[tuple[int, int, int]] = tuple(FIRE_CHANNELS.values())
    hidden: int = 0
    """It has no dense layers."""

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        x = nn.relu(Conv(self.first, (3, 3), 2, padding=0, name="features_0")(x))
        taps = [x]
        for index, widths in zip(FIRE_CHANNELS, self.fires):
            x = _pooled(x) if index in (3, 6, 9) else x
            x = Fire(*widths, name=f"features_{index}")(x)
            if index not in (3, 6):
                taps.append(x)
        return taps


def _pooled(x: Array) -> Array:
    """3x3 maxima of stride 2; the last window of a side may reach beyond it by one pixel, as PyTorch's ceil_mode has it."""
    beyond = [(0, 0), *((0, (side - 3) % 2) for side in x.shape[1:3]), (0, 0)]
    return nn.max_pool(jnp.pad(x, beyond, constant_values=-jnp.inf), (3, 3), (2, 2))


def _dense(layers: Sequence[nn.Module], x: Array) -> Array:
    """Flattens channels first, as the weights have it."""
    x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
    for layer in layers:
        x = nn.relu(layer(x))  # pyright: ignore[reportCallIssue]
    return x


# LPIPS v0.1 scales images in [-1, 1] by these; v0.0 takes them as they are.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al. 2018, arXiv:1801.03924).

    trunk: a VGG16, AlexNet or SqueezeNet. Takes two batches of images [B, H, W, 3] in [-1, 1] and gives distances [B].
    """

    trunk: nn.Module
    heads: Sequence[int]
    """Channels of each tap."""
    scaled: bool = True
    """Scale the colours first, as v0.1 does and v0.0 does not."""

    def setup(self) -> None:
        self.lin = [self.param(f"lin{i}", nn.initializers.ones, (n,)) for i, n in enumerate(self.heads)]

    def __call__(self, a: Array, b: Array) -> Array:
        return sum(self.layers(a, b))  # pyright: ignore[reportReturnType]

    def layers(self, a: Array, b: Array, linear: bool = True) -> list[Array]:
        """Each tap's share of the distance [B]; without `linear` channels are summed unweighted."""
        return [jnp.mean(m, (1, 2)) for m in self.maps(a, b, linear)]

    def maps(self, a: Array, b: Array, linear: bool = True) -> list[Array]:
        """Each tap's share at every place of the tap [B, h, w]."""
        taps = zip(self.lin, self.taps(a), self.taps(b))
        return [jnp.square(unit(x) - unit(y)) @ (w if linear else jnp.ones_like(w)) for w, x, y in taps]

    def taps(self, x: Array) -> list[Array]:
        if not self.scaled:
            return self.trunk(x)  # pyright: ignore[reportCallIssue]
        shift, scale = jnp.array(SHIFT, x.dtype), jnp.array(SCALE, x.dtype)
        return self.trunk((x - shift[None, None, None]) / scale[None, None, None])  # pyright: ignore[reportCallIssue]


def unit(x: Array) -> Array:
    """Features [..., C] divided by their length at each place."""
    # The gradient of a norm at 0 is not a number; the guard changes no value.
    squares = jnp.sum(x * x, -1, keepdims=True)
    norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return x / (norm + 1e-10)
