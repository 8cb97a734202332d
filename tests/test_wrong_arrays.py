"""Functions called from Python say what is wrong with their arrays, before a number comes of them or a broadcast fails."""

import jax.numpy as jnp
import numpy as np
import pytest

from jgen import schedules
from jgen.edit import latents, styles
from jgen.errors import UserError
from jgen.metrics import class_score, kernel, neighbours
from jgen.samplers import ddim, image_keys, noise

ROWS = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
BROKEN = np.where(np.arange(20)[:, None] == 3, np.nan, ROWS)
KEYS = image_keys(0, 2)
X = noise(KEYS, (4, 4, 1))
CHAIN = schedules.linear(40)
POINT, SHARES = jnp.ones(4), jnp.ones(2)


@pytest.mark.parametrize("call, says", [
    (lambda: class_score.inception_score(BROKEN, 2), "inception_score: logits hold NaN or infinity"),
    (lambda: class_score.modes_found(BROKEN), "modes: logits hold NaN"),
    (lambda: class_score.modes_found(ROWS[:0]), "modes: no rows"),
    (lambda: kernel.kid(ROWS, BROKEN), "kid: generated hold NaN or infinity"),
    (lambda: kernel.kid(ROWS, ROWS[:, :3]), "kid: rows of 3 and 4 numbers; must be of as many in both sets"),
    (lambda: neighbours.manifold(BROKEN, ROWS), "precision and recall: real hold NaN"),
    (lambda: neighbours.manifold(ROWS, ROWS[:, :3]), "precision and recall: rows of 3 and 4 numbers"),
    (lambda: neighbours.manifold(ROWS, ROWS[0]), r"generated of shape \[4\]; must be \[N, D\]"),
])  # fmt: skip
def test_scores_of_rows_that_are_none(call, says):
    with pytest.raises(UserError, match=says):
        call()


@pytest.mark.parametrize("how, says", [
    ({"eta": -1.0}, "eta=-1.0: must be from 0"), ({"eta": 2.0}, "eta=2.0"), ({"eta": float("nan")}, "eta=nan"),
    ({"eta": 1.0, "keys": image_keys(0, 3)}, r"keys: of shape \[3\] for 2 images; must be one each"),
    ({"eta": 1.0, "keys": KEYS[0]}, r"keys: of shape \[\] for 2 images"),
    ({"predict": lambda x, t: x[:1]}, r"predict: returned \[1, 4, 4, 1\] for x of \[2, 4, 4, 1\]; must be clean images"),
    ({"predict": lambda x, t: x[..., 0]}, r"predict: returned \[2, 4, 4\]"),
    ({"predict": lambda x, t: jnp.concatenate([x, x], -1)}, r"predict: returned \[2, 4, 4, 2\]"),
])  # fmt: skip
def test_ddim_of_predictions_and_keys_that_do_not_fit(how, says):
    given = {"predict": lambda x, t: 0.9 * x, "keys": KEYS, **how}
    with pytest.raises(UserError, match=says):
        ddim(given.pop("predict"), CHAIN, X, given.pop("keys"), timesteps=3, **given)


@pytest.mark.parametrize("call, says", [
    (lambda: latents.slerp(POINT, jnp.ones(5), SHARES), r"a \[4\], b \[5\], t \[2\]: must be two points \[D\] and shares"),
    (lambda: latents.slerp(jnp.ones((2, 4)), jnp.ones((2, 4)), SHARES), "flatten others"),
    (lambda: latents.lerp(POINT, POINT, 0.5), r"t \[\]: must be"),
    (lambda: latents.slerp_sines(POINT, POINT, 0.5), r"t \[\]: must be"),
    (lambda: latents.traversal(POINT, 2, 0), "steps=0: must be at least 1"),
    (lambda: styles.swapped(jnp.ones((2, 4, 4)), jnp.zeros((2, 4, 4)), (7, 9)), r"rows=\(7, 9\): must be from 0 up to 4"),
])  # fmt: skip
def test_latents_that_do_not_fit(call, says):
    with pytest.raises(UserError, match=says):
        call()
