"""Chains of the files of diffusion, as their configurations describe them."""

import numpy as np

from jgen import schedules

NAMED = {"linear": schedules.linear, "cosine": schedules.cosine}


def respaced(total, spec):
    """The steps that guided-diffusion's words for them mean: "ddimN", "a,b,c", a list, or nothing for all."""
    if not spec:
        return np.arange(total)
    if isinstance(spec, str) and spec.startswith("ddim"):
        return schedules.strided(total, int(spec[4:]))
    return schedules.sections(total, [int(n) for n in spec.split(",")] if isinstance(spec, str) else spec)


def chain_of(config):
    """(the chain that a file samples, the factor of the times that its network hears)."""
    full = NAMED[config["schedule"]](config["T"])
    return full.respace(respaced(config["T"], config["respacing"])), 1000 / config["T"] if config["rescale_timesteps"] else 1.0


def timed(network, factor):
    """A network that hears times rescaled to 0..1000."""
    return lambda x, t, *weights: network(x, t * factor, *weights)
