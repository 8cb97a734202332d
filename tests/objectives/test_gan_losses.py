"""GAN losses, penalties and the arithmetic of their training: cases solved by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.objectives import gan, gan_conditional, gan_penalties
from jgen.train import lazy


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_losses_at_the_optimal_discriminator_of_two_coins():
    p, q = np.array([3, 1]), np.array([1, 3])
    loss = lambda law, table: law.d(jnp.repeat(table, p), jnp.repeat(table, q))  # noqa: E731
    best = jnp.log(p / q)
    js = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    np.testing.assert_allclose(loss(gan.minimax, best), 2 * np.log(2) - 2 * js, rtol=1e-12)
    for law, table in ((gan.minimax, best), (gan.least_squares, jnp.asarray(p / (p + q)))):
        np.testing.assert_allclose(jax.grad(partial(loss, law))(table), 0, atol=1e-12)


def test_the_saturating_generator_alone_learns_nothing_from_a_sure_discriminator():
    sure, real = jnp.full(4, -20.0), jnp.full(4, 20.0)
    assert np.abs(jax.grad(gan.minimax.g)(sure, real)).max() < 1e-8
    for law in (gan.non_saturating, gan.hinge, gan.wasserstein, gan.relativistic_paired):
        np.testing.assert_allclose(jax.grad(law.g)(sure, real), -0.25, rtol=1e-6)


def test_relativistic_losses_see_differences_only():
    real, fake = jnp.array([0.3, -1.0, 2.0]), jnp.array([-0.5, 0.1, 0.7])
    for law in (
        gan.relativistic_paired,
        gan.relativistic_average,
        gan.relativistic_average_least_squares,
        gan.relativistic_average_hinge,
    ):
        np.testing.assert_allclose(law.d(real + 5, fake + 5), law.d(real, fake), rtol=1e-12)
        np.testing.assert_allclose(law.g(real, fake), law.d(real, fake), rtol=1e-12)  # sides swapped
    with pytest.raises(UserError, match="paired"):
        gan.relativistic_paired.d(real, fake[:1])


def test_lecam_forgets_what_was_before_its_start_and_carries_no_gradient():
    real, fake = jnp.array([1.0, 3.0]), jnp.array([-1.0, 0.0])
    first = gan.lecam_update(gan.LeCam(jnp.array(9.0), jnp.array(9.0)), real, fake, 0)
    np.testing.assert_allclose(first, (2.0, -0.5))
    np.testing.assert_allclose(gan.lecam_update(first, real + 1, fake, 1, decay=0.75), (2.25, -0.5))
    np.testing.assert_allclose(gan.lecam(first, real, fake), np.mean([1.5**2, 3.5**2]) + np.mean([3.0**2, 2.0**2]))
    assert not jax.grad(lambda r: gan.lecam_update(first, r, fake, 1).real)(real).any()


SLOPE = np.random.default_rng(0).normal(size=(6, 5, 3))
IMAGES = np.random.default_rng(1).normal(size=(2, 4, 6, 5, 3))


def linear(w):
    return lambda x: jnp.einsum("bhwc,hwc->b", x, w)


def test_penalties_of_a_linear_critic():
    p, w, (real, fake) = gan_penalties, jnp.asarray(SLOPE), jnp.asarray(IMAGES)
    alphas, norm = jnp.linspace(0, 1, 4), np.linalg.norm(SLOPE)
    for loss in (
        lambda w: p.gradient_penalty(linear(w), real, fake, alphas),
        lambda w: p.dragan(linear(w), real, alphas, jnp.abs(fake)),
    ):
        np.testing.assert_allclose(loss(w), (norm - 1) ** 2, rtol=1e-12)
        np.testing.assert_allclose(jax.grad(loss)(w), 2 * (1 - 1 / norm) * SLOPE, rtol=1e-12)
        assert loss(0 * w) == 1
        assert not jax.grad(loss)(0 * w).any()  # a flat critic: no direction is better, and none is NaN
    np.testing.assert_allclose(p.max_gp(linear(w), real), norm**2)
    for penalty in (p.r1, p.r2):
        np.testing.assert_allclose(penalty(linear(w), real, 3.0), 1.5 * norm**2, rtol=1e-12)
        np.testing.assert_allclose(jax.grad(lambda w, r=penalty: r(linear(w), real, 3.0))(w), 3 * SLOPE, rtol=1e-12)
    np.testing.assert_allclose(p.drift(jnp.array([3.0, 1.0])), 0.005)


def test_the_penalty_on_fakes_does_not_train_the_generator():
    square = lambda x: jnp.sum(x**4, axis=(1, 2, 3))  # noqa: E731
    assert not jax.grad(lambda x: gan_penalties.r2(square, x))(jnp.asarray(IMAGES[0])).any()


def test_path_length_of_a_linear_generator():
    noise, mean, decay = jnp.asarray(IMAGES[0]), jnp.array(0.5), 0.25
    layers = jnp.asarray(np.random.default_rng(2).normal(size=(3, 7, *SLOPE.shape)))  # [L, D, H, W, C]
    ws = jnp.ones((4, 3, 7))

    def run(scale, mean=mean):
        return gan_penalties.path_length(lambda ws: scale * jnp.einsum("bld,ldhwc->bhwc", ws, layers), ws, noise, mean, decay)

    penalty, lengths, new = run(1.0)
    slopes = np.einsum("ldhwc,bhwc->bld", layers, noise) / np.sqrt(6 * 5)
    by_hand = np.sqrt(np.mean(np.sum(slopes**2, 2), 1))
    np.testing.assert_allclose(lengths, by_hand, rtol=1e-12)
    np.testing.assert_allclose(new, 0.75 * 0.5 + 0.25 * by_hand.mean(), rtol=1e-12)
    np.testing.assert_allclose(penalty, (by_hand - new) ** 2, rtol=1e-12)
    gradient = jax.grad(lambda scale: jnp.sum(run(scale)[0]))(1.0)
    through_mean = np.sum(2 * (by_hand - new) * (by_hand - decay * by_hand.mean()))
    np.testing.assert_allclose(gradient, through_mean, rtol=1e-10)
    assert jax.grad(lambda scale: run(scale)[2])(1.0) == 0
    assert np.isfinite(jax.grad(lambda scale: jnp.sum(run(scale)[0]))(0.0))


def test_clipping_and_orthogonality():
    params = {"embedding": jnp.eye(2, 3), "dense": {"kernel": jnp.eye(3, 2), "bias": jnp.array([0.005, -7.0])}}
    clipped = gan_penalties.clip_weights(params, 0.01)
    np.testing.assert_array_equal(clipped["dense"]["bias"], [0.005, -0.01])
    for diagonal in (False, True):  # rows of all matrices are orthonormal: those of the table, the columns of the kernel
        assert gan_penalties.orthogonal(params, diagonal=diagonal) == 0
    turned = {"embedding": jnp.ones((2, 3)), "kernel": jnp.ones((3, 2))}
    np.testing.assert_allclose(gan_penalties.orthogonal(turned, 1.0), 0.5 * 2 * 2 * 3**2)
    with pytest.raises(UserError, match="c=0"):
        gan_penalties.clip_weights(params, 0)


def test_class_losses_of_orthonormal_embeddings():
    embed, label, n, t = jnp.eye(4, 6), jnp.arange(4), 4, 0.5
    value = gan_conditional.contrastive_2c(embed, embed, label, t)
    np.testing.assert_allclose(value, np.log(1 + (n - 1) * np.exp(-1 / t)), rtol=1e-12)
    np.testing.assert_allclose(gan_conditional.d2d_ce(embed, embed, label, t), np.log(n), rtol=1e-12)
    one = jnp.zeros(4, int)  # of one class there are positives alone
    np.testing.assert_allclose(gan_conditional.contrastive_2c(embed, embed, one, t), 0, atol=1e-12)
    np.testing.assert_allclose(gan_conditional.d2d_ce(embed, embed, one, t), 0, atol=1e-12)
    assert np.isfinite(jax.grad(lambda e: gan_conditional.contrastive_2c(e, embed, label, t))(0 * embed)).all()


def test_hinges_over_classes_are_zero_once_the_label_leads_by_one():
    logits, label = jnp.array([[3.0, 1.9, 0.0], [0.0, 1.0, 3.5]]), jnp.array([0, 2])
    for law in (gan_conditional.classes_hinge, gan_conditional.multi_hinge):
        assert law(logits, label) == 0
    np.testing.assert_allclose(gan_conditional.multi_hinge(logits, jnp.array([1, 1])), np.mean([1 + 1.1, 1 + 2.5]))
    np.testing.assert_allclose(gan_conditional.classes_margin(logits, label), -np.mean([1.1, 3.0, 3.5, 2.5]))


def test_lazy_rates_keep_the_pace_of_the_main_updates():
    rate, b1, b2 = lazy.lazy_rates(0.002, 0.5, 0.99, 4)
    np.testing.assert_allclose((5 * rate, b1**5, b2**5), (4 * 0.002, 0.5**4, 0.99**4), rtol=1e-12)
    decay = lazy.ema_decay(32, 10.0, rampup=None)
    np.testing.assert_allclose(decay(jnp.array(3)) ** (10_000 / 32), 0.5, rtol=1e-9)
    ramped = lazy.ema_decay(32, 10.0, rampup=0.1)
    np.testing.assert_allclose(ramped(jnp.array(1000)) ** 100, 0.5, rtol=1e-9)
    assert ramped(jnp.array(0)) == 0


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: gan.top_k(jnp.zeros(3), 4), "k=4"),
        (lambda: gan.lecam_update(gan.lecam_state(), jnp.zeros(2), jnp.zeros(2), 0, start=0), "start=0"),
        (lambda: gan_conditional.adc_g(jnp.zeros((2, 5)), jnp.zeros(2, int)), "even"),
        (lambda: gan_conditional.d2d_ce(jnp.eye(2), jnp.eye(2), jnp.arange(2), temperature=0), "temperature=0"),
        (lambda: lazy.lazy_adam(1e-3, interval=0), "interval=0"),
        (lambda: lazy.ema_decay(32, kimg=0), "kimg=0"),
    ],
)
def test_errors_name_what_would_be_right(call, match):
    with pytest.raises(UserError, match=match):
        call()
