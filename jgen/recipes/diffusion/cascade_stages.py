"""The stages of a cascade: the settings that hold for each, and how each is sampled."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from jgen.config import ChainConfig, DataConfig, LabelConfig, TrainConfig, UNetConfig
from jgen.config.cascade import CascadeConfig, CascadeNetwork, CascadeSampling, StageConfig
from jgen.config.ranges import shown
from jgen.config.samplers import DDPM, Stepped, switched
from jgen.errors import UserError, in_stage
from jgen.models.unet import SuperResUNet
from jgen.recipes.diffusion.networks import check_levels, num_labels, unet


class CascadeStage(NamedTuple):
    """One stage, its settings resolved."""

    player: str
    side: int
    """Side of its images, in pixels."""
    data: DataConfig
    train: TrainConfig
    network: CascadeNetwork
    chain: ChainConfig
    config: CascadeConfig

    @property
    def learn_variance(self) -> bool:
        return self.config.objective == "hybrid"


def level_sides(network: CascadeNetwork, side: int) -> list[int]:
    """Sides of the levels of a network of images of a side: as many as it has widths and the side halves evenly."""
    widths = range(len(network.channel_mult), 0, -1)
    return [side >> i for i in range(next(n for n in widths if side % 2 ** (n - 1) == 0))]


def resolve_stages(
    config: CascadeConfig, network: CascadeNetwork, chain: ChainConfig, data: DataConfig, train: TrainConfig,
    own: Sequence[StageConfig],
) -> list[CascadeStage]:  # fmt: skip
    """Every stage with its own settings. Raises UserError for settings of stages that are not there, or can't be."""
    players = ["base", *(f"super_{side}" for side in config.sizes[1:])]
    if len(own) > len(players):
        raise UserError(f"stages.{len(own) - 1}: there are {len(players)} stages, 0 and up: {', '.join(players)}")
    for name in ("blur", "most_augment"):
        if (value := getattr(own[0], name)) is not None:
            raise UserError(f"stages.0.{name}={value}: the first stage has no smaller image")
    stages = []
    for given, player, side in zip(own, players, config.sizes):
        values = {name: value for name, value in asdict(given).items() if value is not None}

        def merged(group: Any, values: dict[str, Any] = values) -> Any:
            return replace(group, **{k: v for k, v in values.items() if k in group.__dataclass_fields__})

        data_i, train_i = merged(data), merged(train)
        stages.append(CascadeStage(player, side, data_i, train_i, merged(network), merged(chain), merged(config)))
        with in_stage(player):
            check_levels(stages[-1].network)
    _check_levels(network, own, stages)
    return stages


def _check_levels(network: CascadeNetwork, own: Sequence[StageConfig], stages: Sequence[CascadeStage]) -> None:
    """Raises UserError for levels and attention that the images of the stages do not have."""
    sides = [level_sides(stage.network, stage.side) for stage in stages]
    for i, given in enumerate(own):
        if given.channel_mult and len(given.channel_mult) > len(sides[i]):
            most = f"{sides[i][0]} halves evenly to {len(sides[i])} levels"
            raise UserError(f"stages.{i}.channel_mult={given.channel_mult}: {most}")
    wanted = {f"stages.{i}.attention": (given.attention or (), sides[i]) for i, given in enumerate(own)}
    for name, (attention, there) in {"attention": (network.attention, {*itertools.chain(*sides)}), **wanted}.items():
        if other := sorted(set(attention) - set(there)):
            known = ", ".join(map(str, sorted(there)))
            raise UserError(f"{name}={other[0]}: no level has so many pixels; there are {known}")


def stage_network(stage: CascadeStage, labels: LabelConfig, first: bool) -> Any:
    """The base U-Net, or the super-resolution one, with as many of the widest levels as its images halve evenly."""
    own, sides = stage.network, level_sides(stage.network, stage.side)
    heads: dict[str, Any] = {"num_heads": own.num_heads} if own.num_heads else {}
    shaped = UNetConfig(
        channels=own.channels,
        channel_mult=own.channel_mult[-len(sides) :],
        num_res_blocks=own.num_res_blocks,
        dropout=own.dropout,
        attention=tuple(stage.side // level for level in sides if level in own.attention),
        head_channels=0 if own.num_heads else own.head_channels,
        scale_shift_norm=own.scale_shift_norm,
        resblock_updown=own.resblock_updown,
    )
    outputs = (1 + stage.learn_variance) * stage.data.shape[-1]
    plain = unet(shaped, stage.train, outputs, num_labels(stage.data, labels), label_std=labels.label_std, **heads)
    if first:
        return plain
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__ if name not in ("parent", "name")}
    return SuperResUNet(**fields)


def stage_sampling(options: CascadeSampling, i: int, stage: CascadeStage) -> CascadeSampling:
    """The options that hold for stage i: with its own sampler and steps, and no variance that its network did not learn."""
    solver = options.solver
    if options.samplers:
        solver = switched(solver, options.samplers[i])
    if options.steps_each and isinstance(solver, Stepped):
        solver = replace(solver, steps=options.steps_each[i])
    if isinstance(solver, DDPM) and solver.variance == "learned_range" and not stage.learn_variance:
        solver = replace(solver, variance="small")
    return replace(options, solver=solver)


def check_overridden(options: CascadeSampling, own: CascadeSampling) -> None:
    """Raises UserError for a sampler or steps that those of the stages leave without effect; own: the run's own options."""
    chosen, before = options.solver, own.solver
    if options.samplers and chosen.sampler not in (before.sampler, *options.samplers):
        raise UserError(f"sampler={chosen.sampler}: has no effect beside samplers={shown(options.samplers)}")
    steps, known = (getattr(solver, "steps", None) for solver in (chosen, before))
    if options.steps_each and known and steps != known:
        raise UserError(f"steps={steps}: has no effect beside steps_each={shown(options.steps_each)}")


def check_sampling(options: CascadeSampling, stages: Sequence[CascadeStage]) -> None:
    """Raises UserError for samplers and steps of stages that can't be."""
    players = [stage.player for stage in stages]
    for each in ("samplers", "steps_each"):
        values = getattr(options, each)
        if len(values) not in (0, len(players)):
            raise UserError(f"{each}: {len(values)} given, for the {len(players)} stages {', '.join(players)}")
    own = [stage_sampling(options, i, stage).solver for i, stage in enumerate(stages)]
    learned = any(isinstance(s, DDPM) for s, stage in zip(own, stages) if stage.learn_variance)
    if isinstance(options.solver, DDPM) and options.solver.variance == "learned_range" and not learned:
        raise UserError(
            "variance=learned_range: no stage that ddpm samples learned its variance; train with --objective hybrid"
        )
    name = "steps_each" if options.steps_each else "steps"
    for solver, stage in zip(own, stages):
        if isinstance(solver, Stepped) and not 1 + isinstance(solver, DDPM) <= solver.steps <= stage.chain.diffusion_steps:
            least, most = 1 + isinstance(solver, DDPM), stage.chain.diffusion_steps
            raise UserError(f"{name}: {solver.steps} for {stage.player}; {solver.sampler} takes from {least} to {most}")
    if options.steps_each and all(solver.adaptive for solver in own):
        raise UserError(f"steps_each={options.steps_each}: {', '.join({s.sampler for s in own})} choose their own steps")
