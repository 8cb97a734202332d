"""Runs made of published weights: their config and all arrays, as `export --to weights` writes them."""

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.app.export import write_weights
from jgen.config import to_dict
from jgen.config.migrate import FORMAT
from jgen.errors import UserError
from jgen.files import replacing
from jgen.run_folder import GENERATOR
from jgen.train.stage import Stage, first_batch_shapes
from jgen.types import PyTree

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published

PRESET, TABLE = "imported", "classes.npz"


def import_weights(published: "Published", folder: Path) -> None:
    """Writes a run of the weights to a folder, with that of an encoder's generator inside; all of it, or nothing.

    Raises UserError for a folder with files in it, and for weights that do not fit their experiment's network.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"name={folder}: holds files; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write(published, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(published: "Published", folder: Path) -> None:
    groups = dict(published.groups)
    if published.generator is not None:
        import_weights(published.generator, folder / GENERATOR)
        groups["inversion"] = replace(groups["inversion"], gan=str(folder / GENERATOR))
    if published.class_table is not None:
        with replacing(folder / TABLE) as temporary, open(temporary, "wb") as file:
            np.savez(file, table=published.class_table)
        groups["own"] = replace(groups["own"], class_file=str(folder / TABLE))
    code: Any = importlib.import_module(published.module)
    config = code.Config(**groups)
    stage = code.build(config).stages[-1]
    params, extra = jax.jit(stage.init)(jax.random.key(0), _zeros(stage))
    params = overlaid(params, published.params, "weights")
    extra = overlaid(extra, published.extra, "state")
    if published.generator is not None:  # the folder may move, with what is in it
        config = replace(config, inversion=replace(config.inversion, gan=GENERATOR))
    stored = {"format": FORMAT, "module": published.module, "preset": PRESET, "config": to_dict(config)}
    write_weights(folder, stored, stage.name, 0, params, extra)
    given = sum(leaf.size for leaf in jax.tree.leaves(published.params))
    print(f"{folder}: {stage.name}, images of {'x'.join(map(str, stage.data.shape))}, {given:,} weights of the file")


def _zeros(stage: Stage) -> dict[str, jax.Array]:
    return {name: jnp.zeros(one.shape, one.dtype) for name, one in first_batch_shapes(stage).items()}


def overlaid(fresh: PyTree, given: PyTree, where: str) -> PyTree:
    """A tree of dicts in which what is given stands in place of what is fresh. Raises UserError for what does not fit."""
    if not isinstance(given, Mapping):
        if isinstance(fresh, Mapping) or jnp.shape(given) != jnp.shape(fresh):
            raise UserError(f"{where}: of another shape than by these settings")
        return jnp.asarray(given, fresh.dtype)
    if not isinstance(fresh, Mapping) or not set(given) <= set(fresh):
        raise UserError(f"{where}: has no place in this experiment's network")
    return {name: overlaid(fresh[name], given[name], f"{where}/{name}") if name in given else fresh[name] for name in fresh}
