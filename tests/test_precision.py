"""Losses with recomputed activations are the losses, and every experiment with a preset for accelerators takes bfloat16.

What bfloat16 makes of the losses is compared in tests/test_experiments.py.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jgen.app import protocol
from jgen.config import MeshConfig
from jgen.data import Pipeline
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.train.compiled import compile_stage
from jgen.train.loop import check
from jgen.train.stage import first_batch
from tests import tiny

MESH = make_mesh(MeshConfig(devices=1))
STEPS = 3
REMAT = ("ddpm", "gan", "latent_diffusion", "stylegan2", "vae")
"""Networks that recompute block by block, and stages whose losses are recomputed whole."""


def losses(name, **train):
    """The losses {name: [steps]} of the first stage of a tiny experiment."""
    config = tiny.parsed(name)
    stage = tiny.module(name).build(replace(config, train=replace(config.train, scan=1, **train))).stages[0]
    check(stage, MESH)
    compiled, source, found = compile_stage(stage, MESH), stage.open_source(), []
    state = compiled.create(jax.random.key(0), first_batch(stage, source), None)
    batches = Pipeline(source, stage.data, 0, MESH).batches()
    for _ in range(STEPS):
        state, metrics = compiled.step(state, jax.random.key(1), next(batches))
        found.append({k: float(v) for k, v in metrics.items() if k.endswith("loss")})
    return {k: np.array([row[k] for row in found]) for k in found[0]}


def test_a_stage_that_takes_only_float32_refuses_others_by_name():
    stage = tiny.stage()
    changed = replace(stage, train=replace(stage.train, dtype="bfloat16"), supports=frozenset())
    with pytest.raises(UserError, match="train.dtype=bfloat16: ddpm takes only float32"):
        check(changed, MESH)


@pytest.mark.slow
def test_every_stage_of_an_experiment_with_a_preset_for_accelerators_takes_bfloat16():
    for name in sorted({row["experiment"] for row in protocol.rows()}):
        for stage in tiny.module(name).build(tiny.parsed(name)).stages:
            assert "dtype" in stage.supports, f"{name}: {stage.name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", REMAT)
def test_losses_are_alike_where_activations_are_recomputed(name):
    """Sums are in another order: the first steps are alike, later ones of adversarial games drift apart."""
    plain, again = losses(name), losses(name, remat=True)
    for key, values in again.items():
        np.testing.assert_allclose(values, plain[key], rtol=1e-3, atol=1e-3 * np.nanmean(np.abs(plain[key])))
