"""Helpers that every sampler shares: one key per image, the loop over times, and clipping as a transform of the predictor."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import checkify

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.schedules import Schedule, evenly
from jgen.steps import report
from jgen.types import Array, Key, Predict, Prediction, as_prediction

F = TypeVar("F", bound=Callable[..., Any])

Trace = Callable[[Array, Array], Any]
"""(x, x0) after a step -> what to keep of it; stacked over the steps and returned beside the images."""


def image_keys(seed: int | Array, num: int, start: int | Array = 0) -> Key:
    """One key per image [num]: that of image i is fold_in(key(seed), start + i)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), start + jnp.arange(num))


def noise(keys: Key, shape: Sequence[int], step: Any = -1) -> Array:
    """Standard normal noise [B, *shape], image i's from keys[i] alone; `step` tells the draws of a loop apart."""

    def one(key: Key) -> Array:
        return jax.random.normal(jax.random.fold_in(key, jnp.asarray(step, jnp.int32).astype(jnp.uint32)), tuple(shape))

    if _Given.shapes is not None:
        _Given.shapes.append((len(keys), *shape))
    if _Given.arrays is not None:
        return _Given.arrays.pop(0)
    if (along := _Walk.along) is None or len(keys) != len(along):
        return jax.vmap(one)(keys)
    # cos^2 + sin^2 = 1: what lies between two draws is standard normal too.
    start = jnp.floor(along).astype(jnp.uint32)
    ends = [jax.vmap(lambda key, n: one(jax.random.fold_in(key, n)))(keys, n % _Walk.stops) for n in (start, start + 1)]
    angle = expand_dims_like((along - start) * (jnp.pi / 2), ends[0])
    return jnp.cos(angle) * ends[0] + jnp.sin(angle) * ends[1]


class _Given:
    arrays: list[Array] | None = None
    shapes: list[tuple[int, ...]] | None = None


@contextlib.contextmanager
def noise_shapes() -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the noise that a sampler draws, in their order, where it is traced within it; filled when it ends."""
    _Given.shapes = shapes = []
    try:
        yield shapes
    finally:
        _Given.shapes = None


@contextlib.contextmanager
def given_noise(arrays: Sequence[Array]) -> Iterator[None]:
    """A sampler that is traced within it takes these arrays, one after the other, for the noise that it draws."""
    _Given.arrays = list(arrays)
    try:
        yield
    finally:
        _Given.arrays = None


class _Walk:
    along: Array | None = None
    stops = 1


@contextlib.contextmanager
def walking(along: Array, stops: int) -> Iterator[None]:
    """A sampler that is traced within it draws noise along a closed walk: `stops` draws of each key, and arcs between them.

    along: float32 [B], where each image stands, from 0 (the first draw) to `stops` (the first one again). Whatever else is
    drawn of the keys stays, so images of one key and nearby places are nearly alike. Noise of another number of keys is as
    ever.
    """
    _Walk.along, _Walk.stops = along, stops
    try:
        yield
    finally:
        _Walk.along = None


def class_labels(keys: Key, label: int, classes: int) -> Array | None:
    """int32 [B]: `label` for every image, or with -1 one drawn for each from its key; None for a model of 0 classes.

    Raises UserError for a label out of range, or one given to a model that takes none.
    """
    if not classes:
        if label != -1:
            raise UserError(f"label={label}: this model is not class-conditional")
        return None
    if not -1 <= label < classes:
        raise UserError(f"label={label}: must be from 0 to {classes - 1}, or -1 to draw one")
    drawn = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1 << 31), (), 0, classes))(keys)
    return drawn if label < 0 else jnp.full_like(drawn, label)


def on_clean(function: F, change: Callable[[Array], Array]) -> F:
    """A predictor or denoiser whose clean images [B, H, W, C] are changed."""

    def changed(x: Array, t: Array) -> Any:
        found = function(x, t)
        return found._replace(x0=change(found.x0)) if isinstance(found, Prediction) else change(found)

    return changed  # pyright: ignore[reportReturnType]


def clip(function: F, low: float = -1.0, high: float = 1.0) -> F:
    """A predictor or denoiser whose clean images are kept within the data's range."""
    return on_clean(function, lambda clean: jnp.clip(clean, low, high))


def dynamic_threshold(function: F, ratio: float = 0.995, least: float = 1.0) -> F:
    """Clean images clipped at the `ratio` quantile of their own absolute pixels and divided by it, where it is above `least`
    (Saharia et al. 2022, arXiv:2205.11487, section 2.3). Of a predictor or a denoiser."""

    def within(clean: Array) -> Array:
        size = jnp.quantile(jnp.abs(clean).reshape(len(clean), -1), float(ratio), axis=1)
        size = expand_dims_like(jnp.maximum(size, least), clean)
        return jnp.clip(clean, -size, size) / size

    return on_clean(function, within)


def check_finite(x: Array, what: str, step: Array, level: Any = None) -> None:
    """Where a sampler went wrong, for `explain`; elsewhere nothing of it is in the program, which can then be exported."""
    if not _Checks.on:
        return
    at = "" if level is None else " (level {level})"
    values = {"step": step} if level is None else {"step": step, "level": level}
    checkify.debug_check(jnp.all(jnp.isfinite(x)), f"the {what} is not finite at step {{step}}{at}", **values)


class _Checks:
    on = False


def explain(sample: Callable[..., Any], *args: Any) -> str:
    """Runs `sample(*args)` again to find the first step at which its checks fail: "" where none does."""
    _Checks.on = True
    try:
        error, _ = jax.jit(checkify.checkify(lambda *args: sample(*args)))(*args)  # traced again, not as it was before
    finally:
        _Checks.on = False
    return (error.get() or "").split(" (`check` failed)")[0]


class Step(NamedTuple):
    """One step of a shortened chain, as the scan sees it."""

    index: Array
    """Position in the shortened chain, from its noisy end (S - 1) down to 0."""
    time: Array
    """The network's time."""


def shorten(schedule: Schedule, timesteps: int | Sequence[int] | np.ndarray | None) -> Schedule:
    """The chain a sampler walks: all of it (None), so many steps evenly spaced, or just the given ones.

    A single step is the last of the chain, since it begins from noise.
    """
    if timesteps is None:
        return schedule
    if np.ndim(timesteps):
        return schedule.respace(timesteps)  # pyright: ignore[reportArgumentType]
    if isinstance(timesteps, bool) or not isinstance(timesteps, (int, np.integer)):
        raise UserError(f"timesteps={timesteps!r}: must be a whole number of steps, increasing indices of steps, or None")
    return schedule.respace([len(schedule) - 1] if timesteps == 1 else evenly(len(schedule), int(timesteps)))


def predicted(predict: Predict, x: Array, time: Array) -> Prediction:
    """The prediction for images x [B, H, W, C] that are all at one time. Raises UserError where it is of another shape."""
    prediction = as_prediction(predict(x, jnp.broadcast_to(time, x.shape[:1])))
    if (shape := jnp.shape(prediction.x0)) != x.shape:
        raise UserError(f"predict: returned {list(shape)} for x of {list(x.shape)}; must be clean images of the same shape")
    return prediction


def check_eta(eta: float, keys: Key, x: Array) -> None:
    """Raises UserError for an eta out of range, and where the keys of its noise are not one for each of images x [B, ...]."""
    if isinstance(eta, (int, float)) and not 0 <= eta <= 1:
        raise UserError(f"eta={eta}: must be from 0, which adds no noise, to 1")
    if eta:
        check_keys(keys, x)


def check_not_negative(**factors: float) -> None:
    """Raises UserError that names a factor of noise below 0."""
    for name, value in factors.items():
        if not value >= 0:
            raise UserError(f"{name}={value}: must be at least 0")


def check_keys(keys: Key | None, x: Array) -> None:
    """Raises UserError where keys of noise are not one for each of images x [B, ...]: one key would be spread over them all."""
    if keys is None:
        raise UserError("keys=None: this sampler draws noise; give it one key an image")
    shape = jnp.shape(keys) if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else jnp.shape(keys)[:-1]
    if shape != x.shape[:1]:
        raise UserError(f"keys: of shape {list(shape)} for {len(x)} images; must be one each, of image_keys")


def check_floats(x: Array) -> None:
    """Raises UserError for an x to begin from that is of whole numbers, such as bytes."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise UserError(f"x: of {x.dtype}; must be floats: noise, or images in [-1, 1] with noise")


def walk(
    update: Callable[[Array, Prediction, Step], tuple[Array, Array]],
    predict: Predict,
    chain: Schedule,
    x: Array,
    trace: Trace | None,
) -> Any:
    """Scans `x, x0 = update(x, predict(x, time), step)` from the noisy end of the chain to its start.

    Returns x, or (x, traces) with a trace. Memory does not grow with the number of steps.
    """
    check_floats(x)
    order = np.arange(len(chain))[::-1]
    steps = Step(jnp.asarray(order, jnp.int32), jnp.asarray(chain.timesteps[order], jnp.int32))

    def body(x: Array, step: Step) -> tuple[Array, Any]:
        prediction = predicted(predict, x, step.time)
        check_finite(prediction.x0, "prediction", len(chain) - 1 - step.index)
        report(len(chain) - 1 - step.index, len(chain), prediction.x0)
        new, x0 = update(x, prediction, step)
        x = new.astype(x.dtype)
        return x, None if trace is None else trace(x, x0)

    x, traces = lax.scan(body, x, steps)
    return x if trace is None else (x, traces)
