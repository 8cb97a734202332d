"""The commands for pictures of one's own, invert, edit, mix and generate: which families have them, and their options."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import tyro

from jgen.config import leaves, ranges
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


Idle = tuple[str, Any, str]
"""An option that was given without effect: its name, its value, and why."""


def check_effects(command: str, groups: Groups, values: dict[str, Any], own: Any) -> None:
    """Raises UserError for the first option that the others leave without effect.

    values: the groups by name, an edit of noise with its method named. own: the run's options of sampling.
    """
    idle = _idle_of_noise(command, values, own) if groups.family == "noise" else _idle_of_styles(command, values)
    _refuse(idle)


def _refuse(idle: Iterator[Idle]) -> None:
    for name, value, why in idle:
        raise UserError(f"{name}={ranges.shown(value)}: has no effect {why}; leave it out")


def _changed(group: Any, names: tuple[str, ...], why: str, own: Any = None) -> Iterator[Idle]:
    """Options of a group among `names` that differ from `own`, its defaults unless given."""
    before = {leaf.name: leaf.value for leaf in leaves(type(group)() if own is None else own)}
    for leaf in leaves(group):
        if leaf.name in names and leaf.value != before.get(leaf.name):
            yield leaf.name, leaf.value, why


def _idle_of_styles(command: str, values: dict[str, Any]) -> Iterator[Idle]:
    how, by_text = values.get("how"), values.get("by_text")
    if by_text is None:
        return
    names = tuple(leaf.name for leaf in leaves(by_text))
    if not by_text.text:
        yield from _changed(by_text, names, "without --text")
    elif how is not None:
        yield from _changed(how, tuple(leaf.name for leaf in leaves(how)), "with --text")
    if not by_text.scorer:
        of_scorer = tuple(name for name in names if name not in ("text", "from_text", "text_rows", "scorer"))
        yield from _changed(by_text, of_scorer, "without --scorer")
    if command == "generate":
        yield from _changed(by_text, ("from_text", "text_pixel_weight"), "on pictures that are made, not edited")


def check_method(given: Inversion, method: str, encoder: bool = False, noise: bool = True) -> None:
    """Raises UserError for options of inversions that a method does not read.

    encoder, noise: whether the run has an encoder, which gives pti its style, and its generator noise inputs.
    """
    begun, tuning = ("inversion_steps", "from_class"), ("tuning_steps", "tuning_rate", "locality_weight")
    sought = (*begun, *(("noise_maps",) if noise else ()))
    own = {
        "encoder": (),
        "encoder_plus": ("inversion_steps", "domain_weight"),
        "pti": tuning if encoder else (*begun, *tuning),
    }
    others = tuple(name for name in (*begun, "noise_maps", "domain_weight", *tuning) if name not in own.get(method, sought))
    _refuse(_changed(given, others, f"on method {method}"))


def _idle_of_noise(command: str, values: dict[str, Any], own: Any) -> Iterator[Idle]:
    given, how, options = values["given"], values.get("how"), values["options"]
    method = getattr(how, "method", "")
    why = f"with --method {method}" if method else f"on {command}, which goes to noise and back by DDIM"
    if method in ("", "ddim"):
        idle = (options.solver, options.edit) if method else (options,)
        yield from _of_sampler(options, own, why)
        yield from _changed(options, tuple(leaf.name for group in idle for leaf in leaves(group)), why, own)
        yield from _changed(how, ("seed",), why) if method else ()
        return
    yield from _changed(given, ("inversion_steps", "from_label"), why)
    yield from _changed(options, ("mask",) if method == "sdedit" else ("edit_from",), why, own)
    if how is not None and how.mask_image:
        yield from _changed(options, ("mask",), "with --mask-image", own)


def _of_sampler(options: Any, own: Any, why: str) -> Iterator[Idle]:
    if options.solver.sampler != own.solver.sampler:
        yield "sampler", options.solver.sampler, why
