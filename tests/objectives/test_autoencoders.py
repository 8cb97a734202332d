"""Autoencoders against closed forms: the bound of a linear model is exact, codebooks follow their inputs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.stats import norm

from jgen.data import ArraySource
from jgen.edit import latents
from jgen.errors import UserError
from jgen.models.vae import MLP, VAE
from jgen.models.vqvae import VQVAE, quantize, straight_through
from jgen.objectives import likelihood, vae, vqvae
from jgen.recipes.autoencoders.vqvae_model import Model
from jgen.recipes.common import resolved
from jgen.train.stage import state_shapes
from tests import tiny

W, C = 1.7, 0.3


def linear():
    """p(z) = N(0, 1), p(x | z) = N(W z, C), one pixel: (encoder that is the posterior, decoder, log p(x))."""
    variance = 1 / (1 + W**2 / C)

    def encode(x):
        mean = (variance * W / C * x[:, 0, 0]).reshape(-1, 1)
        return mean, jnp.full_like(mean, np.log(variance))

    def decode(z):
        return (W * z).reshape(-1, 1, 1, 1)

    return encode, decode, lambda x: norm.logpdf(x.reshape(-1), 0, np.sqrt(W**2 + C))


def test_the_bound_is_exact_where_the_encoder_is_the_posterior():
    encode, decode, log_p = linear()
    law, x = likelihood.gaussian(1, C), jnp.linspace(-0.9, 0.9, 7).reshape(-1, 1, 1, 1)
    eps = jax.random.normal(jax.random.key(0), (7, 4000, 1))
    log_w, *_ = vae.log_weights(encode, decode, law, x, eps)
    np.testing.assert_allclose(log_w, np.broadcast_to(log_p(x)[:, None], log_w.shape), atol=1e-4)  # without any variance
    parts = [vae.elbo_terms(encode, decode, law, x, eps[:, i]) for i in range(500)]
    bound = -np.mean([p.reconstruction + p.kl[:, 0] for p in parts], 0)
    np.testing.assert_allclose(bound, log_p(x), atol=0.15)
    many = vae.importance_log_likelihood(encode, decode, law, x, jax.random.key(1), 100, 20)
    np.testing.assert_allclose(many, log_p(x), atol=1e-4)


def test_more_importance_samples_tighten_a_bound_that_is_not_exact():
    encode, decode, log_p = linear()
    law, x = likelihood.gaussian(1, C), jnp.full((200, 1, 1, 1), 0.5)

    def wide(x):
        mean, log_variance = encode(x)
        return mean + 0.3, log_variance + 1

    bounds = []
    for k in (1, 10, 100):
        log_w, *_ = vae.log_weights(wide, decode, law, x, jax.random.normal(jax.random.key(k), (200, k, 1)))
        bounds.append(float(vae.iwae_bound(log_w).mean()))
    assert bounds[0] < bounds[1] - 0.05 < bounds[2]
    assert bounds[2] == pytest.approx(float(log_p(x[:1])[0]), abs=0.03)


def objective(**options):
    net = VAE((4, 4, 1), 1, latents=3, widths=(8,))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))))["params"]
    params = {"net": jax.tree.map(lambda s: (0.3 * random.normal(size=s.shape)).astype(np.float32), shapes)}
    batch = {"image": jnp.asarray(random.uniform(-1, 1, (8, 4, 4, 1)), jnp.float32)}

    def encode(p, x):
        return net.apply({"params": p}, x, method="encode")

    def decode(p, z):
        return net.apply({"params": p}, z, method="decode")

    return encode, decode, params, batch


def test_beta_free_bits_and_warm_up_weigh_the_kl():
    encode, decode, params, batch = objective()
    law, key = likelihood.gaussian(1, 0.5), jax.random.key(0)

    def run(extra=None, **options):
        value, (extra, metrics) = vae.vae(encode, decode, law, **options)(params, extra or {}, key, batch)
        return float(value), float(metrics["reconstruction"]), float(metrics["kl"]), extra

    value, reconstruction, kl, _ = run()
    assert value == pytest.approx(reconstruction + kl, rel=1e-6)
    assert run(beta=4.0)[0] == pytest.approx(reconstruction + 4 * kl, rel=1e-6)
    assert run(free_bits=100.0)[0] == pytest.approx(reconstruction + 300, rel=1e-6)
    value, *_, extra = run({"updates": jnp.asarray(5)}, warmup=10)
    assert value == pytest.approx(reconstruction + 0.5 * kl, rel=1e-6)
    assert int(extra["updates"]) == 6
    assert run(samples=50)[0] < run()[0]
    for bad in (dict(samples=0), dict(beta=-1), dict(samples=2, beta=2.0)):
        with pytest.raises(UserError, match="samples="):
            run(**bad)


def test_autoencoders_without_a_prior_penalise_what_they_say():
    encode, decode, params, batch = objective()
    law, key = likelihood.gaussian(1, 0.5, constant=False), jax.random.key(0)

    def run(**options):
        value, (_, metrics) = vae.autoencoder(encode, decode, law, **options)(params, {}, key, batch)
        return float(value), metrics

    code, _ = encode(params["net"], batch["image"])
    error = np.square(np.asarray(decode(params["net"], code) - batch["image"])).sum() / 8
    assert run()[0] == pytest.approx(error, rel=1e-5)  # |x - f|^2 / 2c with c = 1/2
    value, _ = run(sparsity="l1", weight=3.0)
    assert value == pytest.approx(error + 3 * np.abs(code).sum(1).mean(), rel=1e-5)
    rate = np.mean(1 / (1 + np.exp(-np.asarray(code))), 0)
    want = (0.05 * np.log(0.05 / rate) + 0.95 * np.log(0.95 / (1 - rate))).sum()
    assert float(run(sparsity="kl")[1]["sparsity"]) == pytest.approx(want, rel=1e-4)
    assert run(noise=1.0)[0] != run()[0]
    with pytest.raises(UserError, match="noise=-1"):
        run(noise=-1)


def test_binarised_images_have_the_brightness_of_the_grey_ones():
    x = jnp.broadcast_to(jnp.linspace(-1, 1, 5)[None, None, :, None], (4000, 1, 5, 1))
    binary = vae.binarize(jax.random.key(0), x)
    assert set(np.unique(binary)) == {-1, 1}
    np.testing.assert_allclose(binary.mean((0, 1, 3)), np.linspace(-1, 1, 5), atol=0.05)


def test_convolutional_autoencoder_keeps_the_shape_and_refuses_odd_sides():
    net = VAE((8, 12, 3), 6, latents=5, channels=(4, 6))
    shape = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.zeros((2, 8, 12, 3)))[0])
    assert shape.shape == (2, 8, 12, 6)
    bad = VAE((7, 8, 1), 1, channels=(4,))
    with pytest.raises(UserError, match="must divide by 2"):
        jax.eval_shape(lambda: bad.init(jax.random.key(0), jnp.zeros((1, 7, 8, 1))))


def test_codes_are_the_nearest_and_the_gradient_passes_straight():
    random = np.random.default_rng(0)
    z, codebook = random.normal(size=(2, 3, 4, 5)).astype(np.float32), random.normal(size=(7, 5)).astype(np.float32)
    q = quantize(jnp.asarray(z), jnp.asarray(codebook))
    want = np.square(z[..., None, :] - codebook).sum(-1).argmin(-1)
    np.testing.assert_array_equal(q.codes, want)
    np.testing.assert_array_equal(q.vectors, codebook[want])
    gradient = jax.grad(lambda z: jnp.sum(straight_through(quantize(z, codebook)) * 3))(jnp.asarray(z))
    np.testing.assert_allclose(gradient, 3)


def test_a_codebook_comes_to_the_means_of_its_inputs_and_dead_codes_come_alive():
    random = np.random.default_rng(0)
    centres = np.array([[5, 5], [10, 0], [0, 10]])
    book = vqvae.Codebook(
        jnp.asarray([[4.0, 4], [8, 1], [1, 9], [500, 500]]), jnp.zeros(4), jnp.zeros((4, 2)), jnp.zeros((), int)
    )
    for _ in range(300):
        z = jnp.asarray(centres[random.integers(0, 3, 64)] + 0.1 * random.normal(size=(64, 2)), jnp.float32)
        q = quantize(z, book.vectors)
        book = vqvae.update(book, q, decay=0.9)
    np.testing.assert_allclose(book.vectors[:3], centres, atol=0.1)
    assert float(vqvae.perplexity(jnp.array([0, 0, 1, 1, 2, 2]), 4)) == pytest.approx(3, abs=1e-4)
    revived = vqvae.revive(book, q, jnp.arange(4), decay=0.9)
    np.testing.assert_array_equal(revived.vectors[3], z[3])
    np.testing.assert_array_equal(revived.vectors[:3], book.vectors[:3])
    with pytest.raises(UserError, match="codes=1"):
        vqvae.new_codebook(jax.random.key(0), 1, 2)


def test_errors_of_reconstructions_have_a_probability_that_sums_to_one_over_the_levels():
    levels = jnp.linspace(-1, 1, 256)
    each = jax.vmap(lambda level: vqvae.residual(jnp.full((1, 1, 1, 1), 0.3), jnp.full((1, 1, 1, 1), level)))(levels)
    # Scales below a level's width are where the floor of the mass inside of the log is reached, far from the mean.
    np.testing.assert_allclose(jnp.exp(-each).sum(0), 1, rtol=2e-3)


def test_bits_of_a_vqvae_are_those_of_its_codes_and_of_its_errors():
    from experiments import vqvae as experiment

    config = resolved(tiny.configured(experiment, "vqvae"))
    model = Model(config.network, config.prior, config.data)
    stage = experiment.build(config).stages[1]
    levels = np.random.default_rng(1).integers(0, 256, (2, *model.shape))
    batches = [{"image": jnp.asarray(v / 127.5 - 1, jnp.float32), "label": jnp.zeros(1, int)} for v in levels[:, None]]
    params, extra = jax.jit(stage.init)(jax.random.key(0), batches[0])
    found = stage.evaluate(params, extra, jax.random.key(0), iter(batches), 2)

    vectors, errors = model.vectors(params, extra), np.zeros(33)
    for batch, level in zip(batches, levels):
        mean = np.float64(model.apply(params["net"], batch["image"], vectors)[0][0])
        edges = (
            np.where(level == 0, -np.inf, (level - 0.5) / 127.5 - 1),
            np.where(level == 255, np.inf, (level + 0.5) / 127.5 - 1),
        )
        for i, scale in enumerate(np.exp(np.linspace(-5, -1, 33))):
            below, above = (special.expit((edge - mean) / scale) for edge in edges)
            errors[i] -= np.log(np.maximum(above - below, 1e-300)).sum() / 2
    codes = float(found["nats_per_code_0"]) * math.prod(model.grids[0])
    want = (codes + errors.min()) / (math.prod(model.shape) * math.log(2))
    assert found["bits_per_dim_discrete_bound"] == pytest.approx(want, rel=1e-4)


def test_two_levels_have_two_grids_and_bad_codes_get_one_line():
    assert VQVAE(1, levels=2).grids(32, 64) == [(4, 8), (8, 16)]
    assert VQVAE(1, levels=1, stride=2).grids(8, 8) == [(4, 4)]
    with pytest.raises(UserError, match="must divide by 8"):
        VQVAE(1, levels=2).grids(28, 28)
    vqvae.check_codes(np.zeros((1, 4, 4), int), 8, (4, 4))
    for codes, match in [
        (np.full((1, 4, 4), 8), "the codebook has 0 to 7"),
        (np.zeros((1, 4, 5), int), "the autoencoder's is"),
        (np.full((1, 4, 4), 0.5), "whole numbers"),
    ]:
        with pytest.raises(UserError, match=match):
            vqvae.check_codes(codes, 8, (4, 4))


def test_a_prior_that_does_not_fit_its_autoencoder_is_refused():
    from experiments import vqvae as experiment

    (first, _), (_, second) = (tiny.stages(experiment, "vqvae", *flags) for flags in ((), ("--codes", "9")))
    earlier = tiny.shapes_of(first)
    with pytest.raises(UserError, match="not those of the autoencoder"):
        state_shapes(second, earlier)


@pytest.mark.parametrize("flags", [["--levels", "2"], ["--conditional"], ["--no-ema"]])
def test_variants_of_vqvae_build_and_sample(flags):
    from experiments import vqvae as experiment
    from jgen.samplers import image_keys

    first, second = tiny.stages(experiment, "vqvae", *flags)
    key, batch = jax.random.key(0), {"image": jnp.zeros((4, 8, 8, 1)), "label": jnp.zeros(4, jnp.int32)}
    for stage in (first, second):
        params, extra = tiny.shapes_of(stage)
        loss, (after, _) = jax.eval_shape(stage.phases[0].loss, params, extra, key, batch)
        assert loss.shape == ()
        assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, extra)
    images = jax.eval_shape(lambda p, e: second.sample(p, e, image_keys(0, 3), second.options), params, extra)
    assert images.shape == (3, 8, 8, 1)


@pytest.mark.parametrize("kind", ["iwae", "plain", "denoising", "sparse_kl", "sparse_l1"])
def test_kinds_of_autoencoders_have_a_finite_loss_and_gradient(kind):
    from experiments import vae as experiment

    (stage,) = tiny.stages(experiment, "vae", "--kind", kind)
    params, _ = tiny.shapes_of(stage)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda s: (0.1 * random.normal(size=s.shape)).astype(np.float32), params)
    batch = {"image": jnp.asarray(random.uniform(-1, 1, (4, 8, 8, 1)), jnp.float32)}
    gradient = jax.grad(lambda p: stage.phases[0].loss(p, {}, jax.random.key(0), batch)[0])(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_paths_through_a_latent_space():
    a, b, t = jnp.array([3.0, 0, 0]), jnp.array([0.0, 4, 0]), jnp.linspace(0, 1, 5)
    for path in (latents.lerp, latents.slerp):
        np.testing.assert_allclose(path(a, b, t)[0], a, atol=1e-5)
        np.testing.assert_allclose(path(a, b, t)[-1], b, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(latents.slerp(a, b, t), axis=1), np.linspace(3, 4, 5), rtol=1e-5)
    rows = latents.traversal(a, 2, 3, reach=1.0)
    np.testing.assert_allclose(rows, [[-1, 0, 0], [0, 0, 0], [1, 0, 0], [3, -1, 0], [3, 0, 0], [3, 1, 0]])
    grid = latents.gaussian_map(3, 4)
    assert grid.shape == (9, 4)
    np.testing.assert_allclose(grid[4], 0, atol=1e-6)
    for run in (lambda: latents.traversal(a, 4, 3), lambda: latents.gaussian_map(3, 1)):
        with pytest.raises(UserError, match="dims="):
            run()


def test_images_of_another_depth_or_range_are_refused():
    ArraySource({"image": np.zeros((2, 4, 4, 1), np.float32)})
    with pytest.raises(UserError, match="images of uint16; must be uint8"):
        ArraySource({"image": np.zeros((2, 4, 4, 1), np.uint16)})
    with pytest.raises(UserError, match=r"from 0 to 255; floats must lie in \[-1, 1\]"):
        ArraySource({"image": np.linspace(0, 255, 32).reshape(2, 4, 4, 1)})


def test_gated_layers_are_a_product_with_a_sigmoid():
    x, net = jax.random.normal(jax.random.key(0), (3, 5)), MLP((4, 2), gated=True)
    p = net.init(jax.random.key(1), x)["params"]
    h = x @ p["dense_0"]["kernel"]
    h = h[:, :4] / (1 + jnp.exp(-h[:, 4:]))
    np.testing.assert_allclose(net.apply({"params": p}, x), h @ p["dense_1"]["kernel"], rtol=1e-5, atol=1e-6)
