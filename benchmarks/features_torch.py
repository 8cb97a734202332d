"""EfficientNet-Lite0 in PyTorch with its batch norms folded into the convolutions, the peer of benchmarks.alias_free."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from jgen.models.efficientnet_lite import LITE0, TAPS


class Conv(nn.Module):
    """Padding is TensorFlow's."""

    def __init__(self, i: int, o: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv, self.size, self.stride = nn.Conv2d(i, o, size, stride, groups=groups), size, stride

    def forward(self, x: Any) -> Any:
        total = max(self.size - (self.stride if x.shape[2] % self.stride == 0 else x.shape[2] % self.stride), 0)
        before, after = total // 2, total - total // 2
        return self.conv(F.pad(x, (before, after, before, after)) if total else x)


class Block(nn.Module):
    def __init__(self, i: int, o: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = i * expansion
        self.expand = Conv(i, wide, 1) if expansion > 1 else None
        self.depthwise, self.project = Conv(wide, wide, kernel, stride, wide), Conv(wide, o, 1)

    def forward(self, x: Any) -> Any:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if x.shape == h.shape else h


class Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, blocks, width = Conv(3, 32, 3, 2), [], 32
        for stage in LITE0:
            for i in range(stage.blocks):
                blocks.append(Block(width, stage.width, stage.kernel, stage.stride if i == 0 else 1, stage.expansion))
                width = stage.width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Any) -> list[Any]:
        x, found = F.relu6(self.stem(x)), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                found.append(x)
        return found


def frozen() -> Features:
    net = Features().eval()
    for p in net.parameters():
        p.requires_grad_(False)
        torch.nn.init.normal_(p, std=0.05)
    return net
