"""Sampling as the diffusion experiments share it: options, guidance, noise levels, and solvers in continuous coordinates."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments._diffusion import Knobs, null_label

if TYPE_CHECKING:
    from jgen.schedules import Schedule

SolverName = Literal[
    "heun", "euler", "euler_ancestral", "dpm_2", "dpm_2_ancestral", "dpm", "dpm_singlestep", "dpm_sde", "dpmpp_2s_ancestral",
    "dpmpp_sde", "unipc", "lms",
]  # fmt: skip
"""Samplers of the continuous coordinates (`jgen.samplers`)."""


CHURNED = ("heun", "euler", "dpm_2")
"""Those that take churn."""


@dataclass(frozen=True)
class Solver:
    """Sampling in continuous coordinates."""

    sampler: SolverName = "heun"
    """dpm is multistep DPM-Solver++, dpm_sde the same with noise. One network call a step, but two in each step but the last of
    heun, dpm_2, dpm_2_ancestral, dpmpp_2s_ancestral and dpmpp_sde."""
    steps: int = 18
    order: int = 2
    """Of dpm, dpm_singlestep, dpm_sde, unipc and lms, 1 to 3."""
    grid: Literal["karras", "log_snr", "uniform"] = "karras"
    """How the noise levels are spaced."""
    churn: float = 0.0
    """Of heun, euler and dpm_2: noise added on the way (EDM's S_churn)."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""
    guidance: float = 1.0
    """Classifier-free guidance, u + guidance (c - u): 1 is without. For a model trained with drop_label."""
    guidance_from: float = 0.0
    """Guide only at noise levels sigma above this one"""
    guidance_to: float = 1e9
    """and below this one."""
    threshold: float = 0.0
    """Scale clean images down by this quantile of their pixels where it is beyond -1 or 1 rather than clip them, for strong
    guidance (Imagen: 0.995); 0 clips."""


@dataclass(frozen=True)
class ChainSolver(Solver):
    """The same for a model of a discrete chain, which has times to go along."""

    grid: Literal["time", "log_snr", "karras", "uniform"] = "log_snr"
    """How the noise levels of the continuous samplers are spaced: as the chain's times, or of themselves."""


def free_guidance(
    config: Knobs, options: Solver, call: Any, label: Any, null: int | None = None, chain: "Schedule | None" = None
) -> Any:
    """(x, t) -> call(x, t, label) with the options' classifier-free guidance.

    null: the label for none, unless one above the classes. chain: whose steps t are, where they are not noise levels. Raises
    UserError for a model that can't be guided.
    """
    import jax.numpy as jnp

    from jgen.errors import UserError
    from jgen.samplers import cfg_batched
    from jgen.samplers.guidance import interval

    def plain(x, t):
        return call(x, t, label)

    scale = options.guidance
    if scale == 1:
        return plain
    if label is None:
        raise UserError(f"guidance={scale}: this model is not class-conditional; train one with --conditional --drop-label 0.1")
    if not config.drop_label:
        raise UserError(f"guidance={scale}: the model was trained with all labels; train one with --drop-label 0.1")
    guided = cfg_batched(call, label, null_label(config) if null is None else null, scale)
    if options.guidance_from <= 0 and options.guidance_to >= 1e9:
        return guided
    level = (lambda t: t) if chain is None else (lambda t: jnp.asarray(chain.sigma, jnp.float32)[t])
    return interval(guided, plain, options.guidance_from, options.guidance_to, level)


def bounded(options: Solver, function: Any) -> Any:
    """A predictor or denoiser whose clean images are within [-1, 1], clipped or by the options' dynamic threshold.

    Raises UserError for a threshold that is no quantile.
    """
    from jgen import samplers
    from jgen.errors import UserError

    if not 0 <= options.threshold <= 1:
        raise UserError(f"threshold={options.threshold}: must be a quantile, from 0 (which clips) to 1")
    return samplers.dynamic_threshold(function, options.threshold) if options.threshold else samplers.clip(function)


def levels(options: Solver, sigma_min: float, sigma_max: float) -> Any:
    """The noise levels [steps + 1] of a sampling, 0 last."""
    from jgen import sigmas

    if options.grid == "log_snr":
        return sigmas.exponential(options.steps, sigma_min, sigma_max)
    return sigmas.karras(options.steps, sigma_min, sigma_max, {"karras": 7.0, "uniform": 1.0}[options.grid])


GONE = 200.0
"""The noise level above which nothing of an image is left: chains are sampled from there, be they noisier or not."""


def chain_levels(options: ChainSolver, chain: "Schedule") -> Any:
    """The same from the last level of a chain, or GONE, to its first; or along its times."""
    from jgen import sigmas

    if options.grid == "time":
        return sigmas.of_schedule(chain, options.steps, GONE)
    return levels(options, float(chain.sigma[0]), min(float(chain.sigma[-1]), GONE))


def check_churn(options: Solver) -> None:
    """Raises UserError for churn under a sampler that takes none."""
    from jgen.errors import UserError

    if options.churn and options.sampler not in CHURNED:
        raise UserError(f"churn={options.churn}: {options.sampler} takes none, only {', '.join(CHURNED)} do")


def solve(denoise: Any, options: Solver, keys: Any, shape: Any, grid: Any) -> Any:
    """Images [B, H, W, C] by the chosen solver over noise levels [steps + 1], one key each.

    Raises UserError for churn under a sampler that takes none.
    """
    from jgen import samplers

    check_churn(options)
    name, x = options.sampler, grid[0] * samplers.noise(keys, shape)
    if name in CHURNED:
        churn = samplers.Churn(options.churn) if options.churn else None
        return getattr(samplers, name)(denoise, x, grid, keys, churn=churn)
    if name in ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"):
        return getattr(samplers, name)(denoise, x, grid, keys)
    if name == "dpm_sde":
        return samplers.dpmpp_multistep_sde(denoise, x, grid, keys, order=options.order)
    if name in ("unipc", "lms"):
        return getattr(samplers, name)(denoise, x, grid, order=options.order)
    return samplers.dpm_solver(
        denoise, x, grid, order=options.order, method="singlestep" if name == "dpm_singlestep" else "multistep"
    )
