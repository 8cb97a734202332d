"""Updates that are left out because their gradient is too large."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.sharding import make_mesh
from jgen.train.loop import fit
from jgen.train.stage import Stage
from jgen.train.step import TOO_LARGE, Phase, init_state, make_step
from tests import tiny


def loss(params, extra, key, batch):
    return jnp.sum(params["net"] * jnp.sum(batch["image"], 0)), (extra, {})


def test_a_large_gradient_moves_neither_weights_nor_averages():
    step = make_step([Phase("net", loss, skip_norm=2.0)], {"net": optax.adam(0.1)}, {"net": 0.5})
    state = init_state({"net": jnp.ones(2)}, {}, {"net": optax.adam(0.1)}, {"net": 0.5})
    state, metrics = step(state, jax.random.key(0), {"image": jnp.array([[1.0, 0.0]])})
    assert float(metrics["nonfinite"]) == 0
    for image in (jnp.array([2.0, 0.0]), jnp.array([30.0, 4.0])):
        after, metrics = step(state, jax.random.key(0), {"image": image[None]})
        assert float(metrics["nonfinite"]) == TOO_LARGE
        before = (state.params, state.opt, state.ema)
        jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt, after.ema), before)
        assert int(after.step) == int(state.step) + 1


def line(skip_norm, **training):
    """A stage of one weight for each pixel, with `loss`."""
    config = tiny.config()
    data = replace(config.data, shape=(8, 8, 1))
    return Stage(
        name="line", data=data, train=replace(config.train, **training),
        init=lambda key, batch: ({"net": jnp.ones((8, 8, 1))}, {}),
        phases=[Phase("net", loss, skip_norm=skip_norm)], optimizers={"net": optax.sgd(0.1)},
    )  # fmt: skip


def test_a_run_that_leaves_out_every_update_stops_and_says_so(tmp_path, capfd):
    with pytest.raises(ValueError, match=r"the gradient's norm was at least 0.001 for 3 steps in a row.*raise skip_threshold"):
        fit(line(0.001, max_bad_steps=3), tmp_path, make_mesh())
    assert "2 in a row, 2 in all" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.slow
def test_a_run_of_few_steps_of_which_none_was_applied_does_not_end_well(tmp_path, capfd):
    (stage,) = tiny.stages(tiny.module("vdvae"), "vdvae", "--skip-threshold", "0.001")
    assert stage.train.steps < stage.train.max_bad_steps
    with pytest.raises(ValueError, match="none of the 4 steps was applied, so nothing was learned: raise skip_threshold"):
        fit(replace(stage, pictures={}), tmp_path, make_mesh())
    assert "4 of 4 steps were not applied" in capfd.readouterr().err.replace("\n", " ")


def test_a_resumed_run_whose_last_step_was_too_large_ends_well(tmp_path):
    fit(line(0.0, steps=3, save_every=3), tmp_path, make_mesh())
    last = fit(line(0.001, steps=4, save_every=2), tmp_path, make_mesh())
    assert last.finished
