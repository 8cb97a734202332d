"""Autoregressive networks: causality by Jacobian, cached decode against whole forwards, likelihoods that sum to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.models.pixelcnn import GatedPixelCNN, PixelCNN
from jgen.models.pixelcnnpp import PixelCNNPP
from jgen.objectives import likelihood
from jgen.samplers import image_keys
from jgen.samplers.autoregressive import autoregressive, decoder, raster
from jgen.sharding import jit_once

SHAPE = (2, 8, 12, 2)
NETS = {
    "pixelcnn": PixelCNN(3, 4, 2, 16),
    "gated": GatedPixelCNN(3, 4, 2, 16, classes=3),
    "codes": GatedPixelCNN(3, 4, 1, 5, codes=6),
    "pp": PixelCNNPP(3, 6, 1, 3, classes=3),
    "pp_shallow": PixelCNNPP(3, 6, 1, 1),
}


def drawn(net, shape=SHAPE, seed=0):
    """(variables with no zero among them, images or codes, labels)."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 6, (*shape[:3], 1)) if net.codes else random.normal(size=shape)
    x = x.astype(np.float32)
    label = np.arange(shape[0]) % 3 if net.classes else None
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, label))
    return jax.tree.map(lambda s: (random.normal(size=s.shape) * 0.3).astype(np.float32), shapes), x, label


@pytest.mark.parametrize("name", NETS)
def test_no_pixel_depends_on_itself_or_on_what_follows(name):
    net = NETS[name]
    if net.codes:
        pytest.skip("codes have no gradient; the decode test covers them")
    variables, x, label = drawn(net)
    n = SHAPE[1] * SHAPE[2]

    def outputs(x):
        return jnp.sum(net.apply(variables, x.reshape(1, *SHAPE[1:]), label if label is None else label[:1]), -1).reshape(n)

    jacobian = jax.jit(jax.jacrev(outputs))(jnp.asarray(x[0].reshape(n, -1)))  # [output pixel, input pixel, C]
    touched = np.abs(np.asarray(jacobian)).max(-1) > 0
    assert not np.triu(touched).any()
    # ... and on most of what came before: a network that sees nothing would be causal too.
    last = touched[-1, :-1]
    assert last[-1]
    assert last.reshape(-1).sum() >= 20


def walk(net, variables, x, label, **known):
    """The outputs at every pixel of a cached walk through given images."""
    decode, rows = decoder(net, variables, x.shape, label, **known), []
    b, h, w, c = x.shape
    cache, above = decode.cache, jnp.zeros((b, 1, w, c))
    for r in range(h):
        context, cache = decode.row(cache, jnp.asarray(r), above)

        def one(carry, column, r=r):
            cache, before = carry
            number, here, pixel = column
            here = jax.tree.map(lambda v: v[:, None, None], here)
            outputs, cache = decode.pixel(cache, jnp.asarray(r), number, before, here)
            return (cache, pixel[:, None, None]), outputs

        columns = (jnp.arange(w), jax.tree.map(lambda v: jnp.moveaxis(v[:, 0], 1, 0), context), jnp.moveaxis(x[:, r], 1, 0))
        (cache, _), found = jax.lax.scan(one, (cache, jnp.zeros((b, 1, 1, c))), columns)
        rows.append(jnp.moveaxis(found, 0, 1))
        above = x[:, r : r + 1]
    return jnp.stack(rows, 1)


@pytest.mark.parametrize("name", [n if n != "pp" else pytest.param(n, marks=pytest.mark.slow) for n in NETS])
def test_cached_decode_gives_the_logits_of_the_whole_forward(name):
    net = NETS[name]
    variables, x, label = drawn(net)
    whole = jax.jit(net.apply)(variables, x, label)
    got = jax.jit(lambda v, x: walk(net, v, x, label))(variables, jnp.asarray(x))
    np.testing.assert_allclose(got, whole, atol=1e-5 * float(np.abs(whole).max()))


def test_cached_decode_over_features_that_are_known_beforehand():
    net, random = GatedPixelCNN(3, 4, 1, 8), np.random.default_rng(0)
    x, beneath = (random.normal(size=(2, 4, 5, c)).astype(np.float32) for c in (1, 6))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, beneath=beneath))
    variables = jax.tree.map(lambda s: (random.normal(size=s.shape) * 0.3).astype(np.float32), shapes)
    whole = jax.jit(lambda v, b: net.apply(v, x, beneath=b))(variables, beneath)
    got = jax.jit(lambda v, x: walk(net, v, x, None, beneath=jnp.asarray(beneath)))(variables, jnp.asarray(x))
    np.testing.assert_allclose(got, whole, atol=1e-5 * float(np.abs(whole).max()))
    assert np.abs(whole - net.apply(variables, x, beneath=beneath + 1)).max() > 1e-3


def test_image_i_depends_on_its_own_key_alone_and_given_pixels_stay():
    net = NETS["pixelcnn"]
    law = likelihood.categorical(3, 1)
    variables, _, _ = drawn(net, (1, 5, 6, 1))

    def sample(keys, **kwargs):
        shape = (len(keys), 5, 6, 1)
        return autoregressive(decoder(net, variables, shape), law.draw, keys, shape=shape[1:], **kwargs)

    run = jax.jit(sample)
    keys = image_keys(0, 4)
    four, two = run(keys), jax.jit(sample)(keys[2:])
    np.testing.assert_array_equal(four[2:], two)
    assert set(np.unique(four)) <= {-1, 0, 1}
    assert np.std(four) > 0.1
    given = jnp.full(four.shape, 0.5)
    known = jnp.arange(5)[:, None] < jnp.array([2] * 6)[None]
    kept = jax.jit(lambda k: sample(k, given=given, known=known))(keys)
    np.testing.assert_array_equal(kept[:, :2], 0.5)
    assert set(np.unique(kept[:, 2:])) <= {-1, 0, 1}
    with pytest.raises(UserError, match="given: shape"):
        sample(keys, given=given)


def test_greedy_decoding_is_the_most_likely_level_whatever_the_noise():
    """Temperature and top-k: top_k=1 takes the best level, and low temperatures come to it."""
    random = np.random.default_rng(0)
    outputs, uniforms = random.normal(size=(50, 8)), random.uniform(size=(50, 2))
    best = np.linspace(-1, 1, 4)[np.argmax(outputs.reshape(50, 2, 4), -1)]
    np.testing.assert_allclose(likelihood.categorical(4, 2, top_k=1).draw(outputs, uniforms), best, atol=1e-6)
    np.testing.assert_allclose(likelihood.categorical(4, 2, temperature=1e-3).draw(outputs, uniforms), best, atol=1e-6)
    codes = likelihood.categorical(4, 2, codes=True, top_k=2).draw(outputs, uniforms)
    ranks = np.argsort(-outputs.reshape(50, 2, 4), -1)[..., :2]
    assert (np.asarray(codes)[..., None] == ranks).any(-1).all()
    for bad in (dict(temperature=0), dict(top_k=5), dict(levels=1)):
        with pytest.raises(UserError, match="levels="):
            likelihood.categorical(**{"levels": 4, **bad})


@pytest.mark.parametrize("kind", ["categorical", "logistic"])
def test_likelihoods_sum_to_one_and_draws_follow_them(kind):
    levels = np.linspace(-1, 1, 256, dtype=np.float32)
    law = likelihood.categorical(256) if kind == "categorical" else likelihood.logistic_mixture(3, 1)
    random = np.random.default_rng(1)
    outputs = jnp.asarray(random.normal(size=law.outputs) - (3 if kind == "logistic" else 0) * (np.arange(law.outputs) > 5))
    outputs = outputs.astype(jnp.float32)
    p = np.exp(law.log_prob(jnp.broadcast_to(outputs, (256, law.outputs)), levels[:, None]))
    assert p.sum() == pytest.approx(1, abs=2e-3)
    u = random.uniform(size=(20_000, law.uniforms)).astype(np.float32)
    x = np.asarray(likelihood.to_level(law.draw(jnp.broadcast_to(outputs, (20_000, law.outputs)), u)))[:, 0]
    assert x.mean() == pytest.approx((p * levels).sum(), abs=0.02)
    assert x.std() == pytest.approx(np.sqrt((p * levels**2).sum() - (p * levels).sum() ** 2), rel=0.05)


def test_a_row_of_noise_is_what_raster_asks_for():
    net, law = NETS["pixelcnn"], likelihood.categorical(3, 1)
    variables, _, _ = drawn(net, (1, 3, 4, 1))
    u = np.random.default_rng(0).uniform(size=(3, 1, 4, 1)).astype(np.float32)
    decode = decoder(net, variables, (1, 3, 4, 1))
    image = raster(decode, law.draw, lambda row: jnp.asarray(u)[row], (1, 3, 4, 1))
    logits = net.apply(variables, image)
    np.testing.assert_allclose(law.draw(logits, jnp.asarray(u)[:, 0][None]), image)  # each pixel follows from those before


def test_weight_normalisation_begins_with_unit_outputs_on_the_first_images():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8, 8, 1)) * 3 + 1, jnp.float32)
    net = PixelCNNPP(3, 4, 1, 1, dropout=0.0)
    variables = jit_once(net.init)(jax.random.key(0), x)
    out = jax.jit(net.apply)(variables, x)
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-2)


def test_bad_networks_and_labels():
    with pytest.raises(UserError, match="must divide by 4"):
        jax.eval_shape(lambda: PixelCNNPP(3, 4, 1, 3).init(jax.random.key(0), jnp.zeros((1, 6, 6, 1))))
    with pytest.raises(UserError, match="label=given: this network has 0 classes"):
        jax.eval_shape(lambda: NETS["pixelcnn"].init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), jnp.zeros(1, jnp.int32)))
    with pytest.raises(UserError, match="channels=2"):
        likelihood.logistic_mixture(3, 2)
