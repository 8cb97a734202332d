"""Frames of moving pictures: images while they are denoised, and along a walk through the latents."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jgen.config import check
from jgen.errors import UserError
from jgen.samplers import image_keys
from jgen.samplers.common import walking
from jgen.steps import watched
from jgen.train.stage import Stage
from jgen.types import Array, Extra, Params, Sample

STOPS = 4
"""Draws that a walk passes before it comes back to the first."""


def denoising(
    stage: Stage, params: Params, extra: Extra, mesh: Mesh, *, num: int, seed: int = 0, options: Any = None
) -> np.ndarray:
    """The clean images [T, num, H, W, C] in [-1, 1] that a sampler predicts on its way, and the samples as the last of them.

    Image i depends on (seed, i) alone. Raises UserError for a model without a way of steps, or whose steps are in latents.
    """
    sample, chosen = _sampler(stage, options)
    with watched() as found:
        last = np.asarray(_watched_program(sample, chosen, num)(params, stage.extra_for(extra, chosen, mesh), seed))
    frames = [found[step] for step in sorted(found) if found[step].shape == last.shape]  # a cascade has smaller ones too
    if not frames:
        why = "its steps are in latents" if found else "it does not report its steps"
        raise UserError(f"picture=denoising: {stage.name} can't be watched, since {why}; take --picture walk")
    return np.clip(np.stack([*frames, last]), -1, 1)


def latent_walk(
    stage: Stage,
    params: Params,
    extra: Extra,
    mesh: Mesh,
    *,
    num: int,
    seed: int = 0,
    options: Any = None,
    frames: int = 60,
    stops: int = STOPS,
    start: float = 0.0,
) -> np.ndarray:
    """Images [frames, num, H, W, C] in [-1, 1] along closed walks through the latents, which are normal at every place.

    stops: draws that a walk passes before it comes back; start: where it begins, from 0 to `stops`. Raises UserError for a
    model whose images depend on no normal noise, such as an autoregressive one.
    """
    for name, number in (("frames", frames), ("stops", stops)):
        if number < 2:
            raise UserError(f"{name}={number}: must be at least 2")
    sample, chosen = _sampler(stage, options)
    run, whole = _walk_program(sample, chosen, num, stops), stage.extra_for(extra, chosen, mesh)
    places = np.float32(start) + np.arange(frames, dtype=np.float32) * np.float32(stops / frames)
    images = np.stack([np.asarray(run(params, whole, seed, place)) for place in places])
    if (images == images[:1]).all():
        raise UserError(f"picture=walk: {stage.name} has no normal latents to walk through")
    return np.clip(images, -1, 1)


@functools.lru_cache(16)
def _watched_program(sample: Sample, options: Any, num: int) -> Any:
    return jax.jit(lambda params, extra, seed: sample(params, extra, image_keys(seed, num), options))


@functools.lru_cache(16)
def _walk_program(sample: Sample, options: Any, num: int, stops: int) -> Any:
    def run(params: Params, extra: Extra, seed: Array, place: Array) -> Array:
        with walking(jnp.full((num,), place), stops):
            return sample(params, extra, image_keys(seed, num), options)

    return jax.jit(run)


def _sampler(stage: Stage, options: Any) -> tuple[Any, Any]:
    if stage.sample is None:
        raise UserError(f"{stage.name}: has no sampler")
    chosen = stage.options if options is None else options
    if chosen is not None:
        check(chosen)
    return stage.sample, chosen
