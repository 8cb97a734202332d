"""A barrier to the compiler's rewriting of programs."""

from jax import lax

from jgen.types import Array


def settled(x: Array) -> Array:
    """x, and its gradient, as arrays of their own on CPUs; elsewhere XLA may make them part of what reads them.

    This holds in programs that `jgen.train.sharding.jit_step` compiles. In others XLA takes the barrier away before it fuses.
    """
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda v: v)
