"""Runs taken elsewhere: weights with their config and a model card, or the sampler as a program."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from jgen.app.card import card
from jgen.app.load import Run, load
from jgen.app.onnx import NETWORK, write_onnx
from jgen.config import to_dict
from jgen.config.export import Export
from jgen.config.migrate import FORMAT
from jgen.errors import UserError
from jgen.files import check_folder, replacing
from jgen.run_folder import GENERATOR, WEIGHTS, read_config
from jgen.samplers import image_keys
from jgen.sharding import make_mesh
from jgen.train import weights
from jgen.types import Array, Extra, Params

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, ARRAYS, FACTS = "sampler.stablehlo", "sampler.safetensors", "sampler.json"


def export(folder: Path, given: Export, options: Any = None) -> Path:
    """Writes a run in another form, and returns the folder. options: of sampling, for a form that holds a sampler.

    Weights of an encoder come with those of the run of its generator, in a folder inside. Raises UserError for a folder that
    holds something else, and for a run that can't be written so.
    """
    run = load(folder, make_mesh(), stage=given.stage)
    if given.to == "weights" and options is not None and to_dict(options) != to_dict(run.stage.options):
        raise UserError("to=weights: sampling is chosen when the weights are used; leave its options out")
    if given.to == "weights" and given.batch != Export().batch:
        raise UserError(f"batch={given.batch}: to=weights draws no images; leave it out, or take to=stablehlo or to=onnx")
    generator = getattr(getattr(run.config, "inversion", None), "gan", "") if given.to == "weights" else ""
    out = Path(given.out) if given.out else folder / f"export-{given.to}"
    names = {"weights": (WEIGHTS, "config.json"), "stablehlo": (PROGRAM, ARRAYS, FACTS), "onnx": (NETWORK,)}[given.to]
    _check_out(out, {*names, "README.md", *([GENERATOR] if generator else [])})
    out.mkdir(parents=True, exist_ok=True)
    stored = public(read_config(folder))
    if generator:  # without which the encoder's stage can't be built
        export(Path(generator), Export(out=str(out / GENERATOR)))
        stored["config"]["inversion"]["gan"] = GENERATOR
    if given.to == "weights":
        write_weights(out, stored, run.stage.name, run.step, run.params, run.extra)
    elif given.to == "onnx":
        write_onnx(run, out / NETWORK, given.batch, options)
    else:
        _write_sampler(run, out, given.batch, options)
    with replacing(out / "README.md") as temporary:
        chosen = run.stage.options if options is None else options
        temporary.write_text(card(run, stored, given.to, given.batch, chosen), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.iterdir() if path.name in (*names, "README.md"))
    print(f"{run.stage.name}, step {run.step}, as {given.to}: {out} ({size / 1e6:.1f} MB)")
    return out


def _check_out(out: Path, own: set[str]) -> None:
    """Raises UserError for a folder with files that an export did not write, such as a run, and where none can be written."""
    if out.is_symlink():
        raise UserError(f"out={out}: is a symbolic link; must be a folder")
    check_folder(out)
    there = {path.name for path in out.iterdir()} if out.exists() else set()
    if there - own or there == {"config.json"}:  # which alone is a run that has just begun
        raise UserError(f"out={out}: holds other files ({min(there - own or there)}); name a new folder")


def public(stored: dict[str, Any]) -> dict[str, Any]:
    """A run's config.json without the folders of the machine that trained it."""
    config = json.loads(json.dumps(stored["config"]))
    data, train = config.get("data", {}), config.get("train", {})
    if "root" in data:
        data["root"] = ""
    kind, _, place = str(data.get("name", "")).partition(":")
    if kind in ("folder", "idx"):
        data["name"] = f"{kind}:{Path(place).name}"
    if "begin_from" in train:
        train["begin_from"] = ""
    config = _named(config)
    return {"format": FORMAT, **{name: stored[name] for name in ("module", "preset")}, "config": config} | (
        {"versions": stored["versions"]} if isinstance(stored.get("versions"), dict) else {}
    )


def _named(value: Any) -> Any:
    """A config in which a file or a folder of this machine has its name alone."""
    if isinstance(value, dict):
        return {name: _named(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_named(each) for each in value]
    if not isinstance(value, str):
        return value
    kind, colon, place = value.rpartition(":")
    return f"{kind}{colon}{Path(place).name}" if place.startswith(("/", "~", "..")) else value


def write_weights(out: Path, stored: dict[str, Any], stage: str, step: int, params: Params, extra: Extra) -> None:
    """Writes a stage's weights and the config.json of its run, which `jgen.load` reads."""
    weights.write(out / WEIGHTS, weights.named(params, extra), {"stage": stage, "step": str(step)})
    with replacing(out / "config.json") as temporary:
        temporary.write_text(json.dumps(stored, indent=2), encoding="utf-8")


def _write_sampler(run: Run, out: Path, batch: int, options: Any) -> None:
    stage, chosen = run.stage, run.stage.options if options is None else options
    if stage.sample is None:
        raise UserError(f"to=stablehlo: {stage.name} draws no samples")
    sample, extra = stage.sample, stage.extra_for(run.extra, chosen, run.mesh)
    tree = {"params": dict(run.params), "extra": dict(extra)}
    arrays, structure = weights.named(run.params, extra), jax.tree.structure(tree)

    def program(given: dict[str, Array], seed: Array, start: Array) -> Array:
        zeros = {name: jnp.zeros(array.shape, array.dtype) for name, array in arrays.items() if name not in given}
        full = jax.tree.unflatten(structure, [{**zeros, **given}[name] for name in arrays])
        return sample(full["params"], full["extra"], image_keys(seed, batch, start), chosen)

    number = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in sorted(arrays.items())}
    write = jax.export.export(jax.jit(program), platforms=PLATFORMS)
    # Sampling leaves some weights unread, such as a discriminator's; those are not written.
    read = [name for i, name in enumerate(shapes) if i in write(shapes, number, number).module_kept_var_idx]
    exported = write({name: shapes[name] for name in read}, number, number)
    with replacing(out / PROGRAM) as temporary:
        temporary.write_bytes(_serialized(exported))
    weights.write(out / ARRAYS, {name: arrays[name] for name in read}, {"stage": stage.name, "step": str(run.step)})
    facts = {"batch": batch, "shape": list(stage.data.shape), "stage": stage.name, "step": run.step, "platforms": PLATFORMS}
    facts["sampling"] = None if chosen is None else to_dict(chosen)
    with replacing(out / FACTS) as temporary:
        temporary.write_text(json.dumps(facts, indent=2))


def _serialized(exported: Any) -> bytes:
    try:
        return exported.serialize()
    except ImportError as error:
        raise UserError("to=stablehlo: needs flatbuffers; pip install flatbuffers") from error


def load_sampler(folder: str | Path) -> Callable[..., np.ndarray]:
    """The sampler that `export --to stablehlo` wrote: (num, seed=0) -> images [num, H, W, C] in [-1, 1].

    Image i depends on (seed, i) alone, as that of the run. The file is a program, which runs on this machine's devices: open
    only those of people whose programs you would run. Raises UserError where the folder holds none.
    """
    folder = Path(folder)
    try:
        exported = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
        arrays = load_file(folder / ARRAYS)
    except Exception as error:  # whatever a library says of a damaged file
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{folder}: no exported sampler there ({reason})") from error
    size = exported.out_avals[0].shape[0]
    call = jax.jit(exported.call)

    def sample(num: int, seed: int = 0) -> np.ndarray:
        if num < 1 or not 0 <= seed < 2**31:
            raise UserError(f"num={num}, seed={seed}: must be at least 1, and from 0 to {2**31 - 1}")
        parts = [np.asarray(call(arrays, np.int32(seed), np.int32(start))) for start in range(0, num, size)]
        return np.concatenate(parts)[:num]

    return sample
