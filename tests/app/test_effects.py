"""An option that the others leave without effect is refused by its name, in the commands for pictures and in `sample`."""

from dataclasses import replace

import pytest

from jgen.app import cli, runs
from jgen.app.load import load
from jgen.app.moving import effects
from jgen.app.picture_commands import check_effects, check_method, groups_of, with_method
from jgen.config import DiffusionSampling, StyleSampling, check
from jgen.config.inversion import ByText, Edit, Generate, Inversion, NoiseEdit, NoiseInversion, NoiseMix
from jgen.config.sampling import Animation, Editing
from jgen.config.values import with_sampler
from jgen.errors import UserError
from tests import tiny

OWN = DiffusionSampling()
LEFT = replace(OWN, edit=Editing(mask="left"))
DEEPER = replace(OWN, edit=Editing(edit_from=3.0))
STEPS = replace(OWN, solver=replace(OWN.solver, steps=7))


def noise(command, how, options=OWN, **given):
    values = {"given": NoiseInversion(**given), "options": options}
    if command != "invert":
        values["how"] = with_method(how, False) if command == "edit" else how
    check_effects(command, groups_of(command, "experiments.ddpm", OWN), values, OWN)


def styles(command, **values):
    check_effects(command, groups_of(command, "experiments.stylegan2", StyleSampling()), values, None)


@pytest.mark.parametrize("command, how, options, given, says", [
    ("edit", NoiseEdit(), OWN, {"from_label": 3}, "from_label=3: has no effect with --method sdedit; leave it out"),
    ("edit", NoiseEdit(), LEFT, {}, "mask=left: has no effect with --method sdedit"),
    ("edit", NoiseEdit("inpaint"), OWN, {"inversion_steps": 3}, "inversion_steps=3: has no effect with --method inpaint"),
    ("edit", NoiseEdit("inpaint"), DEEPER, {}, "edit_from=3.0: has no effect with --method inpaint"),
    ("edit", NoiseEdit(mask_image="m.png"), LEFT, {}, "mask=left: has no effect with --mask-image"),
    ("edit", NoiseEdit("ddim"), STEPS, {}, "steps=7: has no effect with --method ddim"),
    ("edit", NoiseEdit("ddim", seed=3), OWN, {}, "seed=3: has no effect with --method ddim"),
    ("invert", None, STEPS, {}, "steps=7: has no effect on invert, which goes to noise and back by DDIM"),
    ("invert", None, with_sampler(OWN, "heun"), {}, "sampler=heun: has no effect on invert"),
    ("mix", NoiseMix(), replace(OWN, label=3), {}, "label=3: has no effect on mix"),
])  # fmt: skip
def test_options_without_effect_on_noise(command, how, options, given, says):
    with pytest.raises(UserError, match=says):
        noise(command, how, options, **given)


def test_options_with_effect_pass():
    noise("edit", NoiseEdit(seed=3), replace(DEEPER, solver=STEPS.solver, label=3))
    noise("edit", NoiseEdit("inpaint"), LEFT)
    noise("edit", NoiseEdit("ddim"), replace(OWN, label=3, guide=replace(OWN.guide, guidance=2.0)), inversion_steps=3)
    noise("invert", None, inversion_steps=3, from_label=2)
    styles("edit", given=Inversion(), how=Edit("sefa:1", (1.0, 2.0)), by_text=ByText())
    styles("edit", given=Inversion(), how=Edit(), by_text=ByText("x", "y", "fine", "run", text_steps=3))
    styles("generate", given=Generate(label=3), by_text=ByText())
    for method in ("w", "w_plus", "encoder_plus", "pti"):
        check_method(Inversion(inversion_steps=3), method)
    check_method(Inversion(domain_weight=1.0), "encoder_plus")
    check_method(Inversion(tuning_rate=1.0), "pti")


@pytest.mark.parametrize("how, by_text, says", [
    (Edit(), ByText(scorer="run"), "scorer=run: has no effect without --text"),
    (Edit("sefa:1"), ByText("x"), "direction=sefa:1: has no effect with --text"),
    (Edit(), ByText("x", text_steps=3), "text_steps=3: has no effect without --scorer"),
    (Edit(), ByText(from_text="x"), "from_text=x: has no effect without --text"),
    (None, ByText("x", "y"), "from_text=y: has no effect on pictures that are made"),
    (None, ByText("x", scorer="run", text_pixel_weight=3.0), "text_pixel_weight=3.0: has no effect on pictures that are made"),
])  # fmt: skip
def test_options_without_effect_on_styles(how, by_text, says):
    with pytest.raises(UserError, match=says):
        styles("edit" if how else "generate", given=Inversion(), by_text=by_text, **({"how": how} if how else {}))


@pytest.mark.parametrize("method, given", [
    ("encoder", {"inversion_steps": 3}), ("w", {"tuning_rate": 1.0}), ("pti", {"domain_weight": 1.0}),
    ("encoder_plus", {"tuning_rate": 1.0}),
])  # fmt: skip
def test_options_of_other_methods(method, given):
    with pytest.raises(UserError, match=f"has no effect on method {method}"):
        check_method(Inversion(**given), method)


@pytest.mark.parametrize("group", [Edit(by=()), NoiseMix(by=())])
def test_a_row_of_edits_holds_one_at_least(group):
    with pytest.raises(UserError, match="by=: must have at least one value"):
        check(group)


def test_samples_that_do_not_move_have_no_frames(capsys, tmp_path):
    folder, module = tiny.stored("ddpm", tmp_path / "run"), tiny.module("ddpm")
    with pytest.raises(SystemExit) as stopped:
        cli.main(module.Config, module.build, module.PRESETS, ["sample", "--run", str(folder), "--frames", "7"])
    assert stopped.value.code == 2
    assert "frames: samples do not move; name a --picture that does, or an --out that ends in .gif" in capsys.readouterr().err
    for name, option, shown in (
        ("inpainted", "num", "inpainted"), ("inpainted", "fps", "inpainted"), ("", "frames", "denoising"),
        ("walk", "batch", "walk"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{option}: has no effect on --picture {shown}; leave it out"):
            runs.picture(folder, name, None, 0, "", None, Animation(), 3, [option])
    assert effects(load(folder), "walk") == ("num", "frames", "fps")


@pytest.mark.parametrize(
    "command, text", [("edit", ["--text", ""]), ("generate", ["--text= "]), ("edit", ["--text", "a", "--from-text", ""])]
)
def test_a_text_without_a_word_is_not_taken_for_none(command, text, capsys, tmp_path):
    folder, module = tiny.stored("stylegan2", tmp_path / "run"), tiny.module("stylegan2")
    picture = ["--image", "a.png"] if command == "edit" else []
    with pytest.raises(SystemExit) as stopped:
        cli.main(module.Config, module.build, module.PRESETS, [command, "--run", str(folder), *picture, *text])
    assert stopped.value.code == 2
    assert 'text: is empty; write words, such as "a red A on blue"' in capsys.readouterr().err
