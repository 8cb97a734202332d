"""Golden numbers from the original authors' code: $JGEN_ORACLES, else beside the checkout; tests skip without them."""

import json
import os
from pathlib import Path
from typing import Any

import jax
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
        """(levels [n], images [n, B, H, W, C]) of the calls since it was last asked."""
        jax.effects_barrier()
        calls, self.calls = self.calls, []
        return np.array([sigma for _, sigma in calls]), np.stack([x for x, _ in calls])


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
