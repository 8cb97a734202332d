"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423): config T, equivariant to translation, and config R, to rotation too.

Submodules carry the names of the reference implementation (`synthesis.L0_36_512.affine` is `synthesis/L0_36_512/affine`); the
layers come from `alias_free_layers`. Images are [B, H, W, C] in about [-1, 1]. The collection "buffers" holds what no gradient
moves: the input's frequencies and phases, drawn once, and every layer's average of its input's squares ("magnitude_ema"), which
moves where `update` is set, before the layer uses it. The centre of truncation w_avg is a plain array that training keeps.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.models.gan.alias_free_layers import Layer
from jgen.models.gan.stylegan2 import Mapping, repeat
from jgen.nn.conv import conv
from jgen.nn.dense import product
from jgen.nn.equalized import NORMAL, Dense
from jgen.nn.filtered_lrelu import filtered_lrelu
from jgen.nn.precision import at_least_float32
from jgen.types import Array


def modulated_conv(
    x: Array, kernel: Array, styles: Array, *, demodulate: bool = True, padding: int = 0, gain: Array | float = 1.0
) -> Array:
    """x [B, H, W, I] convolved with kernel [k, k, I, O] whose input channels are scaled by styles [B, I], image by image.

    demodulate: the kernel is divided by its root mean square for each output channel, the styles by theirs over all images and
    channels (so images of a batch change one another's outputs by roundings), and each output channel by the norm of its scaled
    weights. gain: [], [I] or [B, I], of the input. padding: zeros around, k - 1 for the full convolution. The convolution has
    x's type, norms are float32 at least.
    """
    kernel, styles = at_least_float32(kernel), at_least_float32(styles)
    if demodulate:
        kernel = kernel * jax.lax.rsqrt(jnp.mean(jnp.square(kernel), (0, 1, 2), keepdims=True))
        styles = styles * jax.lax.rsqrt(jnp.mean(jnp.square(styles)))
    wide = jnp.asarray(gain, styles.dtype)
    wide = jnp.broadcast_to(wide.reshape(*[1] * (2 - wide.ndim), *wide.shape), styles.shape)
    h, weight = x * (styles * wide)[:, None, None].astype(x.dtype), kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1) and not padding:
        h = product(h, weight[0, 0])
    else:
        h = conv(h, weight, ((padding, padding), (padding, padding)))
    if demodulate:
        squares = jnp.sum(jnp.square(kernel), (0, 1))
        h = h * jax.lax.rsqrt(jnp.square(styles) @ squares + 1e-8)[:, None, None].astype(h.dtype)
    return h


def frequencies(key: Array, channels: int, bandwidth: float) -> Array:
    """Frequencies [channels, 2] of the input, nearly uniform over the disc of radius `bandwidth`, in the authors' way."""
    drawn = jax.random.normal(key, (channels, 2))
    squares = jnp.sum(jnp.square(drawn), -1, keepdims=True)
    return drawn / (jnp.sqrt(squares) * jnp.exp(squares) ** 0.25) * bandwidth


class Input(nn.Module):
    """w [B, D] -> Fourier features [B, size, size, channels], turned and moved as w says and then by a user's transform.

    A channel is a wave; those that a transform pushes out of the band fade, to nothing at half the sampling rate. Places and
    phases are float32 at least, whatever w is.
    """

    channels: int
    size: int
    rate: int
    bandwidth: float

    @nn.compact
    def __call__(self, w: Array, transform: Array | None = None) -> Array:
        """transform: the inverse of what happens to the image, [3, 3] or one an image [B, 3, 3], in widths of the image."""
        freqs = self.variable("buffers", "freqs", self._frequencies).value
        phases = self.variable("buffers", "phases", self._phases).value
        kernel = self.param("kernel", NORMAL, (self.channels, self.channels))
        matrix = self._placed(at_least_float32(Affine4(name="affine")(w)))
        if transform is not None:
            matrix = jnp.matmul(matrix, jnp.broadcast_to(transform, matrix.shape), precision="highest")
        phases = phases[None] + jnp.einsum("cd,bd->bc", freqs, matrix[:, :2, 2], precision="highest")
        freqs = jnp.einsum("cd,bde->bce", freqs, matrix[:, :2, :2], precision="highest")
        length = jnp.sqrt(jnp.sum(jnp.square(freqs), -1))
        fade = jnp.clip(1 - (length - self.bandwidth) / (self.rate / 2 - self.bandwidth), 0, 1)
        place = jnp.asarray((np.arange(self.size) + 0.5 - self.size / 2) / self.rate, matrix.dtype)
        along_x = jnp.einsum("x,bc->bxc", place, freqs[..., 0], precision="highest")[:, None]
        along_y = jnp.einsum("y,bc->byc", place, freqs[..., 1], precision="highest")[:, :, None]
        waves = jnp.sin(2 * np.pi * (along_x + along_y + phases[:, None, None])) * fade[:, None, None]
        return product(waves.astype(w.dtype), kernel / self.channels**0.5)

    def _frequencies(self) -> Array:
        return frequencies(self.make_rng("params"), self.channels, self.bandwidth)

    def _phases(self) -> Array:
        return jax.random.uniform(self.make_rng("params"), (self.channels,)) - 0.5

    def _placed(self, t: Array) -> Array:
        """[B, 3, 3]: the rotation and translation of (cosine, sine, x, y) [B, 4], all over the length of the first two."""
        t = t / jnp.sqrt(jnp.sum(jnp.square(t[:, :2]), -1, keepdims=True))
        zero, one = jnp.zeros_like(t[:, 0]), jnp.ones_like(t[:, 0])
        rows = lambda *rows: jnp.stack([jnp.stack(row, -1) for row in rows], 1)  # noqa: E731
        turn = rows((t[:, 0], -t[:, 1], zero), (t[:, 1], t[:, 0], zero), (zero, zero, one))
        move = rows((one, zero, -t[:, 2]), (zero, one, -t[:, 3]), (zero, zero, one))
        return jnp.matmul(turn, move, precision="highest")


class Affine4(nn.Module):
    """w -> (cosine, sine, x, y): begins as the identity, whatever w is."""

    @nn.compact
    def __call__(self, w: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.zeros, (w.shape[-1], 4))
        bias = self.param("bias", lambda key: jnp.array([1.0, 0.0, 0.0, 0.0]))
        return w @ (kernel / w.shape[-1] ** 0.5) + bias[None]


class SynthesisLayer(nn.Module):
    """Modulated convolution by inputs of unit power, bias, and a filtered leaky ReLU; toRGB: without demodulation or bend."""

    layer: Layer
    clamp: float | None = 256.0
    beta: float = 0.999
    """Decay of the average of the input's squares."""

    @nn.compact
    def __call__(self, x: Array, w: Array, update: bool = False) -> Array:
        layer = self.layer
        average = self.variable("buffers", "magnitude_ema", lambda: jnp.ones(()))
        if update and not self.is_initializing():
            now = jax.lax.stop_gradient(jnp.mean(jnp.square(at_least_float32(x))))
            average.value = now + self.beta * (average.value - now)
        styles = Dense(layer.in_channels, bias_init=1.0, name="affine")(w)
        shape = (layer.kernel, layer.kernel, layer.in_channels, layer.out_channels)
        kernel = self.param("kernel", NORMAL, shape)
        bias = self.param("bias", nn.initializers.zeros, (layer.out_channels,))
        if layer.to_rgb:
            styles = styles / layer.in_channels**0.5
        gain = jax.lax.rsqrt(average.value)
        x = modulated_conv(x, kernel, styles, demodulate=not layer.to_rgb, padding=layer.kernel - 1, gain=gain)
        bend, slope = (1.0, 1.0) if layer.to_rgb else (2**0.5, 0.2)
        return filtered_lrelu(
            x, bias, layer.up_filter, layer.down_filter, up=layer.up, down=layer.down, padding=layer.padding * 2, gain=bend,
            slope=slope, clamp=self.clamp,
        )  # fmt: skip


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] -> images [B, R, R, C]; the first row is the input's, each of the others a layer's."""

    layers: tuple[Layer, ...]
    output_scale: float = 0.25
    clamp: float | None = 256.0
    beta: float = 0.999

    @property
    def num_ws(self) -> int:
        return len(self.layers) + 1

    @nn.compact
    def __call__(self, ws: Array, transform: Array | None = None, update: bool = False) -> Array:
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise UserError(f"ws of shape {ws.shape}: must be [B, {self.num_ws}, w_dim]")
        first = self.layers[0]
        x = Input(first.in_channels, first.in_size, first.in_rate, first.in_cutoff, name="input")(ws[:, 0], transform)
        for i, layer in enumerate(self.layers):
            x = SynthesisLayer(layer, self.clamp, self.beta, name=layer.name)(x, ws[:, i + 1], update)
        return x * self.output_scale


class Generator(nn.Module):
    """Mapping and synthesis; call the parts by `method="map"` and `method="synthesize"`."""

    layers: tuple[Layer, ...]
    """From `alias_free_layers`."""
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    mapping_layers: int = 2
    mapping_lr_mul: float = 0.01
    output_scale: float = 0.25
    clamp: float | None = 256.0
    beta: float = 0.999
    """Decay of the averages of squares."""

    def setup(self) -> None:
        self.mapping = Mapping(self.z_dim, self.c_dim, self.w_dim, self.mapping_layers, lr_mul=self.mapping_lr_mul)
        self.synthesis = Synthesis(self.layers, self.output_scale, self.clamp, self.beta)

    @property
    def num_ws(self) -> int:
        """Rows of w: one for the input and one for each layer."""
        return len(self.layers) + 1

    @property
    def resolution(self) -> int:
        """Side of the images."""
        return self.layers[-1].out_size

    @property
    def image_channels(self) -> int:
        return self.layers[-1].out_channels

    def map(self, z: Array, c: Array | None = None) -> Array:
        """w [B, w_dim]."""
        return self.mapping(z, c)

    def synthesize(self, ws: Array, transform: Array | None = None, update: bool = False) -> Array:
        """Images of ws [B, num_ws, w_dim]; transform: see `Input`."""
        return self.synthesis(ws, transform, update)

    def __call__(self, z: Array, c: Array | None = None, transform: Array | None = None, update: bool = False) -> Array:
        return self.synthesize(repeat(self.map(z, c), self.num_ws), transform, update)


def track(w_avg: Array, w: Array, beta: float = 0.998) -> Array:
    """w_avg [D] moved towards the mean of w [B, D]."""
    centre = jax.lax.stop_gradient(jnp.mean(w, 0))
    return centre + beta * (w_avg - centre)
