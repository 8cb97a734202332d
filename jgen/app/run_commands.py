"""The arguments of the commands of a run that there is: sample, evaluate, export, and those for pictures of yours."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from jgen.app import picture_commands
from jgen.app.command import HELP, Build, Presets, about, commands, config_of, option, short, stored_config
from jgen.app.parsing import Args, chosen_sampler, mentions, parse, peek, sampler_field
from jgen.config import Evaluation, MeshConfig, check, differences, newest_run
from jgen.config.export import Export
from jgen.config.ranges import Count, Seed, fault
from jgen.config.sampling import Animation
from jgen.errors import UserError

MOVING = (".gif", ".webp", ".apng")
"""Suffixes of moving pictures."""

ABOUT = {
    "export": "Writes a run in another form: weights that jgen.load reads, or its sampler as a program.",
    "invert": "Brings pictures of yours into a run's space, of styles or of noise, and shows what comes back.",
    "edit": "Changes pictures of yours by way of a run: along a direction, by a text, or from a noise level on.",
    "mix": "Mixes two pictures of yours by way of a run.",
    "generate": "Makes pictures by a text, a sketch or a class.",
}
"""The head of --help of the commands whose options are not the experiment's."""


def sample(module: str, build: Build, presets: Presets, args: Args) -> None:
    """Draws images, or writes one of the run's other pictures."""
    folder, config = _run(module, presets, args)
    if getattr(config, "sampling", None) is None:
        raise UserError(f"{module}: draws no samples")
    fields = [
        ("run", option(str, "Folder of the run; the newest unless given."), str(folder)),
        ("num", option(int, "Images; the other pictures have as many as they show."), 64),
        ("seed", option(Seed, "Image i depends on (seed, i) alone."), 0),
        ("batch", option(int, "Images at a time."), 64),
        ("out", option(str, "A .png for a grid, .npz for uint8 arrays, or a folder of PNGs; or a .gif, .webp or .apng."), ""),
        (
            "picture",
            option(str, "One of the run's other pictures, or nearest, beside training images, or denoising or walk."),
            "",
        ),
        ("animation", Annotated[Animation, tyro.conf.arg(name="")], Animation()),
        *_sampling(config, args),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = parse(dataclasses.make_dataclass("Sample", fields), f"{module} sample", args, about(build, module))
    for name, kind in (("seed", Seed), ("num", Count), ("batch", Count)):
        if problem := fault(kind, value := getattr(options, name)):
            raise UserError(f"{name}={value}: {problem}")
    check(options.options)
    check(options.animation)
    check(options.mesh, "mesh.")
    moving = Path(options.out).suffix in MOVING
    if not (options.picture or moving) and (given := [name for name in ("frames", "fps") if peek(args, name)]):
        raise UserError(f"{given[0]}: samples do not move; name a --picture that does, or an --out that ends in .gif")
    runs = commands()
    runs.start(options.mesh, options.batch)
    if options.picture or moving:
        how = options.options, options.seed, options.out, options.mesh, options.animation, options.num
        given = [name for name in ("num", "batch", "frames", "fps") if peek(args, name)]
        return runs.picture(Path(options.run), options.picture, *how, given)
    runs.sample(Path(options.run), options.options, options.num, options.seed, options.batch, options.out, options.mesh)


def evaluate(module: str, build: Build, presets: Presets, args: Args) -> None:
    """Measures a run."""
    folder, config = _run(module, presets, args)
    has_samples = getattr(config, "sampling", None) is not None
    fields = [
        ("given", Annotated[Evaluation, tyro.conf.arg(name="")], Evaluation(str(folder))),
        *(_sampling(config, args) if has_samples else []),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = parse(dataclasses.make_dataclass("Evaluate", fields), f"{module} evaluate", args, about(build, module))
    chosen = getattr(options, "options", None)
    for each, prefix in ((options.given, ""), (options.mesh, "mesh."), *([(chosen, "")] if has_samples else [])):
        check(each, prefix)
    if against := options.given.against:  # whose images are there already
        changes = differences(config.sampling, chosen) if has_samples else []
        if options.given.seed:
            changes = [f"seed: 0 -> {options.given.seed}"]
        if changes:
            raise UserError(f"against={against}: draws no samples, so leave out what they are drawn with, {changes[0]}")
    runs = commands()
    runs.start(options.mesh, options.given.batch)
    runs.evaluate(Path(options.given.run), options.given, chosen, options.mesh)


def export(module: str, build: Build, presets: Presets, args: Args) -> None:
    """Writes a run in another form."""
    folder, config = _run(module, presets, args)
    has_samples = getattr(config, "sampling", None) is not None
    fields = [
        ("run", option(str, "Folder of the run; the newest unless given."), str(folder)),
        ("given", Annotated[Export, tyro.conf.arg(name="")], Export()),
        *(_sampling(config, args) if has_samples else []),
    ]
    options: Any = parse(dataclasses.make_dataclass("Export", fields), f"{module} export", args, ABOUT["export"])
    check(options.given)
    if has_samples:
        check(options.options)
    runs = commands()
    runs.start(MeshConfig(), 1)
    runs.export_run(Path(options.run), options.given, getattr(options, "options", None))


def edit(command: str, module: str, presets: Presets, args: Args) -> None:
    """Inverts, edits, mixes or makes pictures."""
    groups = picture_commands.groups_of(command, module, getattr(next(iter(presets.values())), "sampling", None))
    folder, config = _run(module, presets, args)
    fields = [
        ("run", option(str, "Folder of the run; the newest unless given."), str(folder)),
        *picture_commands.fields_of(groups),
        *(_sampling(config, args) if groups.family == "noise" else []),
        ("out", option(str, "The .png to write; beside the run unless given."), ""),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = parse(dataclasses.make_dataclass(command, fields), f"{module} {command}", args, ABOUT[command])
    for name in ("text", "from_text") if hasattr(options, "by_text") else ():
        if mentions(args, name) and not getattr(options.by_text, name).strip():
            raise UserError(f'{name}: is empty; write words, such as "a red A on blue", or leave it out')
    named = [*groups.kinds, *(["options"] if groups.family == "noise" else [])]
    for name, prefix in (*((name, "") for name in named), ("mesh", "mesh.")):
        check(getattr(options, name), prefix)
    if groups.family == "noise" and command == "edit":
        options.how = picture_commands.with_method(options.how, bool(peek(args, "mask")))
    values = {name: getattr(options, name) for name in named}
    picture_commands.check_effects(command, groups, values, getattr(config, "sampling", None))
    runs = commands()
    runs.start(options.mesh, 1)
    runs.edit_pictures(groups.family, command, Path(options.run), values, options.out, options.mesh)


def _run(module: str, presets: Presets, args: Args) -> tuple[Path | str, Any]:
    """The run that the arguments name, or the newest, and its config; for --help alone, the first preset's."""
    name = peek(args, "run")
    first = next(iter(presets.values()))
    if not name and HELP & set(args):
        return "", first
    folder = Path(name) if name else newest_run(Path("runs") / short(module))
    stored = stored_config(folder, module)
    if stored is None:
        raise UserError(f"run={folder}: no run there (it has no config.json)")
    return folder, config_of(type(first), stored)


def _sampling(config: Any, args: Args) -> list[Any]:
    """The fields of the experiment's sampling options: the sampler's name, and the options themselves."""
    options = chosen_sampler(config.sampling, args)
    field = ("options", Annotated[type(options), tyro.conf.arg(name="")], dataclasses.field(default=options))
    return [*sampler_field(options), field]
