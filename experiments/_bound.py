"""The variational bound of held-out images, term by term: the likelihood of a model with a discrete chain."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments._diffusion import schedule

if TYPE_CHECKING:
    from experiments.ddpm import Config, Raw, Sampling
    from jgen.types import Params


def bound(config: "Config", options: "Sampling", network: "Callable[[Params], Raw]") -> Any:
    """The evaluation that is the bound in bits/dim (discrete, of 8-bit values), with the prior's and the last step's share of
    it, and its three thirds, along options.bound_steps of the chain with options.variance. Raises UserError for steps that
    can't be, or a variance that the network did not learn."""
    import jax
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.errors import UserError
    from jgen.objectives import diffusion, vlb
    from jgen.samplers.common import shorten

    full = schedule(config)
    if options.bound_steps not in (-1, 0, *range(2, len(full) + 1)):
        raise UserError(f"bound_steps={options.bound_steps}: must be from 2 to {len(full)}, 0 for all, or -1 for no bound")
    chain = shorten(full, options.bound_steps or None)

    @jax.jit
    def measure(params, key, batch):
        x0, label = batch["image"], batch["label"] if config.conditional else None
        net = network(params)
        predict = diffusion.predictor(lambda x, t: net(x, t, label), full, config.prediction)

        def noise(t):
            return jax.random.normal(jax.random.fold_in(key, t), x0.shape)

        found = vlb.bound(samplers.clip(predict), chain, x0, noise, options.variance)
        return jax.tree.map(lambda v: jnp.mean(v, 0), found)

    def evaluate(params, extra, key, batches, count):
        found = [measure(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        mean = jax.tree.map(lambda *v: sum(v) / count, *found)
        third = len(chain) // 3
        parts = {
            "noisiest": mean.terms[:third],
            "middle": mean.terms[third : 2 * third],
            "cleanest": mean.terms[2 * third : -1],
        }
        return {
            "bits_per_dim_discrete_bound": mean.total,
            "of it the prior": mean.prior,
            **{f"of it the {name} third": jnp.sum(values) for name, values in parts.items()},
            "of it the last step (decoder)": mean.terms[-1],
            "mean square error of the noise": jnp.mean(mean.eps_error),
        }

    return evaluate
