"""bfloat16 and remat are heeded by every experiment: losses stay near those of float32."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jgen.config import MeshConfig
from jgen.data import Pipeline
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.train.loop import check, compile_stage
from jgen.train.stage import first_batch
from tests import tiny

MESH = make_mesh(MeshConfig(devices=1))
STEPS = 20
NEAR = (
    "adcgan", "biggan", "cascade", "csgan", "ddpm", "edm", "flow_matching", "gan", "guided", "icgan", "improved_ddpm",
    "latent_diffusion", "logan", "ncsn", "pixelcnn", "sagan", "score_sde", "stylegan2", "unetgan", "vae", "vqvae",
)  # fmt: skip
"""Those whose losses are compared; those of other adversarial games drift apart within the steps."""
FLOAT32 = ("classifier", "glow", "ncp_vae", "projected_gan", "stylegan_xl", "tarflow", "vdvae")
"""Those that refuse bfloat16 by name."""


REMAT = ("ddpm", "gan", "latent_diffusion", "stylegan2", "vae")
"""Networks that recompute block by block, and stages whose losses are recomputed whole."""


def first_stage(name, **train):
    """The first stage of a tiny experiment under other settings of training."""
    config = tiny.parsed(name)
    stage = tiny.module(name).build(replace(config, train=replace(config.train, scan=1, **train))).stages[0]
    check(stage, MESH)
    return stage


def losses(name, steps=STEPS, **train):
    """The losses {name: [steps]} of a tiny experiment's first stage."""
    stage = first_stage(name, **train)
    compiled, source = compile_stage(stage, MESH), stage.open_source()
    state = compiled.create(jax.random.key(0), first_batch(stage, source), None)
    batches, found = Pipeline(source, stage.data, 0, MESH).batches(0, 0), []
    for _ in range(steps):
        state, metrics = compiled.step(state, jax.random.key(1), next(batches))
        found.append({k: float(v) for k, v in metrics.items() if k.endswith("loss")})
    return {k: np.array([row[k] for row in found]) for k in found[0]}


@pytest.mark.parametrize("name", FLOAT32)
def test_bfloat16_is_refused_by_name(name):
    with pytest.raises(UserError, match="train.dtype=bfloat16: .* takes only float32"):
        first_stage(name, dtype="bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("name", NEAR)
def test_losses_in_bfloat16_are_near_those_in_float32(name):
    plain, half = losses(name), losses(name, dtype="bfloat16")
    assert any(not np.array_equal(half[key], values) for key, values in plain.items())  # the option has an effect
    for key, values in plain.items():  # of a player whose losses cross zero, 2 % of their size in all steps
        assert abs(np.nanmean(half[key]) - np.nanmean(values)) <= 0.02 * np.nanmean(np.abs(values)) + 1e-3, key


@pytest.mark.slow
@pytest.mark.parametrize("name", REMAT)
def test_losses_are_alike_where_activations_are_recomputed(name):
    """Sums are in another order: the first steps are alike, later ones of adversarial games drift apart."""
    plain, again = (losses(name, 3, remat=remat) for remat in (False, True))
    for key, values in plain.items():
        np.testing.assert_allclose(again[key], values, rtol=1e-3, atol=1e-3 * np.nanmean(np.abs(values)))
