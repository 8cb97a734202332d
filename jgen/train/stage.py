"""An experiment: data -> network -> objective -> training -> checkpoint -> sampler -> metric, each a plain value."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jgen.config import DataConfig, TrainConfig
from jgen.data import open_source
from jgen.data.images import scaled
from jgen.data.source import Source
from jgen.edit.space import NoiseSpace, StyleSpace
from jgen.errors import UserError
from jgen.sharding import state_shardings
from jgen.train.checkpoint import newest_good
from jgen.train.step import Decay, Phase, TrainState, init_state
from jgen.types import Array, Batch, Extra, Key, LossFn, Params, Sample

Evaluate = Callable[[Params, Extra, Key, Iterator[Batch], int], Mapping[str, Any]]
"""(params, extra, key, batches of a held-out set, how many of them to take) -> named numbers."""

Picture = Callable[[Params, Extra, Key, Batch], Array]
"""(params, extra, key, a batch of held-out images) -> images [N, H, W, C] of a grid."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training run from initial weights to samples; most experiments have just one."""

    name: str
    data: DataConfig
    train: TrainConfig
    init: Callable[[Key, Batch], tuple[Params, Extra]]
    """(key, the set's first images) -> fresh (params, extra) of all players; traced, so that they are made in place on every
    device. An initialisation that depends on data, such as weight normalisation's, looks at the images."""
    phases: Sequence[Phase]
    optimizers: Mapping[str, optax.GradientTransformation]
    sample: Sample | None = None
    """Draws images; None for a stage that makes none, such as a classifier."""
    options: Any = None
    """Default options of `sample`; a frozen dataclass."""
    pictures: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    """Other pictures by name, such as reconstructions; written beside the sample grids."""
    on_request: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    """Pictures that are made only on request, such as edited images."""
    ema: Mapping[str, Decay] = dataclasses.field(default_factory=dict)
    supports: frozenset[str] = frozenset()
    """Which of train.dtype and train.remat its networks heed. All stages recompute with remat: those whose networks do not do
    so block by block keep products alone."""
    validate: LossFn | None = None
    """The loss on held-out images that ranks checkpoints; without it only the newest are kept."""
    evaluate: Evaluate | None = None
    external_params: Callable[[Any, Mesh | None], Extra] | None = None
    """(options, mesh) -> weights of other runs that sampling needs, such as a classifier's; they join `extra`."""
    example_inputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """One of each array that its losses read of an example besides image and label, such as a caption."""
    source: Callable[[Source], Source] | None = None
    """(the set as it is opened) -> the examples of the training, where they are not the set's own."""
    init_inputs: Mapping[str, jax.ShapeDtypeStruct] = dataclasses.field(default_factory=dict)
    """Arrays that `init` reads besides the first images: the `init_inputs` of the source."""
    begin: Callable[[Params, Extra, Params, Extra], tuple[Params, Extra]] | None = None
    """(params, extra of the stage before; fresh params, extra) -> what to begin from; None starts fresh."""

    moved: Callable[[Params, Extra, Key, Any, Array], Array] | None = None
    """(params, extra, one key an image, options, transform [3, 3] of the generator's input) -> images as the network makes
    them, not clipped; None for a generator whose input has no place."""
    space: StyleSpace | None = None
    """The styles of a generator that has them, for inversion and editing."""
    noise: NoiseSpace | None = None
    """The way of a diffusion model from images to noise and back, likewise."""

    def extra_for(self, extra: Extra, options: Any, mesh: Mesh | None = None) -> Extra:
        """The extra that `sample`, pictures and the evaluation are given."""
        return {**extra, **self.external_params(options, mesh)} if self.external_params else extra

    def open_source(self) -> Source:
        """The examples of the training."""
        source = open_source(self.data, self.train.seed)
        return self.source(source) if self.source else source

    def create(self, key: Key, batch: Batch, earlier: tuple[Params, Extra] | None = None) -> TrainState:
        """The state at step 0. Raises UserError for an earlier stage's weights of other sizes."""
        params, extra = fresh = self.init(key, batch)
        if earlier is not None:
            take_over = self.begin or (lambda params, extra, *fresh: (params, extra))
            params, found = take_over(*earlier, *fresh)
            # State that only the new settings need starts fresh; state that only the earlier ones needed is dropped.
            extra = {**extra, **{k: v for k, v in found.items() if k in extra}}
            for name, taken, made in zip(("weights", "state"), (params, extra), fresh):
                if jax.tree.map(jnp.shape, taken) != jax.tree.map(jnp.shape, made):
                    raise UserError(f"{self.name}: the run it begins from has {name} of other sizes; give it the same settings")
        return init_state(params, extra, self.optimizers, self.ema)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Stages in order, each begun from what the one before made."""

    stages: Sequence[Stage]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise UserError(f"stages {names}: an experiment needs at least one, of different names")

    def folder(self, run: Path, stage: Stage) -> Path:
        """The folder of a stage's files in a run: the run's own where there is only one stage."""
        return run if len(self.stages) == 1 else run / stage.name


FIRST = 32
"""Images that an initialisation sees."""


def first_batch(stage: Stage, source: Source) -> Batch:
    """The first images of a source, in [-1, 1], with their labels and whatever else the stage's initialisation reads."""
    examples = [source[i] for i in range(min(len(source), FIRST))]
    batch = {name: np.stack([each[name] for each in examples]) for name in first_batch_shapes(stage) if name in examples[0]}
    batch["image"] = scaled(batch["image"])
    batch |= {name: getattr(source, "init_inputs")[name] for name in stage.init_inputs}  # noqa: B009 - of some sources only
    return {name: jnp.asarray(values) for name, values in batch.items()}


def input_shapes(stage: Stage, count: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch: images, labels where the set has them, and what else the stage reads."""
    shapes = {"image": jax.ShapeDtypeStruct((count, *stage.data.shape), jnp.float32)}
    if stage.data.num_classes:
        shapes["label"] = jax.ShapeDtypeStruct((count,), jnp.int32)
    more = stage.example_inputs.items()
    return shapes | {name: jax.ShapeDtypeStruct((count, *one.shape), one.dtype) for name, one in more}


def first_batch_shapes(stage: Stage) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes that an initialisation sees."""
    return input_shapes(stage, FIRST) | dict(stage.init_inputs)


def state_shapes(stage: Stage, earlier: tuple[Params, Extra] | None = None) -> TrainState:
    """The shapes of a stage's state; nothing is read or computed."""
    return jax.eval_shape(stage.create, jax.random.key(0), first_batch_shapes(stage), earlier)


def batch_shapes(stage: Stage) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes that a step of the stage takes: [B, ...], or [K, B, ...] for K steps in one dispatch."""
    lead = (stage.train.scan,) if stage.train.scan > 1 else ()
    shapes = input_shapes(stage, stage.data.batch_size)
    return {name: jax.ShapeDtypeStruct((*lead, *one.shape), one.dtype) for name, one in shapes.items()}


def restore(stage: Stage, path: Path, mesh: Mesh) -> tuple[int, TrainState] | None:
    """(step, state) of the newest good checkpoint of a stage; nothing is written or removed."""
    shapes = state_shapes(stage)
    return newest_good(path, shapes, state_shardings(mesh, shapes))


def count(tree: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(int(np.prod(jnp.shape(x))) for x in jax.tree.leaves(tree))
