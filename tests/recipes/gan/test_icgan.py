"""IC-GAN's recipe: instances by k-means, conditions of samples, and what can't work in one line."""

import jax
import numpy as np
import pytest

from jgen.config import DataConfig, changed
from jgen.config.biggan import BigGANConfig, InstanceConfig, InstanceSampling
from jgen.data import open_source
from jgen.errors import UserError
from jgen.objectives.class_heads import multi_hinge
from jgen.recipes.gan.biggan_players import Instances, players
from jgen.recipes.gan.icgan import kept_instances
from jgen.recipes.gan.instances import central, features_of, instance_network, neighbourhoods
from jgen.samplers import image_keys
from jgen.train.stage import first_batch
from jgen.types import Condition, DiscriminatorOutput
from tests import tiny

DIGITS = DataConfig("digits", batch_size=8, limit=40, shape=(8, 8, 1), num_classes=10)
SMALL = BigGANConfig(width=2, z_dim=4, shared_dim=4)


def extra(labels=None):
    features = np.eye(4, dtype=np.float32)
    return {"instances": {"features": features} | ({} if labels is None else {"label": np.asarray(labels, np.int32)})}


def test_an_instance_is_drawn_by_each_image_s_key_or_named():
    draw, keys = kept_instances(0), image_keys(0, 64)
    found = draw(extra(), keys, InstanceSampling())
    np.testing.assert_array_equal(draw(extra(), keys[5:9], InstanceSampling()).features, found.features[5:9])
    assert (np.asarray(found.features).sum(0) > 0).all()
    assert found.label is None
    np.testing.assert_array_equal(draw(extra(), keys, InstanceSampling(instance=2)).features[:, 2], 1)
    with pytest.raises(UserError, match="instance=4: the run keeps 4; from 0 to 3"):
        draw(extra(), keys, InstanceSampling(instance=4))


def test_a_class_is_that_of_a_neighbour_and_draws_instances_that_have_it():
    draw, keys = kept_instances(3), image_keys(0, 64)
    labels = [[0, 0], [0, 1], [1, 1], [0, 0]]
    found = draw(extra(labels), keys, InstanceSampling())
    instances = np.asarray(found.features).argmax(1)
    assert all(label in labels[i] for i, label in zip(instances, np.asarray(found.label)))
    chosen = draw(extra(labels), keys, InstanceSampling(label=1))
    assert set(np.asarray(chosen.features).argmax(1)) == {1, 2}
    assert (np.asarray(chosen.label) == 1).all()
    nowhere = draw(extra(labels), keys, InstanceSampling(label=2))  # no neighbour has it
    assert set(np.asarray(nowhere.features).argmax(1)) == {0, 1, 2, 3}


def test_central_rows_are_one_of_every_cluster():
    centres = np.eye(3)[:, None] * 10
    rows = (centres + np.random.default_rng(0).normal(size=(3, 20, 3))).reshape(60, 3).astype(np.float32)
    assert sorted(central(rows, 3) // 20) == [0, 1, 2]
    np.testing.assert_array_equal(central(rows, 60), np.arange(60))


@pytest.mark.parametrize(
    "own,data,match",
    [
        (InstanceConfig(neighbours=40, instances=8), DIGITS, "neighbours=40: must be less than the 40 images"),
        (InstanceConfig(instances=41), DIGITS, "instances=41: the set has only 40"),
    ],
)
def test_sets_that_are_too_small_are_refused(own, data, match):
    with pytest.raises(UserError, match=match):
        neighbourhoods(own, instance_network("", data), False, 0, open_source(data))


def test_features_of_another_network_and_heads_that_ignore_them_are_refused():
    made = players(SMALL, DIGITS, False, Instances(64, 4))
    with pytest.raises(UserError, match="features=1280 numbers: of another network; this model takes 64"):
        made.inputs(Condition(label=np.zeros(2, np.int32), features=np.zeros((2, 1280))))
    with pytest.raises(UserError, match="features=none"):
        made.inputs(Condition(label=np.zeros(2, np.int32)))
    for change in ({"head": "twin"}, {"network": "deep"}):
        with pytest.raises(UserError, match="with instances the network is biggan"):
            players(changed(SMALL, change), DIGITS, False, Instances(64, 4))


def test_fakes_are_of_the_last_column_in_the_multi_hinge():
    logits = np.array([[5.0, 0.0, 0.0], [0.0, 0.0, 5.0]], np.float32)  # two classes, and fake
    real, fake = (DiscriminatorOutput(np.zeros(1), logits[i : i + 1]) for i in (0, 1))
    label = jax.numpy.zeros(1, int)
    assert multi_hinge.d(real, fake, label) == 0
    assert multi_hinge.d(fake, real, label) == 12  # each label is 5 behind, and should be 1 ahead
    assert multi_hinge.g(real, label) == 0
    assert multi_hinge.g(fake, label) == 6


@pytest.mark.slow
def test_features_have_norm_1_and_mirrored_images_their_own():
    source, network = open_source(DIGITS), instance_network("", DIGITS)
    plain, mirrored = (features_of(network.extractor, source, flag) for flag in (False, True))
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, rtol=1e-5)
    assert plain.shape == (40, network.size)
    assert np.abs(plain - mirrored).max() > 0.01


@pytest.mark.slow
def test_the_state_s_average_follows_the_state_once_it_begins():
    (stage,) = tiny.stages(tiny.module("biggan"), "biggan", "--ema-statistics", "--ema", "0.75", "--ema-start", "1")
    batch = first_batch(stage, stage.open_source())
    params, extra = jax.jit(stage.init)(jax.random.key(0), batch)
    loss = jax.jit(lambda extra: stage.phases[1].loss(params, extra, jax.random.key(1), batch)[1][0])
    for steps, share in ((1, 1.0), (2, 1.0), (3, 0.25)):  # D has made steps up to this one; two of them are one of G's
        after = loss({**extra, "d_steps": jax.numpy.asarray(steps)})
        expected = jax.tree.map(lambda old, new, share=share: old + share * (new - old), extra["g_average"], after["g"])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after["g_average"], expected)
