"""Mixed precision for any network: weights stay float32, what is computed with them has another type."""

from typing import Any, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.types import Array, PyTree

Net = TypeVar("Net", bound=nn.Module)


def cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    """A tree with its arrays of floats in another type."""

    def change(x: Any) -> Any:
        return x.astype(dtype) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(change, tree)


def at_least_float32(x: Array) -> Array:
    """x in float32, or in float64 where it is: for moments, logits and outputs, which bfloat16 would round."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class _InDtype:
    """A network whose `apply` computes in a type."""

    def __init__(self, net: nn.Module, dtype: Any):
        self.net, self.dtype = net, dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)

    def apply(self, variables: PyTree, *inputs: Any, **how: Any) -> Any:
        variables = {**variables, "params": cast_floats(variables["params"], self.dtype)}
        rngs, mutable, method = (how.pop(name, None) for name in ("rngs", "mutable", "method"))
        fixed = {"rngs": rngs, "method": method, **({} if mutable is None else {"mutable": mutable})}
        found = self.net.apply(variables, *cast_floats(inputs, self.dtype), **fixed, **cast_floats(how, self.dtype))
        return cast_floats(found, jnp.float32)


def in_dtype(net: Net, dtype: str) -> Net:
    """A network that computes in a type: `apply` casts weights and inputs to it, and outputs back to float32.

    State other than weights, such as running statistics, stays float32. float32 gives the network itself. For networks without
    a dtype of their own; what they compute in float32 inside stays so.
    """
    return net if dtype == "float32" else cast(Net, _InDtype(net, jnp.dtype(dtype)))
