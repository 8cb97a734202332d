"""Embeddings of classes by a pretrained network."""

import numpy as np

from jgen.data import ArraySource
from jgen.recipes.gan import class_table


def test_every_class_of_a_sorted_set_is_found():
    labels = np.repeat(np.arange(3, dtype=np.int32), 400)
    images = np.broadcast_to((labels * 50).astype(np.uint8)[:, None, None, None], (1200, 2, 2, 1))
    source = ArraySource({"image": images, "label": labels}, ("a", "b", "c"))
    found = class_table.of_classes(source, 3)
    assert [len(images) for images in found.values()] == [class_table.EACH] * 3
    for k, images in found.items():
        np.testing.assert_allclose(images, k * 50 / 127.5 - 1, atol=1e-6)


def test_a_class_that_is_not_there_has_no_images_and_a_set_without_end_is_searched_in_part():
    class Endless:
        classes, endless, looked = ("a", "b"), True, 0

        def __len__(self):
            return 2**40

        def __getitem__(self, index):
            self.looked += 1
            return {"image": np.zeros((2, 2, 1), np.uint8), "label": np.int32(0)}

    source = Endless()
    found = class_table.of_classes(source, 2)
    assert ([len(images) for images in found.values()], source.looked) == ([class_table.EACH, 0], 2 * class_table.SEARCHED)
