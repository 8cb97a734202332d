"""Settings that a cascade's stages have each of their own."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from experiments._diffusion import check_network
from experiments._sampling import ADAPTIVE, OF_CHAIN, for_sampler
from jgen.config import check_share

if TYPE_CHECKING:
    from experiments.cascade import Config, Sampling

Objective = Literal["simple", "hybrid"]


@dataclass(frozen=True)
class StageKnobs:
    """What one stage has otherwise than the whole; None is as the whole."""

    steps: int | None = None
    """Updates in all."""
    batch_size: int | None = None
    channels: int | None = None
    channel_mult: tuple[int, ...] | None = None
    num_res_blocks: int | None = None
    attention: tuple[int, ...] | None = None
    """Levels with attention, in pixels."""
    num_heads: int | None = None
    dropout: float | None = None
    objective: Objective | None = None
    diffusion_steps: int | None = None
    most_augment: float | None = None
    blur: float | None = None


def filled(config: "Config") -> "Config":
    """With settings for every stage, and no more of those that say nothing."""
    said = [i for i, own in enumerate(config.stages) if own != StageKnobs()]
    count = max(len(config.sizes), max(said, default=0) + 1)
    return replace(config, stages=(config.stages + (StageKnobs(),) * count)[:count])


def of_stage(config: "Config", i: int) -> "Config":
    """The settings that hold for stage i."""
    given = {name: value for name, value in asdict(config.stages[i]).items() if value is not None}
    data = replace(config.data, batch_size=given.pop("batch_size", config.data.batch_size))
    train = replace(config.train, steps=given.pop("steps", config.train.steps))
    return replace(config, data=data, train=train, **given)


def levels(config: "Config", side: int) -> list[int]:
    """Sides of the levels of a network of images of a side: as many as it has widths and the side halves evenly."""
    widths = range(len(config.channel_mult), 0, -1)
    return [side >> i for i in range(next(n for n in widths if side % 2 ** (n - 1) == 0))]


def check_knobs(config: "Config", players: Sequence[str]) -> None:
    """Raises UserError for settings of stages that are not there, or that their networks can't have."""
    from jgen.errors import UserError, in_stage

    if len(config.stages) > len(players):
        raise UserError(f"stages.{len(config.stages) - 1}: there are {len(players)} stages, 0 and up: {', '.join(players)}")
    for name in ("blur", "most_augment"):
        if (value := getattr(config.stages[0], name)) is not None:
            raise UserError(f"stages.0.{name}={value}: the first stage has no smaller image")
    own = [of_stage(config, i) for i in range(len(players))]
    for each, player in zip(own, players):
        with in_stage(player):
            check_network(each)
            check_share(blur=each.blur)
            if not each.most_augment >= 0:
                raise UserError(f"most_augment={each.most_augment}: must be 0 or above")
    sides = [levels(each, side) for each, side in zip(own, config.sizes)]
    for i, given in enumerate(config.stages):
        if given.channel_mult and len(given.channel_mult) > len(sides[i]):
            most = f"{sides[i][0]} halves evenly to {len(sides[i])} levels"
            raise UserError(f"stages.{i}.channel_mult={given.channel_mult}: {most}")
    asked = {f"stages.{i}.attention": (given.attention or (), sides[i]) for i, given in enumerate(config.stages)}
    for name, (attention, there) in {"attention": (config.attention, {*itertools.chain(*sides)}), **asked}.items():
        if other := sorted(set(attention) - set(there)):
            known = ", ".join(map(str, sorted(there)))
            raise UserError(f"{name}={other[0]}: no level has so many pixels; there are {known}")


def sampling_of(config: "Config", i: int, options: "Sampling") -> "Sampling":
    """The options that hold for stage i: without what its sampler does not heed, or its network did not learn."""
    sampler = options.samplers[i] if options.samplers else options.sampler
    steps = options.steps_each[i] if options.steps_each else options.steps
    learned = options.variance != "learned_range" or of_stage(config, i).objective == "hybrid"
    variance = options.variance if learned else "small"
    return for_sampler(replace(options, sampler=sampler, steps=steps, variance=variance), OF_CHAIN)


def check_sampling(config: "Config", options: "Sampling", players: Sequence[str]) -> None:
    """Raises UserError for samplers and steps of stages that can't be, or that leave others without effect."""
    from jgen.errors import UserError

    for name, each in (("sampler", "samplers"), ("steps", "steps_each")):
        value, values = getattr(options, name), getattr(options, each)
        if len(values) not in (0, len(players)):
            raise UserError(f"{each}: {len(values)} given, for the {len(players)} stages {', '.join(players)}")
        if values and value not in (getattr(type(options)(), name), getattr(config.sampling, name)):
            raise UserError(f"{name}={value}: has no effect beside {each}={values}")
    own = [of_stage(config, i) for i in range(len(players))]
    samplers = options.samplers or (options.sampler,) * len(players)
    if options.variance == "learned_range":
        learned = [sampler for each, sampler in zip(own, samplers) if each.objective == "hybrid"]
        if not learned:
            raise UserError("variance=learned_range: no stage learned its variance; train one with --objective hybrid")
        if "ddpm" not in learned and config.sampling.variance != "learned_range":
            raise UserError(f"variance=learned_range: where it was learned, {' and '.join({*learned})} samples, not ddpm")
    name = "steps_each" if options.steps_each else "steps"
    for player, each, sampler, steps in zip(players, own, samplers, options.steps_each or (options.steps,) * len(players)):
        if sampler in ADAPTIVE:
            continue
        least = 1 + (sampler == "ddpm")
        if not least <= steps <= each.diffusion_steps:
            raise UserError(f"{name}: {steps} for {player}; {sampler} takes from {least} to {each.diffusion_steps}")
    if options.steps_each and set(samplers) <= set(ADAPTIVE):
        raise UserError(f"steps_each={options.steps_each}: {', '.join(dict.fromkeys(samplers))} choose their own steps")
