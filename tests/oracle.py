"""Golden numbers from the original authors' code: $JGEN_ORACLES, else beside the checkout; tests skip without them."""

import fnmatch
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert.common import linen_path

ROOT = Path(os.environ.get("JGEN_ORACLES") or Path(__file__).resolve().parents[2] / "shared" / "oracles")


class Oracle:
    """One file: `o["in/x"]`, `o.config`, and comparison at its own tolerance.

    The comparisons pass over a result that the file leaves out; `check_whole` finds one that has another name there.
    """

    def __init__(self, path: Path):
        self.path, self.arrays = path, np.load(path)
        self.meta = json.loads(str(self.arrays["meta"]))
        self.config = self.meta["config"]
        self.checked: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays.files

    def under(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names that begin so."""
        return [name.removeprefix(prefix) for name in self.names if name.startswith(prefix)]

    @property
    def names(self) -> list[str]:
        return self.arrays.files

    @property
    def rtol(self) -> float:
        """The file's tolerance; where it has one for each precision, that of the precision that tests compute in."""
        rtol = self.meta.get("rtol_suggested", 1e-4)
        precision = "float64" if jax.config.jax_enable_x64 else "float32"  # pyright: ignore[reportAttributeAccessIssue]
        return rtol.get(precision, 1e-4) if isinstance(rtol, dict) else rtol

    def nhwc(self, name: str) -> np.ndarray:
        """An array [..., C, H, W] as [..., H, W, C]."""
        return np.moveaxis(self[name], -3, -1)

    def weights(self, part: str = "") -> dict[str, np.ndarray]:
        """The official weights, or those under w/PART/ of a file of several networks."""
        prefix = f"w/{part}/" if part else "w/"
        return {n.removeprefix(prefix): self[n] for n in self.names if n.startswith(prefix)}

    def check(self, name: str, value: Any, rtol: float | None = None, image: bool = False) -> None:
        """Fails unless |difference| <= rtol * max|reference|."""
        if name not in self:
            return
        self.checked.add(name)
        want = (self.nhwc(name) if image else self[name]).astype(np.float64)
        value = np.asarray(value, np.float64)
        assert value.shape == want.shape, f"{name}: shape {value.shape}, not {want.shape}"
        worst = np.max(np.abs(value - want)) if want.size else 0.0
        limit = (rtol or self.rtol) * np.max(np.abs(want)) if want.size else 0.0
        assert worst <= limit, f"{self.path.name} {name}: off by {worst:.3g}, allowed {limit:.3g}"

    def check_close(self, name: str, value: Any, rtol: float, atol: float = 0.0) -> None:
        """Fails unless |difference| <= atol + rtol * |reference|, number by number."""
        if name not in self:
            return
        self.checked.add(name)
        np.testing.assert_allclose(np.asarray(value, np.float64), self[name], rtol, atol, err_msg=f"{self.path.name} {name}")

    def check_equal(self, name: str, value: Any) -> None:
        """Fails unless every number is the reference's: of codes, indices and choices."""
        if name not in self:
            return
        self.checked.add(name)
        np.testing.assert_array_equal(np.asarray(value), self[name], err_msg=f"{self.path.name} {name}")

    def check_whole(self, *apart: str) -> None:
        """Fails unless every array of out/ was compared, and any was; apart: patterns of those that are no result."""
        assert self.checked, f"{self.path.name}: nothing compared"
        left = [n for n in self.names if n.startswith("out/") and n not in self.checked]
        left = [n for n in left if not any(fnmatch.fnmatchcase(n, pattern) for pattern in apart)]
        assert not left, f"{self.path.name}: not compared: {', '.join(left)}"


def find(tree: Any, name: str) -> Any:
    """The leaf that linen_path gives an official name."""
    path = linen_path(name)
    for part in path[:-1]:
        tree = tree[part]
    names = {"weight": ("kernel", "scale", "embedding")}.get(path[-1], (path[-1],))
    return next(tree[n] for n in names if n in tree)


def official_gradient(convert: Any, weights: Mapping[str, np.ndarray], name: str, grads: Any) -> np.ndarray:
    """The gradient of an official weight, from those of a converted tree: where the converter puts its numbers tells where
    they are. convert: official weights -> variables."""
    marked = {k: np.zeros_like(v, np.float64) for k, v in weights.items()}
    marked[name] = np.arange(1.0, 1 + weights[name].size).reshape(weights[name].shape)
    found = np.zeros(weights[name].size)
    for placed, grad in zip(jax.tree.leaves(convert(marked)["params"]), jax.tree.leaves(grads), strict=True):
        here = np.asarray(placed) > 0
        found[np.asarray(placed)[here].astype(int) - 1] += np.asarray(grad)[here]
    return found.reshape(weights[name].shape)


def check_gradients(
    o: Oracle, convert: Any, weights: Mapping[str, np.ndarray], grads: Any, apart: tuple[str, ...] = ()
) -> None:
    """Compares every gradient of a weight that the file has; convert, weights, grads: as of `official_gradient`.

    apart: beginnings of names that are others' concern, as those of inputs are.
    """
    names = [n.removeprefix("out/grad/") for n in o.names if n.startswith("out/grad/")]
    mine = [n for n in names if not n.startswith(("in/", *apart))]
    assert len(mine) >= 2
    for name in mine:
        o.check(f"out/grad/{name}", official_gradient(convert, weights, name, grads))


PLAIN_RESAMPLING = {"input_blocks.2": "input_blocks_2_0_op", "output_blocks.1": "output_blocks_1_2_conv"}
"""For ADM's U-Nets without resblock_updown, for `check_blocks`: where a convolution resamples."""


def check_blocks(o: Oracle, modules: Mapping[str, Any], of: Mapping[str, str] = MappingProxyType({}), every: int = 3) -> None:
    """Compares out/block/NAME, of the first image and every third row and column, with what modules gave.

    modules: the "intermediates" that flax captured, with others added. of: official names whose modules have other names here;
    without, dots and slashes are one, and of a block's parts (NAME_0, NAME_1) the last is meant.
    """
    flat = {}
    for path, value in jax.tree_util.tree_leaves_with_path(modules):
        flat["_".join(part.key for part in path if hasattr(part, "key") and part.key != "__call__")] = value
    checked = 0
    for name in (n for n in o.names if n.startswith("out/block/")):
        plain = of.get(name.removeprefix("out/block/"), name.removeprefix("out/block/")).replace(".", "_").replace("/", "_")
        parts = sorted(n for n in flat if n.rpartition("_")[0] == plain and n.rpartition("_")[2].isdecimal())
        assert plain in flat or parts, f"{name}: none of {', '.join(sorted(flat))}"
        value = np.asarray(flat[plain if plain in flat else parts[-1]])[0]
        if o[name].ndim == 3:
            value = np.moveaxis(value[::every, ::every], -1, 0)
        o.check(name, value.reshape(o[name].shape))
        checked += 1
    assert checked


class Heard:
    """A denoiser that keeps the level (float64) and the images of every call, in their order, whatever program they are in."""

    def __init__(self, denoise: Any):
        self.denoise, self.calls = denoise, []

    def __call__(self, x: Any, sigma: Any) -> Any:
        jax.debug.callback(
            lambda x, sigma: self.calls.append((np.asarray(x), float(np.ravel(sigma)[0]))), x, sigma, ordered=True
        )
        return self.denoise(x, sigma)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """(levels [n], images [n, B, H, W, C]) of the calls since the last call of this."""
        jax.effects_barrier()
        calls, self.calls = self.calls, []
        return np.array([sigma for _, sigma in calls]), np.stack([x for x, _ in calls])


TAKEN: set[Path] = set()
"""The files that tests have asked for."""


def files(family: str, prefix: str, apart: tuple[str, ...] = ()) -> list[Any]:
    """Parameters for a test: every file of a family, and of more/, whose name begins with `prefix`; one skipped where none is.

    apart: beginnings of names that another test takes.
    """
    found = [path for folder in (ROOT, ROOT / "more") for path in sorted((folder / family).glob(f"{prefix}*.npz"))]
    found = [path for path in found if not path.name.startswith(apart)]
    TAKEN.update(found)
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {family}/{prefix}*.npz in {ROOT}"), id=prefix)]
    return [pytest.param(path, id=path.stem) for path in found]


def analytic(oracle: Oracle, net: str) -> Any:
    """The stand-in network of the files of diffusion, channels last: (its function, its weights)."""
    a, b, c = (jnp.asarray(oracle[f"w/{net}/{k}"]) for k in "ABC")

    def apply(x, t, a=a, b=b, c=c):
        time = (b[None, :] * t[:, None] / 1000)[:, None, None]
        return jnp.einsum("oc,bhwc->bhwo", a, x) + time + jnp.moveaxis(c, 0, -1)[None]

    return apply, (a, b, c)
