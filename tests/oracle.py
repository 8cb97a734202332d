"""Golden numbers from the original authors' code: $JGEN_ORACLES, else beside the checkout; tests skip without them."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(os.environ.get("JGEN_ORACLES") or Path(__file__).resolve().parents[2] / "shared" / "oracles")


class Oracle:
    """One file: `o["in/x"]`, `o.config`, and comparison at its own tolerance."""

    def __init__(self, path: Path):
        self.path, self.arrays = path, np.load(path)
        self.meta = json.loads(str(self.arrays["meta"]))
        self.config = self.meta["config"]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays.files

    @property
    def names(self) -> list[str]:
        return self.arrays.files

    def nhwc(self, name: str) -> np.ndarray:
        """An array [..., C, H, W] as [..., H, W, C]."""
        return np.moveaxis(self[name], -3, -1)

    def check(self, name: str, value: Any, rtol: float | None = None, image: bool = False) -> None:
        """Fails unless |difference| <= rtol * max|reference|."""
        want = (self.nhwc(name) if image else self[name]).astype(np.float64)
        value = np.asarray(value, np.float64)
        assert value.shape == want.shape, f"{name}: shape {value.shape}, not {want.shape}"
        worst = np.max(np.abs(value - want)) if want.size else 0.0
        limit = (rtol or self.meta["rtol_suggested"]) * np.max(np.abs(want))
        assert worst <= limit, f"{self.path.name} {name}: off by {worst:.3g}, allowed {limit:.3g}"


def files(family: str, prefix: str) -> list[Any]:
    """Parameters for a test: every file of a family whose name begins with `prefix`; one skipped where none is there."""
    found = sorted((ROOT / family).glob(f"{prefix}*.npz"))
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
