"""Settings of a GAN for a set of one's own, chosen from a few facts about it, each with its reason.

The rules are those of StyleGAN2-ADA's `auto` configuration (batch, R1's gamma, minibatch deviation, average, depth of the
mapping), of StyleGAN3's table of recommended settings (its gamma) and of Projected GAN's advice for small sets; on CPUs the
networks and runs are as short as those of the presets for CPUs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jgen.config.alias_free import AliasFreeConfig
from jgen.config.data import DataConfig
from jgen.config.gan import ArchitectureConfig, AugmentConfig, GANConfig, StyleConfig
from jgen.config.projected import FastGANConfig, FeatureHeadsConfig
from jgen.config.train import TrainConfig, paper_steps
from jgen.errors import UserError

LEAST_IMAGES, LEAST_SIDE = 16, 8
LARGEST_ON_CPU, LARGEST = 32, 256
"""Largest sides that are chosen; a resolution that is given may be larger."""
ENOUGH_FOR_A_CLASS = 50
NO_AUGMENTATION_FROM = 100_000
SMALL_SET = 5_000


class SetFacts(NamedTuple):
    """A set of images, as its files show it."""

    count: int
    side: int
    """Nine images in ten have a shorter side of at least so many pixels."""
    sizes: int
    """How many different sizes there are, among the images that were looked at."""
    resizable: bool
    """Whether images can be brought to another size, as those of a folder are."""
    channels: int
    """1 where no image has a colour, else 3."""
    classes: int
    """0 without labels."""
    least_class: int
    """Images of the smallest class; 0 without labels, or where that is not known."""


Why = Mapping[str, str]
"""{option: the reason of its value}, in the order in which they are said."""


class Plan(NamedTuple):
    """The settings that do not depend on the kind of GAN."""

    data: DataConfig
    side: int
    """Side of the networks: the least power of 2 that holds the images."""
    conditional: bool
    why: dict[str, str]


def plan(facts: SetFacts, given: DataConfig, accelerator: bool, batch: Callable[[int], int]) -> Plan:
    """Resolution, channels, batch and classes.

    given: what the user says of the data; 0 where nothing is said. batch: side -> images a step, where the set has as many.
    Raises UserError for a set of fewer than 16 images or of images below 8 pixels.
    """
    if facts.count < LEAST_IMAGES:
        raise UserError(f"data.name={given.name}: holds {facts.count} images; --preset auto needs {LEAST_IMAGES} and more")
    if facts.side < LEAST_SIDE:
        raise UserError(f"data.name={given.name}: images of {facts.side} pixels; --preset auto needs {LEAST_SIDE} and more")
    why: dict[str, str] = {}
    largest = LARGEST if accelerator else LARGEST_ON_CPU
    resolution = given.resolution
    if not resolution and facts.resizable:
        resolution = min(_resolution(facts.side), largest)
        mixed = f"; of {facts.sizes} sizes, resized and cropped to squares" if facts.sizes > 1 else ""
        limit = f", and at most {largest} without a given size" if resolution == largest else ""
        why["data.resolution"] = f"nine images in ten have a shorter side of {facts.side} pixels or more{mixed}{limit}"
    side = 1 << ((resolution or facts.side) - 1).bit_length()
    channels = given.channels or (facts.channels if facts.resizable else 0)
    if not given.channels:
        why["data.channels"] = "no image has a colour" if facts.channels == 1 else "there are images in colour"
    size = given.batch_size or min(batch(side), 1 << (facts.count.bit_length() - 1))
    if not given.batch_size:
        why["data.batch_size"] = f"for {side}x{side} pixels on {_machine(accelerator)}, and {facts.count:,} images"
    conditional = facts.classes > 1 and facts.least_class >= ENOUGH_FOR_A_CLASS
    why["conditional"] = _classes(facts)
    data = dataclasses.replace(given, resolution=resolution, channels=channels, batch_size=size)
    return Plan(data, side, conditional, why)


def _resolution(side: int) -> int:
    """The power of 2 below a side; the side itself where it fills three quarters of the power above, as 28 does of 32.

    >>> [_resolution(side) for side in (8, 11, 28, 40, 64)]
    [8, 8, 28, 32, 64]
    """
    below = 1 << (side.bit_length() - 1)
    return side if side * 2 >= below * 3 else below


def _machine(accelerator: bool) -> str:
    return "an accelerator" if accelerator else "CPUs"


def _classes(facts: SetFacts) -> str:
    if facts.classes < 2:
        return "there are no labels" if not facts.classes else "there is one class alone"
    return f"{facts.classes} classes, the smallest of {facts.least_class:,} images; from {ENOUGH_FOR_A_CLASS} on they are used"


def _length(accelerator: bool, cpu_steps: int, kimg: int, batch: int) -> tuple[TrainConfig, str]:
    """A run, and why it is so long."""
    if accelerator:
        return paper_steps(kimg * 1000 // batch), f"{kimg:,} thousand images; the papers have 25 million"
    half = cpu_steps // 2
    return TrainConfig(steps=cpu_steps, save_every=half, sample_every=half, log_every=10), "as the presets for CPUs"


def _group(batch: int) -> int:
    return next(group for group in (4, 3, 2, 1) if batch % group == 0)


def _augmentation(facts: SetFacts, flip: bool, steps: int, batch: int) -> tuple[AugmentConfig, str]:
    """ADA where a run sees a set so often that D can learn it by heart."""
    images, count = steps * batch, facts.count * (2 if flip else 1)
    if count >= NO_AUGMENTATION_FROM:
        return AugmentConfig(), f"{count:,} images are enough without, from {NO_AUGMENTATION_FROM:,} on"
    if images < 3 * facts.count:
        return (
            AugmentConfig(),
            f"{facts.count:,} images, each seen {images / facts.count:.1f} times in {steps:,} steps: too few to overfit",
        )
    found, times = AugmentConfig("ada", ada_kimg=min(500.0, images / 2000)), f"{images / facts.count:,.0f} times"
    return found, f"{count:,} images, each seen {times} in {steps:,} steps: D would learn them by heart"


class StyleChoice(NamedTuple):
    """The groups of `experiments.stylegan2`, in its order, and of `experiments.stylegan3` besides."""

    data: DataConfig
    train: TrainConfig
    gan: GANConfig
    augmentation: AugmentConfig
    style: StyleConfig
    architecture: ArchitectureConfig
    side: int
    why: dict[str, str]


def _style(facts: SetFacts, given: DataConfig, accelerator: bool, cpu_steps: int, gamma: float, rule: str) -> StyleChoice:
    """Any StyleGAN's groups; gamma: of R1, for one pixel and one image of a batch."""
    found = plan(facts, given, accelerator, lambda side: max(8, min(4096 // side, 32)))
    data, why, batch, side = found.data, found.why, found.data.batch_size, found.side
    train, why["train.steps"] = _length(accelerator, cpu_steps, 5_000, batch)
    base, most = ((16384 if side <= 256 else 32768), 512) if accelerator else (512, 64)
    why["channel_base"] = why["channel_max"] = f"widths that {_machine(accelerator)} train at {side}x{side}"
    gan = GANConfig(
        512 if accelerator else 64, base, most, found.conditional, 2e-3 if side >= 1024 else 2.5e-3, ema_kimg=batch * 10 / 32
    )
    why["z_dim"] = why["w_dim"] = "the papers' 512" if accelerator else "enough for networks this narrow"
    why["learning_rate"] = "the papers', lower from 1,024 pixels on"
    why["ema_kimg"] = "10 for every 32 images of a batch"
    augmentation, why["augment"] = _augmentation(facts, data.flip, train.steps, batch)
    if augmentation.augment == "ada":
        why["ada_kimg"] = "ada's strength could go from 0 to 1 in half of the run, at most in the paper's 500 thousand images"
    style = StyleConfig(gan.z_dim, 2, r1_gamma=round(gamma * side**2 / batch, 6), r1_every=16)
    why["r1_gamma"] = f"{rule}; the setting to vary first, by factors of 2 to 5 either way"
    why["r1_every"] = "lazy R1, as in the papers"
    why["mapping_layers"] = "2 layers train more steadily than 8 on small sets"
    why["group"] = "4 images, where they divide the batch"
    return StyleChoice(data, train, gan, augmentation, style, ArchitectureConfig(group=_group(batch)), side, why)


def stylegan2_choice(facts: SetFacts, given: DataConfig, accelerator: bool) -> StyleChoice:
    """The groups of StyleGAN2 for a set; see `plan`."""
    found = _style(facts, given, accelerator, 2400, 0.0002, "0.0002 x side^2 / batch")
    found.why["path_weight"] = "the paper's 2"
    return found._replace(style=dataclasses.replace(found.style, path_weight=2.0))


def stylegan3_choice(facts: SetFacts, given: DataConfig, accelerator: bool) -> tuple[StyleChoice, AliasFreeConfig]:
    """The groups of StyleGAN3 for a set, and its own; see `plan`."""
    found = _style(facts, given, accelerator, 1600, 0.001, "0.001 x side^2 / batch, five times StyleGAN2's")
    gan, style = found.gan, dataclasses.replace(found.style, mixing=0.0)
    own = AliasFreeConfig(layers=7, margin=6)
    if accelerator:
        own = AliasFreeConfig(layers=14 if found.side > 64 else 7, margin=10)
    else:
        gan = dataclasses.replace(gan, channel_max=32)
    found.why["layers"] = "7 up to 64 pixels and on CPUs, else the paper's 14"
    found.why["margin"] = "the paper's 10 pixels, or 6 on CPUs: every pixel of margin costs time"
    return found._replace(gan=gan, style=style), own


class ProjectedChoice(NamedTuple):
    """The groups of `experiments.projected_gan`, in its order."""

    data: DataConfig
    train: TrainConfig
    gan: FastGANConfig
    heads: FeatureHeadsConfig
    why: dict[str, str]


def projected_choice(facts: SetFacts, given: DataConfig, accelerator: bool) -> ProjectedChoice:
    """The groups of Projected GAN for a set; see `plan`."""
    found = plan(facts, given, accelerator, lambda side: 64 if accelerator else 32)
    why, batch, small = found.why, found.data.batch_size, facts.count < SMALL_SET
    train, why["train.steps"] = _length(accelerator, 2000, 1_000, batch)
    lite = small or not accelerator
    gan = FastGANConfig(
        "fastgan_lite" if lite else "fastgan", 64 if accelerator else 8, 256 if accelerator else 64, found.conditional,
        2e-4 if accelerator else 5e-4, ema_kimg=batch * 10 / 32,
    )  # fmt: skip
    few = f"{facts.count:,} images are few, below {SMALL_SET:,}: it may collapse; compare StyleGAN2 with --preset auto"
    many = f"{facts.count:,} images, {SMALL_SET:,} and more"
    why["generator"] = few if small else f"{many}; fastgan_lite on CPUs"
    why["separable"] = "smaller heads overfit less" if small else many
    why["ema_kimg"] = "10 for every 32 images of a batch"
    heads = FeatureHeadsConfig(feature_size=224, separable=small)
    if not accelerator:
        heads = FeatureHeadsConfig(head_width=32, mixing_width=16, separable=small)
    why["feature_size"] = "the paper's 224 pixels" if accelerator else "12 times less time than the paper's 224, on CPUs"
    for name in ("z_dim", "width", "head_width", "mixing_width"):
        why[name] = "the paper's" if accelerator else "widths that CPUs train"
    why["learning_rate"] = "the paper's" if accelerator else "higher than the paper's 2e-4, for a short run"
    why["d_augment"] = "always, as in the paper"
    return ProjectedChoice(found.data, train, gan, heads, why)
