"""Barriers to the compiler's rewriting of programs."""

from typing import Any

from jax import lax

from jgen.types import Array


def after(x: Array, first: Any) -> Array:
    """x; on CPUs what reads it is made after the arrays `first`, so that it may be written over what those read.

    As of `settled`, in programs that `jit_step` compiles.
    """
    return lax.platform_dependent(x, first, cpu=lambda x, f: lax.optimization_barrier((x, f))[0], default=lambda x, _: x)


def settled(x: Array) -> Array:
    """x, and its gradient, as arrays of their own on CPUs; elsewhere XLA may make them part of what reads them.

    This holds in programs that `jgen.sharding.jit_step` compiles. In others XLA takes the barrier away before it fuses.
    """
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda v: v)
