"""Settings that a cascade's stages have each of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from experiments._sampling import ADAPTIVE, OF_CHAIN, for_sampler

if TYPE_CHECKING:
    from experiments.cascade import Sampling


def of_each(stage: int, own: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Those settings of a stage that stages have of their own."""
    return {name: values[stage] for name, values in own.items() if values}


def of_stage(i: int, options: "Sampling") -> "Sampling":
    """The options of stage i, without what its sampler does not heed."""
    own = of_each(i, {"sampler": options.samplers, "steps": options.steps_each})
    return for_sampler(replace(options, **own), OF_CHAIN)


def check_each(options: Any, names: Sequence[str], stages: Sequence[str]) -> None:
    """Raises UserError unless settings of each stage are as many as there are stages, or none."""
    from jgen.errors import UserError

    for name in names:
        if (given := len(getattr(options, name))) not in (0, len(stages)):
            raise UserError(f"{name}: {given} given, for the {len(stages)} stages {', '.join(stages)}")


def check_stages(options: "Sampling", own: "Sampling", stages: Sequence[str], most: int) -> None:
    """Raises UserError for samplers and steps of stages that can't be, or that leave others without effect. most: steps of the
    chain."""
    from jgen.errors import UserError

    check_each(options, ("samplers", "steps_each"), stages)
    for name, each in (("sampler", "samplers"), ("steps", "steps_each")):
        value = getattr(options, name)
        if getattr(options, each) and value not in (getattr(type(options)(), name), getattr(own, name)):
            raise UserError(f"{name}={value}: has no effect beside {each}={getattr(options, each)}")
    samplers = options.samplers or (options.sampler,) * len(stages)
    for stage, sampler, steps in zip(stages, samplers, options.steps_each):
        if sampler in ADAPTIVE:
            continue
        if not 1 + (sampler == "ddpm") <= steps <= most:
            raise UserError(f"steps_each: {steps} for {stage}; {sampler} takes from {1 + (sampler == 'ddpm')} to {most}")
    if options.steps_each and set(samplers) <= set(ADAPTIVE):
        raise UserError(f"steps_each={options.steps_each}: {', '.join(dict.fromkeys(samplers))} choose their own steps")
