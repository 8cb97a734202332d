"""Shapes of well-known sets, so that the cost of a training can be worked out where its data are not."""

import dataclasses
import sys
from collections.abc import Mapping

from jgen.config import DataConfig
from jgen.data.sources import resolve
from jgen.errors import UserError

KNOWN: Mapping[str, tuple[tuple[int, int, int] | None, int]] = {
    "emoji": ((64, 64, 3), 36),
    "emoji:portraits": ((64, 64, 3), 36),
    "emoji:noto": ((64, 64, 3), 36),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "svhn_cropped": ((32, 32, 3), 10),
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "imagenet_resized/32x32": ((32, 32, 3), 1000),
    "imagenet_resized/64x64": ((64, 64, 3), 1000),
    "downsampled_imagenet/32x32": (None, 0),
    "downsampled_imagenet/64x64": (None, 0),
    "imagenet2012": (None, 1000),
    "celeb_a": ((218, 178, 3), 0),
}
"""{name: (shape of its images, or None where they differ, number of classes)}."""


def resolve_or_known(config: DataConfig) -> DataConfig:
    """`resolve`, or, where the set can't be opened, with the shape that is known of it; a folder has no classes then.

    Raises UserError where nothing is known of it.
    """
    try:
        return resolve(config)
    except UserError as error:
        shape, classes = KNOWN.get(config.name, (None, 0))
        side = config.resolution or (64 if config.name.startswith("folder:") else 0)
        if shape is None and not side:
            raise
        found = shape or (side, side, 3)
        size = (config.resolution, config.resolution) if config.resolution else found[:2]
        shape = (*size, config.channels or found[2])
        planned = f"planned for images of {'x'.join(map(str, shape))} and {classes or 'no'} classes"
        print(f"not read, so {planned}: {error}", file=sys.stderr)
        return dataclasses.replace(config, shape=shape, num_classes=classes)
