"""The options of `export`: the form in which a run is written for elsewhere."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count

Form = Literal["weights", "stablehlo", "onnx"]


@dataclass(frozen=True)
class Export:
    """The form of an exported run."""

    to: Form = "weights"
    """weights: safetensors with the config and a model card, which jgen.load reads. stablehlo: the sampler as a program for
    CPUs, NVIDIA GPUs and TPUs, which runs where there is JAX and no jgen. onnx: the sampler for onnxruntime."""
    out: str = ""
    """The folder to write; "export-FORM" beside the checkpoints unless given."""
    stage: str = ""
    """The stage of a run that has several; the last one that was trained unless given."""
    batch: Count = 16
    """Images that one call of an exported sampler draws."""
