"""Sampling as the diffusion experiments share it: its options, guidance, noise levels, and any sampler of any denoiser.

A model of a discrete chain runs under the samplers of the continuous coordinates by `jgen.objectives.edm.chain`; a denoiser,
whatever it was trained as, under those of the discrete coordinates along the chain of its noise levels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments._diffusion import Knobs, null_label

if TYPE_CHECKING:
    from jgen.schedules import Schedule
    from jgen.types import Denoise, Predict

SamplerName = Literal[
    "ddim", "ddpm", "heun", "euler", "euler_ancestral", "dpm_2", "dpm_2_ancestral", "dpm", "dpm_singlestep", "dpm_sde",
    "dpmpp_2s_ancestral", "dpmpp_sde", "unipc", "lms", "plms", "dpm_adaptive", "rk45",
]  # fmt: skip
DISCRETE = ("ddim", "ddpm")
"""Those of the discrete coordinates; all others are of the continuous ones."""
CHURNED = ("heun", "euler", "dpm_2")
OF_ORDER = ("dpm", "dpm_singlestep", "dpm_sde", "unipc", "lms")
ADAPTIVE = ("dpm_adaptive", "rk45")
"""Those with steps of their own, as short as a tolerance asks for."""
STEPPED = (*CHURNED, *OF_ORDER, "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "plms")
CONTINUOUS = (*STEPPED, *ADAPTIVE)
Variance = Literal["small", "large", "learned_range"]

HEEDED: Mapping[str, Sequence[str]] = {
    "eta": ("ddim",),
    "variance": ("ddpm",),
    "order": (*OF_ORDER, "dpm_adaptive"),
    "of": ("dpm", "dpm_singlestep", "dpm_adaptive"),
    "tolerance": ADAPTIVE,
    **{name: (*DISCRETE, *STEPPED) for name in ("steps", "grid")},
    "resamplings": ("ddpm",),
    **{name: CHURNED for name in ("churn", "churn_from", "churn_to", "churn_noise")},
}
"""Options that are for some samplers alone, and which."""
OF_CHAIN = {**HEEDED, "grid": STEPPED, "sigma_min": CONTINUOUS}
"""The same of a model with a chain, whose steps the samplers of the discrete coordinates take."""


@dataclass(frozen=True)
class Solver:
    """Sampling of a denoiser."""

    sampler: SamplerName = "heun"
    """ddpm is ancestral sampling, dpm multistep DPM-Solver++, dpm_sde the same with noise. One network call a step, but two in
    each step but the last of heun, dpm_2, dpm_2_ancestral, dpmpp_2s_ancestral and dpmpp_sde, and in the first of plms.
    dpm_adaptive and rk45 (Dormand and Prince's) choose their own steps, by the tolerance."""
    steps: int = 18
    order: int = 2
    """Of dpm, dpm_singlestep, dpm_sde and unipc 1 to 3, of dpm_adaptive 2 or 3, of lms 1 or more."""
    of: Literal["data", "noise"] = "data"
    """Of dpm, dpm_singlestep and dpm_adaptive, what they interpolate: the clean image is DPM-Solver++, noise DPM-Solver."""
    tolerance: float = 0.01
    """Of dpm_adaptive and rk45: error of a step, absolute and relative."""
    eta: float = 0.0
    """Noise of DDIM: 0 none, 1 as much as ancestral sampling."""
    variance: Variance = "small"
    """Of ancestral sampling: the posterior's, beta, or as a network learned it (not in pictures of editing)."""
    grid: Literal["karras", "log_snr", "uniform", "quadratic"] = "karras"
    """How the noise levels are spaced."""
    sigma_min: float = 0.0
    """Least noise level, from which a last step leads to the clean image; 0 for the model's own. A higher one, such as 0.1,
    leaves out what a model adds to its images at low levels."""
    churn: float = 0.0
    """Of heun, euler and dpm_2: noise added on the way (EDM's S_churn),"""
    churn_from: float = 0.0
    """at levels above this one (S_min)"""
    churn_to: float = 1e9
    """and below this one (S_max),"""
    churn_noise: float = 1.0
    """of this deviation (S_noise)."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""
    guidance: float = 1.0
    """Classifier-free guidance, u + guidance (c - u): 1 is without. For a model trained with drop_label."""
    classifier: str = ""
    """A run of experiments.classifier with --noisy, whose gradient guides too, or guides a model without classes to one."""
    classifier_scale: float = 0.0
    """Scale of its gradient: 0 is without."""
    guidance_from: float = 0.0
    """Guide only at noise levels sigma above this one"""
    guidance_to: float = 1e9
    """and below this one."""
    threshold: float = 0.0
    """Scale clean images down by this quantile of their pixels where it is beyond -1 or 1 rather than clip them, for strong
    guidance (Imagen: 0.995); 0 clips."""
    mask: Literal["center", "left", "right", "top", "bottom"] = "center"
    """Of --picture inpainted: what is taken out of held-out images."""
    resamplings: int = 1
    """Of --picture inpainted with ddpm: how often each stretch of steps is walked (RePaint); 1 puts known pixels in only."""
    edit_from: float = 1.0
    """Of --picture edited: the noise level that held-out images are brought to; the higher, the freer."""


@dataclass(frozen=True)
class TimedSolver(Solver):
    """The same for a model that has times to go along: those of a discrete chain, or of a path."""

    grid: Literal["time", "log_snr", "karras", "uniform", "quadratic"] = "log_snr"
    """How the noise levels of the continuous samplers are spaced: as the model's times, or of themselves."""


def check(options: Solver, own: Solver, heeded: Mapping[str, Sequence[str]] = HEEDED, samplers: Sequence[str] = ()) -> None:
    """Raises UserError for an option that the chosen sampler does not heed, or one out of its range.

    own: the run's own options, which may hold some for a sampler that is not the one chosen. samplers: all that are used, where
    stages have their own.
    """
    from jgen.errors import UserError

    used = samplers or (options.sampler,)
    for name, takers in heeded.items():
        value = getattr(options, name)
        if value not in (getattr(type(options)(), name), getattr(own, name)) and not set(used) & set(takers):
            names, verb = list(dict.fromkeys(used)), "does" if len(takers) == 1 else "do"
            take = "takes" if len(names) == 1 else "take"
            raise UserError(f"{name}={value}: {' and '.join(names)} {take} none, only {', '.join(takers)} {verb}")
    if options.resamplings < 1:
        raise UserError(f"resamplings={options.resamplings}: must be at least 1")
    if not 0 <= options.eta <= 1:
        raise UserError(f"eta={options.eta}: must be from 0 to 1")
    if not 0 <= options.threshold <= 1:
        raise UserError(f"threshold={options.threshold}: must be a quantile, from 0 (which clips) to 1")
    if not options.tolerance > 0:
        raise UserError(f"tolerance={options.tolerance}: must be above 0")
    if not options.classifier_scale >= 0:
        raise UserError(f"classifier_scale={options.classifier_scale}: must be 0, which is without, or above")
    if not options.guidance_from < options.guidance_to:
        raise UserError(f"guidance_from={options.guidance_from}: must be below guidance_to={options.guidance_to}")
    if options.steps == 1 and "ddpm" in used:
        raise UserError("steps=1: ddpm needs at least 2; ddim can do with 1")


def for_sampler(options: Any, heeded: Mapping[str, Sequence[str]] = HEEDED) -> Any:
    """The options without those that their sampler does not heed."""
    from dataclasses import replace

    default = type(options)()
    return replace(options, **{k: getattr(default, k) for k, takers in heeded.items() if options.sampler not in takers})


def free_guidance(
    config: Knobs, options: Solver, call: Any, label: Any, null: int | None = None, level: Callable[[Any], Any] = lambda t: t
) -> Any:
    """(x, t) -> call(x, t, label) with the options' classifier-free guidance.

    null: the label for none, unless one above the classes. level: the noise level sigma of t, where t is not it. Raises
    UserError for a model that can't be guided.
    """
    from jgen.errors import UserError
    from jgen.samplers import cfg_batched

    def plain(x, t):
        return call(x, t, label)

    scale = options.guidance
    if scale == 1:
        return plain
    if not config.conditional:
        raise UserError(f"guidance={scale}: this model is not class-conditional; train one with --conditional --drop-label 0.1")
    if not config.drop_label:
        raise UserError(f"guidance={scale}: the model was trained with all labels; train one with --drop-label 0.1")
    guided = cfg_batched(call, label, null_label(config) if null is None else null, scale)
    return within(options, guided, plain, level)


def within(options: Solver, guided: Any, plain: Any, level: Callable[[Any], Any] = lambda t: t) -> Any:
    """`guided` at the noise levels that the options name, `plain` elsewhere; level as of `free_guidance`."""
    from jgen.samplers.guidance import interval

    if options.guidance_from <= 0 and options.guidance_to >= 1e9:
        return guided
    own_times = options.sampler in ADAPTIVE
    return interval(guided, plain, options.guidance_from, options.guidance_to, level, by_image=own_times)


def level_of(chain: "Schedule") -> Callable[[Any], Any]:
    """t -> the noise level sigma of a chain's step t."""
    import jax.numpy as jnp

    return lambda t: jnp.asarray(chain.sigma, jnp.float32)[t]


def bounded(options: Solver, function: Any) -> Any:
    """A predictor or denoiser whose clean images are within [-1, 1], clipped or by the options' dynamic threshold."""
    from jgen import samplers

    return samplers.dynamic_threshold(function, options.threshold) if options.threshold else samplers.clip(function)


def levels(options: Solver, sigma_min: float, sigma_max: float, by_time: Callable[[int, float], Any] | None = None) -> Any:
    """The noise levels [steps + 1] of a sampling, 0 last; of an adaptive one the greatest, the least and 0.

    by_time: (steps, greatest level) -> those of grid=time.
    """
    from jgen import sigmas
    from jgen.errors import UserError

    if options.sigma_min and not 0 < options.sigma_min < sigma_max:
        raise UserError(f"sigma_min={options.sigma_min}: must be above 0 and below {sigma_max:.4g}, the greatest noise level")
    sigma_min = options.sigma_min or sigma_min
    if options.sampler in ADAPTIVE:
        return sigmas.exponential(2, sigma_min, sigma_max)
    if options.grid == "time":
        assert by_time is not None
        if options.sigma_min:
            raise UserError(
                f"sigma_min={options.sigma_min}: grid=time goes down to the first of the model's times; try log_snr"
            )
        return by_time(options.steps, sigma_max)
    if options.grid == "log_snr":
        return sigmas.exponential(options.steps, sigma_min, sigma_max)
    return sigmas.karras(options.steps, sigma_min, sigma_max, {"karras": 7.0, "quadratic": 2.0, "uniform": 1.0}[options.grid])


GONE = 200.0
"""The noise level above which nothing of an image is left: chains are sampled from there, be they noisier or not."""


def chain_levels(options: TimedSolver, chain: "Schedule") -> Any:
    """The same from the last level of a chain, or GONE, to its first. Raises UserError for more steps than the chain has."""
    from jgen import schedules, sigmas

    if options.sampler not in ADAPTIVE:
        schedules.check_steps(len(chain), options.steps)
    ends = float(chain.sigma[0]), min(float(chain.sigma[-1]), GONE)
    return levels(options, *ends, lambda steps, most: sigmas.of_schedule(chain, steps, most))


def walk(chain: "Schedule", options: Solver, predict: "Predict", keys: Any, x: Any) -> Any:
    """Images [B, H, W, C] from x_T by one of the samplers of the discrete coordinates, in the options' steps of the chain."""
    from jgen import samplers

    if options.sampler == "ddim":
        return samplers.ddim(predict, chain, x, keys, timesteps=options.steps, eta=options.eta)
    return samplers.ancestral(predict, chain, x, keys, timesteps=options.steps, variance=options.variance)


def solve(denoise: "Denoise", options: Solver, keys: Any, x: Any, grid: Any) -> Any:
    """Images [B, H, W, C] by the chosen sampler over noise levels [steps + 1], from x at the first of them; one key each."""
    from dataclasses import replace

    from jgen import samplers, schedules

    name = options.sampler
    if name in DISCRETE:
        chain = schedules.of_levels(grid[-2::-1])
        start = x / (1 + grid[0] ** 2) ** 0.5
        return walk(chain, replace(options, steps=len(chain)), schedules.predictor(denoise, chain), keys, start)
    if name in CHURNED:
        churn = samplers.Churn(options.churn, options.churn_from, options.churn_to, options.churn_noise)
        return getattr(samplers, name)(denoise, x, grid, keys, churn=churn if options.churn else None)
    if name in ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"):
        return getattr(samplers, name)(denoise, x, grid, keys)
    if name == "dpm_sde":
        return samplers.dpmpp_multistep_sde(denoise, x, grid, keys, order=options.order)
    if name in ("unipc", "lms"):
        return getattr(samplers, name)(denoise, x, grid, order=options.order)
    if name == "plms" or name in ADAPTIVE:
        return finished(denoise, to_least(denoise, options, x, grid), grid[-2])
    method = "singlestep" if name == "dpm_singlestep" else "multistep"
    return samplers.dpm_solver(denoise, x, grid, order=options.order, method=method, of=options.of)


def to_least(denoise: "Denoise", options: Solver, x: Any, grid: Any) -> Any:
    """x at the last level of the grid above 0, by a sampler that does not go on to 0."""
    from jgen import samplers

    if len(grid) == 2:  # a single step, which is the last one
        return x
    if options.sampler == "plms":
        return samplers.plms(denoise, x, grid[:-1])
    tolerance = dict(rtol=options.tolerance, atol=options.tolerance)
    if options.sampler == "rk45":
        return samplers.rk45(denoise, x, grid[-2], grid[0], **tolerance)
    return samplers.dpm_adaptive(denoise, x, grid[-2], grid[0], order=options.order, of=options.of, **tolerance)


def finished(denoise: "Denoise", x: Any, sigma: float) -> Any:
    """The clean image of x at a small noise level."""
    import jax.numpy as jnp

    return denoise(x, jnp.full(len(x), sigma, x.dtype))


def by_chain(
    chain: "Schedule", options: TimedSolver, predict: "Predict", denoise: "Denoise", keys: Any, shape: Sequence[int]
) -> Any:
    """Images of a model with a chain by any sampler: its predictor along the chain, or its denoiser from level to level."""
    from jgen import samplers

    if options.sampler in DISCRETE:
        return walk(chain, options, predict, keys, samplers.noise(keys, shape))
    return from_noise(denoise, options, keys, shape, chain_levels(options, chain))


def from_noise(denoise: "Denoise", options: Solver, keys: Any, shape: Sequence[int], grid: Any) -> Any:
    """`solve` from noise of the greatest level."""
    from jgen import samplers

    return solve(denoise, options, keys, grid[0] * samplers.noise(keys, shape), grid)
