"""Progressive growing (Karras et al. 2018): a stage of training for every resolution."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jgen.config import GrowthConfig, TrainConfig
from jgen.errors import UserError
from jgen.recipes.gan.stage import StyleRecipe, style_stage
from jgen.recipes.gan.style import Growth
from jgen.recipes.gan.updates import UpdatesOf
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params


class StagePlan(NamedTuple):
    """The settings that one stage of growth has of its own."""

    side: int
    steps: int
    batch: int
    rate: float
    """Learning rate."""


def growth_at(config: GrowthConfig, train: TrainConfig, batch: int, skip: int, first: bool) -> Growth:
    """The growth of a stage of train.steps that leaves out `skip` levels; no level fades in during the first stage."""
    steps = config.fade_images // batch if config.fade_images else int(config.fade * train.steps)
    return Growth(skip, 0 if first else steps * train.accumulate)


def count_fade_steps(loss: LossFn) -> LossFn:
    """The loss of a phase that runs in every step; it counts the steps of fading in extra["fade_step"]."""

    def counted(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        value, (extra, metrics) = loss(params, extra, key, batch)
        return value, ({**extra, "fade_step": extra["fade_step"] + 1}, metrics)

    return counted


def begin_fading(params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
    """The smaller network as the stage before trained it, with G's moving average; its newest level begins to fade in."""
    return params, {**extra, "fade_step": fresh_extra["fade_step"]}


def growing_stage(recipe: StyleRecipe, name: str, train: TrainConfig, growth: Growth) -> Stage:
    """A stage at part of the networks' resolution, which begins from the stage before."""
    stage = style_stage(recipe, name, train, growth)
    first, *rest = stage.phases
    phases = [first._replace(loss=count_fade_steps(first.loss)), *rest]
    return dataclasses.replace(stage, phases=phases, begin=begin_fading)


def growing_stages(
    recipe: StyleRecipe, config: GrowthConfig, train: TrainConfig, updates_at: Callable[[float], UpdatesOf]
) -> list[Stage]:
    """A stage for every resolution from first_side on, by `plan`; updates_at: learning rate -> its updates.

    Only the last has pictures and measures of styles.
    """
    stages = []
    for i, own in enumerate(plan(config, train.steps, recipe.data.batch_size, recipe.gan.learning_rate, recipe.networks.side)):
        its_train, data = dataclasses.replace(train, steps=own.steps), dataclasses.replace(recipe.data, batch_size=own.batch)
        whole = own.side == recipe.networks.side
        at = recipe._replace(updates=updates_at(own.rate), data=data, styles=recipe.styles and whole)
        skip = recipe.networks.side.bit_length() - own.side.bit_length()
        growth = growth_at(config, its_train, own.batch, skip, first=i == 0)
        stages.append(growing_stage(at, f"{own.side}x{own.side}", its_train, growth))
    return stages


def plan(config: GrowthConfig, steps: int, batch: int, rate: float, side: int) -> list[StagePlan]:
    """The stages of a network of `side`, smallest images first: of first_steps, then of `steps`, at last of last_steps.

    Raises UserError for settings by stage that are not as many as there are stages.
    """
    sides = [config.first_side << i for i in range(side.bit_length() - config.first_side.bit_length() + 1)]
    plain = [config.first_steps, *[steps] * (len(sides) - 1)]
    plain[-1] = config.last_steps or plain[-1]
    for name in ("stage_steps", "stage_batches", "stage_rates"):
        if len(given := getattr(config, name)) not in (0, len(sides)):
            raise UserError(f"{name}: has {len(given)} values; must be one for each of {', '.join(map(str, sides))} pixels")
    batches = config.stage_batches or (batch,) * len(sides)
    rates = config.stage_rates or (rate,) * len(sides)
    return [StagePlan(*row) for row in zip(sides, config.stage_steps or plain, batches, rates)]
