"""Pivotal tuning against the authors' numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.edit import pti
from jgen.errors import UserError
from jgen.models.gan.stylegan2 import repeat, truncate
from tests.edit import stand_in
from tests.models.whole import official_gradients
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
NAMES = {
    "pti_learning_rate": "learning_rate", "max_pti_steps": "max_steps", "LPIPS_value_threshold": "threshold",
    "pt_l2_lambda": "l2_weight", "pt_lpips_lambda": "perceptual_weight", "use_locality_regularization": "locality",
    "locality_regularization_interval": "locality_every", "regulizer_alpha": "locality_alpha",
    "regulizer_l2_lambda": "locality_l2_weight", "regulizer_lpips_lambda": "locality_perceptual_weight",
}  # fmt: skip
"""The authors' options -> ours."""


@pytest.mark.parametrize("path", files("pti", "pti"))
def test_pti(path):
    o = Oracle(path)
    weights = {n.removeprefix("w/"): o[n] for n in o.names if n.startswith(("w/synthesis.", "w/mapping."))}
    read = lambda w: convert.stylegan2.generator(w, **o.config["G"])  # noqa: E731
    net, variables = read(weights)
    original, perceive = variables["params"], stand_in.features(o)
    options = pti.PivotalOptions(**{NAMES[k]: v for k, v in o.config.items() if k in NAMES})
    suggested = o.meta["rtol_suggested"]
    near = suggested["losses"] if isinstance(suggested, dict) else suggested

    def synthesize(params, ws, noise=variables["noise"]):
        return net.apply({"params": params}, ws, noise, method="synthesize")

    def held(params, ws):
        return synthesize(params, ws, {})

    def distance(a, b):
        return jnp.sum(jnp.square(perceive(a) - perceive(b)))

    step = jax.jit(lambda *given: pti.pivotal_step(synthesize, held, distance, original, *given[:2], options, *given[2:]))
    updates = 0
    for i in range(sum(n.startswith("in/w_pivot") for n in o.names)):
        at, pivot, target = f"image{i}", jnp.asarray(o[f"in/w_pivot{i}"][0]), jnp.asarray(o.nhwc(f"in/image{i}"))
        state, facts, points = pti.pivotal_start(original, options, updates), [], []
        draws = iter(o[f"in/locality_z{i}"] if f"in/locality_z{i}" in o else ())
        while len(facts) < options.max_steps and not (facts and facts[-1].stopped):
            ws = pivot[None]
            if options.locality and int(state.updates) % options.locality_every == 0:
                z = jnp.asarray(next(draws)).reshape(-1, net.z_dim)
                w = repeat(net.apply({"params": original}, z, method="map"), net.num_ws)
                ws = truncate(w, variables["w_avg"], 0.5)
                points.append(pti.around(pivot, ws, options.locality_alpha))
            state, fact = step(target, pivot, state, ws)
            facts.append(fact)
        o.check(f"out/{at}/l2", [f.l2 for f in facts], near)
        o.check(f"out/{at}/perceptual", [f.perceptual for f in facts], near)
        o.check(f"out/{at}/loss", [f.loss for f in facts], near)
        o.check_equal(f"out/{at}/locality_used", [int(f.used) for f in facts])
        o.check_close(f"out/{at}/locality", np.array([f.locality for f in facts if f.used]), 1e-3, 1e-8)
        o.check_equal(f"out/{at}/num_updates", int(state.updates) - updates)
        o.check(f"out/{at}/generated_first", facts[0].image, near, image=True)
        o.check(f"out/{at}/generated_last", facts[-1].image, near, image=True)
        if points and f"out/{at}/locality_w" in o:
            o.check(f"out/{at}/locality_w", jnp.stack(points).reshape(o[f"out/{at}/locality_w"].shape), near)
        convert_params = lambda w: {"params": read(w)[1]["params"]}  # noqa: E731
        first = official_gradients(convert_params, weights, facts[0].grad, o.under(f"out/{at}/grad_first/"))
        for name, found in first.items():
            o.check(f"out/{at}/grad_first/{name}", found, near)
        change = jax.tree.map(lambda new, old: new - old, state.params, original)
        moves = official_gradients(convert_params, weights, change, o.under(f"out/{at}/final/"))
        for name, moved in moves.items():
            full, want = f"out/{at}/final/{name}", o[f"out/{at}/final/{name}"] - weights[name]
            np.testing.assert_allclose(moved, want, atol=2e-3 * np.abs(want).max(), err_msg=full)
            o.checked.add(full)
        updates = int(state.updates)
    o.check_whole()


def test_a_generator_is_tuned_until_its_image_is_near_enough():
    """A linear generator that can't make the image at all before."""
    key = jax.random.key(0)
    params = {"net": {"a": jax.random.normal(key, (3, 12))}}
    synthesize = lambda params, ws: jnp.tanh(ws.mean(1) @ params["net"]["a"]).reshape(-1, 2, 2, 3)  # noqa: E731
    distance = lambda a, b: jnp.mean(jnp.abs(a - b))  # noqa: E731
    styles = lambda key: jax.random.normal(key, (2, 4, 3))  # noqa: E731
    target, pivot = jnp.full((2, 2, 3), 0.5), jax.random.normal(key, (4, 3))
    options = pti.PivotalOptions(learning_rate=0.02, threshold=0.01, locality=True, locality_alpha=1.0, locality_every=2)
    tuned, updates, left = pti.pivotal_tuning(
        synthesize, synthesize, distance, styles, params, target, pivot, key, options
    )  # fmt: skip
    image = synthesize(tuned, pivot[None])
    assert 0 < updates < options.max_steps
    assert left <= 0.01
    np.testing.assert_allclose(distance(image[0], target), left, rtol=1e-5)
    few = dataclasses.replace(options, max_steps=3)
    assert pti.pivotal_tuning(synthesize, synthesize, distance, styles, params, target, pivot, key, few)[1] == 3
    bad = dataclasses.replace(options, max_steps=0)
    with pytest.raises(UserError, match="max_steps=0"):
        pti.pivotal_tuning(synthesize, synthesize, distance, styles, params, target, pivot, key, bad)
