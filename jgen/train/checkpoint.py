"""Checkpoints with Orbax: asynchronous, atomic, the newest and the best kept, damage found on reading.

The one module that knows Orbax (its v0 CheckpointManager). Beside the state goes a digest of every array, computed on
the devices, so that a file that was truncated or altered is recognised whatever its format lets through.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jgen.errors import UserError
from jgen.train.quiet import quiet_libraries
from jgen.types import Array, PyTree

Shapes = dict[str, tuple[int, ...]]


class Checkpoints:
    """The checkpoints in a folder. Use as a context manager: leaving it waits for the last one to be written."""

    def __init__(self, folder: Path, keep_last: int = 2, keep_best: int = 1):
        policies: list[Any] = [LatestN(max(keep_last, 1))]
        if keep_best:
            best = BestN(get_metric_fn=lambda m: -m["loss"], n=keep_best, keep_checkpoints_without_metrics=False)
            policies.append(best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies), cleanup_tmp_directories=True, create=True
        )
        quiet_libraries()
        self.folder = folder
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._examine = jax.jit(lambda state: (digest(state), finite_leaves(state)))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self.manager.close()
        except Exception:  # a failed write is raised again on closing; what stopped the run says more
            if kind is None:
                raise

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return steps_in(self.folder)

    def save(self, step: int, state: PyTree, loss: float | None = None) -> None:
        """Starts writing the state of a step; `loss` ranks it for keep_best.

        Raises UserError, and writes nothing, for a state that is not finite; else what an earlier write met.
        """
        self.manager.check_for_errors()
        checksums, finite = self._examine(state)
        if not np.all(finite):
            path, _ = jax.tree_util.tree_leaves_with_path(state)[int(np.argmin(finite))]
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"{self.folder}: {name} is not finite at step {step}, so that nothing was saved of it")
        content = {"state": state, "digest": checksums}
        metrics = None if loss is None else {"loss": loss}
        self.manager.save(step, args=ocp.args.Composite(run=ocp.args.StandardSave(content)), metrics=metrics, force=True)

    def wait(self) -> None:
        """Until everything is on disk; raises what a write met."""
        self.manager.wait_until_finished()
        self.manager.check_for_errors()

    def restore(self, shapes: PyTree, shardings: PyTree, warn: Callable[[str], None] = print) -> tuple[int, PyTree] | None:
        """As `newest_good`; damaged checkpoints after the good one are removed, since their steps will be written again."""
        found = newest_good(self.folder, shapes, shardings, warn)
        for step in self.steps():
            if found and step > found[0]:
                self._remove(step)
        return found

    def _remove(self, step: int) -> None:
        path = self.folder / str(step)
        if path.is_dir() and not path.is_symlink():
            self.manager.delete(step)
        else:
            path.rename(path.with_name(f"{step}.not-a-checkpoint"))


def newest_good(
    folder: Path, shapes: PyTree, shardings: PyTree, warn: Callable[[str], None] = print
) -> tuple[int, PyTree] | None:
    """(step, state) of the newest good checkpoint in a folder, laid out by `shardings`; None where there is none.

    Nothing is written or deleted, so that it disturbs no training that writes there. A damaged one is named through `warn`
    and the one before is tried; those that a training removes meanwhile are passed over. Raises UserError where there are
    checkpoints but none can be read, and for those of another network.
    """
    quiet_libraries()
    check_fits(folder, shapes)
    tried: set[int] = set()
    while left := [step for step in steps_in(folder) if step not in tried]:
        step = left[-1]
        tried.add(step)
        try:
            return step, _read(folder / str(step), step, shapes, shardings)
        except Exception as error:  # whatever the reader meets in a damaged file
            if (folder / str(step)).exists():
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                warn(f"{folder / str(step)}: damaged checkpoint skipped ({reason})")
    if steps := steps_in(folder):
        raise UserError(f"{folder}: none of its checkpoints ({', '.join(map(str, steps))}) can be read")
    return None


def _read(place: Path, step: int, shapes: PyTree, shardings: PyTree) -> PyTree:
    if not place.is_dir():
        raise ValueError("it is a file, not a checkpoint's folder")
    target = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, shardings)
    count = jax.ShapeDtypeStruct((len(jax.tree.leaves(shapes)),), jnp.uint32)
    layout = jax.tree.leaves(shardings)[0]
    if hasattr(layout, "mesh"):
        everywhere = jax.sharding.NamedSharding(layout.mesh, jax.sharding.PartitionSpec())
        count = jax.ShapeDtypeStruct(count.shape, count.dtype, sharding=everywhere)
    wanted = ocp.args.StandardRestore({"state": target, "digest": count})
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        content = reader.restore(epath.Path(place.absolute()) / "run", args=wanted)
    state = content["state"]
    if not bool(jnp.array_equal(jax.jit(digest)(state), content["digest"])):
        raise ValueError("its arrays do not match their digest")
    if (held := getattr(state, "step", None)) is not None and int(held) != step:
        raise ValueError(f"it holds step {int(held)}")
    return state


def steps_in(folder: Path) -> list[int]:
    """The steps that have a checkpoint in a folder, oldest first; it is only looked at, and need not be there."""
    names = (path.name for path in folder.glob("*"))
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def check_fits(folder: Path, shapes: PyTree) -> None:
    """Raises UserError where the checkpoints are of another network or optimizer than the state of these shapes.

    The newest one whose shapes can be read tells; none is opened for its arrays.
    """
    for step in reversed(steps_in(folder)):
        place = folder / str(step)
        try:
            kept = ocp.StandardCheckpointHandler().metadata(epath.Path(place.absolute()) / "run").tree["state"]
        except Exception:  # whatever the reader meets in a damaged one, which the restoring of it names
            continue
        return _check_shapes(place, _shapes(kept), _shapes(shapes))


def _check_shapes(place: Path, stored: Shapes, wanted: Shapes) -> None:
    for name in sorted(n for n in {*stored, *wanted} if n.startswith("params/")):
        before, now = (found.get(name, "not there") for found in (stored, wanted))
        if before != now:
            raise UserError(f"{place}: {name} is {before}, but {now} by these settings; start another run for them")
    # Tuples of optimizers have other names there.
    if Counter(stored.values()) != Counter(wanted.values()):
        raise UserError(f"{place}: holds the state of another optimizer; start another run for these settings")


def _shapes(tree: PyTree) -> Shapes:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def finite_leaves(tree: PyTree) -> Array:
    """bool [leaves]: whether all numbers of each array are finite."""
    leaves = jax.tree.leaves(tree)
    return jnp.stack([jnp.all(jnp.isfinite(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.array(True) for x in leaves])


def digest(tree: PyTree) -> Array:
    """uint32 [leaves]: a checksum of each array that any change of a single element changes.

    Bits are summed modulo 2^32 with weights that depend on the position, so that swapped elements count too.
    """

    def one(x: Array) -> Array:
        kinds = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
        x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
        bits = jax.lax.bitcast_convert_type(x, kinds[x.dtype.itemsize]).astype(jnp.uint32)
        weight = jnp.ones((), jnp.uint32)
        for axis in range(x.ndim):
            place = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
            weight = weight * (2 * place + 2 * axis + 1)  # odd, so that no change is multiplied away
        return jnp.sum(bits * weight, dtype=jnp.uint32)

    return jnp.stack([one(x) for x in jax.tree.leaves(tree)])
