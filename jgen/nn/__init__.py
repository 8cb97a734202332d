"""Linen layers that several models share."""

from jgen.nn.attention import attention
from jgen.nn.conv import Conv3x3, conv3x3
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm

__all__ = ["Conv3x3", "GroupNorm", "attention", "conv3x3", "timestep_embedding"]
