"""The step back of a discrete chain, p(x_{t-1} | x_t): its mean and its variance, for samplers and for the bound."""

from typing import Literal, get_args

import numpy as np

from jgen.errors import UserError, check_choice
from jgen.schedules import Schedule, at
from jgen.types import Array, Prediction

Variance = Literal["small", "large", "learned_range", "learned"]


def reverse_log_variance(chain: Schedule, index: Array, v: Array | None, variance: Variance) -> Array:
    """Log variance of the step back; index int [] of all images, or [B].

    "small" is the posterior's beta-tilde and "large" is beta (DDPM section 3.2); "learned_range" interpolates their
    logarithms by the network's v in [-1, 1] (Nichol & Dhariwal 2021, eq. 15); "learned" is v itself.
    """
    ndim = 4 if index.ndim else 0
    small, large = at(chain.posterior_log_variance, index, ndim), at(np.log(chain.betas), index, ndim)
    if variance == "small":
        return small
    if variance == "large":
        return at(chain.large_log_variance, index, ndim)
    check_choice(get_args(Variance), variance=variance)
    if v is None:
        raise UserError(f"variance={variance}: the network has no variance output; use small or large")
    return v if variance == "learned" else small + (v + 1) / 2 * (large - small)


def reverse_mean(chain: Schedule, x: Array, prediction: Prediction, index: Array) -> Array:
    """Mean of the step back: the posterior's of (x_0, x_t), unless the network predicts it itself; index int [] or [B]."""
    if prediction.mean is not None:
        return prediction.mean
    ndim = 4 if index.ndim else 0
    return at(chain.posterior_mean_x0, index, ndim) * prediction.x0 + at(chain.posterior_mean_xt, index, ndim) * x
