"""StyleGAN2's projector against the authors' numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.edit import projector as p
from jgen.errors import UserError
from tests.edit import stand_in
from tests.oracle import Oracle, files

pytestmark = pytest.mark.slow


def layer(name):
    return name.removesuffix(".noise_const")


@pytest.mark.parametrize("path", files("projector", "projector"))
def test_projector(path):
    o = Oracle(path)
    weights = {n.removeprefix("w/"): o[n] for n in o.names if n.startswith(("w/synthesis.", "w/mapping."))}
    weights.setdefault("mapping.w_avg", np.zeros(o.config["G"]["w_dim"], np.float32))  # of truncation, which is not used
    net, variables = convert.stylegan2.generator(weights, **o.config["G"])
    variables = {"params": variables["params"]}
    given = {k: v for k, v in o.config["project"].items() if k not in ("w_avg_samples", "seed", "verbose", "device")}
    options = p.ProjectorOptions(**given)
    rough, near = 1e-5, 1e-4

    def synthesis(ws, noise):
        return net.apply(variables, ws, noise, method="synthesize")

    features = stand_in.features(o)
    c = jnp.asarray(o["in/c"]) if "in/c" in o else None
    mapped = net.apply(variables, jnp.asarray(o["in/z_samples"]), c, method="map")
    mean, std = p.style_statistics(mapped.reshape(len(o["in/z_samples"]), -1, mapped.shape[-1])[:, 0])
    o.check("out/w_avg", mean[None], rough)
    o.check("out/w_std", std, rough)
    t = jnp.arange(options.num_steps) / options.num_steps
    o.check("out/lr", p.learning_rate(options, t), rough)
    o.check("out/w_noise_scale", p.style_noise(options, std, t), rough)
    target = features(jnp.asarray(o["in/target"].transpose(1, 2, 0)[None] / np.float32(127.5) - 1))
    o.check("out/target_features", target, rough)

    names = [n.removeprefix("in/noise_init/") for n in o.names if n.startswith("in/noise_init/")]
    state = p.projector_start(mean, {layer(n): jnp.asarray(o[f"in/noise_init/{n}"])[..., None] for n in names})
    run = jax.jit(lambda *args: p.projector_step(synthesis, features, target, net.num_ws, std, options, *args))
    states, facts = [state], []
    for step in range(options.num_steps):
        state, fact = run(state, jnp.int32(step), jnp.asarray(o["in/w_noise"][step])[None])
        states.append(state)
        facts.append(fact)
    o.check("out/dist", [f.distance for f in facts], near)
    o.check("out/reg_loss", [f.regulariser for f in facts], near)
    o.check("out/loss", [f.loss for f in facts], near)
    o.check("out/w_steps", [s.w[0] for s in states[1:]], near)
    o.check("out/grad/w_opt", [f.grad_w[0] for f in facts], near)
    for which, fact in (("first", facts[0]), ("last", facts[-1])):
        o.check(f"out/synth_images_{which}", (fact.image + 1) * 127.5, near, image=True)
        o.check(f"out/synth_features_{which}", features(fact.image), near)
    rough_of = jax.jit(p.noise_regulariser)
    for n in names:
        o.check(f"out/noise_maps/{n}", [s.noise[layer(n)][..., 0] for s in states[1:]], near)
        o.check(f"out/reg_per_map/{n}", [rough_of(s.noise[layer(n)]) for s in states[:-1]], near)
        kept = len(o[f"out/grad/noise/{n}"]) if f"out/grad/noise/{n}" in o else 0
        o.check(f"out/grad/noise/{n}", [f.grad_noise[layer(n)][..., 0] for f in facts[:kept]], near)
    final = synthesis(
        jnp.broadcast_to(state.w, (net.num_ws, mean.shape[-1]))[None], {k: v[None] for k, v in state.noise.items()}
    )
    o.check("out/final_image", final, near, image=True)
    o.check_whole()


def test_an_image_is_found_and_does_not_depend_on_its_batch():
    """A linear generator, whose style can be told from its image."""
    matrix = jax.random.normal(jax.random.key(0), (3, 12))

    def synthesis(ws, noise):
        return jnp.tanh(ws.mean(1) @ matrix).reshape(-1, 2, 2, 3) + 0.0 * noise["a"].mean()

    ws = jax.random.normal(jax.random.key(1), (2, 1, 3))
    maps = {"a": jax.random.normal(jax.random.key(2), (2, 8, 8, 1))}
    targets = jnp.concatenate([synthesis(w[None], {"a": maps["a"][:1]}) for w in ws])
    keys, options = jax.random.split(jax.random.key(3), 2), p.ProjectorOptions(num_steps=300)

    def call(rows, start, options=options):
        maps_of = {"a": maps["a"][rows]}
        return p.project(
            synthesis, lambda x: x.reshape(1, -1), targets[rows], start, jnp.float32(1), maps_of, keys[rows], 2, options
        )

    for start in (jnp.zeros((1, 3)), jnp.zeros((2, 3))):
        found, _, distances = call(slice(0, 2), start)
        np.testing.assert_allclose(found.mean(1), ws[:, 0], atol=2e-2)
        assert distances[0, -1] < 1e-3 * distances[0, 0]
    alone = call(slice(0, 1), jnp.zeros((1, 3)), dataclasses.replace(options, num_steps=5))[0]
    both = call(slice(0, 2), jnp.zeros((1, 3)), dataclasses.replace(options, num_steps=5))[0]
    np.testing.assert_allclose(alone[0], both[0], atol=1e-6)
    with pytest.raises(UserError, match="start: has 3 rows; must be 1, or 2"):
        call(slice(0, 1), jnp.zeros((3, 3)))
    with pytest.raises(UserError, match="num_steps=0: must be at least 1"):
        call(slice(0, 1), jnp.zeros((1, 3)), dataclasses.replace(options, num_steps=0))
