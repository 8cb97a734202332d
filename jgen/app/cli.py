"""The command line of every experiment: train (the default), sample, evaluate, export; and those for pictures of yours.

`jgen.main(Config, build, presets)` is all that a module calls. jax is imported only once the arguments are understood.
"""

import contextlib
import dataclasses
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NoReturn

import tyro

from jgen import memory
from jgen.app import picture_commands
from jgen.app.auto import NOTHING_GIVEN, Auto, Choice, choose, reasons
from jgen.app.parsing import Args, chosen_sampler, config_default, parse, peek, sampler_field
from jgen.config import Evaluation, MeshConfig, check, differences, from_dict, newest_run
from jgen.config.export import Export
from jgen.config.ranges import Count, Seed, fault
from jgen.config.sampling import Animation
from jgen.config.train import Accelerator
from jgen.errors import UserError, nearest
from jgen.run_folder import is_export, read_config

COMMANDS = ("train", "sample", "evaluate", "export", *picture_commands.COMMANDS)
HELP = {"-h", "--help"}
MOVING = (".gif", ".webp", ".apng")
"""Suffixes of moving pictures."""
NO_PLACE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
"""Errors of the system about a file that can't be opened, or be written there."""
Presets = Mapping[str, Any]
Build = Callable[[Any], Any]


def main(
    config: type, build: Build, presets: Presets | None = None, args: Args | None = None, auto: Auto | None = None
) -> None:
    """Runs an experiment from the shell; exits with 2 and one line for bad input.

    config: the frozen dataclass of the experiment, with fields data, train, mesh and sampling. presets: named configs;
    the first is the default. build: config -> Experiment. auto: the settings for a set of one's own, as --preset auto.
    """
    words = list(sys.argv[1:] if args is None else args)
    command = words.pop(0) if words and not words[0].startswith("-") else "train"
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = build.__module__ if build.__module__ != "__main__" or spec is None else spec.name
    with one_line_errors():
        if command not in COMMANDS:
            raise UserError(f"{command}: no such command{nearest(command, list(COMMANDS))}; it may be {', '.join(COMMANDS)}")
        memory.keep()
        if command in picture_commands.COMMANDS:
            return _edit(command, module, presets or {"default": config()}, words)
        presets = presets or {"default": config()}
        if command == "train":
            return _train(module, build, presets, words, auto)
        run = {"sample": _sample, "evaluate": _evaluate, "export": _export}[command]
        run(module, build, presets, words)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """A block whose bad input ends the program with 2 and one line, Ctrl-C with 130, and `| head` without a word."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except UserError as error:
        _stop(str(error))
    except BrokenPipeError:  # nobody reads what is printed, and what is left of it would be tried again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno in NO_PLACE and error.filename is not None:
            _stop(str(UserError(f"{Path(os.fsdecode(error.filename))}: {error.strerror}; what was written before is intact")))
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _stop(f"{error.strerror}: what was written before is intact; free some space and run it again")


def _stop(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2) from None


def _about(build: Build, module: str) -> str:
    """The head of --help: the model, its paper, and the commands."""
    title = (getattr(sys.modules[build.__module__], "__doc__", None) or module).splitlines()[0]
    commands = "train (the default), sample, evaluate, export; for pictures of yours, where its family has them, invert, edit, "
    commands += "mix, generate"
    return f"{title}\n\nCommands: {commands}; python -m {module} COMMAND --help shows their options."


def _runs() -> ModuleType:
    """The commands, which import jax: loaded only when the arguments are valid."""
    from jgen.app import runs

    return runs


def _option(kind: Any, about: str) -> Any:
    return Annotated[kind, tyro.conf.arg(help=about)]


def _train(module: str, build: Build, presets: Presets, args: Args, auto: Auto | None) -> None:
    run, preset = peek(args, "run"), peek(args, "preset")
    stored = _stored(run, module) if run else None
    if run and stored is None:
        raise UserError(f"run={run}: no run there to go on with (it has no config.json); a new run is named by --name")
    if run and is_export(Path(run)):
        raise UserError(f"run={run}: is exported, without an optimizer; begin another run with --train.begin-from {run}")
    name = preset or (stored["preset"] if stored else next(iter(presets)))
    choice = _chosen(module, build, presets, args, auto) if auto and preset == "auto" and not HELP & set(args) else None
    if auto:
        presets = {**presets, "auto": choice.config if choice else next(iter(presets.values()))}
    if name not in presets:
        raise UserError(f"preset={name}: must be one of {', '.join(presets)}{nearest(name, list(presets))}")
    before = _config(type(presets[name]), stored) if stored and not preset else presets[name]
    options = _train_options(module, build, presets, args, name, before)
    config = options.config
    check(config)
    if choice:
        print(*reasons(choice, config), sep="\n")
    named = _new_folder(module, options.run, options.name)  # before the processes join, since one of them will write there
    runs = _runs()
    runs.start(config.mesh, config.data.batch_size)
    folder = Path(options.run) if options.run else named or Path("runs", _short(module), f"{name}-{runs.began()}")
    if stored:
        config = _resumed(config, stored, folder, options.accept_changes)
    if options.dry_run or options.dry_run_memory:
        return runs.show_costs(build, config, options.dry_run_memory, options.dry_run_on)
    runs.train(module, name, build, config, folder)


def _train_options(module: str, build: Build, presets: Presets, args: Args, name: str, before: Any) -> Any:
    """The options of `train`, parsed; before: the config that they begin from."""
    default = config_default(before, args)
    fields = [
        ("preset", _option(Literal[tuple(presets)], "Named settings to begin from."), name),
        ("run", _option(str, "Folder of a run to resume."), ""),
        ("name", _option(str, "Name of a new run, below runs/EXPERIMENT; a path puts it elsewhere."), ""),
        ("dry_run", _option(bool, "Show parameters and FLOPs of a step, then stop."), False),
        ("dry_run_memory", _option(bool, "As --dry-run, and compile the step to show the memory it takes."), False),
        (
            "dry_run_on",
            _option(Accelerator, "Eight of which --dry-run estimates memory and days for."),
            "a100",
        ),
        ("accept_changes", _option(bool, "Resume with settings that differ from the run's."), False),
        *sampler_field(getattr(default, "sampling", None), "sampling."),
        ("config", Annotated[type(default), tyro.conf.arg(name="")], dataclasses.field(default=default)),
    ]
    return parse(dataclasses.make_dataclass("Train", fields), module, args, _about(build, module))


def _chosen(module: str, build: Build, presets: Presets, args: Args, auto: Auto) -> Choice:
    """The settings for the set that the arguments name. Raises UserError where they name none."""
    first = dataclasses.replace(next(iter(presets.values())), data=NOTHING_GIVEN)
    given = _train_options(module, build, {**presets, "auto": first}, args, "auto", first).config.data
    if not given.name:
        raise UserError("preset=auto: chooses settings for a set; name it, --data.name folder:PHOTOS")
    return choose(auto, _runs().facts_of(given), given)


def _short(module: str) -> str:
    return module.split(".")[-1]


def _new_folder(module: str, run: str, name: str) -> Path | None:
    """The folder of a new run of this name. Raises UserError where there is one already, or where another is to be resumed."""
    if not name:
        return None
    if run:
        raise UserError(f"name={name}: --run {run} resumes a run, which has a name; leave out one of the two")
    folder = Path(name) if os.sep in name else Path("runs", _short(module), name)
    if (folder / "config.json").exists():
        raise UserError(f"name={name}: {folder} holds a run; go on with it by train --run {folder}, or choose another name")
    return folder


def _resumed(config: Any, stored: dict[str, Any], folder: Path, accept_changes: bool) -> Any:
    """The config of a run that goes on. Raises UserError for settings that differ from the run's, unless accepted."""
    before = from_dict(type(config), stored["config"])
    if config.data.name == before.data.name:
        data = dataclasses.replace(
            config.data, shape=before.data.shape, num_classes=before.data.num_classes, classes=before.data.classes
        )
        config = dataclasses.replace(config, data=data)
    changed = [each for each in differences(before, config) if not _trains_longer(each, before, config)]
    if changed and not accept_changes:
        raise UserError(
            f"run={folder}: its settings differ, {'; '.join(changed)}; start another run, or go on with --accept-changes"
        )
    return config


def _trains_longer(difference: str, before: Any, now: Any) -> bool:
    """Whether an option that differs is the number of steps, and there are more of them."""
    return difference.startswith("train.steps:") and now.train.steps > before.train.steps


def _sample(module: str, build: Build, presets: Presets, args: Args) -> None:
    folder, config = _run(module, presets, args)
    if getattr(config, "sampling", None) is None:
        raise UserError(f"{module}: draws no samples")
    fields = [
        ("run", _option(str, "Folder of the run; the newest unless given."), str(folder)),
        ("num", _option(int, "Images; the other pictures have as many as they show."), 64),
        ("seed", _option(Seed, "Image i depends on (seed, i) alone."), 0),
        ("batch", _option(int, "Images at a time."), 64),
        ("out", _option(str, "A .png for a grid, .npz for uint8 arrays, or a folder of PNGs; or a .gif, .webp or .apng."), ""),
        ("picture", _option(str, "One of the run's other pictures, or denoising or walk, which move."), ""),
        ("animation", Annotated[Animation, tyro.conf.arg(name="")], Animation()),
        *_sampling(config, args),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = parse(dataclasses.make_dataclass("Sample", fields), f"{module} sample", args, _about(build, module))
    for name, kind in {"num": Count, "seed": Seed, "batch": Count}.items():
        if problem := fault(kind, getattr(options, name)):
            raise UserError(f"{name}={getattr(options, name)}: {problem}")
    check(options.options)
    check(options.animation)
    check(options.mesh, "mesh.")
    moving = Path(options.out).suffix in MOVING
    if not (options.picture or moving) and (given := [name for name in ("frames", "fps") if peek(args, name)]):
        raise UserError(f"{given[0]}: samples do not move; name a --picture that does, or an --out that ends in .gif")
    runs = _runs()
    runs.start(options.mesh, options.batch)
    if options.picture or moving:
        how = options.options, options.seed, options.out, options.mesh, options.animation, options.num
        given = [name for name in ("num", "batch", "frames", "fps") if peek(args, name)]
        return runs.picture(Path(options.run), options.picture, *how, given)
    runs.sample(Path(options.run), options.options, options.num, options.seed, options.batch, options.out, options.mesh)


def _evaluate(module: str, build: Build, presets: Presets, args: Args) -> None:
    folder, config = _run(module, presets, args)
    has_samples = getattr(config, "sampling", None) is not None
    fields = [
        ("given", Annotated[Evaluation, tyro.conf.arg(name="")], Evaluation(str(folder))),
        *(_sampling(config, args) if has_samples else []),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = parse(dataclasses.make_dataclass("Evaluate", fields), f"{module} evaluate", args, _about(build, module))
    chosen = getattr(options, "options", None)
    for each, prefix in ((options.given, ""), (options.mesh, "mesh."), *([(chosen, "")] if has_samples else [])):
        check(each, prefix)
    if against := options.given.against:  # whose images are there already
        changes = differences(config.sampling, chosen) if has_samples else []
        if options.given.seed:
            changes = [f"seed: 0 -> {options.given.seed}"]
        if changes:
            raise UserError(f"against={against}: draws no samples, so leave out what they are drawn with, {changes[0]}")
    runs = _runs()
    runs.start(options.mesh, options.given.batch)
    runs.evaluate(Path(options.given.run), options.given, chosen, options.mesh)


def _export(module: str, build: Build, presets: Presets, args: Args) -> None:
    folder, config = _run(module, presets, args)
    has_samples = getattr(config, "sampling", None) is not None
    fields = [
        ("run", _option(str, "Folder of the run; the newest unless given."), str(folder)),
        ("given", Annotated[Export, tyro.conf.arg(name="")], Export()),
        *(_sampling(config, args) if has_samples else []),
    ]
    options: Any = parse(dataclasses.make_dataclass("Export", fields), f"{module} export", args)
    check(options.given)
    if has_samples:
        check(options.options)
    runs = _runs()
    runs.start(MeshConfig(), 1)
    runs.export_run(Path(options.run), options.given, getattr(options, "options", None))


def _edit(command: str, module: str, presets: Presets, args: Args) -> None:
    groups = picture_commands.groups_of(command, module, getattr(next(iter(presets.values())), "sampling", None))
    folder, config = _run(module, presets, args)
    fields = [
        ("run", _option(str, "Folder of the run; the newest unless given."), str(folder)),
        *picture_commands.fields_of(groups),
        *(_sampling(config, args) if groups.family == "noise" else []),
        ("out", _option(str, "The .png to write; beside the run unless given."), ""),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = parse(dataclasses.make_dataclass(command, fields), f"{module} {command}", args)
    named = [*groups.kinds, *(["options"] if groups.family == "noise" else [])]
    for name, prefix in (*((name, "") for name in named), ("mesh", "mesh.")):
        check(getattr(options, name), prefix)
    if groups.family == "noise" and command == "edit":
        options.how = picture_commands.with_method(options.how, bool(peek(args, "mask")))
    values = {name: getattr(options, name) for name in named}
    picture_commands.check_effects(command, groups, values, getattr(config, "sampling", None))
    runs = _runs()
    runs.start(options.mesh, 1)
    runs.edit_pictures(groups.family, command, Path(options.run), values, options.out, options.mesh)


def _run(module: str, presets: Presets, args: Args) -> tuple[Path | str, Any]:
    """The run that the arguments name, or the newest, and its config; for --help alone, the first preset's."""
    name = peek(args, "run")
    first = next(iter(presets.values()))
    if not name and HELP & set(args):
        return "", first
    folder = Path(name) if name else newest_run(Path("runs") / module.split(".")[-1])
    stored = _stored(folder, module)
    if stored is None:
        raise UserError(f"run={folder}: no run there (it has no config.json)")
    return folder, _config(type(first), stored)


def _sampling(config: Any, args: Args) -> list[Any]:
    """The fields of the experiment's sampling options: the sampler's name, and the options themselves."""
    options = chosen_sampler(config.sampling, args)
    field = ("options", Annotated[type(options), tyro.conf.arg(name="")], dataclasses.field(default=options))
    return [*sampler_field(options), field]


def _config(kind: type, stored: dict[str, Any]) -> Any:
    """A run's config, but for the machines it ran on: this one may be another."""
    return dataclasses.replace(from_dict(kind, stored["config"]), mesh=MeshConfig())  # pyright: ignore[reportArgumentType]


def _stored(folder: str | Path, module: str) -> dict[str, Any] | None:
    """The config.json of a run of this experiment; None where there is none."""
    if not (Path(folder) / "config.json").is_file():
        return None
    stored = read_config(Path(folder))
    if stored["module"] != module:
        raise UserError(f"run={folder}: is a run of {stored['module']}, not of {module}")
    return stored
