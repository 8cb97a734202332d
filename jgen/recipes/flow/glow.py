"""Glow: network, likelihood, sampler, pictures and training."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.flow import GlowConfig, GlowSampling
from jgen.data import classes_of
from jgen.edit.latents import lerp
from jgen.models.dequantizer import Dequantizer
from jgen.models.glow import Glow
from jgen.objectives.autoregressive import bits_on
from jgen.objectives.flow import Dequantize, flow_nll, images_of, levels_of, uniform
from jgen.recipes.common import adam, refuse_dequantized
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Picture, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Params, Sample


class Model:
    """Glow as functions of its weights. Raises UserError for sides that its levels do not divide.

    dtype is that of the couplings' networks in training; likelihoods and samples are computed in float32.
    """

    def __init__(self, config: GlowConfig, data: DataConfig, dtype: str = "float32"):
        self.config, height, width, self.channels = config, *data.shape
        self.classes = classes_of(data, config.conditional)
        self.net = Glow(
            config.levels, config.steps, config.width, config.coupling == "affine", config.lu, classes=self.classes,
            learn_top=config.learn_top, channels=self.channels,
        )  # fmt: skip
        self.trained = self.net if dtype == "float32" else self.net.clone(dtype=jnp.dtype(dtype))
        self.shapes = self.net.latent_shapes((height, width, self.channels))
        self.dequantizer = Dequantizer() if config.dequantization == "variational" else None

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Weights whose actnorms are those of the images, with uniform noise."""
        keys, x = jax.random.split(key, 3), levels_of(batch["image"], self.config.bits)
        x = x + jax.random.uniform(keys[0], x.shape) / 2**self.config.bits
        variables = dict(self.net.init(keys[1], x, batch["label"] if self.classes else None))
        params = {"flow": variables.pop("params")}
        if self.dequantizer is not None:
            params["dequantizer"] = self.dequantizer.init(keys[2], x, x)["params"]
        return {"net": params}, variables

    def apply(self, params: Params, extra: Extra, *args: Any, **how: Any) -> Any:
        return self.net.apply({"params": params["net"]["flow"], **extra}, *args, **how)

    def images(self, params: Params, extra: Extra, noise: list[Array], label: Array | None) -> Array:
        """Images in [-1, 1] of standard normal noise, level by level."""
        return images_of(self.apply(params, extra, noise, label, method="inverse"), self.config.bits)

    def noise_of(self, params: Params, extra: Extra, images: Array, label: Array | None) -> list[Array]:
        """The noise of images in [-1, 1], taken at the middle of their levels."""
        bits = self.config.bits
        return self.apply(params, extra, levels_of(images, bits) + 0.5 / 2**bits, label, method="noise_of")

    def loss(self, train: bool = False) -> LossFn:
        net = self.trained if train else self.net

        def log_prob(params: Params, extra: Extra, x: Array, label: Array | None) -> Array:
            flow: Any = net.apply({"params": params["net"]["flow"], **extra}, x, label)
            return flow.total

        return flow_nll(log_prob, bits=self.config.bits, conditional=bool(self.classes), dequantize=self._dequantize())

    def _dequantize(self) -> Dequantize:
        net = self.dequantizer
        if net is None:
            return uniform

        def drawn(params: Params, key: Key, x: Array) -> tuple[Array, Array]:
            found: Any = net.apply({"params": params["net"]["dequantizer"]}, jax.random.normal(key, x.shape), x)
            return found

        return drawn


def sampler(model: Model) -> Sample:
    """Images of noise whose deviation is the temperature."""

    def sample(params: Params, extra: Extra, keys: Array, options: GlowSampling) -> Array:
        label = samplers.class_labels(keys, options.label, model.classes)
        noise = [options.temperature * samplers.noise(keys, shape, i) for i, shape in enumerate(model.shapes)]
        return model.images(params, extra, noise, label)

    return sample


def pictures(model: Model, data: DataConfig) -> Mapping[str, Picture]:
    """Interpolations between held-out images, and, where there are labels, walks along the attribute of a class."""

    def label_of(batch: Batch, rows: slice) -> Array | None:
        return batch["label"][rows] if model.classes else None

    def interpolations(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """From one held-out image in each row to another, along a line between their noises."""
        noise = model.noise_of(params, extra, batch["image"][:16], label_of(batch, slice(16)))
        t = jnp.linspace(0, 1, 8)
        rows = [jnp.concatenate([_line(n[2 * i], n[2 * i + 1], t) for i in range(8)]) for n in noise]
        label = label_of(batch, slice(0, 16, 2))
        return model.images(params, extra, rows, None if label is None else jnp.repeat(label, 8))

    def attributes(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """A held-out image in each row, moved from the mean noise of its class to that of the next one that is among them."""
        own, classes = batch["label"], data.num_classes
        noise = model.noise_of(params, extra, batch["image"], label_of(batch, slice(None)))
        weights = jax.nn.one_hot(own, classes)
        following = (own[:8, None] + 1 + jnp.arange(classes)[None]) % classes
        first = jnp.argmax(jnp.any(weights > 0, 0)[following], 1)
        other = jnp.take_along_axis(following, first[:, None], 1)[:, 0]
        weights = weights / jnp.maximum(jnp.sum(weights, 0), 1)[None]
        t, rows = jnp.linspace(0, 1, 8), []
        for n in noise:
            means = jnp.einsum("bk,bhwc->khwc", weights, n)
            step = (means[other] - means[own[:8]])[:, None]
            rows.append((n[:8, None] + t[None, :, None, None, None] * step).reshape(-1, *n.shape[1:]))
        label = label_of(batch, slice(8))
        return model.images(params, extra, rows, None if label is None else jnp.repeat(label, 8))

    return {"interpolations": interpolations} | ({"attributes": attributes} if data.num_classes else {})


def _line(a: Array, b: Array, t: Array) -> Array:
    return lerp(a.ravel(), b.ravel(), t).reshape(len(t), *a.shape)


def stage(
    config: GlowConfig, optimizer: OptimizerConfig, data: DataConfig, train: TrainConfig, sampling: GlowSampling
) -> Stage:
    """The training of Glow. Raises UserError for dequantised data: the loss adds the noise itself."""
    refuse_dequantized(data, "Glow's loss adds the noise itself; choose it with dequantization")
    model = Model(config, data, train.dtype)
    evaluate = bits_on(model.loss(), config.dequantization, bound=False, scale=256)
    return Stage(
        name="glow",
        data=data,
        train=train,
        init=model.init,
        phases=[Phase("net", model.loss(train=True))],
        optimizers={"net": adam(optimizer, train.steps)},
        ema={"net": ramped(optimizer.ema)},
        sample=sampler(model),
        options=sampling,
        pictures=pictures(model, data),
        supports=frozenset(("dtype",)),
        validate=model.loss(),
        evaluate=evaluate if config.bits == 8 else of_fewer_bits(evaluate, config.bits),
    )


def of_fewer_bits(evaluate: Any, bits: int) -> Any:
    """An evaluation whose names say that the images have fewer than 8 bits."""

    def renamed(*args: Any) -> dict[str, Any]:
        return {f"{name}_of_{bits}_bits": value for name, value in evaluate(*args).items()}

    return renamed
