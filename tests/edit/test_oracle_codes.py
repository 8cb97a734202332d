"""The pool and the norm of encoders' codes against the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.edit import latent_losses
from jgen.edit.pool import empty_pool, exchange
from jgen.errors import UserError
from tests.oracle import Oracle, files


@pytest.mark.parametrize("path", files("inversion", "latent_pool"))
def test_latent_pool(path):
    o = Oracle(path)
    codes, size = o["in/w"], o.config["pool_size"]
    pool, run = empty_pool(size, codes.shape[2:]), jax.jit(exchange)
    uniforms, indices = iter(o["in/uniforms"]), iter(o["in/indices"])
    shown, seen = [], 0
    for batch in codes:
        draws = []
        for _ in batch:
            uniform = next(uniforms) if seen >= size else 0.0  # in the order in which the original draws
            draws.append((uniform, next(indices) if uniform > 0.5 else 0))
            seen += 1
        pool, out = run(pool, batch, *map(jnp.asarray, zip(*draws)))
        shown.append(out)
    o.check("out/returned", shown, 1e-9)
    o.check("out/pool_end", pool.codes[: len(o["out/pool_end"])], 1e-9)
    o.check_whole()


@pytest.mark.parametrize("path", files("inversion", "w_norm"))
def test_w_norm(path):
    o = Oracle(path)
    for name in [n for n in o.names if n.startswith("out/start_from_avg")]:
        mean = jnp.asarray(o["in/latent_avg"]) if name.endswith("True") else None
        value, grad = jax.value_and_grad(latent_losses.w_norm)(jnp.asarray(o["in/latents"]), mean)
        o.check(name, value)
        o.check(name.replace("out/", "out/grad/"), grad)
    o.check_whole()


def test_an_empty_pool_is_refused_and_no_offset_has_no_norm():
    with pytest.raises(UserError, match="pool=0: must hold at least 1"):
        empty_pool(0, (3,))
    codes = jnp.ones((2, 3, 4))
    assert latent_losses.w_norm(codes, jnp.ones(4)) == 0
    np.testing.assert_allclose(latent_losses.encoder_adversarial_loss(jnp.zeros(3)), np.log(2), rtol=1e-6)
