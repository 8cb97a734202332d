"""DCT images as sparse sequences: nothing is lost, what is legal is what comes next, and windows cover every tuple once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.dct import jpeg, sequence
from jgen.dct.chunks import Chunks, chunks
from jgen.dct.images import codec
from jgen.dct.sequence import Layout, Tuples

pytestmark = pytest.mark.slow
SMALL = Layout(2, 3, (3, 2, 1, 0))


def random_planes(random, layout, batch, share=0.3):
    """Coefficients of which a share is not 0, within their bounds."""
    most = np.array(layout.bounds)[:, None]
    shape = (batch, layout.channels, layout.positions)
    values = random.integers(-most, most + 1, shape)
    return jnp.asarray(np.where(random.uniform(size=shape) < share, values, 0), jnp.int32)


@pytest.mark.parametrize("seed", range(5))
def test_images_come_back_from_their_sequences_whatever_side_quality_and_block(seed):
    random = np.random.default_rng(seed)
    block, colours = (1, 4, 5, 8, 16)[seed], int(random.choice([1, 3]))
    rows, columns, quality = (int(random.integers(1, n)) for n in (4, 4, 101))
    kind = [random.integers(0, 256, (2, rows * block, columns * block, colours)), np.full((2, block, block, colours), 0)]
    for pixels in (*kind, kind[0] // 128 * 255):
        own = codec(pixels.shape[1:], quality, block)
        planes = own.planes(jnp.asarray(pixels / 127.5 - 1, jnp.float32))
        tuples = sequence.encode(planes, own.layout)
        sequence.check(tuples, own.layout)
        np.testing.assert_array_equal(sequence.decode(tuples, own.layout), planes)
        levels = sequence.levels_of(planes, own.layout, colours)
        np.testing.assert_array_equal(levels, jpeg.quantized(jnp.asarray(pixels, jnp.float32), quality, block))
        np.testing.assert_array_equal(sequence.planes_of(levels), planes)
        sums = (tuples.channel < own.layout.channels).sum(-1)
        np.testing.assert_array_equal(sums, sequence.count(planes))


def test_the_order_is_by_frequency_then_colour_then_block():
    levels = np.zeros((1, 1, 2, 3, 64), int)
    levels[0, 0, 1, 0, 0], levels[0, 0, 0, 2, 0], levels[0, 0, 0, 0, 1], levels[0, 0, 0, 0, 0] = 5, 6, 7, 8
    own = sequence.layout((8, 16, 3), 50)
    tuples = sequence.encode(sequence.planes_of(jnp.asarray(levels)), own, 6)
    np.testing.assert_array_equal(tuples.channel[0], [0, 0, 2, 3, 192, 192])
    np.testing.assert_array_equal(tuples.position[0], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(tuples.value[0], [8, 5, 6, 7, 0, 0])


def test_the_bounds_of_coefficients_are_reached_and_not_passed():
    for block in (4, 8):
        sign = np.sign(np.kron(*[jpeg.dct_matrix(block)] * 2)) > 0  # the images that are furthest along each basis
        pixels = jnp.asarray(np.concatenate([sign, ~sign]) * 255.0, jnp.float32).reshape(-1, block, block, 1)
        for quality in (1, 50, 97):
            levels = np.abs(np.asarray(jpeg.quantized(pixels, quality, block))).max((0, 1, 2))
            bounds = jpeg.bounds(quality, 1, block)
            assert (levels <= bounds).all()
            assert (levels >= bounds - np.ceil(bounds / 128)).all()  # 255 is a level less far from 128 than 0 is


def test_tables_of_other_blocks_hold_the_same_frequencies():
    np.testing.assert_array_equal(jpeg.tables(60, 3, 4), jpeg.tables(60)[:, ::2, ::2])
    np.testing.assert_array_equal(jpeg.tables(60, 3, 16)[:, ::2, ::2], jpeg.tables(60))


def test_legal_tuples_are_those_that_a_longer_sequence_can_have():
    """Against every sequence of two tuples, by trying them."""
    slots = [(c, p) for c in range(SMALL.channels) for p in range(SMALL.positions)]
    free = jnp.asarray(np.random.default_rng(0).uniform(size=(1, SMALL.channels, SMALL.positions)) < 0.4)
    last = jnp.max(jnp.where(free, jnp.arange(SMALL.positions)[None, None], -1), -1)
    for c, p in [(-1, 0), *slots, (SMALL.channels, 0)]:
        before = Tuples(*(jnp.full((1, 1), v) for v in (c, p, 1)))
        after = [(d, q) for d, q in slots if (d, q) > (c, p) or c == -1]
        for mask, those in ((None, after), (free, [(d, q) for d, q in after if free[0, d, q]])):
            channels = np.asarray(sequence.legal_channels(before, SMALL, None if mask is None else last[:, None]))[0, 0]
            assert {*np.flatnonzero(channels)} == {d for d, _ in those} | {SMALL.channels}
            for d in np.flatnonzero(channels)[:-1]:
                given = None if mask is None else mask[:, None]
                positions = sequence.legal_positions(before, jnp.full((1, 1), int(d)), SMALL, given)
                assert {*np.flatnonzero(positions[0, 0])} == {q for e, q in those if e == d}
    values = np.asarray(sequence.legal_values(jnp.arange(5), SMALL))
    assert [SMALL.values[row].tolist() for row in values[:4]] == [[-3, -2, -1, 1, 2, 3], [-2, -1, 1, 2], [-1, 1], []]


@pytest.mark.parametrize("size,overlap,length", [(8, 3, 0), (5, 0, 0), (25, 24, 0), (30, 7, 0), (8, 7, 13), (4, 1, 24)])
def test_windows_predict_every_tuple_once_and_know_all_that_came_before(size, overlap, length):
    own, random = chunks(SMALL, size, overlap, length), np.random.default_rng(0)
    planes = random_planes(random, SMALL, 6, 0.9)
    tuples = sequence.encode(planes, SMALL, max(own.total, SMALL.size))
    tuples = tuples.map(lambda x: jnp.pad(x[:, : own.total], ((0, 0), (0, max(0, own.total - x.shape[1])))))
    seen = [[] for _ in range(6)]
    for k in range(own.count):
        number = jnp.full(6, k)
        window, predicted = own.window(tuples, number), own.predicted(number)
        past = own.so_far(tuples, number, SMALL)
        for i in range(6):
            assert [int(c) for c in past.channel[i] if c < SMALL.channels] == [c for c in seen[i] if c < SMALL.channels]
            assert int(window.channel[i, 0]) == ([-1] + seen[i])[k * own.stride]
            seen[i] += np.asarray(window.channel[i, 1:])[predicted[i]].tolist()
    np.testing.assert_array_equal(seen, tuples.channel)
    number, needed = sequence.count(planes), own.needed(sequence.count(planes))
    for n, k in zip(np.asarray(number), np.asarray(needed)):
        reach = own.size + (k - 1) * own.stride
        assert n < reach or k == own.count  # with the stop
        assert k == 1 or n >= reach - own.stride


@pytest.mark.parametrize("shape,block", [((30, 29, 3), 8), ((5, 3, 1), 4), ((8, 8, 1), 8)])
def test_sides_that_blocks_do_not_divide_are_filled_up_and_cut_off_again(shape, block):
    own = codec(shape, 100, block)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, *shape)) / 127.5 - 1, jnp.float32)
    planes = own.planes(x)
    assert planes.shape == (2, own.layout.channels, -(-shape[0] // block) * -(-shape[1] // block))
    back = own.images(planes)
    assert back.shape == x.shape
    assert np.abs(back - x).max() <= 4 / 127.5  # what rounding of the coefficients (and of colours) takes
    whole = jnp.pad(x, ((0, 0), (0, -shape[0] % block), (0, -shape[1] % block), (0, 0)), mode="edge")
    np.testing.assert_array_equal(codec(whole.shape[1:], 100, block).planes(whole), planes)


BAD = {
    "images of 4 channels: must have 1 or 3": lambda: codec((8, 8, 4), 50),
    "quality=101: must be from 1 to 100": lambda: codec((8, 8, 1), 101),
    "overlap=8: must be below chunk=8": lambda: chunks(SMALL, 8, 8),
    "length=25: images have 24 coefficients": lambda: chunks(SMALL, 8, 2, 25),
    "length=3: an image has 4 coefficients that are not 0": lambda: sequence.encode(
        jnp.zeros((1, 4, 6), jnp.int32).at[0, 0, :4].set(1), SMALL, 3
    ),
    "coefficient -3 of channel 1: must be from -2 to 2 at this quality": lambda: sequence.encode(
        jnp.zeros((1, 4, 6), jnp.int32).at[0, 1, 2].set(-3), SMALL
    ),
    r"planes: shape \(1, 3, 6\) must end in \(4, 6\)": lambda: sequence.encode(jnp.zeros((1, 3, 6), jnp.int32), SMALL),
    r"tuple 0 \(5, 0, 1\): channel must be from 0 to 4": lambda: decoded((5, 0, 1)),
    r"tuple 1 \(1, 6, 1\): position must be from 0 to 5": lambda: decoded((0, 0, 1), (1, 6, 1)),
    r"tuple 0 \(2, 1, -2\): value must be from -1 to 1 and not 0": lambda: decoded((2, 1, -2)),
    r"tuple 0 \(2, 1, 0\): value must be from -1 to 1 and not 0": lambda: decoded((2, 1, 0)),
    r"tuple 1 \(0, 3, 1\): must come after the one before": lambda: decoded((0, 3, 2), (0, 3, 1)),
    r"tuple 2 \(1, 3, 1\): must come after the one before": lambda: decoded((0, 3, 2), (4, 0, 0), (1, 3, 1)),
}


def decoded(*tuples):
    return sequence.decode(Tuples(*jnp.asarray(tuples)[None].transpose(2, 0, 1)), SMALL)


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=message) as error:
        BAD[message]()
    assert "\n" not in str(error.value)


def test_an_image_without_coefficients_is_a_stop_alone():
    planes = jnp.zeros((1, 4, 6), jnp.int32)
    tuples = jax.jit(lambda x: sequence.encode(x, SMALL, 3))(planes)
    np.testing.assert_array_equal(tuples.channel, [[4, 4, 4]])
    np.testing.assert_array_equal(sequence.decode(tuples, SMALL), planes)
    assert Chunks(8, 2, 24).needed(sequence.count(planes)) == 1
