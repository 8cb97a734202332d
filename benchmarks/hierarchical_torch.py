"""VDVAE and NVAE in PyTorch, the peers of benchmarks.likelihood, with the mixture of discretised logistics."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jgen.models.vdvae import parse_layers

MIXTURES = 10


def mixture_nll(x: Any, outputs: Any) -> Any:
    """Nats an image of x [B, 3, H, W] in [-1, 1] under outputs [B, 10 M, H, W]."""
    b, _, h, w = x.shape
    logits, rest = outputs[:, :MIXTURES], outputs[:, MIXTURES:].reshape(b, 3, 3 * MIXTURES, h, w)
    mean, log_scale, k = rest.split(MIXTURES, 2)
    k, log_scale, x = k.tanh(), log_scale.clamp(min=-7), x[:, :, None]
    green = mean[:, 1] + k[:, 0] * x[:, 0]
    blue = mean[:, 2] + k[:, 1] * x[:, 0] + k[:, 2] * x[:, 1]
    centred = x - torch.stack([mean[:, 0], green, blue], 1)
    inverse = (-log_scale).exp()
    plus, minus, middle = inverse * (centred + 1 / 255), inverse * (centred - 1 / 255), inverse * centred
    mass = torch.sigmoid(plus) - torch.sigmoid(minus)
    density = middle - log_scale - 2 * F.softplus(middle) - np.log(127.5)
    inside = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
    tails = torch.where(x > 0.999, -F.softplus(minus), inside)
    log_prob = torch.where(x < -0.999, plus - F.softplus(plus), tails).sum(1)
    return -torch.logsumexp(log_prob + logits.log_softmax(1), 1).sum((1, 2))


def normal_kl(mean: Any, log: Any, other: Any, other_log: Any) -> Any:
    gap = (2 * (log - other_log)).exp() + ((mean - other) * (-other_log).exp()).square()
    return -0.5 + other_log - log + 0.5 * gap


class VDBlock(nn.Module):
    def __init__(self, i: int, middle: int, o: int, residual: bool = False, small: bool = False):
        super().__init__()
        size = 1 if small else 3
        self.residual = residual
        self.convs = nn.ModuleList([
            nn.Conv2d(i, middle, 1), nn.Conv2d(middle, middle, size, padding=size // 2),
            nn.Conv2d(middle, middle, size, padding=size // 2), nn.Conv2d(middle, o, 1),
        ])  # fmt: skip

    def forward(self, x: Any) -> Any:
        h = x
        for conv in self.convs:
            h = conv(F.gelu(h))
        return x + h if self.residual else h


class VDDecoderBlock(nn.Module):
    def __init__(self, layer: Any, width: int, latents: int, middle: int):
        super().__init__()
        small, self.layer, self.latents = layer.side <= 2, layer, latents
        self.enc = VDBlock(2 * width, middle, 2 * latents, small=small)
        self.prior = VDBlock(width, middle, 2 * latents + width, small=small)
        self.proj, self.resnet = nn.Conv2d(latents, width, 1), VDBlock(width, middle, width, True, small)

    def forward(self, x: Any, activation: Any) -> tuple[Any, Any]:
        mean, log, more = self.prior(x).split([self.latents, self.latents, x.shape[1]], 1)
        own, own_log = self.enc(torch.cat([x, activation], 1)).chunk(2, 1)
        z = own + own_log.exp() * torch.randn_like(own)
        return self.resnet(x + more + self.proj(z)), normal_kl(own, own_log, mean, log).sum((1, 2, 3))


class VDVAE(nn.Module):
    def __init__(self, encoder: str, decoder: str, width: int, latents: int, bottleneck: float):
        super().__init__()
        middle, self.width = int(width * bottleneck), width
        self.first, self.layers = nn.Conv2d(3, width, 3, padding=1), parse_layers(encoder)
        self.encoder = nn.ModuleList([VDBlock(width, middle, width, True, v.side <= 2) for v in self.layers])
        self.decoder = nn.ModuleList([VDDecoderBlock(v, width, latents, middle) for v in parse_layers(decoder)])
        self.starts = nn.ParameterDict({str(v.side): torch.zeros(width, v.side, v.side) for v in parse_layers(decoder)})
        self.gain, self.bias = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))
        self.last = nn.Conv2d(width, 10 * MIXTURES, 1)

    def forward(self, image: Any) -> Any:
        """Nats a number of the images: the bound's negative."""
        x = self.first(image)
        found = {x.shape[2]: x}
        for layer, block in zip(self.layers, self.encoder):
            x = block(x)
            x = F.avg_pool2d(x, layer.other) if layer.other else x
            found[x.shape[2]] = x
        at = {int(side): start[None].expand(len(image), -1, -1, -1) for side, start in self.starts.items()}
        total = torch.zeros(len(image))
        for block in self.decoder:
            layer: Any = block.layer
            x = at[layer.side]
            if layer.other:
                x = x + F.interpolate(at[layer.other], scale_factor=layer.side // layer.other)
            at[layer.side], kl = block(x, found[layer.side])
            total = total + kl
        outputs = self.last(at[image.shape[2]] * self.gain + self.bias)
        return ((mixture_nll(image, outputs) + total) / image[0].numel()).mean()


class Normed(nn.Module):
    """A convolution whose kernel has learned norms."""

    def __init__(self, i: int, o: int, size: int = 1, stride: int = 1, bias: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(i, o, size, stride, size // 2, bias=bias)
        self.log_norm = nn.Parameter(self.conv.weight.detach().flatten(1).norm(dim=1).log())

    def forward(self, x: Any) -> Any:
        w, c = self.conv.weight, self.conv
        w = self.log_norm.exp()[:, None, None, None] * w / (w.flatten(1).norm(dim=1)[:, None, None, None] + 1e-5)
        return F.conv2d(x, w, c.bias, c.stride, c.padding)  # pyright: ignore


class Gates(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, max(width // 16, 4)), nn.Linear(max(width // 16, 4), width)

    def forward(self, x: Any) -> Any:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None]


class DownSkip(nn.Module):
    def __init__(self, i: int, o: int):
        super().__init__()
        self.convs = nn.ModuleList([Normed(i, o // 4 if k < 3 else o - 3 * (o // 4)) for k in range(4)])

    def forward(self, x: Any) -> Any:
        x = F.silu(x)
        parts = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2], x[:, :, ::2, 1::2], x[:, :, 1::2, ::2]
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts)], 1)


class EncoderCell(nn.Module):
    def __init__(self, i: int, down: bool = False):
        super().__init__()
        o = i * (1 + down)
        self.skip = DownSkip(i, o) if down else nn.Identity()
        self.body = nn.Sequential(
            nn.BatchNorm2d(i), nn.SiLU(), Normed(i, o, 3, 1 + down), nn.BatchNorm2d(o), nn.SiLU(), Normed(o, o, 3), Gates(o)
        )

    def forward(self, x: Any) -> Any:
        return self.skip(x) + 0.1 * self.body(x)


class DecoderCell(nn.Module):
    def __init__(self, i: int, expand: int = 6, up: bool = False):
        super().__init__()
        wide, o, self.up = i * expand, i // (1 + up), up
        self.skip = Normed(i, o, bias=False) if up else nn.Identity()
        self.body = nn.Sequential(
            nn.BatchNorm2d(i), nn.Conv2d(i, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            nn.Conv2d(wide, o, 1, bias=False), nn.BatchNorm2d(o), Gates(o),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        if not self.up:
            return x + 0.1 * self.body(x)
        smooth = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.skip(smooth) + 0.1 * self.body(F.interpolate(x, scale_factor=2))


def soft_clamp(x: Any) -> Any:
    return 5 * torch.tanh(x / 5)


class NVAE(nn.Module):
    """Two scales, one cell everywhere, one halving before the latents."""

    def __init__(self, width: int, latents: int, groups: int, side: int):
        super().__init__()
        self.groups, w = groups, 2 * width
        self.stem, self.pre = Normed(3, width, 3), EncoderCell(width, True)
        self.fine = nn.ModuleList([EncoderCell(w) for _ in range(groups)])
        self.down = EncoderCell(w, True)
        self.coarse = nn.ModuleList([EncoderCell(2 * w) for _ in range(groups)])
        self.top, self.start = Normed(2 * w, 2 * w), nn.Parameter(torch.rand(2 * w, side // 4, side // 4))
        widths = [2 * w] * groups + [w] * groups
        self.posteriors = nn.ModuleList([Normed(n, 2 * latents, 3) for n in widths])
        self.combiners = nn.ModuleList([Normed(n, n) for n in widths[1:]])
        self.priors = nn.ModuleList([Normed(n, 2 * latents) for n in widths[1:]])
        self.cells = nn.ModuleList([DecoderCell(n) for n in widths[1:]])
        self.joins = nn.ModuleList([Normed(n + latents, n) for n in widths])
        self.up, self.post = DecoderCell(2 * w, up=True), DecoderCell(w, 3, True)
        self.head = Normed(width, 10 * MIXTURES, 3)

    def forward(self, image: Any) -> Any:
        """Nats a number of the images: the bound's negative."""
        x, found = self.pre(self.stem(image)), []
        for part in (self.fine, self.coarse):
            x = self.down(x) if found else x
            for cell in part:
                x = cell(x)
                found.append(x)
        encoded = [F.elu(self.top(F.elu(x))), *found[-2::-1]]
        x, total = self.start[None].expand(len(image), -1, -1, -1), torch.zeros(len(image))
        for k in range(2 * self.groups):
            x = self.up(x) if k == self.groups else x
            x = self.cells[k - 1](x) if k else x
            prior = self.priors[k - 1](F.elu(x)) if k else torch.zeros(len(x), 1, 1, 1)
            mean, log = prior.chunk(2, 1) if k else (prior, prior)
            own = self.posteriors[k](encoded[k] + self.combiners[k - 1](x) if k else encoded[k])
            d, d_log = own.chunk(2, 1)
            mean, log, own, own_log = soft_clamp(mean), soft_clamp(log), soft_clamp(mean + d), soft_clamp(log + d_log)
            z = own + (own_log.exp() + 1e-2) * torch.randn_like(own)
            total = total + normal_kl(own, own_log, mean, log).sum((1, 2, 3))
            x = self.joins[k](torch.cat([x, z], 1))
        outputs = self.head(F.elu(self.post(x)))
        return ((mixture_nll(image, outputs) + total) / image[0].numel()).mean()
