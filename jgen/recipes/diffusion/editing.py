"""Held-out images edited by a diffusion model: the pictures `inpainted` and `edited` of `sample --picture`.

Eight images, a row each: the image, what is given of it, and six results. Inpainting takes out the pixels of --mask and puts
the others in at every step (Song et al. 2021, arXiv:2011.13456); under ddpm with --resamplings above 1 it is RePaint (Lugmayr
et al. 2022, arXiv:2201.09865). In latent diffusion the latents all of whose pixels are known are put in, and the result keeps
the image's own known pixels. Editing brings the image to the noise level --edit-from and samples from there (SDEdit, Meng et
al. 2021, arXiv:2108.01073).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen import samplers, schedules
from jgen.config import DataConfig, DiffusionSampling
from jgen.config.samplers import DDPM, SAMPLERS, Solver, Stepped
from jgen.errors import UserError
from jgen.recipes.diffusion.guidance import Request
from jgen.recipes.diffusion.model import DiffusionModel
from jgen.recipes.diffusion.sampling import (
    LogProbOf,
    along_chain,
    class_request,
    from_noise,
    guided_denoiser,
    log_prob_of,
    sample_continuous,
    with_fixed_variance,
)
from jgen.samplers.guidance import replace_known
from jgen.train.stage import Picture
from jgen.types import Array, Batch, Condition, Denoise, Extra, Key, Params

ROWS, RESULTS = 8, 6
DenoiserOf = Callable[[Params, Extra, Request], Denoise]
"""(params, extra, what the images show) -> the denoiser, guided as the options say."""
RequestOf = Callable[[Batch, Key], Request]
"""(held-out images, keys) -> what the edited images are to show."""
Codec = Callable[[Params, Extra, Array], Array]
"""(params, extra, images or latents) -> latents or images."""


def mask_of(mask: str, height: int, width: int) -> np.ndarray:
    """bool [1, H, W, 1]: the half, or the middle quarter, of an image that a mask's name says."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    middle = (abs(2 * rows + 1 - height) * 2 < height) & (abs(2 * columns + 1 - width) * 2 < width)
    halves = {
        "top": 2 * rows < height,
        "bottom": 2 * rows >= height,
        "left": 2 * columns < width,
        "right": 2 * columns >= width,
    }
    return np.broadcast_to(middle if mask == "center" else halves[mask], (height, width))[None, :, :, None]


def removed(options: DiffusionSampling, batch: Batch) -> np.ndarray:
    """bool [1, H, W, 1]: the pixels that inpainting removes, by the batch's own mask (no traced array) or by name."""
    return np.asarray(batch["mask"]) if "mask" in batch else mask_of(options.edit.mask, *batch["image"].shape[1:3])


def latent_mask(out: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [1, h, w, 1]: the latents any of whose pixels, out [1, H, W, 1], are taken out, and their neighbours, of which the
    encoder makes something else where they are; without these where no latent would be left. h and w divide H and W."""
    own = smaller_mask(out, height, width)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(own[0, :, :, 0], 1), (3, 3))
    near: np.ndarray = np.any(windows, axis=(2, 3))
    return own if near.all() else near[None, :, :, None]


def smaller_mask(out: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [1, h, w, 1]: the pixels of a smaller image of which any part, out [1, H, W, 1], is taken out."""
    _, rows, columns, _ = out.shape
    taken: np.ndarray = np.any(out.reshape(1, height, rows // height, width, columns // width), axis=(2, 4))
    return taken[..., None]


def mean_filled(x: Array, out: np.ndarray) -> Array:
    """Images [B, H, W, C] with the mean of their other pixels where they are taken out."""
    return jnp.where(out, jnp.mean(x, (1, 2), keepdims=True, where=~out), x)


def edit_levels(model: DiffusionModel, solver: Solver) -> np.ndarray:
    """The noise levels of a model's sampling; those of the chain's times for a sampler that takes its steps.

    Raises UserError for more steps than the chain has.
    """
    if model.chain is not None and isinstance(solver, Stepped):
        schedules.check_steps(len(model.chain), solver.steps)
        if along_chain(model, solver) and model.levels.by_time:
            return model.levels.by_time(solver.steps, model.levels.sigma_max)
    return model.levels.discretize(solver)


def class_request_of(model: DiffusionModel, data: DataConfig, options: DiffusionSampling) -> RequestOf:
    """The requested class, or that of the held-out image, of a model of classes; for a picture without a label one is drawn."""

    def request(batch: Batch, keys: Key) -> Request:
        requested = class_request(model, data, keys, options)
        if requested.label is None or options.label >= 0 or not data.num_classes or "label" not in batch:
            return requested
        own = batch["label"]
        return Request(Condition(label=own) if model.classes else Condition(), own)

    return request


def picture_rows(images: Array, given: Array, found: Array) -> Array:
    """[ROWS * (2 + RESULTS), H, W, C]: each image, what was given of it, and its results."""
    parts = [v.reshape(-1, RESULTS, *v.shape[1:]) for v in (images, given, found)]
    return jnp.concatenate([parts[0][:, :1], parts[1][:, :1], parts[2]], 1).reshape(-1, *images.shape[1:])


def repeat_inputs(solver: Solver, key: Key, batch: Mapping[str, Array]) -> tuple[dict[str, Array], Key]:
    """(the batch's first images, each RESULTS times over, a key for each). Raises UserError for a sampler that can't edit."""
    if solver.coordinates not in ("discrete", "continuous"):
        able = [name for name, row in SAMPLERS.items() if row.coordinates in ("discrete", "continuous")]
        raise UserError(f"sampler={solver.sampler}: does not edit; must be one of {', '.join(able)}")
    many = {name: jnp.repeat(values[:ROWS], RESULTS, 0) for name, values in batch.items() if name != "mask"}
    return many, jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(many["image"])))


def inpaint(solver: Solver, denoise: Denoise, keys: Key, x: Array, out: Array, grid: np.ndarray) -> Array:
    """Images that are x but where `out` says, by a sampler or, with resamplings, by RePaint."""
    solver = with_fixed_variance(solver)
    if not isinstance(solver, DDPM) or solver.resamplings == 1:
        return from_noise(solver, replace_known(denoise, x, ~out), keys, x.shape[1:], grid)
    chain = schedules.of_levels(grid[-2::-1])
    predict, start = schedules.predictor(denoise, chain), samplers.noise(keys, x.shape[1:])
    jump = min(10, max(1, len(chain) // 4))  # the paper's, or less where there are few steps
    variance: Any = solver.variance  # a fixed one, by now
    how: dict[str, Any] = dict(resamplings=solver.resamplings, jump=jump, variance=variance)
    return samplers.repaint(predict, chain, start, x, ~out, keys, **how)


def redraw(
    solver: Solver, denoise: Denoise, keys: Key, x: Array, grid: np.ndarray, edit_from: float
) -> tuple[Array, Array, float]:
    """(images near x by SDEdit, x with the noise that they began from, its level). Raises UserError for a level without
    steps below it."""
    # The levels of a grid are rounded; its greatest stands for the requested one.
    level = min(edit_from, grid[0]) if np.isclose(edit_from, grid[0]) else edit_from
    if np.sum(grid < level) < 2 or level > grid[0]:
        raise UserError(f"edit_from={level}: must be above {grid[-2]:.4g} and at most {grid[0]:.4g}, the levels of sampling")

    def sampler(denoise: Denoise, x: Array, sigmas: Any, keys: Key) -> Array:
        return sample_continuous(with_fixed_variance(solver), denoise, keys, x, np.asarray(sigmas))

    noised = x + level * samplers.noise(keys, x.shape[1:])
    return samplers.sdedit(sampler, denoise, x, grid, keys, sigma=level), noised, level


def edits(
    options: DiffusionSampling,
    denoiser_of: DenoiserOf,
    grid_of: Callable[[Solver], np.ndarray],
    request: RequestOf,
    encode: Codec | None = None,
    decode: Codec | None = None,
) -> dict[str, Picture]:
    """The pictures of edited images.

    grid_of: the noise levels of a sampling. encode, decode: images -> latents as the diffusion knows them, and back.
    """
    solver = options.solver

    def inpainted(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        many, keys = repeat_inputs(solver, key, batch)
        images, denoise = many["image"], denoiser_of(params, extra, request(many, keys))
        out = removed(options, batch)
        x = encode(params, extra, mean_filled(images, out)) if encode else images
        hidden = jnp.asarray(latent_mask(out, *x.shape[1:3]) if encode else out)
        found = inpaint(solver, denoise, keys, x, hidden, grid_of(solver))
        if decode:
            found = jnp.where(out, decode(params, extra, found), images)
        return picture_rows(images, jnp.where(out, 0.0, images), found)

    def edited(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        many, keys = repeat_inputs(solver, key, batch)
        images, denoise = many["image"], denoiser_of(params, extra, request(many, keys))
        x = encode(params, extra, images) if encode else images
        found, noised, level = redraw(solver, denoise, keys, x, grid_of(solver), options.edit.edit_from)
        if decode is None:
            return picture_rows(images, noised / (1 + level), found)
        given = decode(params, extra, noised / (1 + level**2) ** 0.5)
        return picture_rows(images, given, decode(params, extra, found))

    return {"inpainted": inpainted, "edited": edited}


def image_edits(
    model: DiffusionModel, data: DataConfig, options: DiffusionSampling, log_prob: LogProbOf | None = None
) -> dict[str, Picture]:
    """The edited images of a model of images; log_prob: as of `log_prob_of`."""
    log_prob = log_prob or log_prob_of(model)
    options = replace(options, solver=with_fixed_variance(options.solver, model.variance))

    def denoiser_of(params: Params, extra: Extra, request: Request) -> Denoise:
        return guided_denoiser(model, params, request, options, log_prob(params, extra, request, options))

    return edits(options, denoiser_of, lambda solver: edit_levels(model, solver), class_request_of(model, data, options))
