"""Images of a stage: drawn batch by batch, each by its own key, and checked."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jgen.config import Traced, check
from jgen.errors import UserError
from jgen.progress import seen, tracked
from jgen.samplers import image_keys
from jgen.samplers.common import explain
from jgen.sharding import batch_sharding, replicated, rounded_up
from jgen.steps import reporting
from jgen.train.stage import Stage, first_batch_shapes
from jgen.types import Array, Batch, Extra, Key, Params, Sample


def draw(stage: Stage, params: Params, extra: Extra, mesh: Mesh, *, num: int, bar: bool = False, **how: Any) -> np.ndarray:
    """`num` images [num, H, W, C] float32; image i depends on (seed, i) alone. how: seed, options, batch as of `drawn`.

    bar: shows how far it is, on a terminal or in a notebook.
    """
    shown, size = bar and seen(), rounded_up(min(how.get("batch", 64), num), mesh) if num > 0 else 0
    batches = drawn(stage, params, extra, mesh, num=num, progress=shown, **how)
    batches = tracked(batches, num, "sampling", size) if bar else batches
    images = np.concatenate([np.asarray(x) for x in batches])[:num]
    if (bad := np.asarray(~np.isfinite(images).all((1, 2, 3)))).any():
        raise UserError(
            f"{stage.name}: {bad.sum()} of {num} images are not finite{_cause(stage, params, extra, mesh, bad, **how)}"
        )
    return images


def _cause(
    stage: Stage, params: Params, extra: Extra, mesh: Mesh, bad: np.ndarray, *, seed: int = 0, options: Any = None, **_: Any
) -> str:
    """Where the sampler of the first bad image went wrong, as far as it checks itself."""
    assert stage.sample is not None
    keys, chosen = image_keys(seed, 1, int(np.argmax(bad))), stage.options if options is None else options
    sample, on_host = stage.sample, jax.device_get((params, stage.extra_for(extra, chosen, mesh)))
    found = explain(lambda params, extra, keys: sample(params, extra, keys, chosen), *on_host, keys)
    return f": {found}" if found else ""


def drawn(
    stage: Stage,
    params: Params,
    extra: Extra,
    mesh: Mesh,
    *,
    num: int,
    seed: int = 0,
    options: Any = None,
    batch: int = 64,
    progress: bool = False,
) -> Iterator[Array]:
    """The images of `draw` as they are made, on the devices, `batch` at a time.

    Every batch has the same shape (the last is not cut to `num`), so the sampler compiles once. progress: it reports
    how far it is (`jgen.steps`), which changes no bit of the images.
    """
    if not 0 <= seed < 2**31:
        raise UserError(f"seed={seed}: must be from 0 to {2**31 - 1}")
    for name, value in (("num", num), ("batch", batch)):
        if value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
    if stage.sample is None:
        raise UserError(f"{stage.name}: has no sampler")
    size, chosen = rounded_up(min(batch, num), mesh), stage.options if options is None else options
    if chosen is not None:
        check(chosen)
    static, traced = _divided(chosen)
    sampler, whole = _compiled(stage.sample, mesh, static, size, progress), stage.extra_for(extra, chosen, mesh)
    return (sampler(params, whole, seed, start, traced) for start in range(0, num, size))


def _divided(options: Any) -> tuple[Any, dict[str, Any]]:
    """The options with those that are `Traced` at their defaults, and the values of these."""
    if options is None:
        return None, {}
    defaults = _traced(type(options))
    values = {name: jax.tree.map(float, getattr(options, name)) for name in defaults}
    return dataclasses.replace(options, **defaults), values


@functools.cache
def _traced(kind: Any) -> dict[str, Any]:
    """{name: default} of the options that are `Traced`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {each.name: each.default for each in dataclasses.fields(kind) if Traced() in marks[each.name]}


@functools.lru_cache(16)
def _compiled(sample: Sample, mesh: Mesh, options: Any, size: int, progress: bool) -> Callable[..., Array]:
    """The jitted sampler of `size` images; weights are arguments, so they are no constants of the program."""

    def run(params: Params, extra: Extra, seed: Array, start: Array, traced: dict[str, Any]) -> Array:
        # Keys are made inside, so that several processes each hold just their own.
        keys = jax.lax.with_sharding_constraint(image_keys(seed, size, start), batch_sharding(mesh))
        with reporting(progress):
            return sample(params, extra, keys, options and dataclasses.replace(options, **traced))

    return jax.jit(run, out_shardings=replicated(mesh))


def check_sampling(stage: Stage, options: Any) -> None:
    """Raises UserError for options of sampling that can't work, and for a sampler of no images, without sampling."""
    if options is not None:
        check(options)
    if (sample := stage.sample) is not None:

        def once(key: Key, batch: Batch) -> Array:
            params, extra = stage.init(key, batch)
            return sample(params, {**extra, **external}, image_keys(0, 1), options)

        external = stage.extra_for({}, options)
        made = jax.eval_shape(once, jax.random.key(0), first_batch_shapes(stage))
        if made.ndim != 4 or len(made) != 1 or not jnp.issubdtype(made.dtype, jnp.floating):
            raise UserError(f"{stage.name}: samples {made.dtype} {list(made.shape)} for one key; must be floats [1, H, W, C]")
