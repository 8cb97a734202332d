"""The one training step: phases, averages, accumulation, non-finite values, and scanning it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.nn.barrier import settled
from jgen.sharding import jit_step
from jgen.train import Phase, init_state, make_step, scan_steps
from jgen.train.step import nonfinite_name

KEY = jax.random.key(0)
PARAMS = {"g": {"w": jnp.array([1.0, 2.0])}, "d": {"w": jnp.array([3.0])}}
BATCH = {"image": jnp.arange(8.0).reshape(4, 2)}


def g_loss(params, extra, key, batch):
    loss = jnp.mean(batch["image"] @ params["g"]["w"]) * params["d"]["w"][0]
    return loss, ({**extra, "seen": extra["seen"] + 1}, {"d": params["d"]["w"][0]})


def d_loss(params, extra, key, batch):
    return jnp.sum(params["d"]["w"] ** 2) / 2, (extra, {})


def start(optimizers, ema=None):
    copy = jax.tree.map(jnp.array, PARAMS)
    return init_state(copy, {"seen": jnp.zeros((), jnp.int32)}, optimizers, ema)


def test_a_step_folds_the_phases_in_order():
    optimizers = {"g": optax.sgd(0.1), "d": optax.sgd(0.5)}
    step = jax.jit(make_step([Phase("d", d_loss), Phase("g", g_loss)], optimizers))
    state, metrics = step(start(optimizers), KEY, BATCH)
    np.testing.assert_allclose(state.params["d"]["w"], [1.5])  # 3 - 0.5 * 3
    # The generator sees the discriminator that was just updated: gradient = mean(image) * 1.5.
    np.testing.assert_allclose(state.params["g"]["w"], [1 - 0.1 * 3 * 1.5, 2 - 0.1 * 4 * 1.5], rtol=1e-6)
    assert int(state.step) == 1
    assert int(state.extra["seen"]) == 1
    assert float(metrics["g/d"]) == 1.5
    assert set(metrics) == {f"{p}/{m}" for p in "dg" for m in ("loss", "grad_norm", "nonfinite")} | {"g/d"}


def test_a_phase_runs_only_every_so_often():
    optimizers = {"g": optax.sgd(0.1), "d": optax.sgd(0.5)}
    step = jax.jit(make_step([Phase("d", d_loss, every=3), Phase("g", g_loss)], optimizers))
    state, seen = start(optimizers), []
    for _ in range(5):
        state, metrics = step(state, KEY, BATCH)
        seen.append(float(metrics["d/loss"]))
    assert np.isfinite(seen).tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(state.params["d"]["w"], [3 * 0.5**2])
    assert int(state.extra["seen"]) == 5


def test_players_without_a_phase_stay_as_they_are_and_have_no_optimizer():
    optimizers = {"g": optax.adam(0.1)}
    state, _ = jax.jit(make_step([Phase("g", g_loss)], optimizers))(start(optimizers), KEY, BATCH)
    assert set(state.opt) == {"g"}
    np.testing.assert_array_equal(state.params["d"]["w"], PARAMS["d"]["w"])


def test_the_average_follows_the_weights_and_ramps_up():
    optimizers, decay = {"g": optax.sgd(0.1)}, 0.9
    for ema in ({"g": decay}, {"g": lambda step: jnp.where(step == 0, decay, 1.0)}):
        state = start(optimizers, ema)
        assert state.ema["g"]["w"] is not state.params["g"]["w"]
        step = jax.jit(make_step([Phase("g", g_loss)], optimizers, ema), donate_argnums=0)
        before = np.array(state.params["g"]["w"])
        state, _ = step(state, KEY, BATCH)
        expected = decay * before + (1 - decay) * np.array(state.params["g"]["w"])
        np.testing.assert_allclose(state.ema["g"]["w"], expected, rtol=1e-6)
        assert state.averaged["g"] is state.ema["g"]
        assert state.averaged["d"] is state.params["d"]


def test_accumulated_gradients_are_those_of_the_whole_batch():
    optimizers = {"g": optax.sgd(0.1)}
    whole = jax.jit(make_step([Phase("g", g_loss)], optimizers))(start(optimizers), KEY, BATCH)
    parts = jax.jit(make_step([Phase("g", g_loss)], optimizers, accumulate=2))(start(optimizers), KEY, BATCH)
    np.testing.assert_allclose(whole[0].params["g"]["w"], parts[0].params["g"]["w"], rtol=1e-6)
    np.testing.assert_allclose(whole[1]["loss"], parts[1]["loss"], rtol=1e-6)
    assert int(parts[0].extra["seen"]) == 2  # extra passes from part to part
    with pytest.raises(ValueError, match="accumulate=3: does not divide the batch of 4"):
        make_step([Phase("g", g_loss)], optimizers, accumulate=3)(start(optimizers), KEY, BATCH)


def noisy(params, extra, key, batch):
    noise = jax.random.normal(key, batch["image"].shape)
    return jnp.mean((noise @ params["g"]["w"]) ** 2), (extra, {})


def test_each_phase_and_step_has_noise_of_its_own():
    optimizers = {"g": optax.sgd(0.0)}
    step = jax.jit(make_step([Phase("g", noisy, name="a"), Phase("g", noisy, name="b")], optimizers))
    state, losses = start(optimizers), []
    for _ in range(3):
        state, metrics = step(state, KEY, BATCH)
        losses += [float(metrics["a/loss"]), float(metrics["b/loss"])]
    assert len(set(losses)) == 6


def test_scanned_steps_equal_the_loop_bit_for_bit():
    optimizers, ema = {"g": optax.adam(0.1)}, {"g": 0.9}
    step = make_step([Phase("g", noisy)], optimizers, ema)
    state, losses = start(optimizers, ema), []
    for _ in range(4):
        state, metrics = jax.jit(step)(state, KEY, BATCH)
        losses.append(metrics["loss"])
    batches = jax.tree.map(lambda x: jnp.stack([x] * 4), BATCH)
    scanned, metrics = jax.jit(scan_steps(step))(start(optimizers, ema), KEY, batches)
    np.testing.assert_array_equal(metrics["loss"], np.stack(losses))
    jax.tree.map(np.testing.assert_array_equal, scanned, state)


@pytest.mark.parametrize("where", ["loss", "gradient", "update"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counter(where):
    def loss(params, extra, key, batch):
        w = params["g"]["w"]
        bad = jnp.log(-1.0) if where == "loss" else jnp.sum(jnp.sqrt(w * 0.0))  # sqrt has an infinite slope at 0
        return jnp.sum(w) + (0 if where == "update" else bad), ({"seen": extra["seen"] + 1}, {})

    optimizers, ema = {"g": optax.adam(jnp.nan if where == "update" else 0.1)}, {"g": 0.5}
    before = start(optimizers, ema)
    state, metrics = jax.jit(make_step([Phase("g", loss)], optimizers, ema))(before, KEY, BATCH)
    name = nonfinite_name(int(metrics["nonfinite"]), PARAMS["g"])
    assert name == ("loss" if where == "loss" else f"{where} of w")
    assert int(state.step) == 1
    jax.tree.map(np.testing.assert_array_equal, state.replace(step=before.step), before)


def test_players_and_phases_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="player 'x': has an optimizer or average, but params has only"):
        start({"x": optax.sgd(0.1)})
    with pytest.raises(ValueError, match="no optimizer for player 'd'"):
        make_step([Phase("d", d_loss)], {"g": optax.sgd(0.1)})
    with pytest.raises(ValueError, match="names must differ"):
        make_step([Phase("d", d_loss), Phase("d", d_loss)], {"d": optax.sgd(0.1)})


def test_a_step_keeps_settled_arrays_and_their_gradients_apart_on_cpus():
    def step(x):
        def loss(x):
            for _ in range(3):
                x = settled(jnp.sin(x) + x)
            return jnp.sum(x)

        return jax.grad(loss)(x)

    texts = [jit(step).lower(jnp.ones(8)).compile().as_text() for jit in (jit_step, jax.jit)]
    # Three gradients and two values: the last one's is not needed.
    assert [text.count(" opt-barrier(") for text in texts] == [5, 0]
    np.testing.assert_allclose(jit_step(step)(jnp.ones(8)), jax.jit(step)(jnp.ones(8)), rtol=1e-6)


def test_a_step_needs_no_copies_of_the_moments_on_cpus():
    shape = (30, 70)
    params, optimizers = {"g": {"w": jnp.ones(shape)}}, {"g": optax.adam(0.1)}

    def loss(params, extra, key, batch):
        return jnp.sum(jnp.square(batch["image"] @ params["g"]["w"])), (extra, {})

    step = jit_step(make_step([Phase("g", loss)], optimizers))
    state = jax.eval_shape(lambda: init_state(params, {}, optimizers))
    text = step.lower(state, KEY, {"image": jnp.ones((2, 30))}).compile().as_text()
    assert "f32[30,70]" in text
    assert not re.search(r"= f32\[30,70\]\S* copy\(", text)
