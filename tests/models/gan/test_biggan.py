"""BigGAN's recipes and their kin: what can't work is said in one line, and moved latents do what they are for."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.config import DataConfig, changed
from jgen.config.biggan import BigGANConfig, CutMixConfig, LatentMoveConfig, NaturalMoveConfig, R3GANConfig
from jgen.errors import UserError
from jgen.objectives.adversarial import Sides
from jgen.objectives.gan import non_saturating
from jgen.objectives.latent_moves import natural_gradient
from jgen.recipes.gan.biggan_players import biggan_form, players
from jgen.recipes.gan.mixed import cutmix_loss
from jgen.recipes.gan.moves import cs_gan, logan
from jgen.recipes.gan.r3gan import r3gan_form, scheduled_ada
from jgen.samplers import image_keys
from jgen.types import Condition, DiscriminatorOutput
from tests import tiny

DIGITS = DataConfig("digits", batch_size=8, shape=(8, 8, 1), num_classes=10)
SMALL = BigGANConfig(width=2, z_dim=4, shared_dim=4)


@pytest.mark.parametrize(
    "config,data,match",
    [
        (BigGANConfig(z_dim=5), DIGITS, "z_dim=5: must be a multiple of 2"),
        (BigGANConfig(network="deep", conditional=False), DIGITS, "network=deep: needs classes"),
        (BigGANConfig(hierarchical=False, conditional=False), DIGITS, "conditional=False: without classes"),
        (BigGANConfig(network="sn_dcgan", attention=()), DIGITS, "network=sn_dcgan: takes --no-conditional"),
        (BigGANConfig(network="sn_dcgan", attention=(), conditional=False, slope=0.2), DIGITS, "slope=0.2: the activations of"),
        (SMALL, DataConfig("folder:x", batch_size=8, shape=(8, 8, 3)), "no labels|classes|labels"),
        (SMALL, DataConfig("folder:x", batch_size=8, shape=(8, 6, 3), num_classes=2), "8x6"),
        (SMALL, DataConfig("folder:x", batch_size=8, shape=(1024, 1024, 3), num_classes=2), "resolution=1024"),
    ],
)
def test_settings_that_cannot_work_are_said_in_one_line(config, data, match):
    with pytest.raises(UserError, match=match) as found:
        players(config, data, unet=False)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("network", ["biggan", "deep"])
def test_every_activation_of_both_players_has_the_slope(network):
    made = players(replace(SMALL, network=network, slope=0.2), DIGITS, unet=False)
    z, images, label = jnp.zeros((2, 4)), jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 10))
    for net, x in ((made.g, z), (made.d, images)):
        variables = jax.eval_shape(net.init, jax.random.key(0), x, label)
        traced = str(jax.make_jaxpr(lambda v, net=net, x=x: jax.tree.leaves(net.apply(v, x, label)))(variables))
        assert "leaky_relu" in traced
        assert "relu" not in traced.replace("leaky_relu", "")


def test_classes_have_one_embedding_for_all_norms_or_one_in_each():
    def shapes(**options):
        g = players(replace(SMALL, hierarchical=False, **options), DIGITS, unet=False).g
        return jax.eval_shape(lambda: g.init(jax.random.key(0), jnp.zeros((2, 4)), jnp.zeros((2, 10))))["params"]

    assert shapes()["blocks_0_0"]["bn1"]["gain"]["embedding"].shape == (10, 8)
    assert shapes(shared=True)["embedding"]["embedding"].shape == (10, 4)
    assert shapes(shared=True)["blocks_0_0"]["bn1"]["gain"]["kernel"].shape == (4, 8)


def test_groups_must_divide_the_width():
    config = R3GANConfig(group_size=5)
    with pytest.raises(UserError, match="group_size=5: must divide"):
        r3gan_form(config, DIGITS, scheduled_ada(config))


@pytest.mark.slow
def test_truncation_needs_its_own_statistics_and_standing_ones_are_the_same_for_every_batch():
    (stage,) = tiny.stages(tiny.module("biggan"), "biggan")
    with pytest.raises(UserError, match="truncation=0.5: statistics=running"):
        tiny.shape_of(stage, truncation=0.5)
    params, extra = tiny.fresh(stage)
    options = changed(stage.options, {"truncation": 0.5, "statistics": "standing", "passes": 2, "pass_size": 4})
    draw = jax.jit(lambda keys: stage.sample(params, extra, keys, options))
    one, rest = draw(image_keys(3, 4)), draw(image_keys(3, 4, 2))
    np.testing.assert_allclose(one[2:], rest[:2], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logan", "csgan"])
def test_a_move_raises_what_the_discriminator_thinks_and_in_sampling_each_image_moves_alone(kind):
    made = players(SMALL, DIGITS, unet=False)
    plain = biggan_form(SMALL, made)
    natural = NaturalMoveConfig(move_size=0.1, damping=1.0, moved=1.0)
    form = logan(natural, 4)(plain) if kind == "logan" else cs_gan(LatentMoveConfig(1, 0.1), non_saturating, 4)(plain)
    params, extra = jax.jit(form.init)(jax.random.key(0), {})
    condition = Condition(label=jnp.arange(4))
    z = form.latents(image_keys(0, 4), condition)
    if kind == "csgan":  # G sees no other latents in training
        np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1, rtol=1e-5)

    @jax.jit
    def run(z, label):
        condition = Condition(label=label)
        moved, cost = form.move(params, extra, None, z, condition)
        judged = [plain.discriminate(params, extra, plain.generate(params, extra, v, condition, train=False)[0],
                                     condition, train=False)[0].logits for v in (z, moved)]  # fmt: skip
        return moved, cost, judged

    moved, cost, (before, after) = run(z, condition.label)
    assert cost > 0
    if kind == "logan":  # which alone begins where it was drawn
        assert (after > before).all()
    alone, *_ = run(z[1:], condition.label[1:])
    np.testing.assert_allclose(moved[1:], alone, atol=1e-5)


def test_players_without_spectral_norm_and_without_moves_are_for_comparison():
    plain = biggan_form(SMALL, players(SMALL, DIGITS, unet=False))
    none = replace(SMALL, spectral=False)
    _, extra = jax.eval_shape(biggan_form(none, players(none, DIGITS, unet=False)).init, jax.random.key(0), {})
    assert "spectral" not in extra["d"]
    assert "spectral" in jax.eval_shape(plain.init, jax.random.key(0), {})[1]["d"]
    assert cs_gan(LatentMoveConfig(0), non_saturating, 4)(plain) == plain
    assert logan(NaturalMoveConfig(move_steps=0), 4)(plain).move is None
    with pytest.raises(ValueError, match="move_steps=2: has no effect with --form studiogan, which takes one step"):
        logan(NaturalMoveConfig("studiogan", 2), 4)


def test_the_natural_gradient_step_is_the_paper_s_formula():
    z, weights = jnp.array([[0.1, -0.2], [0.3, 0.4]]), jnp.array([3.0, 4.0])
    moved, cost = natural_gradient(lambda z: z @ weights, z, jnp.array([0.0, 0.9]), alpha=0.5, beta=25.0, rate=0.5)
    np.testing.assert_allclose(moved - z, [[0, 0], [0.03, 0.04]], atol=1e-6)
    np.testing.assert_allclose(cost, 0.05**2, rtol=1e-5)
    with pytest.raises(UserError, match="rate=2"):
        natural_gradient(lambda z: z @ weights, z, jnp.zeros(2), rate=2)


@pytest.mark.parametrize("share,step,mixed", [(0.0, 10, False), (1.0, 10, True), (1.0, 0, False)])
def test_mixed_images_replace_the_plain_loss_once_warm(share, step, mixed):
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    heads = DiscriminatorOutput((jnp.zeros((4, 8, 8)), jnp.zeros(4)))
    seen = []

    def judge(x):
        seen.append(x)
        return heads

    mixing = cutmix_loss(CutMixConfig(cutmix=share, cutmix_warmup=5))(jnp.asarray(step))
    value = mixing(judge, jax.random.key(1), Sides(images, -images, heads, heads), jnp.asarray(7.0))
    np.testing.assert_allclose(value, 2 * np.log(2) if mixed else 7.0, rtol=1e-5)
