"""An experiment: data -> network -> objective -> training -> checkpoint -> sampler -> metric, each a plain value.

`build(config)` of an experiment module returns one; the command line runs it, `load` brings a finished one back.
"""

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jgen.config import DataConfig, TrainConfig, check_at_least, check_choices, from_dict
from jgen.errors import UserError
from jgen.samplers import image_keys
from jgen.samplers.common import explain
from jgen.train.checkpoint import Checkpoints
from jgen.train.sharding import batch_sharding, make_mesh, replicated, rounded_up, state_shardings
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
    init: Callable[[Key], tuple[Params, Extra]]
    """Fresh (params, extra) of all players; traced, so that they are made in place on every device."""
    phases: Sequence[Phase]
    optimizers: Mapping[str, optax.GradientTransformation]
    sample: Sample | None = None
    """Draws images; None for a stage that makes none, such as a classifier."""
    options: Any = None
    """What `sample` takes as its options where none are given; a frozen dataclass."""
    pictures: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    """Other pictures by name, such as reconstructions; written beside the sample grids."""
    on_request: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    """Pictures that are made only when asked for, such as edited images."""
    ema: Mapping[str, Decay] = dataclasses.field(default_factory=dict)
    supports: frozenset[str] = frozenset()
    """Which of train.dtype and train.remat its networks heed."""
    validate: LossFn | None = None
    """The loss on held-out images that ranks checkpoints; without it only the newest are kept."""
    evaluate: Evaluate | None = None
    borrow: Callable[[Any, Mesh | None], Extra] | None = None
    """(options, mesh) -> what sampling by them takes from other runs, such as a classifier that guides: it joins `extra`."""
    told: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """What its losses read of an example besides image and label, such as a caption: one of each."""
    begin: Callable[[Params, Extra, Params, Extra], tuple[Params, Extra]] | None = None
    """(params, extra of the stage before; fresh params, extra) -> what to begin from; None starts fresh."""

    def extra_for(self, extra: Extra, options: Any, mesh: Mesh | None = None) -> Extra:
        """What `sample`, pictures and the evaluation are given as their extra."""
        return {**extra, **self.borrow(options, mesh)} if self.borrow else extra

    def create(self, key: Key, earlier: tuple[Params, Extra] | None = None) -> TrainState:
        """The state at step 0."""
        params, extra = fresh = self.init(key)
        if earlier is not None:
            take_over = self.begin or (lambda params, extra, *fresh: (params, extra))
            params, found = take_over(*earlier, *fresh)
            # State that only these settings ask for begins anew, and what only the earlier ones asked for ends.
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
        """Where a stage of a run keeps its files: the run's own folder where there is only one."""
        return run if len(self.stages) == 1 else run / stage.name


def draw(stage: Stage, params: Params, extra: Extra, mesh: Mesh, *, num: int, **how: Any) -> np.ndarray:
    """`num` images [num, H, W, C] float32; image i depends on (seed, i) alone. how: seed, options, batch as of `drawn`."""
    images = np.concatenate([np.asarray(x) for x in drawn(stage, params, extra, mesh, num=num, **how)])[:num]
    if (bad := np.asarray(~np.isfinite(images).all((1, 2, 3)))).any():
        raise UserError(
            f"{stage.name}: {bad.sum()} of {num} images are not finite{_cause(stage, params, extra, mesh, bad, **how)}"
        )
    return images


def _cause(
    stage: Stage, params: Params, extra: Extra, mesh: Mesh, bad: np.ndarray, *, seed: int = 0, options: Any = None, **_: Any
) -> str:
    """Where the sampler of the first bad image went wrong, as far as it checks itself."""
    assert stage.sample is not None
    keys, chosen = image_keys(seed, 1, int(np.argmax(bad))), stage.options if options is None else options
    sample, on_host = stage.sample, jax.device_get((params, stage.extra_for(extra, chosen, mesh)))
    found = explain(lambda params, extra, keys: sample(params, extra, keys, chosen), *on_host, keys)
    return f": {found}" if found else ""


def drawn(
    stage: Stage,
    params: Params,
    extra: Extra,
    mesh: Mesh,
    *,
    num: int,
    seed: int = 0,
    options: Any = None,
    batch: int = 64,
) -> Iterator[Array]:
    """The images of `draw` as they are made, on the devices, `batch` at a time.

    Every batch has the same shape (the last is not cut to `num`), so the sampler compiles once.
    """
    check_at_least(1, num=num, batch=batch)
    if stage.sample is None:
        raise UserError(f"{stage.name}: has no sampler")
    size, chosen = rounded_up(min(batch, num), mesh), stage.options if options is None else options
    check_choices(chosen)
    sampler, whole = _compiled(stage.sample, mesh, chosen, size), stage.extra_for(extra, chosen, mesh)
    return (sampler(params, whole, seed, start) for start in range(0, num, size))


@functools.lru_cache(16)
def _compiled(sample: Sample, mesh: Mesh, options: Any, size: int) -> Callable[..., Array]:
    """The jitted sampler of `size` images; weights are arguments, so they are no constants of the program."""

    def run(params: Params, extra: Extra, seed: Array, start: Array) -> Array:
        # Keys are made inside, so that several processes each hold just their own.
        keys = jax.lax.with_sharding_constraint(image_keys(seed, size, start), batch_sharding(mesh))
        return sample(params, extra, keys, options)

    return jax.jit(run, out_shardings=replicated(mesh))


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run: its experiment, config and weights."""

    folder: Path
    config: Any
    experiment: Experiment
    stage: Stage
    """The last one that has a checkpoint."""
    step: int
    state: TrainState
    mesh: Mesh

    @property
    def params(self) -> Params:
        """The weights to sample with: the moving average where there is one."""
        return self.state.averaged

    @property
    def extra(self) -> Extra:
        return self.state.extra

    def sample(self, num: int = 16, seed: int = 0, options: Any = None, **changes: Any) -> np.ndarray:
        """`num` images [num, H, W, C] in [-1, 1]; `changes` replace fields of the experiment's sampling options."""
        chosen = self.stage.options if options is None else options
        known = {f.name for f in dataclasses.fields(chosen)} if chosen else set()
        if unknown := sorted(set(changes) - known):
            raise UserError(f"{unknown[0]}: no such sampling option; there are {', '.join(sorted(known))}")
        chosen = dataclasses.replace(chosen, **changes) if chosen and changes else chosen
        return draw(self.stage, self.params, self.extra, self.mesh, num=num, seed=seed, options=chosen)


def load(folder: str | Path, mesh: Mesh | None = None, sampling: Any = None, stage: str = "") -> Run:
    """The run in a folder, with the weights of its newest good checkpoint.

    sampling: in place of the sampling options it was trained with, for its pictures and its own evaluation too. stage: the
    name of one of its stages rather than the last that was trained. Raises UserError where the folder holds no run or no
    checkpoint, and for options of sampling that can't work.
    """
    folder = Path(folder)
    stored = read_config(folder)
    module = importlib.import_module(stored["module"])
    config = from_dict(module.Config, stored["config"])
    trained = experiment = module.build(config)
    if sampling is not None:
        config = dataclasses.replace(config, sampling=sampling)
        experiment = module.build(config)
    mesh = mesh or make_mesh()
    names = [each.name for each in experiment.stages]
    if stage and stage not in names:
        raise UserError(f"stage={stage}: {folder} has none of this name; there are {', '.join(names)}")
    for each in reversed(experiment.stages):
        path = experiment.folder(folder, each) / "checkpoints"
        if stage in ("", each.name) and path.is_dir() and (found := restore(each, path, mesh)):
            if sampling is not None:  # refused where it can't be, as the run it was trained in would
                check_sampling(next(s for s in trained.stages if s.name == each.name), sampling)
            return Run(folder, config, experiment, each, found[0], found[1], mesh)
    raise UserError(f"{folder}: {f'{stage} ' if stage else ''}has no checkpoint yet")


def check_sampling(stage: Stage, options: Any) -> None:
    """Raises UserError for options of sampling that can't work, without sampling."""
    if (sample := stage.sample) is not None:

        def once(key: Key) -> Array:
            params, extra = stage.init(key)
            return sample(params, {**extra, **borrowed}, image_keys(0, 1), options)

        borrowed = stage.extra_for({}, options)
        jax.eval_shape(once, jax.random.key(0))


def restore(stage: Stage, path: Path, mesh: Mesh) -> tuple[int, TrainState] | None:
    """(step, state) of the newest good checkpoint of a stage."""
    shapes = jax.eval_shape(stage.create, jax.random.key(0))
    with Checkpoints(path) as checkpoints:
        return checkpoints.restore(shapes, state_shardings(mesh, shapes))


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json of a run says: module, preset, config, versions. Raises UserError where it can't be read."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no run there (it has no config.json)")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def count(tree: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(int(np.prod(jnp.shape(x))) for x in jax.tree.leaves(tree))
