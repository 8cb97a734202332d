"""Samplers: plain functions of functions and arrays, each a single compiled loop.

Every sampler takes one key per image (`image_keys`), so image i depends on (seed, i) alone, never on the batch or on
how many devices there are. Call one under `jax.jit` with the weights as an argument to compile it once. Those of the
discrete coordinates take a predictor and a schedule, those of the continuous ones a denoiser D(x, sigma) and a grid of
levels (`jgen.sigmas`); guidance (`jgen.samplers.guidance`) transforms either.
"""

from jgen.config.samplers import Churn
from jgen.samplers.adaptive import dpm_adaptive, dpm_solver_adaptive, rk45
from jgen.samplers.ancestral import ancestral, ancestral_step
from jgen.samplers.autoregressive import autoregressive, decoder
from jgen.samplers.common import class_labels, clip, dynamic_threshold, image_keys, noise
from jgen.samplers.ddim import ddim, ddim_invert, ddim_step
from jgen.samplers.dpm import dpm_fast, dpm_solver, dpmpp_2s_ancestral, dpmpp_multistep_sde, dpmpp_sde
from jgen.samplers.euler_heun import dpm_2, dpm_2_ancestral, euler, euler_ancestral, heun, lms, plms
from jgen.samplers.generalized import ablation
from jgen.samplers.guidance import cfg, cfg_batched
from jgen.samplers.langevin import (
    annealed_langevin,
    consistent_langevin,
    metropolis_langevin,
    step_size_for,
    unadjusted_langevin,
)
from jgen.samplers.pc import predictor_corrector
from jgen.samplers.repaint import repaint
from jgen.samplers.sdedit import sdedit
from jgen.samplers.unipc import unipc

__all__ = [
    "Churn", "ablation", "ancestral", "ancestral_step", "annealed_langevin", "autoregressive", "cfg", "cfg_batched",
    "class_labels", "clip", "consistent_langevin", "ddim", "ddim_invert", "ddim_step", "decoder", "dpm_2",
    "dpm_2_ancestral", "dpm_adaptive", "dpm_fast", "dpm_solver", "dpm_solver_adaptive", "dpmpp_2s_ancestral",
    "dpmpp_multistep_sde", "dpmpp_sde", "dynamic_threshold", "euler", "euler_ancestral", "heun", "image_keys", "lms",
    "metropolis_langevin", "noise", "plms", "predictor_corrector", "repaint", "rk45", "sdedit", "step_size_for",
    "unadjusted_langevin", "unipc",
]  # fmt: skip
