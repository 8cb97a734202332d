"""Held-out images edited by a diffusion model: the pictures `inpainted` and `edited` of `sample --picture`.

Eight images, a row each: the image, what is given of it, and six results. Inpainting takes out the pixels of --mask and puts
the others in at every step (Song et al. 2021, arXiv:2011.13456); under ddpm with --resamplings above 1 it is RePaint (Lugmayr
et al. 2022, arXiv:2201.09865). In latent diffusion the latents all of whose pixels are known are put in, and the result keeps
the image's own known pixels. Editing brings the image to the noise level --edit-from and samples from there (SDEdit, Meng et
al. 2021, arXiv:2108.01073).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from experiments._judge import asked
from experiments._sampling import CONTINUOUS, DISCRETE, Solver, chain_levels, from_noise, solve

if TYPE_CHECKING:
    from jgen.experiment import Picture
    from jgen.schedules import Schedule
    from jgen.types import Denoise

ROWS, RESULTS = 8, 6
DenoiserOf = Callable[[Any, Any, Any], "Denoise"]
"""(params, extra, labels or captions of the images, None without) -> the denoiser, guided as the options say."""


def taken_out(mask: str, height: int, width: int) -> Any:
    """bool [1, H, W, 1]: the half, or the middle quarter, of an image that a mask's name says."""
    import numpy as np

    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    middle = (abs(2 * rows + 1 - height) * 2 < height) & (abs(2 * columns + 1 - width) * 2 < width)
    halves = {
        "top": 2 * rows < height,
        "bottom": 2 * rows >= height,
        "left": 2 * columns < width,
        "right": 2 * columns >= width,
    }
    return np.broadcast_to(middle if mask == "center" else halves[mask], (height, width))[None, :, :, None]


def latents_out(out: Any, height: int, width: int) -> Any:
    """bool [1, h, w, 1]: the latents any of whose pixels, out [1, H, W, 1], are taken out, and their neighbours, of which the
    encoder makes something else where they are; without these where no latent would be left. h and w divide H and W."""
    import numpy as np

    own = blocks_out(out, height, width)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(own[0, :, :, 0], 1), (3, 3)).any((2, 3))
    return own if near.all() else near[None, :, :, None]


def blocks_out(out: Any, height: int, width: int) -> Any:
    """bool [1, h, w, 1]: the pixels of a smaller image of which any part, out [1, H, W, 1], is taken out."""
    _, rows, columns, _ = out.shape
    return out.reshape(1, height, rows // height, width, columns // width).any((2, 4))[..., None]


def filled(x: Any, out: Any) -> Any:
    """Images [B, H, W, C] with the mean of their other pixels where they are taken out."""
    import jax.numpy as jnp

    return jnp.where(out, jnp.mean(x, (1, 2), keepdims=True, where=~out), x)


def edit_levels(chain: "Schedule", options: Any) -> Any:
    """The noise levels of a chain's sampling; those of its times for the samplers of the discrete coordinates."""
    return chain_levels(replace(options, grid="time", sigma_min=0.0) if options.sampler in DISCRETE else options, chain)


def told_of(config: Any) -> Callable[[Mapping[str, Any], Any], Any]:
    """`told` of a model of classes: the class asked for, or that of the held-out image."""

    def told(batch, keys):
        label = asked(config, keys, config.sampling)
        own = label is not None and config.sampling.label < 0 and config.data.num_classes
        return batch["label"] if own else label

    return told


def rows(images: Any, given: Any, found: Any) -> Any:
    """[ROWS * (2 + RESULTS), H, W, C]: each image, what was given of it, and its results."""
    import jax.numpy as jnp

    parts = [v.reshape(-1, RESULTS, *v.shape[1:]) for v in (images, given, found)]
    return jnp.concatenate([parts[0][:, :1], parts[1][:, :1], parts[2]], 1).reshape(-1, *images.shape[1:])


def begun(options: Solver, key: Any, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """(the batch's first images, each RESULTS times over, a key for each). Raises UserError for a sampler that can't edit."""
    import jax
    import jax.numpy as jnp

    from jgen.errors import UserError

    if options.sampler not in (*DISCRETE, *CONTINUOUS):
        raise UserError(f"sampler={options.sampler}: does not edit; must be one of {', '.join((*DISCRETE, *CONTINUOUS))}")
    many = {name: jnp.repeat(values[:ROWS], RESULTS, 0) for name, values in batch.items()}
    return many, jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(many["image"])))


def of_denoiser(options: Solver) -> Solver:
    """A denoiser says nothing of variances: that of the posterior stands for a learned one."""
    return replace(options, variance="small") if options.variance == "learned_range" else options


def inpaint(options: Solver, denoise: "Denoise", keys: Any, x: Any, out: Any, grid: Any) -> Any:
    """Images that are x but where out says, by the sampler of the options or, with resamplings, by RePaint."""
    from jgen import samplers, schedules
    from jgen.samplers.guidance import replace_known

    options = of_denoiser(options)
    if options.resamplings == 1:
        return from_noise(replace_known(denoise, x, ~out), options, keys, x.shape[1:], grid)
    chain = schedules.of_levels(grid[-2::-1])
    predict, start = schedules.predictor(denoise, chain), samplers.noise(keys, x.shape[1:])
    jump = min(10, max(1, len(chain) // 4))  # the paper's, or less where there are few steps
    how = dict(resamplings=options.resamplings, jump=jump, variance=options.variance)
    return samplers.repaint(predict, chain, start, x, ~out, keys, **how)


def redraw(options: Solver, denoise: "Denoise", keys: Any, x: Any, grid: Any) -> tuple[Any, Any, float]:
    """(images near x by SDEdit, x with the noise that they began from, its level). Raises UserError for a level without
    steps below it."""
    import numpy as np

    from jgen import samplers
    from jgen.errors import UserError

    # The levels of a grid are rounded; its greatest is as good as the one asked for.
    level = min(options.edit_from, grid[0]) if np.isclose(options.edit_from, grid[0]) else options.edit_from
    if np.sum(grid < level) < 2 or level > grid[0]:
        raise UserError(f"edit_from={level}: must be above {grid[-2]:.4g} and at most {grid[0]:.4g}, the levels of sampling")

    def sampler(denoise, x, sigmas, keys):
        return solve(denoise, of_denoiser(options), keys, x, np.asarray(sigmas))

    noised = x + level * samplers.noise(keys, x.shape[1:])
    return samplers.sdedit(sampler, denoise, x, grid, keys, sigma=level), noised, level


def edits(
    options: Solver,
    denoiser_of: DenoiserOf,
    grid_of: Callable[[Solver], Any],
    told: Callable[[Mapping[str, Any], Any], Any],
    encode: Callable[..., Any] | None = None,
    decode: Callable[..., Any] | None = None,
) -> dict[str, "Picture"]:
    """The pictures of a model.

    grid_of: the noise levels of a sampling. told: (batch, keys) -> what the model is told of held-out images. encode, decode:
    (params, extra, images) -> latents as the diffusion knows them, and back.
    """
    import jax.numpy as jnp

    def inpainted(params, extra, key, batch):
        many, keys = begun(options, key, batch)
        images, denoise = many["image"], denoiser_of(params, extra, told(many, keys))
        out = taken_out(options.mask, *images.shape[1:3])
        x = encode(params, extra, filled(images, out)) if encode else images
        hidden = jnp.asarray(latents_out(out, *x.shape[1:3]) if encode else out)
        found = inpaint(options, denoise, keys, x, hidden, grid_of(options))
        if decode:
            found = jnp.where(out, decode(params, extra, found), images)
        return rows(images, jnp.where(out, 0.0, images), found)

    def edited(params, extra, key, batch):
        many, keys = begun(options, key, batch)
        images, denoise = many["image"], denoiser_of(params, extra, told(many, keys))
        x = encode(params, extra, images) if encode else images
        found, noised, level = redraw(options, denoise, keys, x, grid_of(options))
        if decode is None:
            return rows(images, noised / (1 + level), found)
        return rows(images, decode(params, extra, noised / (1 + level**2) ** 0.5), decode(params, extra, found))

    return {"inpainted": inpainted, "edited": edited}
