"""Encoders into the styles of a GAN."""

from jgen.recipes.inversion.encoder import encoder_stage

__all__ = ["encoder_stage"]
