"""batch = f(seed, step): which images, in which order, mirrored or not, depends on nothing else.

The images of a step are the same however many devices or hosts there are; each host reads only the rows its own
devices hold. Sets in memory are gathered; large ones are decoded by Grain, in threads or worker processes. Rows cross
to the devices as bytes and become float32 in [-1, 1] there.
"""

import functools
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh

from jgen.config import DataConfig
from jgen.data.source import Example, Source, check_labels, good_example
from jgen.errors import UserError
from jgen.sharding import batch_sharding
from jgen.types import Array, Batch, Key

AHEAD = 2
"""Batches made and sent to the devices before they are needed."""

SKIPPED = "_skipped"
ERROR = "_error"


class Pipeline:
    """Batches of a source on the devices of a mesh.

    Raises UserError where the set has fewer images than a batch. `skipped` counts the bad files passed over so far.
    """

    def __init__(self, source: Source, config: DataConfig, seed: int, mesh: Mesh):
        if config.batch_size < 1:
            raise UserError(f"data.batch_size={config.batch_size}: must be at least 1")
        if len(source) < config.batch_size:
            raise UserError(f"data.batch_size={config.batch_size}: {config.name} has only {len(source)} images")
        self.source, self.config, self.seed, self.mesh = source, config, seed, mesh
        self.skipped = 0

    def batches(self, start: int = 0, scan: int = 0) -> Iterator[Batch]:
        """The batches of steps start, start + 1, ... without end; with scan=K, K steps a time, stacked [K, B, ...]."""
        ahead: deque[Batch] = deque()
        for batch in self._made(start, scan):
            ahead.append(batch)
            if len(ahead) > AHEAD:
                yield ahead.popleft()

    def _made(self, start: int, scan: int) -> Iterator[Batch]:
        key = jax.random.key(self.seed)
        sharding = batch_sharding(self.mesh, 1 if scan else 0)
        finish = _finisher(self.config.flip, self.config.dequantize, sharding)
        # Where the devices are the host's own cores, bytes save no traffic, and a program between two steps holds them up.
        on_host = jax.default_backend() == "cpu" and not (self.config.flip or self.config.dequantize)
        rows = self._rows(start)
        while True:
            steps = [next(rows) for _ in range(max(scan, 1))]
            local = {k: np.stack([s[k] for s in steps]) if scan else steps[0][k] for k in steps[0]}
            if on_host and local["image"].dtype == np.uint8:
                local["image"] = LEVELS[local["image"]]
            count = self.config.batch_size
            arrays = {k: _place(v, (scan, count) if scan else (count,), sharding) for k, v in local.items()}
            yield arrays if on_host else finish(arrays, jax.random.fold_in(key, start))
            start += max(scan, 1)

    def _rows(self, start: int) -> Iterator[Example]:
        """This host's rows of the batches of steps start, start + 1, ..."""
        mine = local_rows(self.config.batch_size, self.mesh)
        if getattr(self.source, "in_memory", False):
            in_memory: Any = self.source
            while True:
                yield in_memory[self._indices(start)[mine]]
                start += 1
        for rows in read_ahead(Stream(self.source, self.seed, start, self.config.batch_size, mine), self.config):
            yield self._checked(rows)

    def _checked(self, rows: dict[str, np.ndarray]) -> Example:
        for message in rows.pop(ERROR):
            if text := bytes(message).rstrip(b"\0").decode(errors="replace"):
                raise UserError(text)
        self.skipped += int(rows.pop(SKIPPED).sum())
        if "label" in rows:
            check_labels(rows["label"], len(self.source.classes), self.config.name)
        return rows

    def _indices(self, step: int) -> np.ndarray:
        return indices(self.source, self.seed, step, self.config.batch_size)


def indices(source: Source, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Which images make up the batch of a step [batch_size]: epoch after epoch, each in an order of its own."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    if source.endless:
        return positions % len(source)
    epochs, places = np.divmod(positions, len(source))
    chosen = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        chosen[epochs == epoch] = _order(len(source), seed, int(epoch))[places[epochs == epoch]]
    return chosen


@functools.lru_cache(4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """The rows of a batch that this process's devices hold, in order."""
    taken = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in taken]))  # pyright: ignore


def _place(rows: np.ndarray, lead: tuple[int, ...], sharding: Any) -> Array:
    """Rows of this process -> the global array."""
    shape = (*lead, *rows.shape[len(lead) :])
    if jax.process_count() == 1:
        return jax.device_put(rows, sharding)
    return jax.make_array_from_process_local_data(sharding, rows, shape)


LEVELS = np.minimum(np.arange(256) * np.float64(np.float32(1 / 127.5)) - 1, 1).astype(np.float32)
"""The pixel of each byte, bit by bit that of the program below, which multiplies by the reciprocal and rounds once."""


@functools.lru_cache(8)
def _finisher(flip: bool, dequantize: bool, sharding: Any) -> Any:
    """The compiled last step on the devices: bytes -> float32 in [-1, 1], mirroring, dequantisation."""

    def finish(rows: dict[str, Array], key: Key) -> Batch:
        x = rows["image"]
        flip_key, noise_key = jax.random.split(key)
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32)
            if dequantize:
                x = (x + jax.random.uniform(noise_key, x.shape)) / 128.0 - 1.0
            else:
                x = jnp.minimum(x / 127.5 - 1.0, 1.0)  # the reciprocal XLA multiplies by rounds 1 up
        if flip:
            mirrored = jax.random.bernoulli(flip_key, shape=x.shape[:-3])[..., None, None, None]
            x = jnp.where(mirrored, jnp.flip(x, -2), x)
        return {**rows, "image": x}

    return jax.jit(finish, out_shardings=sharding)


class Stream:
    """This host's rows of all batches from a step on, as one long random-access sequence for Grain.

    A bad file becomes the next good one where the source skips them, else a message that the main process raises.
    """

    def __init__(self, source: Source, seed: int, start: int, batch_size: int, rows: np.ndarray):
        self.source, self.seed, self.start, self.batch_size, self.rows = source, seed, start, batch_size, rows

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, position: int, /) -> Example:
        step, row = divmod(int(position), len(self.rows))
        index = int(self._indices(self.start + step)[self.rows[row]])
        try:
            found, skipped = good_example(self.source, index)
        except UserError as error:
            example: dict[str, Any] = {"image": np.zeros(self.source.shape, np.uint8)}
            if self.source.classes:
                example["label"] = np.int32(0)
            return {**example, SKIPPED: np.int32(0), ERROR: _message(str(error))}
        return {**found, SKIPPED: np.int32(skipped), ERROR: _message("")}

    @functools.lru_cache(4)  # noqa: B019 - one stream lives as long as its run
    def _indices(self, step: int) -> np.ndarray:
        return indices(self.source, self.seed, step, self.batch_size)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __repr__(self) -> str:
        return f"Stream({type(self.source).__name__}, seed={self.seed}, start={self.start})"


def _message(text: str) -> np.ndarray:
    return np.frombuffer(text.encode()[:500].ljust(500, b"\0"), np.uint8)


def read_ahead(stream: Stream, config: DataConfig) -> Iterator[dict[str, np.ndarray]]:
    """Host batches of a stream, read by Grain: in threads, or in config.workers processes."""
    import grain  # which takes a second, and sets in memory do without

    examples = grain.MapDataset.source(stream)  # pyright: ignore[reportArgumentType]
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4 * len(stream.rows))
    batches = examples.to_iter_dataset(options).batch(len(stream.rows))
    if config.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which only an absl program has parsed
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers))
    yield from iter(batches)
