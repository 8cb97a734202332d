"""Settings chosen for a set: each rule at its limits, and networks and batches that go together for every kind of set."""

import itertools

import pytest

from jgen.config import DataConfig, check, leaves
from jgen.config.auto import SetFacts, plan, projected_choice, stylegan2_choice
from jgen.errors import UserError
from tests import tiny

WITH_AUTO = ("stylegan2", "stylegan3", "projected_gan")
GIVEN = DataConfig("folder:photos", batch_size=0)
FACTS = SetFacts(448, 256, 1, True, 3, 0, 0)
SETS = [
    SetFacts(count, side, sizes, True, channels, classes, count // (2 * classes) if classes else 0)
    for count, side, (sizes, channels), classes in itertools.product(
        (16, 448, 200_000), (8, 28, 100, 700), ((1, 1), (7, 3)), (0, 3)
    )
]


@pytest.mark.parametrize("name", WITH_AUTO)
@pytest.mark.parametrize("accelerator", [False, True])
def test_every_choice_is_within_its_ranges_and_every_reason_is_of_an_option(name, accelerator):
    for facts in SETS:
        config, why = tiny.module(name).auto(facts, GIVEN, accelerator)
        check(config)
        values = {leaf.name: leaf.value for leaf in leaves(config)}
        assert set(why) <= set(values)
        usual = {leaf.name: leaf.value for leaf in leaves(tiny.module(name).Config())}
        chosen = {option for option, value in values.items() if value != usual[option]}
        assert chosen - set(why) <= {"data.name", "train.log_every", "train.save_every", "train.sample_every"}
        assert all(reason and "\n" not in reason for reason in why.values())
        assert config.data.batch_size <= facts.count
        assert config.data.resolution <= facts.side
        assert config.data.name == GIVEN.name


@pytest.mark.parametrize("side,cpu,accelerator", [(8, 8, 8), (28, 28, 28), (33, 32, 32), (100, 32, 100), (700, 32, 256)])
def test_the_resolution_is_one_that_the_images_have(side, cpu, accelerator):
    facts = FACTS._replace(side=side)
    found = [plan(facts, GIVEN, there, lambda side: 8).data.resolution for there in (False, True)]
    assert found == [cpu, accelerator]


def test_a_set_that_is_not_resized_keeps_its_own_size():
    found = plan(SetFacts(60_000, 28, 1, False, 1, 10, 6000), DataConfig("fashion_mnist", batch_size=0), False, lambda side: 8)
    assert (found.data.resolution, found.data.channels, found.side, found.conditional) == (0, 0, 32, True)


def test_given_options_decide_what_follows_from_them():
    given = DataConfig("folder:photos", batch_size=6, resolution=64, channels=1)
    found = stylegan2_choice(FACTS, given, True)
    assert (found.data.batch_size, found.data.resolution, found.data.channels) == (6, 64, 1)
    assert found.style.r1_gamma == pytest.approx(0.0002 * 64**2 / 6, abs=1e-6)
    assert found.architecture.group == 3


def test_gamma_batch_and_average_are_those_of_stylegan2_ada():
    found = stylegan2_choice(FACTS, GIVEN, True)  # auto at 256 pixels on one GPU: 16 images, gamma 0.8192
    assert (found.data.batch_size, found.style.r1_gamma, found.gan.ema_kimg) == (16, 0.8192, 5.0)
    assert (found.style.mapping_layers, found.architecture.group, found.gan.channel_base) == (2, 4, 16384)


def test_small_sets_are_augmented_and_large_ones_are_not():
    kinds = [
        stylegan2_choice(FACTS._replace(count=count), GIVEN, True).augmentation.augment for count in (448, 99_999, 100_000)
    ]
    assert kinds == ["ada", "ada", "none"]
    flipped = DataConfig("folder:photos", batch_size=0, flip=True)
    assert stylegan2_choice(FACTS._replace(count=60_000), flipped, True).augmentation.augment == "none"
    assert stylegan2_choice(FACTS._replace(count=60_000), GIVEN, False).augmentation.augment == "none"  # seen once


def test_projected_gan_takes_its_small_networks_for_small_sets():
    small, large = (projected_choice(FACTS._replace(count=count), GIVEN, True) for count in (448, 5000))
    assert (small.gan.generator, small.heads.separable) == ("fastgan_lite", True)
    assert (large.gan.generator, large.heads.separable) == ("fastgan", False)
    assert "may collapse" in small.why["generator"]


def test_classes_are_used_where_each_has_enough_images():
    used = [plan(FACTS._replace(classes=3, least_class=n), GIVEN, False, lambda side: 8).conditional for n in (49, 50)]
    assert used == [False, True]


@pytest.mark.parametrize("change,message", [({"count": 15}, "holds 15 images"), ({"side": 7}, "images of 7 pixels")])
def test_a_set_that_is_too_small_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        plan(FACTS._replace(**change), GIVEN, False, lambda side: 8)
