"""Directions of a run's styles by name: GANSpace's components, SeFa's, InterFaceGAN's of an attribute."""

import re
from collections.abc import Sequence

import jax
import numpy as np

from jgen.edit.directions import Components, boundary, extremes, sefa, streamed_components
from jgen.errors import UserError
from jgen.recipes.inversion.invert import Editor
from jgen.types import PyTree

BATCH, BATCHES = 2000, 10
"""Styles of a batch, and batches, whose components are taken; GANSpace takes a million styles."""
COMPONENTS = 80
"""Components that the stream of batches keeps at least, where there are as many; as in GANSpace."""


def attribute_direction(codes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """InterFaceGAN's direction [D] to higher scores [N] of codes [N, D], one deviation long.

    Of the scores the highest and lowest 30 % teach; of two values at most as many of one as of the other. Raises UserError
    for scores that are all one.
    """
    values, share = np.unique(scores), 0.3
    if len(values) < 2:
        raise UserError("attribute: all images show the same value, so that nothing says where others are")
    if len(values) == 2:
        share = float(min(np.mean(scores == values[0]), np.mean(scores == values[1])))
    ends = extremes(scores, share, 1.0)
    normal = boundary(codes[ends.train], ends.train_label).normal
    return normal * np.std(codes @ normal)


def direction(
    editor: Editor, name: str, given: np.ndarray | None = None, rows: Sequence[int] | None = None, option: str = "direction"
) -> np.ndarray:
    """A step of size 1 [D] along pca:N or sefa:N; or `given`, read from the file so named. Raises UserError for others.

    rows: those that are moved, whose layers SeFa factorises; all unless given. option: that names it, for errors.
    """
    if given is not None:
        if given.shape != (editor.space.w_dim,):
            raise UserError(f"{option}={name}: of shape {given.shape}; this run's styles have {editor.space.w_dim} numbers")
        return given
    kind, _, number = name.partition(":")
    if kind not in ("pca", "sefa") or not number.isdecimal() or int(number) >= editor.space.w_dim:
        raise UserError(f"{option}={name}: must be pca:N or sefa:N, N below {editor.space.w_dim}, an attribute, or a .npy file")
    if kind == "sefa":
        matrices = style_matrices(editor.params["g"], editor.space.w_dim, editor.space.num_ws)
        chosen = [matrix for row, matrix in matrices.items() if rows is None or row in rows]
        if not chosen:
            raise UserError(f"layers: {option}={name} has no matrix for these rows; there are {sorted(matrices)}")
        return sefa(chosen)[0][int(number)]
    found = components(editor, int(number) + 1)
    return found.components[int(number)] * found.stdev[int(number)]


def components(editor: Editor, count: int) -> Components:
    """The first principal components of the styles, of a stream of batches."""
    kept = max(count, min(COMPONENTS, editor.space.w_dim, BATCH))
    keys = jax.random.split(jax.random.key(0), BATCHES)
    batches = (np.asarray(editor.sampled(jax.random.split(key, BATCH), -1)) for key in keys)
    return list(streamed_components(batches, kept))[-1]


def style_matrices(params: PyTree, w_dim: int, num_ws: int) -> dict[int, np.ndarray]:
    """{row of ws: the matrix [channels, D] that its layer makes its styles with}.

    Of StyleGAN2's layers to RGB only the last has a row of its own, the last one. The first row of StyleGAN3 and XL is that of
    the input, whose place and angle are no style.
    """
    paths = {
        "/".join(getattr(entry, "key", "") for entry in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }

    def order(path: str) -> list[str | int]:
        """By the numbers in the names of layers, so that 8 comes before 16."""
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)]

    kept = {path: leaf.T for path, leaf in paths.items() if re.search(r"/(affine|style)/kernel$", path) and leaf.ndim == 2}
    kept = {path: matrix for path, matrix in kept.items() if matrix.shape[1] == w_dim}
    first, ordered = any("input/affine" in path for path in kept), sorted(kept, key=order)
    layers = [path for path in ordered if "torgb" not in path and "input/affine" not in path]
    found = {first + i: kept[path] for i, path in enumerate(layers)}
    if (to_rgb := [path for path in ordered if "torgb" in path]) and num_ws - 1 not in found:
        found[num_ws - 1] = kept[to_rgb[-1]]
    return found
