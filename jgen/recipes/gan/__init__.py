"""GANs: convolutional ones of many losses, and those that grow or have styles."""

from jgen.recipes.gan.growth import growing_stages
from jgen.recipes.gan.networks import progan_networks, stylegan1_networks
from jgen.recipes.gan.stage import StyleRecipe, style_stage
from jgen.recipes.gan.stylegan2 import stylegan2_stage
from jgen.recipes.gan.updates import critic_updates, style_updates

__all__ = [
    "StyleRecipe", "critic_updates", "growing_stages", "progan_networks", "style_stage", "style_updates", "stylegan1_networks",
    "stylegan2_stage",
]  # fmt: skip
