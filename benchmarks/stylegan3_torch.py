"""StyleGAN3-T in PyTorch, the peer of benchmarks.alias_free: filters as convolutions along one axis after the other.

Cut-offs, sizes and filters come from jgen's table of layers, which needs no JAX: both sides have the same network.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.stylegan2_torch import Dense
from jgen.models.gan.alias_free_layers import Design, Layer, alias_free_layers

SIDE, WIDTH, Z = 32, 64, 64
LAYERS = alias_free_layers(
    SIDE, 3, channel_base=WIDTH * SIDE, channel_max=WIDTH, num_layers=10, num_critical=2, design=Design(margin_size=10)
)


def resampled(x: Any, f: Any, up: int, down: int, pad: tuple[int, int], gain: float) -> Any:
    """Zeros between samples, padding (negative crops), a filter along rows and columns, every down-th sample."""
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h * up, w * up)
    x = F.pad(x, pad * 2)
    if f is None:
        return x[:, :, ::down, ::down] * gain
    f = (f * gain**0.5)[None, None].repeat(c, 1, 1)
    return F.conv2d(F.conv2d(x, f[:, :, None], groups=c, stride=(1, down)), f[:, :, :, None], groups=c, stride=(down, 1))


def filtered_lrelu(x: Any, bias: Any, fu: Any, fd: Any, up: int, down: int, pad: tuple[int, int], rgb: bool = False) -> Any:
    x = resampled(x + bias[None, :, None, None], fu, up, 1, pad, up**2)
    x = x if rgb else F.leaky_relu(x, 0.2) * 2**0.5
    return resampled(x.clamp(-256, 256), fd, 1, down, (0, 0), 1.0)


def taps(f: np.ndarray | None) -> Any:
    return None if f is None else torch.tensor(f, dtype=torch.float32)


class Input(nn.Module):
    def __init__(self, layer: Layer):
        super().__init__()
        self.layer, c = layer, layer.in_channels
        self.kernel, self.affine = nn.Parameter(torch.randn(c, c)), nn.Linear(Z, 4)
        angle = torch.rand(c) * 2 * np.pi
        self.freqs = torch.stack([angle.cos(), angle.sin()], 1) * torch.rand(c, 1).sqrt() * layer.in_cutoff
        self.phases = torch.rand(c) - 0.5

    def forward(self, w: Any) -> Any:
        t, size = self.affine(w), self.layer.in_size
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        turn = torch.stack([t[:, 0], -t[:, 1], t[:, 1], t[:, 0]], 1).reshape(-1, 2, 2)
        shift = -(turn @ t[:, 2:, None])[..., 0]
        phases = self.phases + shift @ self.freqs.T
        freqs = self.freqs[None] @ turn
        fade = (1 - (freqs.norm(dim=2) - self.layer.in_cutoff) / (self.layer.in_rate / 2 - self.layer.in_cutoff)).clamp(0, 1)
        place = (torch.arange(size) + 0.5 - size / 2) / self.layer.in_rate
        grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)
        waves = torch.einsum("hwd,bcd->bhwc", grid, freqs) + phases[:, None, None]
        waves = torch.sin(2 * np.pi * waves) * fade[:, None, None]
        return (waves @ (self.kernel.T / len(self.kernel) ** 0.5)).permute(0, 3, 1, 2)


class Styled(nn.Module):
    def __init__(self, layer: Layer):
        super().__init__()
        i, o, k = layer.in_channels, layer.out_channels, layer.kernel
        self.layer, self.affine = layer, Dense(Z, i, bias=1.0)
        self.w, self.b = nn.Parameter(torch.randn(o, i, k, k)), nn.Parameter(torch.zeros(o))
        self.fu, self.fd, self.average = taps(layer.up_filter), taps(layer.down_filter), torch.ones(())

    def forward(self, x: Any, w: Any, update: bool) -> Any:
        layer, s = self.layer, self.affine(w)
        if update:
            self.average = x.detach().square().mean().lerp(self.average, 0.999)
        if layer.to_rgb:
            k, s = self.w, s / layer.in_channels**0.5
        else:
            k = self.w * self.w.square().mean((1, 2, 3), keepdim=True).rsqrt()
            s = s * s.square().mean().rsqrt()
        k = k[None] * s[:, None, :, None, None]
        if not layer.to_rgb:
            k = k * (k.square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None, None]
        k, (b, i, height, width) = k * self.average.rsqrt(), x.shape
        x = F.conv2d(x.reshape(1, b * i, height, width), k.reshape(-1, i, *k.shape[3:]), padding=layer.kernel - 1, groups=b)
        x = x.reshape(b, -1, *x.shape[2:])
        return filtered_lrelu(x, self.b, self.fu, self.fd, layer.up, layer.down, layer.padding, layer.to_rgb)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(*[Dense(Z, Z, True) for _ in range(2)])
        self.input, self.layers = Input(LAYERS[0]), nn.ModuleList([Styled(layer) for layer in LAYERS])

    def forward(self, z: Any, update: bool = False) -> Any:
        w = self.mapping(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        x = self.input(w)
        for layer in self.layers:
            x = layer(x, w, update)
        return x * 0.25
