"""The commands for pictures of one's own, invert, edit, mix and generate: which families have them, and their options."""

from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import tyro

from jgen.config.gan import StyleSampling
from jgen.config.inversion import ByText, Edit, Generate, Inversion, Mix, NoiseEdit, NoiseInversion, NoiseMix
from jgen.config.sampling import DiffusionSampling
from jgen.errors import UserError

COMMANDS = ("invert", "edit", "mix", "generate")
STYLES = {
    "invert": {"given": Inversion},
    "edit": {"given": Inversion, "how": Edit, "by_text": ByText},
    "mix": {"given": Inversion, "how": Mix},
    "generate": {"given": Generate, "by_text": ByText},
}
"""{command: {name of a group: its class}} of generators with styles."""
NOISE = {
    "invert": {"given": NoiseInversion},
    "edit": {"given": NoiseInversion, "how": NoiseEdit},
    "mix": {"given": NoiseInversion, "how": NoiseMix},
}
"""Those of diffusion and score models, which take the options of sampling too."""
STYLE_FAMILY = "StyleGANs (stylegan, stylegan2, stylegan3, stylegan_xl, diffusion_gan) with inversion"
NOISE_FAMILY = "diffusion and score models (ddpm, edm, guided, flow_matching, latent_diffusion, score_sde, ncsn, ...)"


class Groups(NamedTuple):
    """The groups of options of a command for a family."""

    family: str
    """styles or noise."""
    kinds: dict[str, type]


def groups_of(command: str, module: str, sampling: Any) -> Groups:
    """The groups for an experiment with such options of sampling. Raises UserError where its family has no such command."""
    if isinstance(sampling, DiffusionSampling):
        if command not in NOISE:
            how = "draws a class by sample --label, and a text by sample --prompt where it knows them"
            raise UserError(f"{command}: is a command of {STYLE_FAMILY}; {module} {how}")
        return Groups("noise", NOISE[command])
    if not isinstance(sampling, StyleSampling):
        more = f", and {NOISE_FAMILY}" if command in NOISE else ""
        raise UserError(f"{command}: {module} has no such command; those that have it are {STYLE_FAMILY}{more}")
    return Groups("styles", STYLES[command])


def fields_of(groups: Groups) -> list[Any]:
    """Fields of a dataclass to parse, whose options are flat."""
    return [(name, Annotated[kind, tyro.conf.arg(name="")], kind()) for name, kind in groups.kinds.items()]


def with_method(how: NoiseEdit, masked: bool) -> NoiseEdit:
    """An edit with its method named: inpaint where a mask was, else sdedit. Raises UserError for a mask of another method."""
    masked = masked or bool(how.mask_image)
    if masked and how.method not in ("", "inpaint"):
        raise UserError(f"method={how.method}: removes nothing; leave out the mask, or take --method inpaint")
    return replace(how, method=how.method or ("inpaint" if masked else "sdedit"))
