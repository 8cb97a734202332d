"""Options that have no effect on samplers of a score, which know no clean image."""

from jgen.config import DiffusionSampling
from jgen.errors import UserError


def check_own_options(options: DiffusionSampling) -> None:
    """Raises UserError for an option of clean images under a sampler that has none."""
    if options.guide.threshold:
        raise UserError(f"threshold={options.guide.threshold}: {options.solver.sampler} has no clean images to scale; try heun")
    if not options.guide.clip_denoised:
        raise UserError(f"clip_denoised=False: {options.solver.sampler} has no clean images, so it clips none; try heun")
