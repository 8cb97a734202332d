"""The very deep VAE (Child 2021, arXiv:2011.10650): a bottom-up encoder, and a top-down decoder with a latent in every block.

Layer strings are the authors': "32x11" is 11 blocks at 32x32; "32d2" one block there and then an average pool by 2; "8m4" a
decoder block at 8x8 that first adds the features of 4x4, repeated to its size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.conv import Conv3x3
from jgen.nn.dense import Dense
from jgen.nn.precision import at_least_float32
from jgen.types import Array

LECUN = nn.initializers.lecun_normal()


class Layer(NamedTuple):
    """One block of a layer string."""

    side: int
    other: int | None = None
    """The rate of pooling, or the side whose features are added."""


def parse_layers(text: str, option: str = "layers") -> list[Layer]:
    """The blocks of a layer string. Raises UserError, which names the option, for one that is none.

    >>> parse_layers("8x2,8d2,4")
    [Layer(side=8, other=None), Layer(side=8, other=None), Layer(side=8, other=2), Layer(side=4, other=None)]
    """
    layers = []
    for part in text.split(","):
        kind = next((k for k in "xmd" if k in part), "")
        numbers = part.split(kind) if kind else [part]
        if not all(n.isdecimal() and int(n) for n in numbers) or len(numbers) != (2 if kind else 1):
            raise UserError(f"{option}={text!r:.60}: {part!r:.20} must be like 32x11, 32d2, 8m4 or 32")
        side, other = int(numbers[0]), int(numbers[-1])
        layers += [Layer(side)] * other if kind == "x" else [Layer(side, other if kind else None)]
    return layers


def parse_widths(text: str, width: int) -> dict[int, int]:
    """{side: width} of a string such as "64:256,1:1024"; `width` is that of sides which it does not name."""
    found = {}
    for part in filter(None, text.split(",")):
        side, _, own = part.partition(":")
        if not (side.isdecimal() and own.isdecimal()):
            raise UserError(f"widths={text!r:.60}: {part!r:.20} must be like 64:256, a side and its width")
        found[int(side)] = int(own)
    return found


class Block(nn.Module):
    """Four convolutions, each after a GELU: 1x1, two 3x3 (1x1 at sides of 1 and 2), 1x1; beside a shortcut where residual."""

    middle: int
    outputs: int
    residual: bool = False
    small: bool = False
    """At a side of 1 or 2."""
    last_scale: float = 1.0
    """Factor of the last layer's initial weights; 0 makes them zero."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        last = nn.initializers.zeros if not self.last_scale else lambda *a: self.last_scale * LECUN(*a)
        h = Dense(self.middle, name="c1")(_gelu(x))
        for name in ("c2", "c3"):
            conv = Dense(self.middle, name=name) if self.small else Conv3x3(self.middle, name=name)
            h = conv(_gelu(h))
        h = Dense(self.outputs, kernel_init=last, name="c4")(_gelu(h))
        return x + h if self.residual else h


def _gelu(x: Array) -> Array:
    return nn.gelu(x, approximate=False)


class Encoder(nn.Module):
    """Images -> {side: the last features at it}."""

    layers: Sequence[Layer]
    width: int
    widths: dict[int, int]
    bottleneck: float

    @nn.compact
    def __call__(self, x: Array) -> dict[int, Array]:
        x = Conv3x3(self.width, name="in_conv")(x)
        found = {x.shape[1]: x}
        for i, layer in enumerate(self.layers):
            width = self.widths.get(layer.side, self.width)
            middle, scale = int(width * self.bottleneck), len(self.layers) ** -0.5
            x = Block(middle, width, True, layer.side <= 2, scale, name=f"enc_blocks_{i}")(x)
            if layer.other:
                x = nn.avg_pool(x, (layer.other,) * 2, (layer.other,) * 2)
            x = _cut_or_pad(x, self.widths.get(x.shape[1], self.width))
            found[x.shape[1]] = x
        return found


def _cut_or_pad(x: Array, width: int) -> Array:
    return jnp.pad(x[..., :width], ((0, 0), (0, 0), (0, 0), (0, max(0, width - x.shape[-1]))))


class Latent(NamedTuple):
    """A decoder block's latent, and how far its posterior is from its prior."""

    z: Array
    """[B, side, side, zdim]."""
    kl: Array
    """Nats of every number of it; zeros where it came from the prior."""
    features: Array
    """[B, side, side, width] after the block."""


class DecoderBlock(nn.Module):
    """Draws a latent from the posterior or the prior, and adds what it says to the features.

    Latents and KLs are float32 at least, whatever the features are.
    """

    layer: Layer
    width: int
    latents: int
    bottleneck: float
    blocks: int

    def setup(self) -> None:
        middle, small, scale = int(self.width * self.bottleneck), self.layer.side <= 2, self.blocks**-0.5
        self.enc = Block(middle, 2 * self.latents, small=small)
        self.prior = Block(middle, 2 * self.latents + self.width, small=small, last_scale=0.0)
        self.z_proj = Dense(self.width, kernel_init=lambda *a: scale * LECUN(*a))
        self.resnet = Block(middle, self.width, True, small, scale)

    def __call__(self, x: Array, noise: Array, activation: Array | None, temperature: float | Array, z: Array | None) -> Latent:
        """noise [B, side, side, zdim]: standard normal. activation: the encoder's features; None draws from the prior, its
        deviation times the temperature. z: the latent itself, in place of a drawn one."""
        prior = self.prior(x)  # mean and log deviation of the latent, and features that are added whatever is drawn
        law, more = jnp.split(prior, [2 * self.latents], -1)
        mean, log_deviation = jnp.split(at_least_float32(law), 2, -1)
        kl = jnp.zeros_like(mean)
        if activation is not None:
            own = at_least_float32(self.enc(jnp.concatenate([x, activation], -1)))
            own_mean, own_log = jnp.split(own, 2, -1)
            kl = diagonal_kl(own_mean, own_log, mean, log_deviation)
            mean, log_deviation = own_mean, own_log
        else:
            log_deviation = log_deviation + jnp.log(temperature)
        z = mean + jnp.exp(log_deviation) * noise if z is None else z
        x = self.resnet(x + more + self.z_proj(z.astype(x.dtype)))
        return Latent(z, kl, x)


def diagonal_kl(mean: Array, log_deviation: Array, prior_mean: Array, prior_log_deviation: Array) -> Array:
    """KL of one diagonal Gaussian from another, number by number, in nats."""
    square = jnp.exp(2 * (log_deviation - prior_log_deviation))
    gap = jnp.square((mean - prior_mean) * jnp.exp(-prior_log_deviation))
    return -0.5 + prior_log_deviation - log_deviation + 0.5 * (square + gap)


class VDVAE(nn.Module):
    """Images [B, S, S, C] -> (outputs of the likelihood [B, S, S, K], the blocks' latents)."""

    outputs: int
    side: int
    encoder_layers: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    decoder_layers: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    width: int = 384
    latents: int = 16
    bottleneck: float = 0.25
    widths: str = ""
    no_bias_above: int = 64
    """Features begin from learned numbers at sides up to this one, from zeros above."""

    def setup(self) -> None:
        own, layers = parse_widths(self.widths, self.width), parse_layers(self.decoder_layers)
        self.encoder = Encoder(tuple(parse_layers(self.encoder_layers)), self.width, own, self.bottleneck)
        self.layers = tuple(layers)
        self.own_widths = own
        self.dec_blocks = [
            DecoderBlock(v, own.get(v.side, self.width), self.latents, self.bottleneck, len(layers)) for v in layers
        ]
        sides = [side for side in sorted({v.side for v in layers}) if side <= self.no_bias_above]
        zeros = nn.initializers.zeros
        self.bias_xs = {
            side: self.param(f"bias_xs_{i}", zeros, (side, side, own.get(side, self.width))) for i, side in enumerate(sides)
        }
        self.gain = self.param("gain", nn.initializers.ones, (self.width,))
        self.bias = self.param("bias", zeros, (self.width,))
        self.out_conv = Dense(self.outputs)

    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """The shape of every block's latent."""
        return [(v.side, v.side, self.latents) for v in parse_layers(self.decoder_layers)]

    def __call__(self, x: Array, noise: Sequence[Array]) -> tuple[Array, list[Latent]]:
        """noise: standard normal, one array [B, side, side, zdim] a block, which draws from the posteriors."""
        features, latents = self.decode(noise, self.encoder(x))
        return self.out_conv(features), latents

    def sample(
        self, noise: Sequence[Array], temperature: float | Sequence[float] | Array = 1.0, given: Sequence[Array] = ()
    ) -> tuple[Array, list[Latent]]:
        """From the priors. temperature: of all blocks, or one a block. given: latents of the first so many blocks."""
        features, latents = self.decode(noise, None, temperature, given)
        return self.out_conv(features), latents

    def activations(self, x: Array) -> dict[int, Array]:
        """The encoder's features by side."""
        return self.encoder(x)

    def decode(
        self,
        noise: Sequence[Array],
        activations: dict[int, Array] | None,
        temperature: float | Sequence[float] | Array = 1.0,
        given: Sequence[Array] = (),
    ) -> tuple[Array, list[Latent]]:
        """(final features [B, S, S, width], float32 at least, the blocks' latents)."""
        batch, found = len(noise[0]), []
        each: list[Any] = [temperature] * len(self.layers) if jnp.ndim(temperature) == 0 else list(temperature)  # pyright: ignore
        if len(each) != len(self.layers) or len(given) > len(self.layers):
            raise UserError(f"{len(each)} temperatures, {len(given)} given latents: the decoder has {len(self.layers)} blocks")
        at = {side: jnp.broadcast_to(b[None], (batch, *b.shape)) for side, b in self.bias_xs.items()}
        for i, (layer, block) in enumerate(zip(self.layers, self.dec_blocks)):
            width = self.own_widths.get(layer.side, self.width)
            x = at.get(layer.side, jnp.zeros((batch, layer.side, layer.side, width), self.gain.dtype))
            if layer.other:
                grow = layer.side // layer.other
                x = x + _cut_or_pad(jnp.repeat(jnp.repeat(at[layer.other], grow, 1), grow, 2), width)
            activation = None if activations is None else activations[layer.side]
            latent = block(x, noise[i], activation, each[i], given[i] if i < len(given) else None)
            at[layer.side] = latent.features
            found.append(latent)
        return at_least_float32(at[self.side]) * self.gain[None, None, None] + self.bias[None, None, None], found


def check_layers(net: VDVAE) -> None:
    """Raises UserError for layer strings and widths that do not fit the image's side or each other."""
    side, sides = net.side, {net.side}
    for layer in parse_layers(net.encoder_layers, "encoder_layers"):
        if layer.side != side or side % (layer.other or 1):
            raise UserError(f"encoder_layers={net.encoder_layers}: a block at {layer.side} where the features are at {side}")
        side //= layer.other or 1
        sides.add(side)
    layers, known = parse_layers(net.decoder_layers, "decoder_layers"), set()
    for layer in layers:
        if layer.side not in sides:
            raise UserError(f"decoder_layers={net.decoder_layers}: the encoder has no features at {layer.side}")
        if layer.other and (layer.other not in known or layer.side % layer.other):
            raise UserError(f"decoder_layers={net.decoder_layers}: {layer.side}m{layer.other} has nothing to add")
        known.add(layer.side)
    if net.side not in known:
        raise UserError(f"decoder_layers={net.decoder_layers}: no block at the image's side, {net.side}")
    for i, layer in enumerate(layers):
        if layer.side != net.side and not any(layer.side in later for later in layers[i + 1 :]):
            raise UserError(f"decoder_layers={net.decoder_layers}: nothing comes of the last block at {layer.side}")
    own = parse_widths(net.widths, net.width)
    if own.get(net.side, net.width) != net.width:
        raise UserError(f"widths={net.widths}: the image's side, {net.side}, has width={net.width}; set that one")
    if int(min([net.width, *own.values()]) * net.bottleneck) < 1:
        least = 1 / min([net.width, *own.values()])
        raise UserError(f"bottleneck={net.bottleneck}: leaves no channel inside of a block; must be at least {least:.3g}")
