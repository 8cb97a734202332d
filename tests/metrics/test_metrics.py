"""Scores against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import bits
from jgen.errors import UserError
from jgen.metrics import frechet, image_quality, kernel, neighbours, paths
from jgen.metrics.class_score import inception_score
from jgen.metrics.linear_separability import separability
from jgen.metrics.resize import resize
from jgen.sharding import make_mesh

MESH = make_mesh()
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("batch", [7, 64, 1000])
def test_moments_do_not_depend_on_the_batches_they_came_in(batch):
    x = (RANDOM.normal(size=(300, 5)) * [1, 2, 3, 4, 5] + 1000).astype(np.float32)
    moments = frechet.feature_moments(x, batch)
    assert float(moments.count) == 300
    np.testing.assert_allclose(moments.mean, x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.astype(np.float64), rowvar=False), atol=2e-3)
    np.testing.assert_allclose(moments.covariance(0), np.cov(x.astype(np.float64), rowvar=False, ddof=0), atol=2e-3)


def test_rows_of_weight_zero_are_left_out_even_where_they_are_not_numbers():
    x = RANDOM.normal(size=(10, 3)).astype(np.float32)
    padded = np.concatenate([x, np.full((6, 3), np.nan, np.float32)])
    found = frechet.add(frechet.no_moments(3), jnp.asarray(padded), jnp.arange(16) < 10)
    np.testing.assert_allclose(found.covariance(), np.cov(x, rowvar=False), atol=1e-5)


def test_frechet_distance_of_gaussians_that_commute_is_that_of_their_deviations():
    a, b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 0.0])
    got = frechet.frechet_distance(np.zeros(3), np.diag(a**2), np.ones(3), np.diag(b**2))
    assert got == pytest.approx(3 + np.square(a - b).sum(), rel=1e-12)
    with pytest.raises(UserError, match="hold NaN"):
        frechet.frechet_distance(np.zeros(2), np.eye(2), np.array([0, np.nan]), np.eye(2))
    with pytest.raises(UserError, match="twice the same D"):
        frechet.frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))


def test_kid_is_unbiased_and_that_of_the_plain_double_sum():
    x, y = RANDOM.normal(size=(21, 4)).astype(np.float32), RANDOM.normal(size=(16, 4)).astype(np.float32)

    def k(a, b):
        return (a.astype(np.float64) @ b.T / 4 + 1) ** 3

    xx, yy = k(x, x), k(y, y)
    want = (xx.sum() - np.trace(xx)) / (21 * 20) + (yy.sum() - np.trace(yy)) / (16 * 15) - 2 * k(x, y).mean()
    assert kernel.mmd2(x, y) == pytest.approx(want, rel=1e-4, abs=1e-6)
    same = RANDOM.normal(size=(400, 4)).astype(np.float32)
    mean, deviation = kernel.kid(same[:200], same[200:], subsets=40, size=50)
    assert abs(mean) < 3 * deviation / np.sqrt(4)  # subsets overlap: about four are independent
    assert kernel.kid(same[:200], same[200:], subsets=3, size=50) == kernel.kid(same[:200], same[200:], subsets=3, size=50)


def test_inception_score_is_the_number_of_classes_at_best_and_one_at_worst():
    sure = np.tile(np.eye(7) * 100, (10, 1))
    assert inception_score(sure, 5)[0] == pytest.approx(7)
    assert inception_score(np.ones((50, 7)), 5)[0] == pytest.approx(1)
    with pytest.raises(UserError, match="3 rows in 10 splits"):
        inception_score(np.ones((3, 7)))


@pytest.mark.parametrize("block", [16, 50, 1024])
def test_manifolds_in_blocks_equal_the_whole_matrix(block):
    real, fake = RANDOM.normal(size=(150, 8)).astype(np.float32), 1.3 * RANDOM.normal(size=(130, 8)).astype(np.float32)

    def d(a, b):
        return np.square(a[:, None].astype(np.float64) - b[None]).sum(-1)

    r, f = (np.sort(d(x, x), 1)[:, 5] for x in (real, fake))
    found = neighbours.manifold(real, fake, 5, tile=block)
    across = d(fake, real)
    assert found.precision == pytest.approx((across <= r).any(1).mean())
    assert found.recall == pytest.approx((f >= across.T).any(1).mean())
    assert found.density == pytest.approx((across < r).sum() / 5 / 130)
    assert found.coverage == pytest.approx((across.min(0) < r).mean())
    with pytest.raises(UserError, match="k=5: 5 generated rows"):
        neighbours.manifold(real, fake[:5], 5)


@pytest.mark.parametrize("block", [16, 50, 1024])
def test_authenticity_in_blocks_equals_the_whole_matrix(block):
    real, fake = RANDOM.normal(size=(150, 3)).astype(np.float32), RANDOM.normal(size=(130, 3)).astype(np.float32)
    across = np.square(fake[:, None].astype(np.float64) - real[None]).sum(-1)
    within = np.square(real[:, None].astype(np.float64) - real[None]).sum(-1) + np.diag(np.full(150, np.inf))
    distances, places = neighbours.nearest_in(real, fake, 5, block)
    np.testing.assert_array_equal(places, np.argsort(across, 1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(across, 1)[:, :5], rtol=1e-4, atol=1e-5)
    expected = np.mean(across.min(1) > within.min(1)[across.argmin(1)])
    assert neighbours.authenticity(real, fake, block) == pytest.approx(expected)
    assert 0.3 < expected < 0.7  # of one distribution
    assert neighbours.authenticity(real, real + 1e-4) == 0
    assert neighbours.authenticity(real, fake + 100) == 1
    with pytest.raises(UserError, match="neighbours=151: must be from 1 to the 150 images of the set"):
        neighbours.nearest_in(real, fake, 151)


def test_path_length_of_a_linear_generator_is_that_of_its_matrix():
    a = RANDOM.normal(size=(4, 12)).astype(np.float32)
    z0, z1 = RANDOM.normal(size=(2, 9, 4)).astype(np.float32)
    distances = paths.path_distances(
        lambda z: z, lambda w: (w @ a).reshape(-1, 2, 2, 3), lambda x: x.reshape(len(x), -1) / 127.5, z0, z1,
        jnp.linspace(0, 0.9, 9), epsilon=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(distances, np.square((z1 - z0) @ a).sum(1), rtol=1e-4)
    found = paths.path_length(np.append(np.arange(1.0, 100), 1e9))
    assert (found.low, found.high, found.kept) == (1, 1e9, 100)  # 1 % of a hundred values cuts none of them off
    found = paths.path_length(np.append(np.arange(1.0, 300), 1e9))
    assert found.high < 1e9
    with pytest.raises(UserError, match="space=x"):
        paths.path_distances(*[lambda x: x] * 3, z0, z1, jnp.zeros(9), space="x")


def test_a_latent_that_holds_the_attribute_is_separable_and_noise_is_not():
    points = RANDOM.normal(size=(300, 4))
    logits = points[:, :1] * 5
    found = separability({"w": points, "z": RANDOM.normal(size=(300, 4))}, logits, 200)
    assert found.scores["w"] == pytest.approx(1, abs=0.1)
    assert found.scores["z"] > 1.7
    with pytest.raises(UserError, match="keep=301"):
        separability({"w": points}, logits, 301)


def test_bits_per_dim_names_its_dequantization_and_agrees_between_them():
    """A uniform law over 256 levels is 8 bits a number, as probabilities and as a density on [-1, 1)."""
    shape = (4, 4, 3)
    discrete = bits.bits_per_dim(48 * np.log(256), shape, "discrete")
    density = bits.bits_per_dim(48 * np.log(2), shape, "uniform", bound=True, scale=2)
    assert discrete.bits == pytest.approx(8)
    assert density.bits == pytest.approx(8)
    assert (discrete.name, density.name) == ("bits_per_dim_discrete", "bits_per_dim_uniform_bound")
    with pytest.raises(UserError, match="shape"):
        bits.bits_per_dim(1.0, (0, 4), "discrete")


def test_image_quality_of_an_image_and_itself_and_bad_pairs():
    x = jnp.asarray(RANDOM.integers(0, 256, (2, 16, 16, 3)) / np.float32(127.5) - 1)
    np.testing.assert_allclose(image_quality.ssim(x, x), 1, atol=1e-5)
    assert np.isinf(image_quality.psnr(x, x)).all()
    with pytest.raises(UserError, match="smaller than the window"):
        image_quality.ms_ssim(x, x)
    with pytest.raises(UserError, match="same shape"):
        image_quality.ssim(x, x[:1])


def test_bytes_are_compared_as_numbers():
    """Differences of uint8 would wrap around; the range is that of the type."""
    a, b = np.full((1, 16, 16, 1), 10, np.uint8), np.full((1, 16, 16, 1), 110, np.uint8)
    expected = 10 * np.log10(255**2 / 100**2)
    for x, y in ((a, b), (b, a)):
        np.testing.assert_allclose(image_quality.psnr(x, y), expected, rtol=1e-6)
    as_floats = [x / np.float32(127.5) - 1 for x in (a, b)]
    np.testing.assert_allclose(image_quality.psnr(*as_floats), expected, rtol=1e-5)
    with pytest.raises(UserError, match="give the data_range"):
        image_quality.psnr(a.astype(np.int16), b.astype(np.int16))


@pytest.mark.parametrize("score", [image_quality.ssim, image_quality.ms_ssim])
def test_ssim_of_floats_is_that_of_their_bytes(score):
    a, b = RANDOM.integers(0, 256, (2, 2, 64, 64, 3)).astype(np.uint8)
    b = (0.7 * a + 0.3 * b).astype(np.uint8)
    how = {"weights": (0.5, 0.5)} if score is image_quality.ms_ssim else {}
    as_floats = [x / np.float32(127.5) - 1 for x in (a, b)]
    np.testing.assert_allclose(score(*as_floats, **how), score(a, b, **how), rtol=1e-4)


def test_bytes_are_resized_as_floats():
    levels = RANDOM.integers(0, 256, (2, 32, 32, 1)).astype(np.uint8)
    found, expected = (resize(jnp.asarray(x), 8, 8) for x in (levels, levels.astype(np.float32)))
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(found) > 0


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_gradient_of_ms_ssim_is_finite_between_noise_images(per_channel):
    """Where a scale has no structure in common its factor is 0, and its slope too."""
    x, y = jax.random.normal(jax.random.key(0), (2, 1, 64, 64, 1))

    def loss(x):
        return jnp.sum(image_quality.ms_ssim(x, -x + 0.1 * y, weights=(0.5, 0.5), per_channel=per_channel))

    assert np.isfinite(jax.grad(loss)(x)).all()
    assert np.isfinite(loss(x))


def test_k1_and_k2_are_those_of_the_formula():
    x, y = (np.asarray(v) for v in jax.random.uniform(jax.random.key(1), (2, 1, 7, 7, 1)))
    window = image_quality.uniform(7)
    mx, my, vx, vy = x.mean(), y.mean(), x.var(), y.var()
    c1, c2 = 0.02**2, 0.05**2
    expected = (2 * mx * my + c1) * (2 * ((x * y).mean() - mx * my) + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(image_quality.ssim(x, y, 1.0, window=window, k1=0.02, k2=0.05), expected, rtol=1e-4)


def test_tensorflow_s_old_resizing_takes_pixels_at_their_corners():
    image = jnp.asarray([10.0, 20.0, 60.0])[None, None, :, None] * jnp.ones((1, 2, 1, 1))
    wide = resize(image, 2, 6, "bilinear_tf")
    np.testing.assert_allclose(wide[0, 0, :, 0], [10, 15, 20, 40, 60, 60], rtol=1e-6)
    np.testing.assert_allclose(resize(image, 2, 2, "bilinear_tf")[0, 0, :, 0], [10, 40], rtol=1e-6)
