"""A fixture that the tests of samplers share."""

import jax.numpy as jnp
import pytest

from jgen.samplers import langevin, pc


@pytest.fixture
def drawn(monkeypatch):
    """Puts the given draws in place of the samplers' noise."""

    def place(draws):
        draws = jnp.asarray(draws)
        for module in (langevin, pc):
            monkeypatch.setattr(module, "noise", lambda keys, shape, index: draws[index])

    return place
