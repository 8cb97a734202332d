"""IC-GAN's examples: images of neighbours, features of instances, a function of (seed, n)."""

import numpy as np
import pytest

from jgen.data.neighbours import Neighbours
from jgen.data.source import ArraySource
from jgen.errors import UserError
from jgen.metrics.neighbours import nearest

N, K = 12, 3


def examples(seed=0, versions=1):
    """A set whose image n is n everywhere, and whose features begin with (version, n)."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 2, 2, 1))
    source = ArraySource({"image": images, "label": np.arange(N, dtype=np.int32)}, tuple(map(str, range(N))))
    features = np.stack([[(v, n) for n in range(N)] for v in range(versions)]).astype(np.float32)
    near = (np.arange(N)[:, None] + 1 + np.arange(K)) % N
    return Neighbours(source, features, near, seed)


def test_every_instance_comes_once_an_epoch_with_one_of_its_neighbours():
    found = examples()[np.arange(3 * N)]
    instances, images = found["features"][:, 1].astype(int), found["image"][:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(np.sort(instances.reshape(3, N)), np.tile(np.arange(N), (3, 1)))
    assert set((images - instances) % N) == set(range(1, K + 1))  # all of its neighbours, and never itself
    np.testing.assert_array_equal(found["label"], images)


def test_an_example_depends_on_the_seed_and_its_number_alone():
    one, many = examples(versions=2), examples(versions=2)[np.arange(5, 40)]
    for name, value in one[17].items():
        np.testing.assert_array_equal(value, many[name][12])
    assert set(many["features"][:, 0]) == {0, 1}  # of the image, or of its mirror image
    assert not np.array_equal(examples(seed=1)[np.arange(N)]["features"], one[np.arange(N)]["features"])


@pytest.mark.parametrize("tile", [4, 5, 64])
def test_nearest_rows_are_those_of_all_distances(tile):
    x = np.random.default_rng(0).normal(size=(23, 6)).astype(np.float32)
    distances = np.square(x[:, None] - x[None]).sum(-1) + np.where(np.eye(23), np.inf, 0)
    np.testing.assert_array_equal(nearest(x, 5, tile), np.argsort(distances, 1)[:, :5])


def test_more_neighbours_than_other_images_are_refused():
    with pytest.raises(UserError, match="neighbours=4: must be at least 1, and less than the 4 images"):
        nearest(np.zeros((4, 2), np.float32), 4)
