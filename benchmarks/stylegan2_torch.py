"""StyleGAN2 in PyTorch, the peer of benchmarks.gan: the layers in the plainest way, weights modulated image by image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.steps import use_all_cores

SIDE, WIDTH, Z = 32, 64, 64
"""Pixels, channels of every level, and numbers of a latent and a style."""
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
FIR = torch.outer(TAPS, TAPS) / TAPS.sum() ** 2


def filtered(x: Any, up: int, down: int, pad: tuple[int, int], gain: float) -> Any:
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h * up, w * up)
    x = F.pad(x, (pad[0], pad[1], pad[0], pad[1]))
    return F.conv2d(x, (FIR * gain)[None, None].repeat(c, 1, 1, 1), groups=c, stride=down)


class Dense(nn.Module):
    def __init__(self, i: int, o: int, act: bool = False, bias: float = 0.0):
        super().__init__()
        self.w, self.b, self.act = nn.Parameter(torch.randn(o, i)), nn.Parameter(torch.full((o,), bias)), act

    def forward(self, x: Any) -> Any:
        x = F.linear(x, self.w / self.w.shape[1] ** 0.5, self.b)
        return F.leaky_relu(x, 0.2) * 2**0.5 if self.act else x


class Styled(nn.Module):
    def __init__(self, i: int, o: int, size: int, up: bool = False, rgb: bool = False):
        super().__init__()
        self.affine, self.up, self.rgb = Dense(Z, i, bias=1.0), up, rgb
        self.w, self.b = nn.Parameter(torch.randn(o, i, size, size)), nn.Parameter(torch.zeros(o))
        self.strength, self.given = nn.Parameter(torch.zeros(())), None

    def forward(self, x: Any, w: Any) -> Any:
        b, i, h, wd = x.shape
        s = self.affine(w) / (i**0.5 if self.rgb else 1)
        k = self.w[None] * s[:, None, :, None, None]
        if not self.rgb:
            k = k * (k.square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None, None]
        x = x.reshape(1, b * i, h, wd)
        if self.up:
            x = F.conv_transpose2d(x, k.transpose(1, 2).reshape(b * i, -1, 3, 3), stride=2, groups=b)
            x = filtered(x.reshape(b, -1, 2 * h + 1, 2 * wd + 1), 1, 1, (1, 1), 4.0)
        else:
            x = F.conv2d(x, k.reshape(-1, i, *k.shape[3:]), padding=k.shape[3] // 2, groups=b).reshape(b, -1, h, wd)
        if self.rgb:
            return x + self.b[None, :, None, None]
        noise = torch.randn(b, 1, *x.shape[2:]) if self.given is None else self.given
        x = x + self.strength * noise + self.b[None, :, None, None]
        return F.leaky_relu(x, 0.2) * 2**0.5


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(*[Dense(Z, Z, True) for _ in range(4)])
        self.const = nn.Parameter(torch.randn(WIDTH, 4, 4))
        sides = [4 << i for i in range(4)]
        self.first = Styled(WIDTH, WIDTH, 3)
        self.ups = nn.ModuleList([Styled(WIDTH, WIDTH, 3, up=True) for _ in sides[1:]])
        self.convs = nn.ModuleList([Styled(WIDTH, WIDTH, 3) for _ in sides[1:]])
        self.rgbs = nn.ModuleList([Styled(WIDTH, 3, 1, rgb=True) for _ in sides])

    def forward(self, z: Any, update: bool = False) -> Any:
        """update: of what a step keeps beside the weights, which this one has none of."""
        return self.synthesize(self.mapping(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()))

    def synthesize(self, w: Any) -> Any:
        x = self.first(self.const[None].repeat(len(w), 1, 1, 1), w)
        image = self.rgbs[0](x, w)
        for up, conv, rgb in zip(self.ups, self.convs, self.rgbs[1:]):
            x = conv(up(x, w), w)
            image = filtered(image, 2, 1, (2, 1), 4.0) + rgb(x, w)
        return image


class Conv(nn.Module):
    def __init__(self, i: int, o: int, size: int, down: bool = False, act: bool = True, gain: float = 1.0):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(o, i, size, size)), nn.Parameter(torch.zeros(o))
        self.down, self.act, self.gain = down, act, gain

    def forward(self, x: Any) -> Any:
        size = self.w.shape[2]
        if self.down:
            x = filtered(x, 1, 2 if size == 1 else 1, (1, 1) if size == 1 else (2, 2), 1.0)
        k = self.w / (self.w[0].numel()) ** 0.5
        x = F.conv2d(x, k, stride=2 if self.down and size == 3 else 1, padding=0 if self.down else size // 2)
        x = x + self.b[None, :, None, None]
        return (F.leaky_relu(x, 0.2) * 2**0.5 if self.act else x) * self.gain


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rgb = Conv(3, WIDTH, 1)
        self.blocks = nn.ModuleList([
            nn.ModuleList([
                Conv(WIDTH, WIDTH, 3), Conv(WIDTH, WIDTH, 3, True, gain=0.5**0.5),
                Conv(WIDTH, WIDTH, 1, True, act=False, gain=0.5**0.5),
            ])
            for _ in range(3)
        ])  # fmt: skip
        self.last = Conv(WIDTH + 1, WIDTH, 3)
        self.fc, self.out = Dense(WIDTH * 16, WIDTH, True), Dense(WIDTH, 1)

    def forward(self, x: Any) -> Any:
        x = self.rgb(x)
        for a, b, skip in self.blocks:  # pyright: ignore
            x = b(a(x)) + skip(x)
        y = x.reshape(4, -1, *x.shape[1:])
        y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).reshape(-1, 1, 1, 1)
        x = torch.cat([x, y.repeat(4, 1, 4, 4)], 1)
        return self.out(self.fc(self.last(x).flatten(1)))[:, 0]


def adversarial_step(g: Any, batch: int) -> Callable[[], None]:
    """A step of a generator of latents [B, Z], with update=True for D's fakes, and of `Discriminator`."""
    use_all_cores()
    d = Discriminator()
    of_g, of_d = (torch.optim.Adam(n.parameters(), 2e-3, (0.0, 0.99)) for n in (g, d))
    real = torch.randn(batch, 3, SIDE, SIDE)

    def run() -> None:
        d.requires_grad_(False)
        of_g.zero_grad()
        F.softplus(-d(g(torch.randn(batch, Z)))).mean().backward()
        of_g.step()
        d.requires_grad_(True)
        of_d.zero_grad()
        with torch.no_grad():
            fake = g(torch.randn(batch, Z), update=True)
        (F.softplus(d(fake)).mean() + F.softplus(-d(real)).mean()).backward()
        of_d.step()

    return run
