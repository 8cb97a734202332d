"""BigGAN at 32x32 in PyTorch, the peer of benchmarks.class_gan: spectral norm, a shared embedding, conditional batch norms."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

CLASSES, WIDTH, Z, SHARED = 10, 32, 128, 128
"""Classes, the author's ch, numbers of a latent and of a class's embedding."""
CHUNK = Z // 4


def conv(i: int, o: int, size: int = 3) -> Any:
    return spectral_norm(nn.Conv2d(i, o, size, padding=size // 2))


class ConditionalNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = spectral_norm(nn.Linear(SHARED + CHUNK, channels, bias=False))
        self.bias = spectral_norm(nn.Linear(SHARED + CHUNK, channels, bias=False))

    def forward(self, x: Any, y: Any) -> Any:
        return self.norm(x) * (1 + self.gain(y))[:, :, None, None] + self.bias(y)[:, :, None, None]


class Up(nn.Module):
    def __init__(self, i: int, o: int):
        super().__init__()
        self.a, self.b, self.skip = conv(i, o), conv(o, o), conv(i, o, 1)
        self.norm_a, self.norm_b = ConditionalNorm(i), ConditionalNorm(o)

    def forward(self, x: Any, y: Any) -> Any:
        h = self.a(F.interpolate(F.relu(self.norm_a(x, y)), scale_factor=2))
        return self.b(F.relu(self.norm_b(h, y))) + F.interpolate(self.skip(x), scale_factor=2)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(CLASSES, SHARED)
        self.first = spectral_norm(nn.Linear(CHUNK, 16 * 4 * WIDTH))
        self.blocks = nn.ModuleList([Up(4 * WIDTH, 4 * WIDTH) for _ in range(3)])
        self.norm, self.rgb = nn.BatchNorm2d(4 * WIDTH), conv(4 * WIDTH, 3)

    def forward(self, z: Any, label: Any) -> Any:
        z, *chunks = z.split(CHUNK, 1)
        x, y = self.first(z).reshape(len(z), -1, 4, 4), self.shared(label)
        for block, chunk in zip(self.blocks, chunks):
            x = block(x, torch.cat([y, chunk], 1))
        return torch.tanh(self.rgb(F.relu(self.norm(x))))


class Down(nn.Module):
    def __init__(self, i: int, o: int, down: bool, first: bool):
        super().__init__()
        self.a, self.b, self.down, self.first = conv(i, o), conv(o, o), down, first
        self.skip = conv(i, o, 1) if down or i != o else None

    def forward(self, x: Any) -> Any:
        h = self.b(F.relu(self.a(x if self.first else F.relu(x))))
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + (x if self.skip is None else self.skip(x))


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        wide = 4 * WIDTH
        self.blocks = nn.Sequential(*[Down(wide if i else 3, wide, i < 2, i == 0) for i in range(4)])
        self.out, self.embed = spectral_norm(nn.Linear(wide, 1)), spectral_norm(nn.Embedding(CLASSES, wide))

    def forward(self, x: Any, label: Any) -> Any:
        h = F.relu(self.blocks(x)).sum((2, 3))
        return self.out(h)[:, 0] + (self.embed(label) * h).sum(1)
