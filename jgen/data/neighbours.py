"""IC-GAN's examples (Casanova et al. 2021, arXiv:2109.05070): the image of a neighbour, with the features of its instance."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jgen.data.source import ArraySource, Example, Wrapped


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours(Wrapped):
    """Endless examples: instances in epochs, each with a random neighbour; example n depends on (seed, n) alone.

    "image" and "label" are the neighbour's, "features" float32 [D] the instance's: as in the authors' code an image is judged
    by the features of the centre of its neighbourhood.
    """

    features: np.ndarray
    """float32 [1, N, D] of norm 1; or [2, N, D], with those of the mirrored images, either of which an example has."""
    neighbours: np.ndarray
    """int [N, k]: places of every instance's neighbours."""
    seed: int = 0
    init_inputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Arrays for a stage's initialisation, see `jgen.train.stage.Stage`."""

    @property
    def endless(self) -> bool:
        return True

    @property
    def in_memory(self) -> bool:
        """Whether it takes arrays of indices."""
        return isinstance(self.source, ArraySource)

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, index: Any, /) -> Example:
        """The example at an index, or those at an array of indices where the set is in memory."""
        epochs, places = np.divmod(np.asarray(index), len(self.neighbours))
        instance, neighbour, mirrored = (np.empty_like(places) for _ in range(3))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            for found, drawn in zip((instance, neighbour, mirrored), _epoch(*self._sizes, self.seed, int(epoch))):
                found[here] = drawn[places[here]]
        image, source = self.neighbours[instance, neighbour], self.source
        whole: Any = source  # whose arrays take arrays of places, where it is in memory
        example = whole[image] if image.ndim else source[int(image)]
        return {**example, "features": self.features[mirrored, instance]}

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return *self.neighbours.shape, len(self.features)


@functools.lru_cache(4)
def _epoch(count: int, k: int, versions: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(instances in the order of an epoch, the neighbour of each, the version of its features), [count] each."""
    random = np.random.default_rng([seed, epoch])
    return random.permutation(count), random.integers(k, size=count), random.integers(versions, size=count)
