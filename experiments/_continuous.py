"""The stage of a model in continuous coordinates, which EDM and flow matching share: its training, sampling and evaluation."""

from collections.abc import Sequence
from typing import Any

from experiments._diffusion import asked, null_label, optimizer
from experiments._editing import edits, told_of
from experiments._sampling import bounded, check, free_guidance, from_noise, levels


def loss_by_level(config: Any, apply: Any, precondition: Any, noise_levels: Any, ends: tuple[float, float]) -> Any:
    """The evaluation that is the weighted loss at ten levels, and their mean."""
    import jax
    import jax.numpy as jnp

    from jgen.objectives import edm

    sigma = jnp.geomspace(max(ends[0], 0.01), min(ends[1], 50.0), 10)

    @jax.jit
    def losses(params, key, batch):
        x0, label = batch["image"], batch["label"] if config.conditional else None
        denoise = edm.denoiser(lambda x, noise: apply(params["net"], x, noise, label), precondition)

        def one(_, row):
            i, level = row
            noise = jax.random.normal(jax.random.fold_in(key, i), x0.shape)
            terms = edm.loss_terms(denoise, x0, jnp.full(len(x0), level), noise, noise_levels.weight)
            return None, jnp.mean(terms)

        return jax.lax.scan(one, None, (jnp.arange(10), sigma))[1]

    def evaluate(params, extra, key, batches, count):
        total = sum(losses(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count
        return {"loss (mean of the rows below)": total.mean(), **{f"loss at sigma={s:.3g}": v for s, v in zip(sigma, total)}}

    return evaluate


def continuous_stage(
    config: Any,
    name: str,
    net: Any,
    precondition: Any,
    noise_levels: Any,
    ends: tuple[float, float],
    supports: Sequence[str] = ("dtype",),
    by_time: Any = None,
) -> Any:
    """A stage that trains a network of the continuous coordinates and samples it.

    ends: the least and greatest level. by_time: as of `levels`.
    """
    import jax.numpy as jnp

    from jgen.experiment import Stage
    from jgen.objectives import edm
    from jgen.train import Phase
    from jgen.train.rates import ramped

    shape = config.data.shape

    def apply(params, x, noise, label, **kwargs):
        return net.apply({"params": params}, x, noise, label, **kwargs)

    def init(key):
        label = jnp.zeros((1,), jnp.int32) if config.conditional else None
        return {"net": net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)), label)["params"]}, {}

    def denoising(params, options, label):
        def call(x, sigma, label):
            return edm.denoiser(lambda x, noise: apply(params["net"], x, noise, label), precondition)(x, sigma)

        return bounded(options, free_guidance(config, options, call, label))

    def grid_of(options):
        return levels(options, *ends, by_time)

    def sample(params, extra, keys, options):
        check(options, config.sampling)
        denoise = denoising(params, options, asked(config, keys, options.label))
        return jnp.clip(from_noise(denoise, options, keys, shape, grid_of(options)), -1, 1)

    def denoiser_of(params, extra, label):
        return denoising(params, config.sampling, label)

    def objective(train):
        dropping = dict(drop_label=config.drop_label, null_label=null_label(config))
        return edm.denoising(
            apply, precondition, noise_levels, conditional=config.conditional, train=train, **dropping
        )  # fmt: skip

    return Stage(
        name=name,
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", objective(train=True))],
        optimizers={"net": optimizer(config, config.train.steps)},
        ema={"net": ramped(config.ema)},
        supports=frozenset(supports),
        sample=sample,
        on_request=edits(config.sampling, denoiser_of, grid_of, told_of(config)),
        options=config.sampling,
        validate=objective(train=False),
        evaluate=loss_by_level(config, apply, precondition, noise_levels, ends),
    )
