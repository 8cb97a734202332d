"""The arguments of the command train."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jgen.app.auto import NOTHING_GIVEN, Auto, Choice, choose, reasons
from jgen.app.command import HELP, Build, Presets, about, commands, config_of, new_folder, option, short, stored_config
from jgen.app.parsing import Args, config_default, parse, peek, sampler_field
from jgen.config import check, differences, from_dict, leaves
from jgen.config.train import Accelerator
from jgen.errors import UserError, check_choice
from jgen.run_folder import is_export


def train(module: str, build: Build, presets: Presets, args: Args, auto: Auto | None) -> None:
    """Trains an experiment, or shows what a step of it costs."""
    run, preset = peek(args, "run"), peek(args, "preset")
    stored = stored_config(run, module) if run else None
    if run and stored is None:
        raise UserError(f"run={run}: no run there to go on with (it has no config.json); a new run is named by --name")
    if run and is_export(Path(run)):
        raise UserError(f"run={run}: is exported, without an optimizer; begin another run with --train.begin-from {run}")
    name = preset or (stored["preset"] if stored else next(iter(presets)))
    choice = _chosen(module, build, presets, args, auto) if auto and preset == "auto" and not HELP & set(args) else None
    if auto:
        presets = {**presets, "auto": choice.config if choice else next(iter(presets.values()))}
    check_choice(presets, preset=name)
    before = config_of(type(presets[name]), stored) if stored and not preset else presets[name]
    options = _train_options(module, build, presets, args, name, before)
    config = options.config
    check(config)
    if choice:
        print(*reasons(choice, config), sep="\n")
    if options.name and options.run:
        raise UserError(f"name={options.name}: --run {options.run} resumes a run, which has a name; leave out one of the two")
    named = (
        new_folder(module, options.name) if options.name else None
    )  # before the processes join, since one of them will write there
    runs = commands()
    runs.start(config.mesh, config.data.batch_size)
    folder = Path(options.run) if options.run else named or Path("runs", short(module), f"{name}-{runs.began()}")
    if stored:
        config = _resumed(config, stored, folder, runs.census(config.data), options.accept_changes)
    if options.dry_run or options.dry_run_memory:
        return runs.show_costs(build, config, options.dry_run_memory, options.dry_run_on)
    runs.train(module, name, build, config, folder)


def _train_options(module: str, build: Build, presets: Presets, args: Args, name: str, before: Any) -> Any:
    """The options of `train`, parsed; before: the config that they begin from."""
    default = config_default(before, args)
    fields = [
        ("preset", option(Literal[tuple(presets)], "Named settings to begin from."), name),
        ("run", option(str, "Folder of a run to resume."), ""),
        ("name", option(str, "Name of a new run, below runs/EXPERIMENT; a path puts it elsewhere."), ""),
        ("dry_run", option(bool, "Show parameters and FLOPs of a step, then stop."), False),
        ("dry_run_memory", option(bool, "As --dry-run, and compile the step to show the memory it takes."), False),
        (
            "dry_run_on",
            option(Accelerator, "Eight of which --dry-run estimates memory and days for."),
            "a100",
        ),
        ("accept_changes", option(bool, "Resume with settings that differ from the run's."), False),
        *sampler_field(getattr(default, "sampling", None), "sampling."),
        ("config", Annotated[type(default), tyro.conf.arg(name="")], dataclasses.field(default=default)),
    ]
    return parse(dataclasses.make_dataclass("Train", fields), module, args, about(build, module))


def _chosen(module: str, build: Build, presets: Presets, args: Args, auto: Auto) -> Choice:
    """The settings for the set that the arguments name. Raises UserError where they name none."""
    first = dataclasses.replace(next(iter(presets.values())), data=NOTHING_GIVEN)
    given = _train_options(module, build, {**presets, "auto": first}, args, "auto", first).config.data
    if not given.name:
        raise UserError("preset=auto: chooses settings for a set; name it, --data.name folder:PHOTOS")
    return choose(auto, commands().facts_of(given), given)


def _resumed(config: Any, stored: dict[str, Any], folder: Path, files: str, accept_changes: bool) -> Any:
    """The config of a run that goes on. Raises UserError for settings that differ from the run's, unless accepted.

    files: the census of the set, which is compared with that of a run that wrote its own.
    """
    before = from_dict(type(config), stored["config"])
    if config.data.name == before.data.name:
        data = dataclasses.replace(
            config.data, shape=before.data.shape, num_classes=before.data.num_classes, classes=before.data.classes
        )
        config = dataclasses.replace(config, data=data)
    changed = [each for each in differences(before, config) if not _trains_longer(each, before, config)]
    if stored.get("files") not in (None, files):
        changed.append(f"{config.data.name}: {stored['files'] or 'no files'} -> {files or 'no files'}")
    if changed and not accept_changes:
        raise UserError(
            f"run={folder}: its settings differ, {'; '.join(changed)}; start another run, or go on with --accept-changes"
        )
    return config


LONGER = ("train.steps", "prior_steps", "ncp_steps", "classifier_steps")
"""Options that say how long a last stage trains."""


def _trains_longer(difference: str, before: Any, now: Any) -> bool:
    """Whether an option that differs is the number of a last stage's steps, and there are more of them."""
    name, *_ = difference.split(":")
    if name not in LONGER:
        return False
    old, new = ({leaf.name: leaf.value for leaf in leaves(config)}[name] for config in (before, now))
    return new > old
