"""Linen layers that several models share."""

from jgen.nn.attention import attention
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm

__all__ = ["GroupNorm", "attention", "timestep_embedding"]
