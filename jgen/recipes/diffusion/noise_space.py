"""Images brought to the noise of a diffusion model and back, by DDIM (Song et al. 2021, arXiv:2010.02502, section 5.4).

Along a chain its own steps are taken, of other models the levels of their sampling. The way up and the way back that undoes it
have no guidance, which would lead elsewhere, and no clipping, which can't be undone.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jgen import samplers, schedules
from jgen.config import DataConfig, DiffusionSampling
from jgen.config.samplers import DDIM
from jgen.edit.space import NoiseSpace
from jgen.errors import UserError
from jgen.recipes.diffusion.editing import Codec, edit_levels
from jgen.recipes.diffusion.model import DiffusionModel
from jgen.recipes.diffusion.sampling import LogProbOf, class_request, guided_denoiser, log_prob_of
from jgen.schedules import Schedule
from jgen.types import Array, Condition, Denoise, Extra, Key, Params

GuidedOf = Callable[[Params, Extra, Key, Any], Denoise]
"""(params, extra, one key an image, options of sampling) -> the denoiser of what the options name."""
ConditionOf = Callable[[int, int], Condition]
"""(class or -1, images) -> the condition of what they show."""


def ddim_chain(model: DiffusionModel, steps: int) -> Schedule:
    """So many steps of a model's chain, or fewer where it has fewer; else of the levels of its sampling."""
    steps = min(steps, len(model.chain)) if model.chain is not None else steps
    return schedules.of_levels(edit_levels(model, DDIM(steps=steps))[-2::-1])


def condition_of(model: DiffusionModel) -> ConditionOf:
    """The condition of images of a class of a model.

    It raises UserError for a class that there is none of, and for none where the model needs one.
    """

    def condition(label: int, count: int) -> Condition:
        if not model.classes:
            if label != -1:
                raise UserError(f"from_label={label}: this model is not class-conditional")
            return Condition()
        shown = Condition(label=jnp.full((count,), max(label, 0), jnp.int32))
        if not -1 <= label < model.classes:
            raise UserError(f"from_label={label}: must be from 0 to {model.classes - 1}, the class that the pictures show")
        if label == -1 and not model.conditioning.drop:
            raise UserError("from_label=-1: the model was trained with all labels; name the class that the pictures show")
        return model.conditioning.null(shown) if label == -1 else shown

    return condition


def noise_space(
    model: DiffusionModel, guided_of: GuidedOf, condition: ConditionOf, encode: Codec | None = None, decode: Codec | None = None
) -> NoiseSpace:
    """The functions of a model; encode, decode: images -> latents as the diffusion knows them, and back."""

    def plain(params: Params, label: int, count: int) -> Denoise:
        shown = condition(label, count)
        return lambda x, sigma: model.denoise(params, x, sigma, shown)

    def invert(params: Params, extra: Extra, images: Array, label: int, steps: int) -> Array:
        chain, x = ddim_chain(model, steps), encode(params, extra, images) if encode else images
        return samplers.ddim_invert(schedules.predictor(plain(params, label, len(x)), chain), chain, x, timesteps=None)

    def back(params: Params, extra: Extra, noise: Array, denoise: Denoise, steps: int) -> Array:
        chain, keys = ddim_chain(model, steps), samplers.image_keys(0, len(noise))
        found = samplers.ddim(schedules.predictor(denoise, chain), chain, noise, keys, timesteps=None)
        return jnp.clip(decode(params, extra, found) if decode else found, -1, 1)

    def draw(params: Params, extra: Extra, noise: Array, label: int, steps: int) -> Array:
        return back(params, extra, noise, plain(params, label, len(noise)), steps)

    def guided(params: Params, extra: Extra, noise: Array, options: Any, steps: int) -> Array:
        keys = samplers.image_keys(0, len(noise))
        return back(params, extra, noise, guided_of(params, extra, keys, options), steps)

    return NoiseSpace(invert, draw, guided)


def image_noise(model: DiffusionModel, data: DataConfig, log_prob: LogProbOf | None = None) -> NoiseSpace:
    """The noise of a model of images; log_prob: as of `log_prob_of`."""
    log_prob = log_prob or log_prob_of(model)

    def guided_of(params: Params, extra: Extra, keys: Key, options: DiffusionSampling) -> Denoise:
        request = class_request(model, data, keys, options)
        if request.label is None or options.label < 0:
            raise UserError(f"label={options.label}: method=ddim needs the class that pictures become{_why(model, options)}")
        return guided_denoiser(model, params, request, options, log_prob(params, extra, request, options))

    return noise_space(model, guided_of, condition_of(model))


def _why(model: DiffusionModel, options: DiffusionSampling) -> str:
    able = model.classes or options.guide.classifier
    return ", such as --label 3" if able else "; this model knows none, so take sdedit or inpaint, or guide by --classifier RUN"
