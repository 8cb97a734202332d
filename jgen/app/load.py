"""A trained run brought back: its experiment, config and weights."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jgen.app.experiments import NAMES, running
from jgen.config import changed, from_dict, newest_run
from jgen.errors import UserError, nearest
from jgen.recipes.gan.backbones import of_shapes
from jgen.run_folder import GENERATOR, WEIGHTS, is_export, read_config
from jgen.sharding import make_mesh
from jgen.train import weights
from jgen.train.draw import check_sampling, draw
from jgen.train.stage import Experiment, Stage, count, restore
from jgen.train.step import TrainState
from jgen.types import Extra, Params

Build = Callable[[Any], Experiment]


@dataclasses.dataclass(frozen=True, repr=False)
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
        """State that no gradient moves, such as batch statistics."""
        return self.state.extra

    def __repr__(self) -> str:
        data = self.stage.data
        players = ", ".join(f"{name} {count(tree):,}" for name, tree in self.params.items())
        return (
            f"Run of {self.folder}\n"
            f"  stage:      {self.stage.name}, step {self.step:,} of {self.stage.train.steps:,}\n"
            f"  data:       {data.name}, {'x'.join(map(str, data.shape))}, {data.num_classes} classes\n"
            f"  parameters: {players}\n"
            f"  sampling:   {self.stage.options}"
        )

    def sample(self, num: int = 16, seed: int = 0, options: Any = None, **changes: Any) -> np.ndarray:
        """`num` images [num, H, W, C] in [-1, 1]; `changes` replace sampling options by name, such as sampler="heun", steps=18.

        Raises UserError for an option that there is none of, and for values that can't be.
        """
        chosen = self.stage.options if options is None else options
        chosen = changed(chosen, changes) if changes else chosen
        return draw(self.stage, self.params, self.extra, self.mesh, num=num, seed=seed, options=chosen, bar=True)


def experiment_module(stored: Any, folder: Path, module: ModuleType | None = None) -> Any:
    """The Config and build of a run: those of one of jgen's own experiments, of the one whose commands this program runs, or
    of the module that the caller passes. Raises UserError for any other.

    The name in a run's config.json may come from a stranger, so nothing else that it names is imported.
    """
    name = stored["module"]
    if module is not None:
        if not isinstance(module, ModuleType):
            raise UserError(f"module={module!r:.40}: must be the module itself, not {type(module).__name__}; import it first")
        if name not in (module.__name__, "__main__"):
            raise UserError(f"run={folder}: is a run of {name}, not of {module.__name__}")
        return module
    own = [f"experiments.{each}" for each in NAMES]
    if name not in own and name in running:
        return running[name]
    if name not in own:
        raise UserError(f"run={folder}: {name} is none of jgen's experiments; pass its module to jgen.load(run, module=...)")
    return importlib.import_module(name)


def run_folder(folder: str | Path) -> Path:
    """The folder of a run by its path; "newest" is the one below runs/ that was begun last."""
    return newest_run(Path("runs"), "*/*") if str(folder) == "newest" else Path(folder)


def load(
    folder: str | Path,
    mesh: Mesh | None = None,
    sampling: Any = None,
    stage: str = "",
    module: ModuleType | None = None,
) -> Run:
    """The run in a folder, with the weights of its newest good checkpoint; "newest" for the one begun last below runs/.

    The folder may be one that `export --to weights` wrote.

    sampling: options in place of those it was trained with, for its pictures and its own evaluation too. stage: the name of one
    of its stages rather than the last that was trained. module: of an experiment that is not one of jgen's. Raises UserError
    where the folder holds no run or no checkpoint, and for options of sampling that can't work.
    """
    folder = run_folder(folder)
    stored = read_config(folder)
    code = experiment_module(stored, folder, module)
    config = _with_generator(from_dict(code.Config, stored["config"]), folder)
    with of_shapes():  # files of frozen networks' weights are for training; what a run needs of them is in its checkpoints
        return _loaded(code.build, config, folder, sampling, stage, mesh or make_mesh())


def _loaded(build: Build, config: Any, folder: Path, sampling: Any, stage: str, mesh: Mesh) -> Run:
    trained = experiment = build(config)
    if sampling is not None:
        config = dataclasses.replace(config, sampling=sampling)
        experiment = build(config)
    names = [each.name for each in experiment.stages]
    if stage and stage not in names:
        raise UserError(f"stage={stage}: {folder} has none of this name{nearest(stage, names)}; there are {', '.join(names)}")
    found = _newest_stage(experiment, folder, mesh, [stage] if stage else names)
    if found is None:
        raise UserError(f"{folder}: {f'{stage} ' if stage else ''}has no checkpoint yet; train it on, or name another run")
    each, step, state = found
    if sampling is not None:  # refused where it can't be, as the run it was trained in would
        check_sampling(next(s for s in trained.stages if s.name == each.name), sampling)
    return Run(folder, config, experiment, each, step, state, mesh)


def _with_generator(config: Any, folder: Path) -> Any:
    """The config of an exported encoder with the generator's run that was exported with it; others as they are."""
    encoder: Any = getattr(config, "inversion", None)
    if not (is_export(folder) and getattr(encoder, "gan", "")):
        return config
    return dataclasses.replace(config, inversion=dataclasses.replace(encoder, gan=str(folder / GENERATOR)))


def _newest_stage(
    experiment: Experiment, folder: Path, mesh: Mesh, names: Sequence[str]
) -> tuple[Stage, int, TrainState] | None:
    """The last of the stages of these names that has a checkpoint, its step and state; or the one that was exported."""
    if is_export(folder):
        name = weights.about(folder / WEIGHTS).get("stage", "")
        for each in experiment.stages:
            if each.name == name and name in names:
                return each, *weights.read(folder / WEIGHTS, each, mesh)
        raise UserError(f"{folder}: holds the stage {name!r:.40}, which is none of {', '.join(names)}")
    for each in reversed(experiment.stages):
        path = experiment.folder(folder, each) / "checkpoints"
        if each.name in names and path.is_dir() and (found := restore(each, path, mesh)):
            return each, *found
    return None
