"""The very deep VAE: network, bound, sampler, pictures and training (Child 2021, arXiv:2011.10650)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.hierarchical import SkippingConfig, VDVAEConfig, VDVAESampling
from jgen.errors import UserError
from jgen.models.vdvae import VDVAE, Latent, check_layers
from jgen.nn.precision import in_dtype
from jgen.objectives.autoregressive import bits_on
from jgen.objectives.hierarchical import hierarchical_elbo
from jgen.objectives.likelihood import logistic_mixture
from jgen.recipes.common import adam_rate, both, clipped, mean_metrics, refuse_dequantized
from jgen.train import Phase
from jgen.train.rates import ramped, rated
from jgen.train.stage import Picture, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Params, Sample


class Model:
    """The very deep VAE as functions of its weights. Raises UserError for layers that don't fit the image or each other.

    dtype is that of training; bounds and samples are computed in float32.
    """

    def __init__(self, config: VDVAEConfig, data: DataConfig, dtype: str = "float32"):
        height, width, channels = data.shape
        if height != width:
            raise UserError(f"image of {height}x{width}: the very deep VAE takes squares")
        self.law = logistic_mixture(config.mixtures, channels)
        self.net = VDVAE(
            self.law.outputs, height, config.encoder_layers, config.decoder_layers, config.width, config.latents,
            config.bottleneck, config.widths, config.no_bias_above,
        )  # fmt: skip
        check_layers(self.net)
        self.trained = in_dtype(self.net, dtype)
        self.shapes, self.image = self.net.latent_shapes(), (height, width, channels)

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        noise = [jnp.zeros((1, *shape)) for shape in self.shapes]
        return {"net": self.net.init(key, jnp.zeros((1, *self.image)), noise)["params"]}, {}

    def apply(self, params: Params, *args: Any, **how: Any) -> tuple[Array, list[Latent]]:
        """(the likelihood's outputs, the latents): for images and noise, or with method="sample" for noise."""
        found: Any = self.net.apply({"params": params["net"]}, *args, **how)
        return found

    def loss(self, train: bool = False) -> LossFn:
        net = self.trained if train else self.net

        def posterior(params: Params, x: Array, noise: list[Array]) -> tuple[Array, list[Array]]:
            found: Any = net.apply({"params": params["net"]}, 2 * x, noise)  # of about unit deviation, as theirs
            outputs, latents = found
            return outputs, [latent.kl for latent in latents]

        return hierarchical_elbo(posterior, self.law, self.shapes)

    def temperatures(self, options: VDVAESampling) -> list[float]:
        """One a block. Raises UserError for more or fewer of them than resolutions, or a depth that does not exist."""
        sides = sorted({shape[0] for shape in self.shapes})
        if options.temperatures and len(options.temperatures) != len(sides):
            raise UserError(
                f"temperatures: {len(options.temperatures)} are given; one for each resolution is needed, "
                f"{', '.join(map(str, sides))}"
            )
        if options.depth > len(self.shapes):
            raise UserError(f"depth={options.depth}: the decoder has {len(self.shapes)} blocks")
        each = dict(zip(sides, options.temperatures or [options.temperature] * len(sides)))
        return [each[shape[0]] for shape in self.shapes]


def sampler(model: Model) -> Sample:
    """Images of latents from the priors."""

    def sample(params: Params, extra: Extra, keys: Array, options: VDVAESampling) -> Array:
        temperatures = model.temperatures(options)
        noise = [samplers.noise(keys, shape, i) for i, shape in enumerate(model.shapes)]
        if options.depth:
            noise = [n if i < options.depth else jnp.zeros_like(n) for i, n in enumerate(noise)]
        outputs, _ = model.apply(params, noise, jnp.asarray(temperatures), method="sample")
        if not options.noise:
            return model.law.mean(outputs)
        shape = (*model.image[:2], model.law.uniforms)
        uniforms = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, len(noise)), shape))(keys)
        return model.law.draw(outputs, uniforms)

    return sample


def pictures(model: Model) -> Mapping[str, Picture]:
    """Held-out images rebuilt from their first so many latents, the others at the means of their priors."""

    def depths(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """In each row a held-out image, and it from more and more of its latents."""
        x, count = batch["image"][:8], len(model.shapes)
        zeros = [jnp.zeros((len(x), *shape)) for shape in model.shapes]
        _, latents = model.apply(params, 2 * x, zeros)
        columns = [x]
        for k in sorted({round(1 + (count - 1) * i / 6) for i in range(7)}):
            given = [latent.z for latent in latents[:k]]
            outputs, _ = model.apply(params, zeros, 1.0, given, method="sample")
            columns.append(model.law.mean(outputs))
        columns += [columns[-1]] * (8 - len(columns))
        return jnp.stack(columns, 1).reshape(-1, *model.image)

    return {"depths": depths}


def stage(
    config: VDVAEConfig, skipping: SkippingConfig, optimizer: OptimizerConfig, data: DataConfig, train: TrainConfig,
    sampling: VDVAESampling,
) -> Stage:  # fmt: skip
    """The training of the very deep VAE. Raises UserError for dequantised data: the likelihood is of the 8-bit values."""
    refuse_dequantized(data, "the likelihood is of the 8-bit values themselves")
    model = Model(config, data, train.dtype)
    rate = adam_rate(optimizer, train.steps)
    adamw = optax.adamw(rate, b1=0.9, b2=0.9, weight_decay=skipping.weight_decay)
    return Stage(
        name="vdvae",
        data=data,
        train=train,
        init=model.init,
        phases=[Phase("net", model.loss(train=True), skip_norm=skipping.skip_threshold)],
        optimizers={"net": rated(clipped(adamw, optimizer.clip), rate)},
        ema={"net": ramped(optimizer.ema)},
        sample=sampler(model),
        options=sampling,
        pictures=pictures(model),
        supports=frozenset(("dtype",)),
        validate=model.loss(),
        evaluate=both(bits_on(model.loss(), "discrete", bound=True), mean_metrics(model.loss())),
    )
