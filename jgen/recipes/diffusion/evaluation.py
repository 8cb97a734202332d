"""The evaluations of a diffusion model: its loss by time or noise level, DDIM's round trip, and the variational bound."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen import samplers
from jgen.config import Bound
from jgen.errors import UserError
from jgen.metrics.image_quality import psnr
from jgen.objectives import diffusion, edm, vlb
from jgen.objectives.conditioning import Conditioning
from jgen.recipes.common import both, mean_over
from jgen.recipes.diffusion.model import DiffusionModel, Network
from jgen.samplers.common import shorten
from jgen.schedules import Schedule
from jgen.train.stage import Evaluate
from jgen.types import Array, Batch, Extra, Key, Params


def loss_by_time(network: Network, chain: Schedule, prediction: Any, conditioning: Conditioning) -> Evaluate:
    """The loss at ten times of a chain, their mean, and how well DDIM gives held-out images back."""
    times = jnp.linspace(0, len(chain) - 1, 10).round().astype(jnp.int32)

    def losses(params: Params, key: Key, batch: Batch) -> Array:
        condition = conditioning.of_batch(batch)
        net = lambda x, t: network(params, x, t, condition)  # noqa: E731
        return diffusion.loss_by_time(net, chain, batch["image"], key, times, prediction)

    @jax.jit
    def inversion(params: Params, batch: Batch) -> Array:
        """PSNR of images that DDIM turned into noise and back."""
        condition, steps = conditioning.of_batch(batch), min(100, len(chain))
        predict = diffusion.predictor(lambda x, t: network(params, x, t, condition), chain, prediction)
        x0, keys = batch["image"], samplers.image_keys(0, len(batch["image"]))
        back = samplers.ddim(predict, chain, samplers.ddim_invert(predict, chain, x0, timesteps=steps), keys, timesteps=steps)
        return jnp.mean(psnr(x0, jnp.clip(back, -1, 1)))

    run = jax.jit(losses)

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        total: Any = 0.0
        batch: Any = None
        for i in range(count):
            batch = next(batches)
            total = total + run(params, jax.random.fold_in(key, i), batch) / count
        found = {f"psnr_db of DDIM there and back, {min(100, len(chain))} steps": inversion(params, batch)}
        rows = {f"loss at t={t}": v for t, v in zip(times, total)}
        return {"loss (mean of the rows below)": total.mean(), **rows, **found}

    return evaluate


def loss_by_level(
    network: Network,
    precondition: edm.Precondition,
    weight: edm.Function,
    conditioning: Conditioning,
    ends: tuple[float, float],
) -> Evaluate:
    """The weighted loss at ten noise levels, and their mean; ends: the least and greatest level."""
    sigma = jnp.geomspace(max(ends[0], 0.01), min(ends[1], 50.0), 10)

    def losses(params: Params, key: Key, batch: Batch) -> Array:
        x0, condition = batch["image"], conditioning.of_batch(batch)
        denoise = edm.denoiser(lambda x, noise: network(params, x, noise, condition), precondition)

        def one(_: None, row: tuple[Array, Array]) -> tuple[None, Array]:
            i, level = row
            noise = jax.random.normal(jax.random.fold_in(key, i), x0.shape)
            terms = edm.loss_terms(denoise, x0, jnp.full(len(x0), level), noise, weight)
            return None, jnp.mean(terms)

        return jax.lax.scan(one, None, (jnp.arange(10), sigma))[1]

    mean = mean_over(losses)

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Array]:
        total = mean(params, key, batches, count)
        return {"loss (mean of the rows below)": total.mean(), **{f"loss at sigma={s:.3g}": v for s, v in zip(sigma, total)}}

    return evaluate


def bound(model: DiffusionModel, options: Bound) -> Evaluate:
    """The variational bound in bits/dim (discrete, of 8-bit values), with the prior's and the last step's share of it, and
    its three thirds, along options.bound_steps of the model's chain.

    Raises UserError for steps that can't be, or a variance that the network did not learn.
    """
    full, model_predict = model.chain, model.predict
    assert full is not None
    assert model_predict is not None
    if options.bound_steps not in (-1, 0, *range(2, len(full) + 1)):
        raise UserError(f"bound_steps={options.bound_steps}: must be from 2 to {len(full)}, 0 for all, or -1 for no bound")
    chain = shorten(full, options.bound_steps or None)
    variance: Any = model.variance if options.bound_variance == "auto" else options.bound_variance

    @jax.jit
    def measure(params: Params, key: Key, batch: Batch) -> vlb.Bound:
        x0, condition = batch["image"], model.conditioning.of_batch(batch)

        def predict(x: Array, t: Array) -> Any:
            return model_predict(params, x, t, condition)

        def noise(t: Array) -> Array:
            return jax.random.normal(jax.random.fold_in(key, t), x0.shape)

        found = vlb.bound(samplers.clip(predict), chain, x0, noise, variance)
        return jax.tree.map(lambda v: jnp.mean(v, 0), found)

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Array]:
        found = [measure(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        mean: vlb.Bound = jax.tree.map(lambda *v: sum(v) / count, *found)
        third = len(chain) // 3
        parts = {"noisiest": np.s_[:third], "middle": np.s_[third : 2 * third], "cleanest": np.s_[2 * third : -1]}
        return {
            "bits_per_dim_discrete_bound": mean.total,
            "of it the prior": mean.prior,
            **{f"of it the {name} third": jnp.sum(mean.terms[part]) for name, part in parts.items()},
            "of it the last step (decoder)": mean.terms[-1],
            "mean square error of the noise": jnp.mean(mean.eps_error),
        }

    return evaluate


def with_bound(model: DiffusionModel, options: Bound, evaluate: Evaluate) -> Evaluate:
    """An evaluation and, on request, the variational bound."""
    return evaluate if options.bound_steps == -1 else both(bound(model, options), evaluate)
