"""The knobs that every experiment shares. Plain dataclasses: importing this does not import jax."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jgen.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    name: str = "digits"
    """digits, glyphs, fashion_mnist, idx:FOLDER, folder:FOLDER, or any TFDS name."""
    batch_size: int = 128
    """Images a step, over all devices and hosts."""
    resolution: int = 0
    """Height and width in pixels; 0 keeps the set's own (folders and glyphs: 64)."""
    channels: Literal[0, 1, 3] = 0
    """1 grey, 3 colour; 0 keeps the set's own."""
    split: str = "train"
    """train or test; a TFDS set may have more."""
    limit: int = 0
    """Use only the first so many images; 0 uses all."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    dequantize: bool = False
    """Add uniform noise of one grey level, so that a density on the 8-bit values is proper."""
    captions: Literal["bytes", "minilm"] = "bytes"
    """What captions become, where the set has them: their bytes, or the features of a language model (jgen.data.captions)."""
    skip_bad: bool = False
    """Skip and count the files that can't be read, rather than stop at the first."""
    workers: int = 0
    """Processes that decode a large set; 0 decodes in threads."""
    root: str = ""
    """Where the files are: a folder of IDX files for fashion_mnist, the data_dir of TFDS."""
    shape: Annotated[tuple[int, ...], tyro.conf.Suppress] = ()
    """Height, width, channels: filled in when a run starts, and kept with it."""
    num_classes: Annotated[int, tyro.conf.Suppress] = 0
    """Filled in when a run starts; 0 where the set has no labels."""


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 1000
    """Updates in all."""
    seed: int = 0
    """Initial weights, the order of the data, and all noise depend on this alone."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; the parameters stay float32."""
    accumulate: int = 1
    """Split each batch into so many parts and average their gradients: less memory."""
    remat: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    scan: int = 1
    """Steps in one dispatch (a lax.scan): less overhead for small networks."""
    log_every: int = 1
    """Steps between records in metrics.jsonl and TensorBoard."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    sample_every: int = 500
    """Steps between sample grids; 0 for the last one only."""
    keep_last: int = 2
    """Newest checkpoints to keep."""
    keep_best: int = 1
    """Best checkpoints to keep besides, by the held-out loss."""
    max_bad_steps: int = 10
    """Stop after so many steps in a row with a loss or gradient that is not finite."""
    begin_from: str = ""
    """A run folder whose result this run begins from: later stages go on from its last one, a single stage is tuned. Or the
    folder of one of its stages, to go on from there."""


@dataclass(frozen=True)
class MeshConfig:
    devices: int = 0
    """Devices to use; 0 for all (on a CPU: one a core)."""
    fsdp: int = 1
    """Shard parameters and optimizer state over groups of so many devices; 1 is plain data parallel."""
    distributed: bool = False
    """Several processes, found from the cluster's environment (Slurm, Open MPI, TPU pods, Kubernetes)."""
    coordinator: str = ""
    """Several processes by hand: HOST:PORT of process 0, the same on all."""
    num_processes: int = 0
    """How many processes there are; goes with --mesh.coordinator."""
    process_id: int = -1
    """Which of them this one is, from 0."""


@dataclass(frozen=True)
class Evaluation:
    """What to measure of a run."""

    run: str = ""
    """Folder of the run; the newest where none is given."""
    metrics: str = ""
    """Any of fd,kid,is,pr,dc: samples against a reference set. Without it, the experiment's own evaluation."""
    num: int = 0
    """Samples; or held-out images, without metrics. 0: 1,000, or all of --against; without metrics 256."""
    seed: int = 0
    """Of all noise."""
    split: str = ""
    """Of the run's set: train is the reference of metrics, test is held out, unless given."""
    reference_num: int = 0
    """Images of the reference; 0 for all (10,000 of an endless set)."""
    extractor: str = ""
    """Feature network: the one jgen ships for the run's set unless given, or inception:FILE, vgg16:FILE, cnn:FILE, ..."""
    against: str = ""
    """Score this folder of images, or .npz of uint8 images, in place of the run's samples."""
    batch: int = 64
    """Images at a time."""
    out: str = ""
    """The JSON to write; in the run's folder where none is given."""


# Where and how often something is written, and on what it runs, changes no number of a run.
NOT_COMPARED = {
    "mesh": None,
    "train": {"log_every", "save_every", "sample_every", "keep_last", "keep_best", "max_bad_steps", "scan"},
    "data": {"workers", "root"},
    "sampling": None,
}


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return dataclasses.asdict(config)


RETIRED = {"evaluation_steps"}
"""Fields of earlier versions that changed nothing of a run itself; passed over in its config.json."""


def from_dict(cls: type[T], values: dict[str, Any], path: str = "") -> T:
    """The config of type `cls` that `to_dict` wrote, read back from JSON.

    >>> from_dict(MeshConfig, {"fsdp": 4}).fsdp
    4
    """
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(values) - known - RETIRED)
    if unknown:
        raise UserError(f"config: {path}{unknown[0]} is not a field of {cls.__name__}; was it written by another version?")
    return cls(**{name: _value(hints[name], value, f"{path}{name}.") for name, value in values.items() if name in known})


def _value(hint: Any, value: Any, path: str) -> Any:
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hints = [h for h in typing.get_args(hint) if dataclasses.is_dataclass(h)]
        hint = hints[0] if hints and value is not None else None
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, path)  # pyright: ignore[reportArgumentType]
    of_items = next(iter(typing.get_args(hint)), None) if typing.get_origin(hint) is tuple else None
    return tuple(_value(of_items, v, f"{path}{i}.") for i, v in enumerate(value)) if isinstance(value, (list, tuple)) else value


def differences(old: dict[str, Any], new: dict[str, Any], ignore: Any = NOT_COMPARED, path: str = "") -> list[str]:
    """'field: old -> new' for every field that changes a run's numbers and differs.

    >>> differences({"train": {"steps": 5, "scan": 1}}, {"train": {"steps": 6, "scan": 2}})
    ['train.steps: 5 -> 6']
    >>> differences({"stages": [{"steps": 5}, {"steps": 1}]}, {"stages": [{"steps": 5}, {"steps": 6}]})
    ['stages.1.steps: 1 -> 6']
    """
    rows = []
    for name in sorted(set(old) | set(new)):
        skip = ignore.get(name, set()) if isinstance(ignore, dict) else set()
        if skip is None or (isinstance(ignore, set) and name in ignore):
            continue
        a, b = _by_name(old.get(name)), _by_name(new.get(name))
        if isinstance(a, dict) and isinstance(b, dict):
            rows += differences(a, b, skip, f"{path}{name}.")
        elif _plain(a) != _plain(b):
            rows.append(f"{path}{name}: {a} -> {b}")
    return rows


def _by_name(value: Any) -> Any:
    """Settings in a row as settings named 0, 1, ..."""
    row = isinstance(value, (list, tuple)) and value and all(isinstance(v, dict) for v in value)
    return {str(i): v for i, v in enumerate(value)} if row else value


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def check_at_least(least: int, **values: int) -> None:
    """Raises UserError for the first of the named values below `least`."""
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name.replace('__', '.')}={value}: must be at least {least}")


def check_share(below: bool = False, **values: float) -> None:
    """Raises UserError for the first of the named values that is not from 0 to 1, nor with `below` from 0 to below 1."""
    for name, value in values.items():
        if not 0 <= value <= 1 or (below and value == 1):
            raise UserError(f"{name}={value}: must be a share, from 0 to {'below ' * below}1")


def check_choices(options: Any) -> None:
    """Raises UserError for a field of a dataclass that is none of the choices its Literal type names."""
    if options is None:
        return
    for name, hint in typing.get_type_hints(type(options)).items():
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        if choices and getattr(options, name) not in choices:
            raise UserError(f"{name}={getattr(options, name)}: must be {', '.join(map(str, choices))}")


def newest_run(root: Path) -> Path:
    """The run folder below `root` that was begun last; raises UserError where there is none."""
    runs = sorted(root.glob("*/config.json"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise UserError(f"no run in {root}: train one first, or name a folder with --run")
    return runs[-1].parent
