"""TarFlow: network, loss, sampler and training (Zhai et al. 2024, arXiv:2412.06329)."""

import functools
import math
from typing import Any

import jax.numpy as jnp

from jgen import samplers
from jgen.config import AdamWConfig, DataConfig, TrainConfig
from jgen.config.flow import TarFlowConfig, TarFlowSampling
from jgen.data import classes_of
from jgen.errors import UserError
from jgen.models.tarflow import PatchGuidance, TarFlow
from jgen.objectives.autoregressive import bits_on
from jgen.objectives.flow import denoised, flow_energy, in_cells, noisy_flow, tarflow_nll
from jgen.recipes.common import adam, refuse_dequantized
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, Sample


class Model:
    """TarFlow as functions of its weights. Raises UserError for images that are no squares or not made of whole patches.

    dtype is that of the transformers in training; likelihoods and samples are computed in float32.
    """

    def __init__(self, config: TarFlowConfig, data: DataConfig, dtype: str = "float32"):
        height, width, self.channels = data.shape
        if height != width or height % config.patch or config.width % config.heads:
            raise UserError(
                f"patch={config.patch}, heads={config.heads}: must divide the side of square images ({height}x{width}) and "
                f"width={config.width}"
            )
        self.config, self.classes = config, classes_of(data, config.conditional)
        self.net = TarFlow(
            height, self.channels, config.patch, config.width, config.blocks, config.layers, config.heads,
            classes=self.classes,
        )  # fmt: skip
        self.trained = self.net if dtype == "float32" else self.net.clone(dtype=jnp.dtype(dtype))

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        return {"net": self.net.init(key, jnp.zeros_like(batch["image"][:1]))["params"]}, {}

    def through(self, params: Params, x: Array, label: Array | None, train: bool = False) -> tuple[Array, Array]:
        found: Any = (self.trained if train else self.net).apply({"params": params["net"]}, x, label)
        return found

    def back(self, params: Params, z: Array, label: Array | None, guidance: PatchGuidance) -> Array:
        found: Any = self.net.apply({"params": params["net"]}, z, label, guidance, method="inverse")
        return found

    def loss(self, train: bool) -> LossFn:
        drop = self.config.drop_label if train else 0.0
        through = functools.partial(self.through, train=train)
        return noisy_flow(through, noise=self.config.noise, drop_label=drop, conditional=bool(self.classes))

    def likelihood(self, params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        """-log density, in nats a dimension, of images in [-1, 1] with uniform noise of a level's width, without classes."""
        nll = jnp.mean(tarflow_nll(*self.through(params, in_cells(key, batch["image"]), None)))
        return nll, (extra, {"bits_per_dim": (nll + math.log(128)) / math.log(2)})


def sampler(model: Model) -> Sample:
    """Images of noise, token by token, then denoised where the model has learned noisy ones."""

    def sample(params: Params, extra: Extra, keys: Array, options: TarFlowSampling) -> Array:
        label = samplers.class_labels(keys, options.label, model.classes)
        guidance = PatchGuidance(options.guidance, options.guide, options.attention_temperature, options.annealed)
        x = model.back(params, samplers.noise(keys, model.net.latent_shape), label, guidance)
        if options.denoise and model.config.noise:
            x = denoised(lambda x: flow_energy(*model.through(params, x, label)), x, model.config.noise)
        return jnp.clip(x, -1, 1)

    return sample


def stage(
    config: TarFlowConfig, optimizer: AdamWConfig, data: DataConfig, train: TrainConfig, sampling: TarFlowSampling
) -> Stage:
    """The training of TarFlow. Raises UserError for dequantised data: the loss adds the noise itself."""
    refuse_dequantized(data, "TarFlow's loss adds the noise itself")
    model = Model(config, data, train.dtype)
    return Stage(
        name="tarflow",
        data=data,
        train=train,
        init=model.init,
        phases=[Phase("net", model.loss(train=True))],
        optimizers={"net": adam(optimizer, train.steps, optimizer.weight_decay)},
        ema={"net": ramped(optimizer.ema)},
        sample=sampler(model),
        options=sampling,
        supports=frozenset(("dtype",)),
        validate=model.loss(train=False),
        evaluate=bits_on(model.likelihood, "uniform", bound=False, scale=2),
    )
