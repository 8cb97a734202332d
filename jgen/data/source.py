"""A source of examples: a length, a shape, class names, and examples by index; small ones hold arrays, large ones decode."""

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from jgen.data.images import without_advice
from jgen.errors import UserError

Example = Mapping[str, Any]
IN_MEMORY = 256 * 2**20
"""Sets of at most so many bytes of pixels are decoded once and kept; larger ones are decoded as they are needed."""

BUILT_IN = ("digits", "stacked_digits", "glyphs", "fashion_mnist", "emoji")


class Source(Protocol):
    """Examples by index: {"image": uint8 [H, W, C] (or float32 in [-1, 1]), "label": int32, ...}."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; empty where there are no labels."""
        ...

    @property
    def endless(self) -> bool:
        """Every index is a new random example, so there are no epochs to shuffle."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """A set that is held in memory. Raises UserError for arrays of unequal length or labels without a class."""

    arrays: Mapping[str, np.ndarray]
    """"image": uint8 [N, H, W, C]; "label": int32 [N]; more keys where there are more."""
    classes: tuple[str, ...] = ()
    name: str = "arrays"
    endless = False
    in_memory = True
    """It takes arrays of indices."""

    def __post_init__(self) -> None:
        if "image" not in self.arrays:
            raise UserError(f'{self.name}: arrays {", ".join(self.arrays)}; one must be "image"')
        sizes = {key: len(value) for key, value in self.arrays.items()}
        if len(set(sizes.values())) != 1:
            raise UserError(f"{self.name}: {sizes}: every array must be of the same length")
        if self.arrays["image"].ndim != 4:
            raise UserError(f"{self.name}: images of shape {self.arrays['image'].shape}: must be [N, H, W, C]")
        check_pixels(self.arrays["image"], self.name)
        if "label" in self.arrays:
            labels = self.arrays["label"]
            if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
                raise UserError(f"{self.name}: labels of shape {labels.shape}, {labels.dtype}: must be whole numbers [N]")
            check_labels(self.arrays["label"], len(self.classes), self.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.arrays["image"].shape[1:]

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, index: Any, /) -> Example:
        """The example at an index, or those at an array of indices."""
        return {key: value[index] for key, value in self.arrays.items()}


def check_pixels(images: np.ndarray, name: str) -> None:
    """Raises UserError unless images are 8-bit, or floats in [-1, 1]."""
    if images.dtype == np.uint8:
        return
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"{name}: images of {images.dtype}; must be uint8 (8 bits), or floats in [-1, 1]")
    if images.size and not (np.abs(images) <= 1).all():
        raise UserError(f"{name}: images from {images.min():g} to {images.max():g}; floats must lie in [-1, 1]")


def check_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raises UserError for a label outside 0..num_classes - 1."""
    bad = labels[(labels < 0) | (labels >= num_classes)]
    if len(bad):
        if not num_classes:
            raise UserError(f"{name}: labels, but no classes; name them")
        raise UserError(f"{name}: label {bad[0]} is out of range, there are {num_classes} classes (0..{num_classes - 1})")


def load(source: Source, count: int, name: str, skip_bad: bool) -> ArraySource:
    """The first `count` examples, decoded in threads and kept. Bad files stop it, or are skipped and counted."""

    def one(index: int) -> Example | UserError:
        try:
            return source[index]
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, range(count)))
    bad = [r for r in results if isinstance(r, UserError)]
    good = [r for r in results if not isinstance(r, UserError)]
    if bad and not skip_bad:
        raise bad[0]
    first = without_advice(bad[0]) if bad else ""
    if not good:
        raise UserError(f"{name}: none of its {count} files can be read, the first: {first}")
    if bad:
        print(f"{name}: skipped {len(bad)} of {count} files that can't be read, the first: {first}")
    return ArraySource({k: np.stack([r[k] for r in good]) for k in good[0]}, source.classes, name)


@dataclasses.dataclass(frozen=True, eq=False)
class Wrapped:
    """Another source as it is: what a source that changes one thing about it begins from."""

    source: Source

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def endless(self) -> bool:
        return self.source.endless

    @property
    def skip_bad(self) -> bool:
        return getattr(self.source, "skip_bad", False)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        return self.source[index]


@dataclasses.dataclass(frozen=True, eq=False)
class Limited(Wrapped):
    """The first so many examples of a large set."""

    count: int

    @property
    def endless(self) -> bool:
        return False

    def __len__(self) -> int:
        return self.count


def good_example(source: Source, index: int) -> tuple[Example, int]:
    """(the example at an index, 0); or, of a source that skips bad files, the next that can be read and how many could not."""
    first: UserError | None = None
    for skipped in range(len(source)):
        try:
            return source[(index + skipped) % len(source)], skipped
        except UserError as error:
            if not getattr(source, "skip_bad", False):
                raise
            first = first or error
    raise UserError(f"no file of the set can be read, the first: {first}")
