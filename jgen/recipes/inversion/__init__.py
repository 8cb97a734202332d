"""Encoders into the styles of a GAN."""

from jgen.recipes.inversion.stages import encoder_stage

__all__ = ["encoder_stage"]
