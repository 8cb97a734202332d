"""bfloat16 and remat are heeded by every experiment: losses stay near those of float32.

Most of the time of such tests is the compilation of steps. The weights of a player are one vector here, so that its update is
compiled once and not for every weight, and every type and setting begins from the same state, which is made once.
"""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jgen.app import protocol
from jgen.config import MeshConfig
from jgen.data import Pipeline
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.train.loop import check
from jgen.train.remat import phases
from jgen.train.stage import first_batch
from jgen.train.step import init_state, make_step
from tests import tiny

MESH = make_mesh(MeshConfig(devices=1))
STEPS = 20
NEAR = (
    "adcgan", "biggan", "cascade", "classifier", "csgan", "dctransformer", "ddpm", "diffusion_gan", "edm", "flow_matching",
    "gan", "glow", "guided", "icgan", "improved_ddpm", "latent_diffusion", "logan", "ncp_vae", "ncsn", "pixelcnn", "progan",
    "projected_gan", "r3gan", "sagan", "score_sde", "stylegan", "stylegan2", "stylegan3", "stylegan_xl", "tarflow",
    "unetgan", "vae", "vdvae", "vqvae",
)  # fmt: skip
"""Those whose losses are compared: every experiment that trains networks of its own."""
LATER = (("guided", 1), ("inversion", 1), ("ncp_vae", 1))
"""Stages after the first whose networks are of another kind."""
RATE = ("--learning-rate", "1e-4")
SLOWER = {
    **dict.fromkeys(("diffusion_gan", "progan", "projected_gan", "stylegan", "stylegan3", "stylegan_xl"), RATE),
    "r3gan": ("--rates", "1e-4", "1e-4"),
}
"""Options with which an adversarial game does not drift apart within the steps."""
MOVED = {"stylegan": 0.1}
"""The deviation of what is added to the first weights: StyleGAN begins from a constant of ones, whose instance norm makes of
its first steps, too small for bfloat16, all that the generator shows."""
REMAT = ("ddpm", "gan", "latent_diffusion", "stylegan2", "vae")
"""Networks that recompute block by block, and stages whose losses are recomputed whole."""


def stage_of(name, index=0, **train):
    """A stage of a tiny experiment under other settings of training."""
    config = tiny.parsed(name, *SLOWER.get(name, ()))
    stage = tiny.module(name).build(replace(config, train=replace(config.train, scan=1, **train))).stages[index]
    check(stage, MESH)
    return stage


@functools.cache
def beginning(name, index):
    """(the weights as vectors, what makes them trees again, the rest of the state, batches) of a stage, whatever its type."""
    stage, trees = stage_of(name, index), {}

    def init(key, batch):
        params, extra = stage.init(key, batch)
        vectors = {}
        for player, tree in params.items():
            vectors[player], trees[player] = ravel_pytree(tree)
        return vectors, extra

    source = stage.open_source()
    vectors, extra = jax.jit(init)(jax.random.key(0), first_batch(stage, source))
    vectors = {player: v + MOVED.get(name, 0) * jax.random.normal(jax.random.key(2), v.shape) for player, v in vectors.items()}
    batches = Pipeline(source, stage.data, 0, MESH).batches(0, 0)
    return vectors, trees, extra, [next(batches) for _ in range(STEPS)]


def of_vectors(loss, trees):
    """A loss of weights that are vectors."""
    return lambda params, *rest: loss({player: trees[player](vector) for player, vector in params.items()}, *rest)


@functools.cache
def losses(name, index=0, steps=STEPS, **train):
    """The losses {name: [steps]} of a stage of a tiny experiment."""
    stage = stage_of(name, index, **train)
    vectors, trees, extra, batches = beginning(name, index)
    updates = [phase._replace(loss=of_vectors(phase.loss, trees)) for phase in phases(stage)]
    step, found = jax.jit(make_step(updates, stage.optimizers)), []
    state = init_state(vectors, extra, stage.optimizers)
    for batch in batches[:steps]:
        state, metrics = step(state, jax.random.key(1), batch)
        found.append({k: float(v) for k, v in metrics.items() if k.endswith("loss")})
    return {k: np.array([row[k] for row in found]) for k in found[0]}


def test_a_stage_that_takes_only_float32_refuses_others_by_name():
    stage = stage_of("ddpm")
    changed = replace(stage, train=replace(stage.train, dtype="bfloat16"), supports=frozenset())
    with pytest.raises(UserError, match="train.dtype=bfloat16: ddpm takes only float32"):
        check(changed, MESH)


@pytest.mark.slow
def test_every_stage_of_an_experiment_with_a_preset_for_accelerators_takes_bfloat16():
    for name in sorted({row["experiment"] for row in protocol.rows()}):
        for stage in tiny.module(name).build(tiny.parsed(name)).stages:
            assert "dtype" in stage.supports, f"{name}: {stage.name}"


@pytest.mark.slow
@pytest.mark.parametrize("name,index", [*((name, 0) for name in NEAR), *LATER])
def test_losses_in_bfloat16_are_near_those_in_float32(name, index):
    plain, half = losses(name, index), losses(name, index, dtype="bfloat16")
    assert any(not np.array_equal(half[key], values) for key, values in plain.items())  # the option has an effect
    # A generator's loss may be a mean of scores of both signs, smaller than each: the game's largest loss is the measure.
    size = max(np.nanmean(np.abs(values)) for values in plain.values())
    for key, values in plain.items():
        assert abs(np.nanmean(half[key]) - np.nanmean(values)) <= 0.02 * size + 1e-3, key


@pytest.mark.slow
@pytest.mark.parametrize("name", REMAT)
def test_losses_are_alike_where_activations_are_recomputed(name):
    """Sums are in another order: the first steps are alike, later ones of adversarial games drift apart."""
    plain, again = losses(name, 0), losses(name, 0, steps=3, remat=True)
    for key, values in again.items():
        expected = plain[key][:3]
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3 * np.nanmean(np.abs(expected)))
