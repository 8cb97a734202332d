"""python -m jgen.metrics compare A B | score IMAGES | pairs A B | plot FILE | steps FILES | export RUN."""

import dataclasses
from types import ModuleType

import tyro

from jgen.app.cli import one_line_errors
from jgen.app.parsing import parse_command
from jgen.config import Count, DataConfig, Natural, check

Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Compare:
    """Two files of scores side by side; refused, with the difference named, where they were measured differently."""

    a: Positional[str]
    """A JSON file that `evaluate` or `score` wrote."""
    b: Positional[str]


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores any images against a set, without a run."""

    images: Positional[str]
    """A folder of PNG, JPEG or WebP files, or an .npz with uint8 "images"."""
    data: DataConfig = DataConfig()
    """The reference; its split is --data.split."""
    metrics: str = "fd,kid,pr"
    """Any of fd,kid,is,pr,dc,auth."""
    extractor: str = ""
    """That of the set, else efficientnet_lite0, unless given; or inception:FILE, vgg16:FILE, alexnet:FILE, cnn:FILE."""
    num: Natural = 0
    """Images; 0 for all."""
    reference_num: Natural = 0
    """Images of the reference; 0 for all (10,000 of an endless set)."""
    batch: Count = 64
    """Images at a time."""
    out: str = ""
    """The JSON to write; none where no name is given."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Mean similarity of the images of two folders (or .npz files) that have one name."""

    a: Positional[str]
    b: Positional[str]
    metrics: str = "psnr,ssim"
    """Any of psnr,ssim,ms_ssim,lpips."""
    trunk: str = ""
    """For lpips: torchvision's VGG16, AlexNet or SqueezeNet weights, a .pth file."""
    heads: str = ""
    """For lpips: its linear heads, vgg.pth, alex.pth or squeeze.pth of the lpips package."""
    ground: str = "white"
    """The colour that shows through transparent pixels."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Writes the network of a classifier's run as a feature extractor (float16), for cnn:FILE."""

    run: Positional[str]
    out: str = ""
    """The .npz to write; SET_cnn.npz where none is given."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draws fidelity against diversity over a scale of guidance, from what `experiments.guided evaluate` wrote."""

    file: Positional[str]
    """A JSON file of records named MEASURE at KNOB=VALUE."""
    x: str = "recall"
    y: str = "precision"
    out: str = "trade_off.png"
    """The PNG to write."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Draws a score over the steps of samplers, a line a sampler, from what `evaluate --metrics` wrote of one run."""

    files: Positional[tuple[str, ...]]
    """JSON files of scores."""
    metric: str = "fd"
    """The one to draw: its name, or what stands before its first underscore."""
    out: str = "by_steps.png"
    """The PNG to write."""


def main(args: list[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for bad input."""
    names = {"compare": Compare, "score": Score, "pairs": Pairs, "plot": Plot, "steps": Steps, "export": Export}
    with one_line_errors():
        options = parse_command("jgen.metrics", names, args)
        check(options)
        getattr(_commands(), type(options).__name__.lower())(options)


def _commands() -> ModuleType:
    """The commands, which import jax: loaded only when the arguments are valid."""
    from jgen.app import measure

    return measure
