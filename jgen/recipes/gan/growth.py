"""Progressive growing (Karras et al. 2018): a stage of training for every resolution."""

import dataclasses

from jgen.config import GrowthConfig, TrainConfig
from jgen.recipes.gan.stage import StyleRecipe, style_stage
from jgen.recipes.gan.style import Growth
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params


def growth_at(config: GrowthConfig, train: TrainConfig, skip: int, first: bool) -> Growth:
    """The growth of a stage of train.steps that leaves out `skip` levels; no level fades in during the first stage."""
    return Growth(skip, 0 if first else int(config.fade * train.steps) * train.accumulate)


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


def growing_stages(recipe: StyleRecipe, config: GrowthConfig, train: TrainConfig) -> list[Stage]:
    """A stage for every resolution from 4 on: of first_steps at 4x4, last_steps at the last, train.steps at the others.

    Only the last has pictures and measures of styles.
    """
    levels = recipe.networks.side.bit_length() - 3
    steps = [config.first_steps, *[train.steps] * levels]
    steps[-1] = config.last_steps or steps[-1]
    stages = []
    for i, count in enumerate(steps):
        skip, own = levels - i, dataclasses.replace(train, steps=count)
        at = recipe._replace(styles=recipe.styles and not skip)
        stages.append(growing_stage(at, f"{4 << i}x{4 << i}", own, growth_at(config, own, skip, first=i == 0)))
    return stages
