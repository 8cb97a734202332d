"""One generic training step: a fold over phases, each the update of one player by one loss.

Diffusion, VAE, flow and PixelCNN have one phase; a GAN has several (`d`, a lazy `d_r1`, `g`, ...). A frozen part is a
player without a phase. Randomness is stored nowhere: the key of phase i at a step is
fold_in(fold_in(run_key, step), i), so that resuming needs only the step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jgen.errors import UserError
from jgen.nn.barrier import after
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree

Decay = float | Callable[[Array], Array]
"""EMA decay: a number, or a function of the step (a ramp-up)."""


class Phase(NamedTuple):
    """One update of one player."""

    player: str
    loss: LossFn
    every: int = 1
    """Run at steps divisible by this only: WGAN's n_critic, lazy regularisation."""
    name: str = ""
    """Prefix of its metrics; the player's name where empty."""
    skip_norm: float = 0.0
    """Leave out an update whose gradient's norm is at least this (before an optimizer clips it); 0 for none."""


TOO_LARGE = -1
"""The code of an update that `skip_norm` left out."""


class TrainState(flax.struct.PyTreeNode):
    """All that a run is: what a checkpoint holds."""

    step: Array
    """int32: updates done."""
    params: Params
    extra: Extra
    opt: Mapping[str, PyTree]
    """Optimizer state of each trained player."""
    ema: Mapping[str, PyTree]
    """Moving average of the weights of each player that has one."""

    @property
    def averaged(self) -> Params:
        """The weights to sample and measure with: the moving average where there is one."""
        return {**self.params, **self.ema}


Step = Callable[[TrainState, Key, Batch], tuple[TrainState, Metrics]]


def init_state(
    params: Params,
    extra: Extra,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: Mapping[str, Decay] | None = None,
) -> TrainState:
    """A state at step 0. The average begins as a copy of the weights: an alias would break buffer donation.

    Raises UserError for an optimizer or average whose player is not in params.
    """
    for name in (*optimizers, *(ema or {})):
        if name not in params:
            raise UserError(f"player {name!r}: has an optimizer or average, but params has only {sorted(params)}")
    copies = {name: jax.tree.map(jnp.copy, params[name]) for name in ema or {}}
    opt = {name: optimizer.init(params[name]) for name, optimizer in optimizers.items()}
    return TrainState(jnp.zeros((), jnp.int32), params, extra, opt, copies)


def make_step(
    phases: Sequence[Phase],
    optimizers: Mapping[str, optax.GradientTransformation],
    ema: Mapping[str, Decay] | None = None,
    *,
    accumulate: int = 1,
) -> Step:
    """(state, run key, batch) -> (state, metrics), to be jitted; metrics are float32 scalars.

    accumulate: split the batch into so many interleaved parts and average their gradients; each part draws its own
    noise, and `extra` passes from part to part. A phase whose loss, gradient or update is not finite, or whose gradient
    is beyond its skip_norm, changes nothing, and no average moves: its code
    in the metric "nonfinite" (0: fine) says which, see `nonfinite_name`. The metric of a phase that does not run at a
    step is NaN. Raises UserError for a phase without an optimizer or two phases of one name.
    """
    names = [phase.name or phase.player for phase in phases]
    if len(set(names)) < len(names):
        raise UserError(f"phases {names}: names must differ")
    for phase in phases:
        if phase.player not in optimizers:
            raise UserError(f"phase {phase.name or phase.player!r}: no optimizer for player {phase.player!r}")

    def update(phase: Phase, state: TrainState, key: Key, batch: Batch) -> tuple[TrainState, Metrics]:
        player = phase.player
        loss, metrics, extra, grads = _gradients(phase, state, key, batch, accumulate)
        updates, opt = optimizers[player].update(grads, state.opt[player], state.params[player])
        code, norm = _examine(loss, grads, updates)
        if phase.skip_norm:
            code = jnp.where((code == 0) & (norm >= phase.skip_norm), TOO_LARGE, code)
        params = _chosen(code, optax.apply_updates(state.params[player], updates), state.params[player])
        # The weights' update reads the old moments; written over before, those would have to be copied.
        opt, extra = _chosen(after(code, params), (opt, extra), (state.opt[player], state.extra))
        state = state.replace(params={**state.params, player: params}, opt={**state.opt, player: opt}, extra=extra)
        return state, {"loss": loss, **metrics, "grad_norm": norm, "nonfinite": code}

    def step(state: TrainState, key: Key, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key, metrics, bad = jax.random.fold_in(key, state.step), {}, jnp.zeros((), jnp.float32)
        for i, (phase, name) in enumerate(zip(phases, names)):
            run = _every(phase, lambda s, k, b, phase=phase: update(phase, s, k, b))
            state, found = run(state, jax.random.fold_in(step_key, i), batch)
            bad = jnp.where(found["nonfinite"] != 0, 1.0, bad)
            metrics |= found if len(phases) == 1 else {f"{name}/{k}": v for k, v in found.items()}
        averages = {name: _average(state, name, decay, bad == 0) for name, decay in (ema or {}).items()}
        state = state.replace(step=state.step + 1, ema=averages)
        return state, {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}

    return step


def scan_steps(step: Step) -> Step:
    """K steps in one dispatch: batches are stacked [K, B, ...], and so are the metrics that come back."""

    def steps(state: TrainState, key: Key, batches: Batch) -> tuple[TrainState, Metrics]:
        return lax.scan(lambda state, batch: step(state, key, batch), state, batches)

    return steps


def nonfinite_name(code: int, params: PyTree) -> str:
    """The tensor that the metric "nonfinite" of a phase names; `params` are the weights of its player."""
    if code == 1:
        return "loss"
    leaves = jax.tree_util.tree_leaves_with_path(params)
    which, place = divmod(code - 2, len(leaves))
    name = jax.tree_util.keystr(leaves[place][0], simple=True, separator="/")
    return f"{('gradient', 'update')[which]} of {name}"


def _gradients(phase: Phase, state: TrainState, key: Key, batch: Batch, parts: int) -> tuple[Array, Metrics, Extra, PyTree]:
    def loss(own: PyTree, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        return phase.loss({**state.params, phase.player: own}, extra, key, batch)

    grad = jax.value_and_grad(loss, has_aux=True)
    own = state.params[phase.player]
    if parts == 1:
        (value, (extra, metrics)), grads = grad(own, state.extra, key, batch)
        return value, metrics, extra, grads

    def add(carry: Any, part: tuple[Array, Batch]) -> tuple[Any, Metrics]:
        extra, total = carry
        (value, (extra, metrics)), grads = grad(own, extra, jax.random.fold_in(key, part[0]), part[1])
        return (extra, jax.tree.map(jnp.add, total, grads)), {"loss": value, **metrics}

    zeros = jax.tree.map(jnp.zeros_like, own)
    (extra, total), metrics = lax.scan(add, (state.extra, zeros), (jnp.arange(parts), _split(batch, parts)))
    means = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
    value = means.pop("loss")
    return value, means, extra, jax.tree.map(lambda g: g / parts, total)


def _split(batch: Batch, parts: int) -> Batch:
    """[B, ...] -> [parts, B / parts, ...]; row n goes to part n mod parts, so that every part spans all devices."""

    def split(x: Array) -> Array:
        if x.shape[0] % parts:
            raise UserError(f"accumulate={parts}: does not divide the batch of {x.shape[0]}")
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)


def _examine(loss: Array, grads: PyTree, updates: PyTree) -> tuple[Array, Array]:
    """(0, or 1 for the loss, 2 + i for the first bad gradient leaf, 2 + n + i for that of an update; the gradient's norm)."""
    squares, moves = (jnp.stack([_square(x) for x in jax.tree.leaves(tree)]) for tree in (grads, updates))
    finite = jnp.concatenate([jnp.isfinite(loss)[None], jnp.isfinite(squares), jnp.isfinite(moves)])
    return jnp.where(jnp.all(finite), 0, 1 + jnp.argmin(finite)), jnp.sqrt(jnp.sum(squares))


def _square(g: Array) -> Array:
    """The squared norm as a dot product, which reads g once; CPUs write the squares of a sum before they add them."""
    g = g.astype(jnp.float32).ravel()
    return jnp.vdot(g, g)


def _chosen(code: Array, new: PyTree, old: PyTree) -> PyTree:
    """The new arrays where `_examine` found nothing, else the old."""
    return jax.tree.map(lambda a, b: jnp.where(code == 0, a, b), new, old)


def _every(phase: Phase, update: Callable[..., tuple[TrainState, Metrics]]) -> Callable[..., tuple[TrainState, Metrics]]:
    if phase.every == 1:
        return update

    def maybe(state: TrainState, key: Key, batch: Batch) -> tuple[TrainState, Metrics]:
        shapes = jax.eval_shape(update, state, key, batch)[1]

        def skip(state: TrainState, key: Key, batch: Batch) -> tuple[TrainState, Metrics]:
            nothing = {
                k: jnp.full(s.shape, jnp.nan if jnp.issubdtype(s.dtype, jnp.floating) else 0, s.dtype)
                for k, s in shapes.items()
            }
            return state, nothing

        return lax.cond(state.step % phase.every == 0, update, skip, state, key, batch)

    return maybe


def _average(state: TrainState, player: str, decay: Decay, applied: Array) -> PyTree:
    rate = 1 - (decay(state.step) if callable(decay) else decay)
    rate = jnp.where(applied, rate, 0.0)
    return optax.incremental_update(state.params[player], state.ema[player], rate)
