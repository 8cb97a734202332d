"""Moving pictures of style-based generators: walks through W, inputs that are shifted and turned, and texture that sticks.

A frame is a function of the time, so that one compiled program makes all of them, whatever their number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgen.edit.latents import closed_walk
from jgen.edit.space import StyleSpace
from jgen.metrics.equivariance import rotation_matrix
from jgen.models.gan.stylegan2 import truncate
from jgen.samplers import image_keys
from jgen.train.stage import Picture, Stage
from jgen.types import Array, Batch, Extra, Key, Params

Frame = Callable[[Params, Extra, int, Array], Array]
"""(params, extra, seed, time in 0..1) -> images [N, H, W, C] of one frame; at 1 they are those at 0 again."""

IMAGES, POINTS = 8, 4
"""Images side by side, and styles that a walk passes."""
SHIFT = 0.25
"""Radius of the circle that shifted images move on, in widths of the image."""
STRIPS, STRIP_STEPS, LEAST_STRIP = 4, 256, 8
"""Strips of a sticking picture, steps of the walk that each shows, and the least of its pixels' rows."""


def animations(stage: Stage, options: Any) -> dict[str, Frame]:
    """Those that a stage can make: walk of a generator that has styles; translate and rotate where its input has a place."""
    found: dict[str, Frame] = {}
    if (space := stage.space) is not None:

        def walk(params: Params, extra: Extra, seed: int, time: Array) -> Array:
            ws = walks(space, params, extra, seed, IMAGES, time[None], *_how(options))
            return _shown(space, params, extra, ws[:, 0])

        found["walk"] = walk
    if stage.moved is not None:
        circle = lambda time: 2 * jnp.pi * time - jnp.pi / 2  # noqa: E731 - starts at the top
        found["translate"] = _moved(stage, options, lambda time: _shift(jnp.cos(circle(time)), 1 + jnp.sin(circle(time))))
        found["rotate"] = _moved(stage, options, lambda time: rotation_matrix(-2 * jnp.pi * time))
    return found


def _shift(x: Array, y: Array) -> Array:
    """The inverse of a move on the circle, from its top, where images are as they were."""
    return jnp.eye(3).at[:2, 2].set(-SHIFT * jnp.stack([x, y]))


def _moved(stage: Stage, options: Any, transform: Callable[[Array], Array]) -> Frame:
    def frame(params: Params, extra: Extra, seed: int, time: Array) -> Array:
        assert stage.moved is not None
        return jnp.clip(stage.moved(params, extra, image_keys(seed, IMAGES), options, transform(time)), -1, 1)

    return frame


def _how(options: Any) -> tuple[float, int]:
    """(psi, label) of options of sampling."""
    return getattr(options, "psi", 1.0), getattr(options, "label", -1)


def walks(
    space: StyleSpace, params: Params, extra: Extra, seed: int | Array, rows: int, times: Array, psi: float | Array, label: int
) -> Array:
    """ws [rows, T, num_ws, D] at times in 0..1: each row's ring through styles of its own, pulled to their mean by psi.

    label: the class of all styles; -1 draws one for each, so that a walk passes several. Raises UserError for a class of a
    generator without classes.
    """
    keys = image_keys(seed, rows * POINTS)
    ws = truncate(space.styles(params, extra, keys, label), space.mean(extra, label), psi)
    points = ws.reshape(rows, POINTS, *ws.shape[1:])
    return jax.vmap(closed_walk, (0, None))(points, times)


def _shown(space: StyleSpace, params: Params, extra: Extra, ws: Array) -> Array:
    return jnp.clip(space.synthesize(params, extra, ws), -1, 1)


def sticking(space: StyleSpace, options: Any) -> Picture:
    """The picture of texture sticking (Karras et al. 2021, figure 1, right): [STRIPS, rows, STRIP_STEPS, C].

    A column of a quarter of the pixels, at least 8, in the middle of each image of a walk in W, side by side. Texture that is
    fixed to pixels draws horizontal streaks; texture that moves with the depicted thing draws lines that bend with it.
    """

    def picture(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        seed = jax.random.randint(key, (), 0, 2**31 - 1)
        times = jnp.linspace(0, 1 / POINTS, STRIP_STEPS)  # from the first style to the second
        ws = walks(space, params, extra, seed, STRIPS, times, *_how(options))

        def column(ws: Array) -> Array:
            images = _shown(space, params, extra, ws)
            side = images.shape[1]
            height = max(side // 4, min(side, LEAST_STRIP))
            return images[:, (side - height) // 2 : (side + height) // 2, side // 2]

        columns = jax.lax.map(column, jnp.swapaxes(ws, 0, 1))  # [T, STRIPS, rows, C]
        return jnp.transpose(columns, (1, 2, 0, 3))

    return picture
