"""The data of a run."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jgen.config.ranges import Count, Items, Natural

Resize = Literal["bicubic", "box", "lanczos", "adm"]


@dataclass(frozen=True)
class DataConfig:
    """The set of images, and how it is read."""

    name: str = "digits"
    """digits, stacked_digits, glyphs, fashion_mnist, emoji, emoji:portraits, emoji:noto, idx:FOLDER, folder:FOLDER, or any TFDS
    name."""
    batch_size: Count = 128
    """Images a step, over all devices and hosts."""
    resolution: Natural = 0
    """Height and width in pixels; 0 keeps the set's own (folders, glyphs and emoji: 64)."""
    resize: Resize = "bicubic"
    """How images of a folder or of TFDS come to the resolution, before the middle is kept: Pillow's bicubic, box or lanczos
    filter, or as ADM prepares ImageNet (halved by boxes while they are twice as large, then bicubic)."""
    channels: Literal[0, 1, 3] = 0
    """1 grey, 3 colour; 0 keeps the set's own."""
    split: str = "train"
    """train or test; emoji has seen too (new variants of things in train), and a TFDS set may have more."""
    limit: Natural = 0
    """Use only the first so many images; 0 uses all."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    dequantize: bool = False
    """Add uniform noise of one grey level, so that a density on the 8-bit values is proper."""
    captions: Literal["bytes", "minilm"] = "bytes"
    """How captions are encoded, where the set has them: as bytes, or as features of a language model."""
    skip_bad: bool = False
    """Skip and count the files that can't be read, rather than stop at the first."""
    workers: Natural = 0
    """Processes that decode a large set; 0 decodes in threads."""
    root: str = ""
    """Where the files are: a folder of IDX files for fashion_mnist, the pictures of emoji, the data_dir of TFDS."""
    ground: str = "white"
    """The colour that shows through transparent pixels of emoji and of a folder's images: a name, or as in #808080."""
    shape: Annotated[tuple[Count, ...], Items((0, 3)), tyro.conf.Suppress] = ()
    """Height, width, channels: filled in when a run starts, and kept with it."""
    num_classes: Annotated[Natural, tyro.conf.Suppress] = 0
    """Filled in when a run starts; 0 where the set has no labels."""
    classes: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """Names of the classes in the order of their labels: filled in when a run starts, and kept with it."""
