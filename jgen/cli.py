"""The command line of every experiment module: train (the default), sample, evaluate.

`jgen.main(Config, build, presets)` is all a module calls. jax is imported only once the arguments are understood.
"""

import dataclasses
import errno
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jgen import memory
from jgen.config import Evaluation, MeshConfig, differences, from_dict, newest_run, to_dict
from jgen.errors import UserError, nearest

COMMANDS = ("train", "sample", "evaluate")


def main(
    config: type, build: Callable[[Any], Any], presets: Mapping[str, Any] | None = None, args: list[str] | None = None
) -> None:
    """Runs an experiment from the shell; exits with 2 and one line for bad input.

    config: the frozen dataclass of the experiment, with fields data, train, mesh and sampling. presets: named configs;
    the first is the default. build: config -> Experiment.
    """
    args = list(sys.argv[1:] if args is None else args)
    command = args.pop(0) if args and not args[0].startswith("-") else "train"
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = build.__module__ if build.__module__ != "__main__" or spec is None else spec.name
    presets = presets or {"default": config()}
    try:
        if command not in COMMANDS:
            raise UserError(f"{command}: no such command{nearest(command, list(COMMANDS))}; it may be {', '.join(COMMANDS)}")
        memory.keep()
        run = {"train": _train, "sample": _sample, "evaluate": _evaluate}[command]
        run(module, build, presets, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(
            f"error: {error.strerror}: what was written before is intact; free some space and run it again",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _train(module: str, build: Callable[[Any], Any], presets: Mapping[str, Any], args: list[str]) -> None:
    run, preset = _peek(args, "run"), _peek(args, "preset")
    stored = _stored(run, module) if run else None
    name = preset or (stored["preset"] if stored else next(iter(presets)))
    if name not in presets:
        raise UserError(f"preset={name}: must be one of {', '.join(presets)}{nearest(name, list(presets))}")
    config_class = type(presets[name])
    default = _config(config_class, stored) if stored and not preset else presets[name]

    fields = [
        ("config", Annotated[config_class, tyro.conf.arg(name="")], dataclasses.field(default=default)),
        ("preset", Annotated[Literal[tuple(presets)], tyro.conf.arg(help="Named settings to begin from.")], name),
        ("run", Annotated[str, tyro.conf.arg(help="Folder of the run; one that exists is resumed.")], run or ""),
        (
            "dry_run",
            Annotated[bool, tyro.conf.arg(help="Show parameters, FLOPs and memory of a step, then stop.")],
            False,
        ),
        (
            "accept_changes",
            Annotated[bool, tyro.conf.arg(help="Resume with settings that differ from the run's.")],
            False,
        ),
    ]
    options: Any = _parse(dataclasses.make_dataclass("Train", fields), module, args)  # pyright: ignore
    config = options.config

    from jgen.train.distributed import start

    start(config.mesh, config.data.batch_size)
    from jgen.runs import began, train

    folder = Path(options.run or f"runs/{module.split('.')[-1]}/{name}-{began()}")
    if stored:
        stored_data = stored["config"]["data"]
        if config.data.name == stored_data["name"]:
            facts = {k: stored_data[k] for k in ("num_classes",)} | {"shape": tuple(stored_data["shape"])}
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, **facts))
        # Settings that there were none of then have their defaults.
        before, now = (json.loads(json.dumps(to_dict(c))) for c in (from_dict(config_class, stored["config"]), config))
        changed = differences(before, now)
        if changed and not options.accept_changes:
            raise UserError(
                f"run={folder}: its settings differ, {'; '.join(changed)}; start another run, or go on with --accept-changes"
            )
    train(module, name, build, config, folder, options.dry_run)


def _sample(module: str, build: Callable[[Any], Any], presets: Mapping[str, Any], args: list[str]) -> None:
    folder, config = _run(module, presets, args)
    fields = [
        *_sampling(module, config, must=True),
        ("run", Annotated[str, tyro.conf.arg(help="Folder of the run; the newest where none is given.")], str(folder)),
        ("num", Annotated[int, tyro.conf.arg(help="Images; the other pictures have as many as they show.")], 64),
        ("seed", Annotated[int, tyro.conf.arg(help="Image i depends on (seed, i) alone.")], 0),
        ("batch", Annotated[int, tyro.conf.arg(help="Images at a time.")], 64),
        (
            "out",
            Annotated[str, tyro.conf.arg(help="A .png for a grid, .npz for uint8 arrays, or a folder of PNGs.")],
            "",
        ),
        ("picture", Annotated[str, tyro.conf.arg(help="One of the run's other pictures, in place of samples.")], ""),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = _parse(dataclasses.make_dataclass("Sample", fields), f"{module} sample", args)  # pyright: ignore

    from jgen.train.distributed import start

    start(options.mesh, options.batch)
    from jgen.runs import picture, sample

    if options.picture:
        return picture(Path(options.run), options.picture, options.options, options.seed, options.out, options.mesh)
    sample(Path(options.run), options.options, options.num, options.seed, options.batch, options.out, options.mesh)


def _evaluate(module: str, build: Callable[[Any], Any], presets: Mapping[str, Any], args: list[str]) -> None:
    folder, config = _run(module, presets, args)
    fields = [
        ("given", Annotated[Evaluation, tyro.conf.arg(name="")], Evaluation(str(folder))),
        *_sampling(module, config, must=False),
        ("mesh", MeshConfig, MeshConfig()),
    ]
    options: Any = _parse(dataclasses.make_dataclass("Evaluate", fields), f"{module} evaluate", args)  # pyright: ignore

    from jgen.train.distributed import start

    start(options.mesh, options.given.batch)
    from jgen.runs import evaluate

    evaluate(Path(options.given.run), options.given, getattr(options, "options", None), options.mesh)


def _run(module: str, presets: Mapping[str, Any], args: list[str]) -> tuple[Path | str, Any]:
    """The run that the arguments name, or the newest, and its config; for --help alone, the first preset's."""
    name = _peek(args, "run")
    first = next(iter(presets.values()))
    if not name and {"-h", "--help"} & set(args):
        return "", first
    folder = Path(name) if name else newest_run(Path("runs") / module.split(".")[-1])
    return folder, _config(type(first), _stored(folder, module, must=True))


def _sampling(module: str, config: Any, must: bool) -> list[Any]:
    """The field with the experiment's sampling options, where it has any."""
    options = getattr(config, "sampling", None)
    if options is None and must:
        raise UserError(f"{module}: draws no samples")
    if options is None:
        return []
    return [("options", Annotated[type(options), tyro.conf.arg(name="")], dataclasses.field(default=options))]


def _parse(kind: type, name: str, args: list[str]) -> Any:
    return tyro.cli(kind, prog=f"python -m {name}", args=args)


def _peek(args: list[str], name: str) -> str:
    """The value of an option before the arguments are parsed, since the defaults of the others depend on it."""
    for i, word in enumerate(args):
        if word == f"--{name}" and i + 1 < len(args):
            return args[i + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return ""


def _config(kind: type, stored: Any) -> Any:
    """A run's config, but for the machines it ran on: this one may be another."""
    config: Any = from_dict(kind, stored["config"])
    return dataclasses.replace(config, mesh=MeshConfig())


def _stored(folder: Any, module: str, must: bool = False) -> dict[str, Any] | None | Any:
    """What config.json of a run of this experiment says, None where there is none. Raises UserError where it must."""
    path = Path(folder) / "config.json"
    if path.is_file():
        try:
            stored = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: not JSON ({error})") from error
        if stored["module"] != module:
            raise UserError(f"run={folder}: is a run of {stored['module']}, not of {module}")
        return stored
    if must:
        raise UserError(f"run={folder}: no run there (it has no config.json)")
    return None
