"""A discrete noise chain, and what a network predicts along it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Range

ChainName = Literal["linear", "cosine", "scaled_linear"]
PredictionName = Literal["eps", "x0", "v"]


@dataclass(frozen=True)
class ChainConfig:
    """The noise chain that the model is trained along."""

    schedule: ChainName = "linear"
    """How the noise grows along the chain."""
    diffusion_steps: Annotated[int, Range(2)] = 1000
    """Steps of the chain."""
    prediction: PredictionName = "eps"
    """The network's target: the noise, the clean image, or the velocity v."""
    rescale_timesteps: bool = False
    """Give the network the steps of the chain as 0 to 1000, however many there are."""
