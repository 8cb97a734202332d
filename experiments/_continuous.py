"""The stage of a model in continuous coordinates, which EDM and flow matching share: its training, sampling and evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments._diffusion import null_label, optimizer
from experiments._editing import edits, told_of
from experiments._judge import asked, borrow, guide, heard, steered
from experiments._sampling import bounded, check, free_guidance, from_noise, levels

if TYPE_CHECKING:
    from jgen.experiment import Picture, Stage


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


class Continuous:
    """A network of the continuous coordinates: its stage of training, and sampling.

    ends: the least and greatest level. by_time: as of `levels`. augment: as of `objectives.edm.denoising`, where the network
    takes what it tells.
    """

    def __init__(self, config: Any, net: Any, precondition: Any, noise_levels: Any, ends: tuple[float, float],
                 by_time: Any = None, augment: Any = None):  # fmt: skip
        self.config, self.net, self.precondition, self.noise_levels = config, net, precondition, noise_levels
        self.ends, self.by_time, self.augment = ends, by_time, augment

    def apply(self, params: Any, x: Any, noise: Any, label: Any, **kwargs: Any) -> Any:
        return self.net.apply({"params": params}, x, noise, label, **kwargs)

    def init(self, key: Any) -> Any:
        import jax.numpy as jnp

        label = jnp.zeros((1,), jnp.int32) if self.config.conditional else None
        more = {"augment": jnp.zeros((1, self.net.augment))} if self.augment else {}
        made = self.net.init(key, jnp.zeros((1, *self.config.data.shape)), jnp.zeros((1,)), label, **more)
        return {"net": made["params"]}, {}

    def denoiser(self, params: Any, extra: Any, options: Any, label: Any) -> Any:
        """(x, sigma) -> the clean image, guided and bounded as the options say."""
        from jgen.objectives import edm

        def call(x, sigma, label):
            told = heard(self.config, label)
            return edm.denoiser(lambda x, noise: self.apply(params["net"], x, noise, told), self.precondition)(x, sigma)

        by = guide(options, extra, label, self.config.data.shape)
        return steered(options, bounded(options, free_guidance(self.config, options, call, label)), by)

    def grid(self, options: Any) -> Any:
        return levels(options, *self.ends, self.by_time)

    def sample(self, params: Any, extra: Any, keys: Any, options: Any) -> Any:
        """Images. Raises UserError for options that can't be."""
        import jax.numpy as jnp

        check(options, self.config.sampling)
        denoise = self.denoiser(params, extra, options, asked(self.config, keys, options))
        return jnp.clip(from_noise(denoise, options, keys, self.config.data.shape, self.grid(options)), -1, 1)

    def edits(self) -> "dict[str, Picture]":
        """Held-out images edited."""
        options = self.config.sampling

        def denoiser_of(params, extra, label):
            return self.denoiser(params, extra, options, label)

        return edits(options, denoiser_of, self.grid, told_of(self.config))

    def objective(self, train: bool) -> Any:
        from jgen.objectives import edm

        config = self.config
        return edm.denoising(
            self.apply, self.precondition, self.noise_levels, conditional=config.conditional, train=train,
            drop_label=config.drop_label, null_label=null_label(config), augment=self.augment,
        )  # fmt: skip

    def stage(self, name: str, supports: Sequence[str] = ("dtype",)) -> "Stage":
        from jgen.experiment import Stage
        from jgen.train import Phase
        from jgen.train.rates import ramped

        config = self.config
        return Stage(
            name=name,
            data=config.data,
            train=config.train,
            init=self.init,
            phases=[Phase("net", self.objective(train=True))],
            optimizers={"net": optimizer(config, config.train.steps)},
            ema={"net": ramped(config.ema)},
            supports=frozenset(supports),
            sample=self.sample,
            on_request=self.edits(),
            options=config.sampling,
            borrow=borrow,
            validate=self.objective(train=False),
            evaluate=loss_by_level(config, self.apply, self.precondition, self.noise_levels, self.ends),
        )
