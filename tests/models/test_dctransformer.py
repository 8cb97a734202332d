"""DCTransformer: probabilities sum to one over all images, cached decode equals whole windows, known coefficients stay."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.dct.chunks import Chunks
from jgen.dct.sequence import Layout, Tuples, count, decode, encode
from jgen.models.dctransformer import DCTransformer
from jgen.objectives.sparse import chunk_log_prob
from jgen.samplers import image_keys
from jgen.samplers.sparse import Known, SparseDecoder, sparse_autoregressive

pytestmark = pytest.mark.slow
TINY, PAIRS = Layout(1, 2, (1, 1)), Chunks(3, 1, 4)
EVERY = jnp.asarray(list(itertools.product((-1, 0, 1), repeat=4)), jnp.int32).reshape(81, 2, 2)
"""All DCT images of the tiny layout."""


def network(layout=TINY, chunks=PAIRS, **options):
    return DCTransformer(layout, chunks, 8, 2, 1, 1, 1, 1, **options)


def weights(net, seed=0, label=None):
    """Large random ones, so that probabilities are far from even."""
    batch, random = 1 if label is None else len(label), np.random.default_rng(seed)
    zeros = jnp.zeros((batch, net.chunks.size + 1), jnp.int32)
    image = jnp.zeros((batch, net.layout.channels, net.layout.positions), jnp.int32)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), Tuples(zeros, zeros, zeros), image, zeros[:, 0], label))
    return jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape) * 0.6, jnp.float32), shapes)


def log_prob(net, variables, planes, label=None):
    """log p [B] of DCT images, over all windows."""

    def apply(params, *given):
        return net.apply(params, *given)

    tuples, total = encode(planes, net.layout, net.chunks.total), 0.0
    for k in range(net.chunks.count):
        window = jnp.full(len(planes), k)
        total = total + chunk_log_prob(apply, variables, tuples, window, net.layout, net.chunks, label)
    return total


def drawn(net, variables, keys, known=None, label=None):
    def step(context, kept, place, before, chunk, choose, slots, /):
        return net.apply(variables, context, kept, place, before, chunk, choose, label, slots, method="step")

    decoder = SparseDecoder(
        lambda image: net.apply(variables, image, label, method="encode"), step,
        net.apply(variables, len(keys), method="empty"),
    )  # fmt: skip
    return sparse_autoregressive(decoder, net.layout, net.chunks, keys, known=known)


@pytest.fixture(scope="module")
def tiny():
    """(network, weights, log p of every image) with windows that overlap."""
    net = network()
    assert net.chunks.count == 2
    variables = weights(net)
    return net, variables, jax.jit(lambda v: log_prob(net, v, EVERY))(variables)


@pytest.mark.parametrize("chunks", [Chunks(5, 0, 4), Chunks(2, 0, 4)])
def test_the_probabilities_of_all_images_sum_to_one(chunks, tiny):
    np.testing.assert_allclose(np.exp(tiny[2]).sum(), 1, rtol=1e-5)
    assert np.exp(tiny[2]).std() > 1e-3
    net = network(chunks=chunks)
    found = jax.jit(lambda v: log_prob(net, v, EVERY))(weights(net))
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-5)


def test_draws_follow_the_likelihood_and_each_image_its_own_key(tiny):
    net, variables, expected = tiny
    run = jax.jit(lambda v, keys: drawn(net, v, keys))
    keys = image_keys(0, 4000)
    images = np.asarray(run(variables, keys))
    number = ((images.reshape(-1, 4) + 1) * 3 ** np.arange(4)[::-1]).sum(1)
    share = np.bincount(number, minlength=81) / len(images)
    assert np.abs(share - np.exp(expected)).max() < 0.03
    assert 0.5 * np.abs(share - np.exp(expected)).sum() < 0.08
    np.testing.assert_array_equal(jax.jit(lambda v, k: drawn(net, v, k))(variables, keys[2:4]), images[2:4])


def test_known_coefficients_stay_and_those_behind_them_are_drawn_as_they_are_by_the_model(tiny):
    net, variables, expected = tiny
    keys, run = image_keys(1, 4000), jax.jit(lambda v, keys, known: drawn(net, v, keys, known))
    for planes in ([[1, 0], [0, 0]], [[-1, 1], [0, 0]]):  # the first channel is known: upsampling, exactly
        given = Known(jnp.tile(jnp.asarray(planes)[None], (4000, 1, 1)), jnp.tile(jnp.array([[[True], [False]]]), (4000, 1, 2)))
        images = np.asarray(run(variables, keys, given))
        np.testing.assert_array_equal(images[:, 0], given.planes[:, 0])
        like = (np.asarray(EVERY)[:, 0] == np.array(planes[0])[None]).all(-1)
        p = np.exp(np.asarray(expected))[like]
        share = np.array([(images == one[None]).all((1, 2)).mean() for one in np.asarray(EVERY)[like]])
        assert np.abs(p / p.sum() - share).max() < 0.03
    random = np.random.default_rng(0)
    planes, mask = EVERY[random.integers(0, 81, 4000)], jnp.asarray(random.uniform(size=(4000, 2, 2)) < 0.5)
    images = run(variables, keys, Known(planes, mask))
    np.testing.assert_array_equal(jnp.where(mask, images, 0), jnp.where(mask, planes, 0))
    assert float(jnp.abs(images * ~mask).mean()) > 0.01
    with pytest.raises(ValueError, match=r"known: shapes .* must be \(2, 2, 2\)"):
        drawn(net, variables, keys[:2], Known(planes[:3], mask[:3]))


WIDER = Layout(2, 2, (4, 2, 1, 3, 1, 2))


def sequences(layout, batch, seed=0):
    random = np.random.default_rng(seed)
    most = np.array(layout.bounds)[:, None]
    values = random.integers(-most, most + 1, (batch, layout.channels, layout.positions))
    return jnp.asarray(values * (random.uniform(size=values.shape) < 0.5), jnp.int32)


@pytest.mark.parametrize("options", [{}, {"patch": 2, "classes": 3}])
def test_the_cached_decode_gives_the_logits_of_whole_windows(options):
    """Of every head, place by place; and those of a place don't depend on what comes after it."""
    net, label = network(WIDER, Chunks(6, 2, 24), **options), jnp.array([0, 2, 1]) if "classes" in options else None
    variables, planes = weights(net, 1, label), sequences(WIDER, 3)
    tuples, k = encode(planes, WIDER, net.chunks.total), jnp.array([0, 1, 2])
    window, image = net.chunks.window(tuples, k), decode(net.chunks.so_far(tuples, k, WIDER), WIDER)

    def walk(v, window):
        context = net.apply(v, image, label, method="encode")

        def one(carry, place):
            kept, before = carry
            now = window.map(lambda x: jax.lax.dynamic_slice_in_dim(x, place + 1, 1, 1))
            indices, found = (now.channel, now.position, net.value_index(now.value)), []

            def choose(part, logits):
                found.append(logits[:, 0])
                return indices[part]

            given, kept = net.apply(v, context, kept, place, before, k, choose, label, method="step")
            return (kept, now), (found, given.map(lambda x: x[:, 0]))

        first = window.map(lambda x: x[:, :1])
        return jax.lax.scan(one, (net.apply(v, 3, method="empty"), first), jnp.arange(net.chunks.size))[1]

    whole = jax.jit(lambda v, w: net.apply(v, w, image, k, label))
    expected, (found, given) = whole(variables, window), jax.jit(walk)(variables, window)
    for a, b in zip(expected, found):
        a, b = np.asarray(a), np.moveaxis(np.asarray(b), 0, 1)
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
        np.testing.assert_allclose(a[np.isfinite(a)], b[np.isfinite(b)], atol=2e-5)
    np.testing.assert_array_equal(given.value.T, window.value[:, 1:])
    other = window.map(lambda x: x.at[:, 4:].set(x[::-1, 4:]))  # tuples 3, 4, ... of the window
    for part, (a, b) in enumerate(zip(expected, whole(variables, other))):
        legal = np.isfinite(a) & np.isfinite(b)
        np.testing.assert_array_equal(np.where(legal, a, 0)[:, :3], np.where(legal, b, 0)[:, :3])
        assert part or np.abs(np.where(legal, a - b, 0)[:, 4:]).max() > 1e-3


def test_chunks_change_nothing_where_only_the_tuple_before_counts():
    """A network whose attention, places and image are without effect: a Markov chain, which windows can't disturb."""

    def blind(path, x):
        names = [str(part.key) for part in path]
        silent = {"proj", "cross_proj", "place_embed", "chunk_embed", "encoder_norm"} & set(names)
        return jnp.zeros_like(x) if silent else x

    planes, found = sequences(WIDER, 5), []
    for chunks in (Chunks(25, 0, 24), Chunks(6, 2, 24), Chunks(4, 0, 24), Chunks(9, 8, 24)):
        net = network(WIDER, chunks)
        variables = jax.tree_util.tree_map_with_path(blind, weights(net, 2))
        first = network(WIDER, Chunks(25, 0, 24))
        kept = jax.tree_util.tree_map_with_path(blind, weights(first, 2))
        variables = jax.tree.map(lambda a, b: b if a.shape == b.shape else a, variables, kept)
        found.append(jax.jit(lambda v, net=net: log_prob(net, v, planes))(variables))
    assert np.std(found[0]) > 0.1
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-5)


def test_a_sequence_that_fits_the_first_window_needs_no_other():
    net = network(WIDER, Chunks(12, 3, 24))
    variables, planes = weights(net, 3), sequences(WIDER, 4)
    planes = planes.at[:, 2:].set(0)
    assert int(count(planes).max()) < 12
    tuples = encode(planes, WIDER, net.chunks.total)
    parts = [
        chunk_log_prob(net.apply, variables, tuples, jnp.full(4, k), WIDER, net.chunks, None) for k in range(net.chunks.count)
    ]
    assert len(parts) == 3
    np.testing.assert_array_equal(parts[1:], 0)
    one = network(WIDER, Chunks(12, 0, 11))  # no windows but the first
    cut = {"params": {**variables["params"], "chunk_embed": {"embedding": variables["params"]["chunk_embed"]["embedding"][:1]}}}
    alone = chunk_log_prob(one.apply, cut, encode(planes, WIDER, 12), jnp.zeros(4, jnp.int32), WIDER, one.chunks, None)
    np.testing.assert_allclose(alone, parts[0], rtol=1e-5)


BAD = {
    "patch=2: must divide the 1x2 blocks of an image": lambda: weights(network(patch=2)),
    "heads=3: must divide width=8": lambda: weights(DCTransformer(TINY, PAIRS, 8, 3)),
    "label=given: this network has 0 classes": lambda: weights(network(), label=jnp.zeros(1, jnp.int32)),
    "label=none: this network has 2 classes": lambda: weights(network(classes=2)),
}


@pytest.mark.parametrize("message", BAD)
def test_networks_that_do_not_fit(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
