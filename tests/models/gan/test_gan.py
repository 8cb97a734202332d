"""GANs: networks of many sizes, losses that mix with them, style controls, noise kinds; one and eight devices alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.config import GrowthConfig, TrainConfig
from jgen.edit import noise, styles
from jgen.errors import UserError
from jgen.models.gan import stylegan2, wgan_gp
from jgen.nn import equalized, fir
from jgen.nn.resample import doublings
from jgen.objectives import stylegan
from jgen.recipes.gan.convolutional import consistency
from jgen.recipes.gan.growth import count_fade_steps, growth_at
from jgen.recipes.gan.style import StyleModel
from jgen.train import Phase, make_step
from jgen.train.step import init_state
from tests import tiny


def drawn(shapes, seed=0):
    """Weights of given shapes, drawn on the host: initialising a network takes longer than running it."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(draw.normal(size=s.shape), s.dtype), shapes)


@pytest.mark.parametrize("size,levels", [(8, 1), (28, 2), (32, 3), (12, 2)])
def test_small_networks_of_every_size(size, levels):
    assert doublings(size) == levels
    g, d = wgan_gp.Generator(size, 3, 4), wgan_gp.Discriminator(4, "auxiliary")
    made = jax.eval_shape(lambda: g.init(jax.random.key(0), jnp.zeros((2, 5)), jnp.zeros((2, 3))))
    image = jax.eval_shape(lambda v: g.apply(v, jnp.zeros((2, 5)), jnp.zeros((2, 3))), made)
    assert image.shape == (2, size, size, 3)
    variables = jax.eval_shape(lambda: d.init(jax.random.key(0), jnp.zeros(image.shape), jnp.zeros((2, 3))))
    output = jax.eval_shape(lambda v: d.apply(v, jnp.zeros(image.shape), jnp.zeros((2, 3))), variables)
    assert output.logits.shape == (2,)
    assert output.class_logits.shape == (2, 3)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("conditional", [False, True])
def test_variants_of_stylegan2_have_the_shapes_they_should(architecture, conditional):
    c = jnp.zeros((4, 3)) if conditional else None
    shared = dict(c_dim=3 * conditional, resolution=16, image_channels=2, channel_base=64, channel_max=8)
    g = stylegan2.Generator(z_dim=5, w_dim=6, mapping_layers=2, architecture=architecture, **shared)
    d = stylegan2.Discriminator(architecture=architecture, mapping_layers=1, **shared)
    params = jax.eval_shape(lambda: g.init(jax.random.key(0), jnp.zeros((4, 5)), c))
    image = jax.eval_shape(lambda p: g.apply(p, jnp.zeros((4, 5)), c), params)
    assert image.shape == (4, 16, 16, 2)
    judge = jax.eval_shape(lambda: d.init(jax.random.key(0), jnp.zeros(image.shape), c))
    assert jax.eval_shape(lambda p: d.apply(p, jnp.zeros(image.shape), c), judge).shape == (4,)


@pytest.fixture(scope="module")
def synthesis():
    """(ws, noise) -> images of a small random StyleGAN2, and its num_ws."""
    net = stylegan2.Synthesis(16, 1, 64, 4)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, net.num_ws, 6))))
    weights = drawn(shapes)
    return jax.jit(lambda ws, planes: net.apply(weights, ws, planes)), net.num_ws


def test_a_mixing_grid_takes_the_rows_it_says(synthesis):
    run, num = synthesis
    a, b = (jax.random.normal(jax.random.key(i), (2, num, 6)) for i in (0, 1))
    grid = styles.mixing_grid(lambda ws: run(ws, {}), a, b, (2, 4)).reshape(3, 3, 16, 16, 1)
    own = lambda ws: np.asarray(run(ws, {}))  # noqa: E731
    assert np.all(np.asarray(grid[0, 0]) == -1)
    np.testing.assert_allclose(grid[0, 1:], own(a), atol=1e-4)
    np.testing.assert_allclose(grid[1:, 0], own(b), atol=1e-4)
    mixed = jnp.concatenate([a[1, :2], b[0, 2:4], a[1, 4:]])[None]
    np.testing.assert_allclose(grid[1, 2], own(mixed)[0], atol=1e-4)


def test_truncation_ends_at_the_mean_image(synthesis):
    run, num = synthesis
    ws, centre = jax.random.normal(jax.random.key(0), (2, num, 6)), jnp.full(6, 0.3)
    sweep = styles.truncation_sweep(lambda ws: run(ws, {}), ws, centre, jnp.array([0.0, 1.0])).reshape(2, 2, 16, 16, 1)
    np.testing.assert_allclose(sweep[0, 0], sweep[1, 0], atol=1e-5)
    np.testing.assert_allclose(sweep[:, 1], run(ws, {}), atol=1e-4)
    cut = stylegan2.truncate(ws, centre, 0.5, 2)
    assert np.array_equal(cut[:, 2:], ws[:, 2:])


@pytest.mark.slow
def test_noise_moves_only_where_it_is_given(synthesis):
    run, num = synthesis
    ws, sides = jax.random.normal(jax.random.key(0), (2, num, 6)), stylegan2.noise_planes(16)
    draw, keys = (lambda keys: noise.planes(keys, sides)), jax.random.split(jax.random.key(1), 6)
    spread = {name: styles.noise_deviation(run, ws, draw, keys, layers) for name, layers in styles.noise_groups(sides).items()}
    assert np.max(spread["none"]) < 1e-5
    assert 0.01 < np.mean(spread["fine"]) < np.mean(spread["all"]) + 0.1
    with pytest.raises(UserError, match=r"noise\['b99.conv0'\]: no such layer"):
        stylegan2.Synthesis(16, 1, 64, 4).init(jax.random.key(0), ws, {"b99.conv0": jnp.zeros(1)})


@pytest.mark.parametrize(
    "kind", [noise.gaussian, noise.uniform, noise.salt_and_pepper, noise.perlin, noise.octaves, noise.simplex]
)
def test_kinds_of_noise_have_unit_variance(kind):
    many = jax.vmap(lambda key: kind(key, 32))(jax.random.split(jax.random.key(0), 20))
    assert many.shape == (20, 32, 32, 1)
    assert abs(float(many.mean())) < 0.1
    assert abs(float(many.std()) - 1) < 0.1
    assert not np.array_equal(many[0], many[1])


def test_perlin_noise_is_smooth_and_white_noise_is_not():
    def roughness(kind):
        plane = kind(jax.random.key(0), 64)
        return float(jnp.mean(jnp.square(plane[1:] - plane[:-1])))

    assert 30 * roughness(noise.perlin) < roughness(noise.gaussian)
    assert 10 * roughness(noise.simplex) < roughness(noise.gaussian)
    assert roughness(noise.perlin) < roughness(lambda key, side: noise.octaves(key, side, 4, 4)) < roughness(noise.gaussian)


def test_ranges_of_styles():
    assert styles.ranges(18) == {"coarse": (0, 4), "middle": (4, 8), "fine": (8, 18)}
    assert styles.ranges(4) == {"coarse": (0, 1), "middle": (1, 3), "fine": (3, 4)}
    with pytest.raises(UserError, match="num_ws=2"):
        styles.ranges(2)


def test_the_convolution_that_upsamples_is_exact_for_any_four_taps():
    x, kernel = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(((2, 5, 4, 3), (3, 3, 3, 2))))
    for taps in ((1, 3, 3, 1), (1, 2, 0, 4)):
        f = fir.setup_filter(taps)
        want = jax.jit(lambda x, f=f: fir.conv2d_resample(x, kernel, f, up=2, padding=1, flip_weight=False))(x)
        np.testing.assert_allclose(jax.jit(lambda x, t=taps: fir.upsample_conv(x, kernel, t))(x), want, atol=1e-5)


def test_minibatch_groups_that_do_not_divide_are_named():
    with pytest.raises(UserError, match="group=4, channels=1: must divide the batch of 6"):
        equalized.minibatch_std(jnp.zeros((6, 4, 4, 2)))


@pytest.mark.parametrize("flags,message", [
    (["--loss", "wasserstein", "--penalty", "none"], "penalty=none: a Wasserstein critic"),
    (["--critic-steps", "0"], "critic_steps=0: must be at least 1"),
])  # fmt: skip
def test_losses_that_can_not_go_together_are_named(flags, message):
    with pytest.raises(UserError, match=message):
        tiny.stages(tiny.module("gan"), "gan", *flags)


def test_styles_are_mixed_among_the_rows_in_use():
    style = stylegan.Style(None, None, lambda keys: {}, 2, num_ws=8, used_ws=4, mixing=0.5)
    draw = jax.jit(jax.vmap(lambda key: stylegan.draw(style, key, jnp.zeros((1, 1))).cutoff))
    assert set(np.unique(draw(jax.random.split(jax.random.key(0), 200)))) == {1, 2, 3, 8}


@pytest.mark.parametrize("parts", [1, 4])
def test_a_level_fades_in_as_fast_with_accumulated_gradients(parts):
    train = TrainConfig(steps=8, accumulate=parts)
    model = StyleModel(None, None, 0, growth=growth_at(GrowthConfig(), train, 8, skip=0, first=False))
    loss = count_fade_steps(lambda params, extra, key, batch: (0 * jnp.sum(params["g"]), (extra, {})))
    step = make_step([Phase("g", loss)], {"g": optax.sgd(1.0)}, accumulate=parts)
    state = init_state({"g": jnp.zeros(2)}, {"fade_step": jnp.zeros((), jnp.int32)}, {"g": optax.sgd(1.0)})
    for _ in range(2):
        state, _ = step(state, jax.random.key(0), {"image": jnp.zeros((8, 1))})
    assert model.grown(state.extra)["fade"] == 0.5  # of the four steps that are half of the stage's


def test_consistency_counts_what_moving_an_image_changes():
    real, fake = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 1))

    def value(weight, logits):
        return consistency(weight)(logits, jax.random.key(0), real, fake)

    corner = lambda x: x[:, 0, 0, 0]  # noqa: E731
    assert value(0.0, corner) == 0
    assert value(5.0, lambda x: jnp.ones(len(x))) == 0
    assert 0 < 2 * value(5.0, corner) == pytest.approx(float(value(10.0, corner)))


@pytest.mark.parametrize("name,flags,message", [
    ("stylegan2", ["--channel-base", "4", "--channel-max", "32"], "channel_base=4, channel_max=32: must be at least 8"),
    ("stylegan2", ["--mapping-layers", "0"], "mapping_layers=0: must be at least 1"),
    ("stylegan", ["--fade", "2"], "fade=2.0: must be from 0 to 1"),
    ("progan", ["--first-steps", "0"], "first_steps=0: must be at least 1"),
    ("stylegan2", ["--augment", "ada", "--ada-kimg", "0"], "ada_kimg=0.0: must be above 0"),
])  # fmt: skip
def test_sizes_that_can_not_be_are_named(name, flags, message):
    with pytest.raises(UserError, match=message):
        tiny.shapes_of(tiny.stages(tiny.module(name), name, *flags)[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss,penalty",
    [("hinge", "none"), ("minimax", "dragan"), ("wasserstein", "clip"), ("wasserstein", "gp"), ("relativistic", "r1_r2")],
)
def test_every_loss_takes_a_step_with_its_penalty(loss, penalty):
    flags = ["--loss", loss, "--penalty", penalty, "--penalty-weight", "0.01", "--consistency", "1", "--critic-steps", "1"]
    (stage,) = tiny.stages(tiny.module("gan"), "gan", *flags)
    state = stage.create(jax.random.key(0), {})
    batch = {"image": jax.random.normal(jax.random.key(1), (8, 8, 8, 1)), "label": jnp.arange(8)}
    after, metrics = jax.jit(make_step(stage.phases, stage.optimizers, stage.ema))(state, jax.random.key(2), batch)
    assert metrics["d/nonfinite"] == metrics["g/nonfinite"] == 0
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state.params["g"]), jax.tree.leaves(after.params["g"])))
    if penalty == "clip":
        assert all(np.abs(w).max() <= 0.0101 for w in jax.tree.leaves(after.params["d"]))
