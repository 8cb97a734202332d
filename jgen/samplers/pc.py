"""Predictor-corrector sampling of a reverse SDE (Song et al. 2021, arXiv:2011.13456, algorithm 1).

A predictor takes x from one time to the one before, a corrector moves it about at the same time. Both are functions
(sde, score, x, t [B], z) -> (x, its mean before the noise was added); conventions are those of the authors' code.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from jgen.arrays import dot, expand_dims_like
from jgen.errors import UserError
from jgen.samplers.common import Trace, check_finite, check_keys, noise
from jgen.sde import SDE, reverse_drift
from jgen.types import Array, Key, Score

Update = Callable[[SDE, Score, Array, Array, Array], tuple[Array, Array]]


def euler_maruyama(sde: SDE, score: Score, x: Array, t: Array, z: Array) -> tuple[Array, Array]:
    """A step of length 1 / N of the reverse SDE."""
    mean = x - reverse_drift(sde, score, x, t) / sde.steps
    return mean + expand_dims_like(sde.diffusion(t) / sde.steps**0.5, x) * z, mean


def euler_ode(sde: SDE, score: Score, x: Array, t: Array, z: Array) -> tuple[Array, Array]:
    """A step of length 1 / N of the probability-flow ODE, by its discretisation; z is not used."""
    spread = expand_dims_like(sde.spread(t), x)
    x = x - (expand_dims_like(sde.shift(t), x) * x - 0.5 * spread**2 * score(x, t))
    return x, x


def reverse_diffusion(sde: SDE, score: Score, x: Array, t: Array, z: Array) -> tuple[Array, Array]:
    """The reverse SDE discretised as its forward process is (eq. 46)."""
    spread = expand_dims_like(sde.spread(t), x)
    mean = x - (expand_dims_like(sde.shift(t), x) * x - spread**2 * score(x, t))
    return mean + spread * z, mean


def ancestral(sde: SDE, score: Score, x: Array, t: Array, z: Array) -> tuple[Array, Array]:
    """DDPM's step back, and its counterpart for VE (eq. 4, appendix F). Raises UserError for sub-VP, which has none."""
    if sde.ancestral_std is None:
        raise UserError("predictor=ancestral: the sub-VP process has none; take euler_maruyama or reverse_diffusion")
    mean = (x + expand_dims_like(sde.spread(t), x) ** 2 * score(x, t)) / (1 + expand_dims_like(sde.shift(t), x))
    return mean + expand_dims_like(sde.ancestral_std(t), x) * z, mean


def langevin(
    sde: SDE, score: Score, x: Array, t: Array, z: Array, *, snr: float = 0.16, together: bool = False
) -> tuple[Array, Array]:
    """A Langevin step whose length keeps |noise| / |score| at 1 / snr (algorithms 4, 5).

    The authors average both norms over the batch (together=True); here they are each image's own, so that an image does
    not depend on its neighbours.
    """
    s = score(x, t)
    norms = [jnp.sqrt(dot(a, a)) for a in (z, s)]
    if together:
        norms = [jnp.broadcast_to(jnp.mean(n), n.shape) for n in norms]
    return _corrected(sde, x, s, t, z, snr * norms[0] / norms[1])


def annealed(sde: SDE, score: Score, x: Array, t: Array, z: Array, *, snr: float = 0.16) -> tuple[Array, Array]:
    """The corrector whose length is that of annealed Langevin dynamics: snr times the noise level."""
    return _corrected(sde, x, score(x, t), t, z, snr * sde.std(t))


def _corrected(sde: SDE, x: Array, s: Array, t: Array, z: Array, root: Array) -> tuple[Array, Array]:
    size = expand_dims_like(2 * (1 + sde.shift(t)) ** 2 * root**2, x)
    mean = x + size * s
    return mean + jnp.sqrt(2 * size) * z, mean


def predictor_corrector(
    sde: SDE,
    score: Score,
    x: Array,
    keys: Key,
    *,
    predictor: Update | None = reverse_diffusion,
    corrector: Update | None = langevin,
    corrector_steps: int = 1,
    denoise: bool = True,
    trace: Trace | None = None,
) -> Any:
    """Images [B, ...] from x ~ N(0, prior_std^2) at t = 1, in sde.steps steps evenly spaced down to sde.end.

    At every time the corrector comes first. denoise: the noise of the last step is left out. With a trace(x, mean) after
    each predictor, (images, traces).
    """
    if corrector_steps < 0 or (predictor is None and (corrector is None or not corrector_steps)):
        raise UserError(f"corrector_steps={corrector_steps}: must be at least 0, and 1 without a predictor")
    check_keys(keys, x)
    corrections = 0 if corrector is None else corrector_steps
    times = jnp.linspace(1.0, sde.end, sde.steps, dtype=x.dtype)

    def body(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        x, mean = carry
        i, t = row
        t = jnp.broadcast_to(t, x.shape[:1])

        def correct(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            assert corrector is not None
            return corrector(sde, score, carry[0], t, noise(keys, x.shape[1:], i * (corrections + 1) + j).astype(x.dtype))

        if corrections:
            x, mean = lax.fori_loop(0, corrections, correct, (x, mean))
        if predictor is not None:
            z = noise(keys, x.shape[1:], i * (corrections + 1) + corrections).astype(x.dtype)
            x, mean = predictor(sde, score, x, t, z)
        check_finite(mean, "image", i, t[0])
        return (x, mean), None if trace is None else trace(x, mean)

    (x, mean), traces = lax.scan(body, (x, x), (jnp.arange(sde.steps), times))
    images = mean if denoise else x
    return images if trace is None else (images, traces)
