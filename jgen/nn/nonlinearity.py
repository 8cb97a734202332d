"""The nonlinearities that Song's score networks choose among by name, in the authors' configurations."""

from collections.abc import Callable

import flax.linen as nn

from jgen.errors import UserError
from jgen.types import Array

NONLINEARITIES: dict[str, Callable[[Array], Array]] = {
    "elu": nn.elu,
    "relu": nn.relu,
    "lrelu": lambda x: nn.leaky_relu(x, 0.2),
    "swish": nn.silu,
    "silu": nn.silu,
}


def nonlinearity(name: str) -> Callable[[Array], Array]:
    """The function of a name in NONLINEARITIES, in any case. Raises UserError for other names."""
    if name.lower() not in NONLINEARITIES:
        raise UserError(f"nonlinearity={name}: must be {', '.join(NONLINEARITIES)}")
    return NONLINEARITIES[name.lower()]
