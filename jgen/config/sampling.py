"""How a trained model is sampled: the sampler, guidance, and what editing does with held-out images."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jgen.config.ranges import Count, Inline, NonNegative, Positive, Range, Share
from jgen.config.samplers import DDIM, Coordinates, Solver

Label = Annotated[int, Range(-1)]


@dataclass(frozen=True)
class Animation:
    """A moving picture: translate, rotate or walk of a style-based generator."""

    frames: Count = 60
    """Frames of one round; a denoising has as many as its sampler reports."""
    fps: Annotated[float, Range(0, 100, open_low=True)] = 20.0
    """Frames a second."""


@dataclass(frozen=True)
class LabelSampling:
    """The class of the images."""

    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


@dataclass(frozen=True)
class Guidance:
    """How samples are guided to a class or a caption, and kept within the range of pixels."""

    guidance: float = 1.0
    """Classifier-free guidance, u + guidance (c - u): 1 is without. For a model trained with drop_label."""
    guidance_from: NonNegative = 0.0
    """Guide only at noise levels sigma above this one."""
    guidance_to: Positive = 1e9
    """Guide only at noise levels sigma below this one."""
    classifier: str = ""
    """A run of experiments.classifier with --noisy, whose gradient guides too, or guides a model without classes to one."""
    classifier_scale: NonNegative = 0.0
    """Scale of the classifier's gradient: 0 is without."""
    clip_denoised: bool = True
    """Keep clean images within [-1, 1] at every step."""
    threshold: Share = 0.0
    """Scale clean images down by this quantile of their pixels where it is beyond -1 or 1 rather than clip them, for strong
    guidance (Imagen: 0.995); 0 clips."""


@dataclass(frozen=True)
class Editing:
    """How `sample --picture inpainted` and `edited` change held-out images."""

    mask: Literal["center", "left", "right", "top", "bottom"] = "center"
    """The part of the images that inpainted removes."""
    edit_from: Positive = 1.0
    """The noise level that edited brings the images to; the higher, the freer."""


@dataclass(frozen=True)
class DiffusionSampling:
    """How a diffusion model is sampled."""

    coordinates: ClassVar[tuple[Coordinates, ...]] = ("discrete", "continuous")
    """Coordinates of the samplers that can be chosen."""
    solver: Inline[Solver] = DDIM()
    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional model, or one that a classifier guides."""
    guide: Inline[Guidance] = Guidance()
    edit: Inline[Editing] = Editing()


@dataclass(frozen=True)
class Bound:
    """The variational bound that `evaluate` gives of a model with a chain."""

    bound_steps: Annotated[int, Range(-1)] = -1
    """`evaluate` also gives the variational bound along so many steps of the chain, a network call each; 0 for all, -1 for no
    bound."""
    bound_variance: Literal["auto", "small", "large", "learned_range"] = "auto"
    """Variance of the bound's steps: the posterior's, beta, or the network's. auto: the network's where it learned one."""
