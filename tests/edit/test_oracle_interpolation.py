"""Lines and arcs against the numbers of StyleGAN's and DDIM's conventions."""

import jax
import jax.numpy as jnp
import pytest

from jgen.edit.latents import lerp, slerp_sines
from jgen.metrics import paths
from tests.oracle import Oracle, files


@pytest.mark.parametrize("path", files("image_ops", "interpolation"))
def test_interpolation(path):
    o = Oracle(path)
    a, b, t = (jnp.asarray(o[f"in/{name}"], jnp.float32) for name in "abt")
    unit = jnp.stack([paths.slerp(a, b, jnp.full(len(a), share)) for share in t])
    kept = jax.vmap(slerp_sines, (0, 0, None), 1)(a, b, t)
    o.check("out/slerp_unit_output", unit)
    o.check("out/norms_unit_output", jnp.linalg.norm(unit, axis=-1))
    o.check("out/slerp_keeps_norms", kept)
    o.check("out/norms_keeps", jnp.linalg.norm(kept, axis=-1))
    o.check("out/lerp", jax.vmap(lerp, (0, 0, None), 1)(a, b, t))
    o.check_whole()
