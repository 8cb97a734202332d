"""Winograd's convolution (Lavin & Gray 2016, arXiv:1509.09308): 3x3 and 2x2 kernels by 1/4 and 4/9 of the products.

Tiles of the image and the kernel are mixed into n x n planes (n = 6 or 4), multiplied plane by plane as matrices over the
channels, and mixed back into m x m pixels each (4 or 3): Y = A^T [(G g G^T) * (B^T d B)] A, equation 8. Its error is two to
four times that of a plain float32 convolution, a few roundings. The kernel's gradient goes the same way backwards.

It is for CPUs, where wide layers gain (`python -m benchmarks conv`); accelerators have convolutions of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.nn.trilinear import closed
from jgen.types import Array

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below, columns left and right."""


class Transform(NamedTuple):
    """Matrices for kernels with r taps an axis, to m outputs: the paper's B^T [n, n], G [n, r], A^T [m, n], n = m + r - 1."""

    pixels: np.ndarray
    taps: np.ndarray
    sums: np.ndarray


def toom_cook(points: Sequence[float], taps: int) -> Transform:
    """Toom and Cook's, from polynomials that are multiplied by their values at n - 1 points and at infinity."""
    n = len(points) + 1
    outputs = n + 1 - taps
    b, g, a = np.zeros((n, n)), np.zeros((n, taps)), np.zeros((outputs, n))
    for j, point in enumerate(points):
        others = np.delete(points, j)
        b[j, : n - 1] = np.poly(others)[::-1]
        g[j] = point ** np.arange(taps) / np.prod(point - others)
        a[:, j] = point ** np.arange(outputs)
    b[-1], g[-1, -1], a[-1, -1] = np.poly(points)[::-1], 1, 1
    return Transform(*(m.astype(np.float32) for m in (b, g, a)))


TRANSFORMS = {2: toom_cook((0, 1, -1), 2), 3: toom_cook((0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)), 3)}
"""By the kernel's size. With points whose products are 1 the error is half that of 0, 1, -1, 2 and -2."""
LEAST = 48
"""Channels on both sides from which it gains; with fewer, mixing the image costs what the products save."""
PIECE = 300_000
"""Numbers of the images, before they are mixed, whose planes still stay in the cache."""


_enabled = True


@contextmanager
def off() -> Iterator[None]:
    """Programs that are traced within take the plain convolution."""
    global _enabled
    _enabled = False
    try:
        yield
    finally:
        _enabled = True


def pays(x: Array, kernel: Array, padding: Padding) -> bool:
    """Whether to go this way rather than by the compiler's convolution."""
    return (
        _enabled
        and jax.default_backend() == "cpu"
        and x.dtype == kernel.dtype == jnp.float32
        and kernel.shape[0] == kernel.shape[1]
        and kernel.shape[0] in TRANSFORMS
        and min(kernel.shape[2:]) >= LEAST
        and tiles(x, kernel, padding) >= fewest_tiles(kernel) * jax.device_count()
        and all(0 <= p < kernel.shape[0] for axis in padding for p in axis)
    )


def fewest_tiles(kernel: Array) -> int:
    """A device, from which it gains; with fewer, mixing the kernel costs what the products save."""
    return max(64, min(kernel.shape[2:]) // 4)


def tiles(x: Array, kernel: Array, padding: Padding) -> int:
    """Blocks of the output that are made at once, over the batch."""
    m = len(TRANSFORMS[len(kernel)].sums)
    tall, wide = (-(-(n + sum(p) - len(kernel) + 1) // m) for n, p in zip(x.shape[1:3], padding))
    return len(x) * tall * wide


def convolve(x: Array, kernel: Array, padding: Padding) -> Array:
    """x [B, H, W, I] * kernel [r, r, I, O] -> [B, H', W', O], r 2 or 3, padding below r. Reverse mode only, of any order."""
    return _convolved(x, kernel, (padding, len(kernel)))


How = tuple[Padding, int]
"""The padding, and the kernel's size."""


def _from_image_and_kernel(x: Array, kernel: Array, how: How) -> Array:
    return _products(x, kernel, how[0], turned=False)


def _from_kernel_and_output(kernel: Array, dy: Array, how: How) -> Array:
    """The gradient by x: dy convolved with the kernel turned by half a circle, its channels exchanged."""
    return _products(dy, kernel, turned_padding(*how), turned=True)


def _from_image_and_output(x: Array, dy: Array, how: How) -> Array:
    """The gradient [r, r, I, O] by the kernel."""
    return gradient_of_kernel(lambda x: x, (x,), dy, *how)


_convolved, _, _ = closed(_from_image_and_kernel, _from_kernel_and_output, _from_image_and_output)


def _products(x: Array, kernel: Array, padding: Padding, turned: bool) -> Array:
    return by_parts(*products(x.shape, kernel, padding, turned), x)


# The rest works on a part of the batch at a time, whose planes stay in the cache, so that what comes before and after a
# convolution can be done there too (`jgen.nn.silu_conv`).


def turned_padding(padding: Padding, size: int) -> Padding:
    """Padding of the convolution that is the gradient by the image."""
    (top, bottom), (left, right) = padding
    return (size - 1 - top, size - 1 - bottom), (size - 1 - left, size - 1 - right)


def products(shape: Sequence[int], kernel: Array, padding: Padding, turned: bool) -> tuple[Callable[[Array], Array], int]:
    """The convolution of a part of images [B, H, W, C] of this shape, and how many numbers of an image it works on.

    turned: with the kernel turned by half a circle, from its O channels to its I.
    """
    size = len(kernel)
    transform = TRANSFORMS[size]
    height, width = (n + sum(p) - size + 1 for n, p in zip(shape[1:3], padding))
    # The matrix is turned rather than the kernel.
    matrix = transform.taps[:, ::-1] if turned else transform.taps
    taps = _mix(matrix, list(kernel))
    taps = _mix(matrix, [taps[:, s] for s in range(size)]).reshape(-1, *kernel.shape[2:])

    def some(x: Array) -> Array:
        planes = _planes(x, padding, (height, width), transform)
        made = lax.dot_general(planes, taps, (((2,), (2 if turned else 1,)), ((0,), (0,))))
        return _gather(made, len(x), height, width, transform)

    return some, height * width * max(kernel.shape[2:])


def gradient_of_kernel(image: Callable[..., Array], arrays: Any, dy: Array, padding: Padding, size: int) -> Array:
    """The gradient [r, r, I, O] by the kernel, r = size; the convolution's input is image(*arrays), made part by part."""
    x, transform = jax.eval_shape(image, *arrays), TRANSFORMS[size]
    n = len(transform.pixels)
    numbers = max(x.size // len(x), dy[0].size)
    shape, (dy, arrays) = dy.shape[1:3], _in_parts((dy, arrays), numbers)
    groups, parts = dy.shape[:2]

    def step(k: Array | int, total: Array) -> Array:
        pixels = _planes(image(*_part(arrays, k)), padding, shape, transform)
        back = _spread(_part(dy, k), transform)
        pixels, back = (v.reshape(n * n, groups, -1, v.shape[-1]) for v in (pixels, back))
        return total + lax.dot_general(pixels, back, (((2,), (2,)), ((0, 1), (0, 1))))

    # A sum for each device, so that they are added up once, after the loop.
    total = jnp.zeros((n * n, groups, x.shape[-1], dy.shape[-1]), x.dtype)
    planes = jnp.sum(lax.fori_loop(0, parts, step, total) if parts > 1 else step(0, total), 1)
    rows = _mix(transform.taps.T, list(planes.reshape(n, n, *planes.shape[1:])))
    return _mix(transform.taps.T, [rows[:, i] for i in range(n)])


def by_parts(some: Callable[..., Any], numbers: int, *arrays: Any) -> Any:
    """some(*arrays), made part after part of the batch, each small enough for the cache. All are trees of arrays [B, ...].

    numbers: of an image that it works on, which decide how large a part is.
    """
    pieces = _in_parts(arrays, numbers)
    groups, parts = jax.tree.leaves(pieces)[0].shape[:2]
    if parts == 1:
        return some(*arrays)

    def step(k: Array, made: Any) -> Any:
        def put(whole: Array, part: Array) -> Array:
            return lax.dynamic_update_index_in_dim(whole, part.reshape(groups, -1, *part.shape[1:]), k, 1)

        return jax.tree.map(put, made, some(*_part(pieces, k)))

    def empty(part: Any) -> Array:
        return jnp.zeros((groups, parts, len(part) // groups, *part.shape[1:]), part.dtype)

    made = jax.tree.map(empty, jax.eval_shape(lambda: some(*_part(pieces, 0))))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[3:]), lax.fori_loop(0, parts, step, made))


def _in_parts(arrays: Any, numbers: int) -> Any:
    """A tree of arrays [B, ...] as [groups, parts, images, ...]: a group a device, in parts that stay in the cache."""
    batch, devices = len(jax.tree.leaves(arrays)[0]), jax.device_count()
    groups = devices if batch % devices == 0 else 1
    each, parts = batch // groups, 1
    while each % (2 * parts) == 0 and numbers * each > PIECE * parts:
        parts *= 2
    return jax.tree.map(lambda v: v.reshape(groups, parts, -1, *v.shape[1:]), arrays)


def _part(arrays: Any, k: Array | int) -> Any:
    """Part k of all groups, as one batch."""
    pieces = jax.tree.map(lambda v: lax.dynamic_index_in_dim(v, k, 1, keepdims=False), arrays)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), pieces)


def _mix(matrix: np.ndarray, arrays: Sequence[Array]) -> Array:
    """sum_j matrix[i, j] arrays[j], for all i along a new first axis: products that small are slow as matrices."""
    return jnp.stack([sum(v if c == 1 else c * v for c, v in zip(row, arrays) if c) for row in matrix.tolist()])


def _planes(x: Array, padding: Padding, shape: Sequence[int], transform: Transform) -> Array:
    """Tiles of x, one for every m x m of the output's shape, mixed: [n n, tiles, C], planes ordered as columns, then rows."""
    (m, n), size = transform.sums.shape, transform.taps.shape[1]
    tall, wide = (-(-length // m) for length in shape)
    # Strips of m rows and columns: a tile takes its own and the first of those after.
    rims = [(p[0], m * tiles + m - length - p[0]) for p, tiles, length in zip(padding, (tall, wide), x.shape[1:3])]
    strips = jnp.pad(x, ((0, 0), *rims, (0, 0))).reshape(len(x), tall + 1, m, wide + 1, m, x.shape[-1])
    own, after = strips[:, :tall], strips[:, 1:]
    rows = _mix(transform.pixels, [own[:, :, k] for k in range(m)] + [after[:, :, k] for k in range(size - 1)])
    own, after = rows[:, :, :, :wide], rows[:, :, :, 1:]
    planes = _mix(transform.pixels, [own[..., k, :] for k in range(m)] + [after[..., k, :] for k in range(size - 1)])
    return planes.reshape(n * n, -1, x.shape[-1])


def _gather(planes: Array, images: int, height: int, width: int, transform: Transform) -> Array:
    """Products [n n, tiles, O] mixed into pixels [B, H', W', O]."""
    sums = transform.sums
    m, n = sums.shape
    tall, wide = -(-height // m), -(-width // m)
    half = _mix(sums, list(planes.reshape(n, n, images, tall, wide, planes.shape[-1])))  # [m, n, B, tall, wide, O]
    # Written straight into place, [B, tall, m, wide, m, O].
    rows = [jnp.asarray(sums[:, i].reshape(1, 1, m, 1, 1, 1)) * jnp.moveaxis(half[:, i], 0, 3)[:, :, None] for i in range(n)]
    pixels = reduce(jnp.add, rows)
    return pixels.reshape(images, m * tall, m * wide, -1)[:, :height, :width]


def _spread(dy: Array, transform: Transform) -> Array:
    """The adjoint of `_gather`: [n n, tiles, O] from dy [B, H', W', O]."""
    matrix = transform.sums.T
    n, m = matrix.shape
    images, height, width, features = dy.shape
    tall, wide = -(-height // m), -(-width // m)
    dy = jnp.pad(dy, ((0, 0), (0, m * tall - height), (0, m * wide - width), (0, 0)))
    strips = dy.reshape(images, tall, m, wide, m, features)
    rows = _mix(matrix, [strips[:, :, k] for k in range(m)])
    return _mix(matrix, [rows[..., k, :] for k in range(m)]).reshape(n * n, -1, features)
