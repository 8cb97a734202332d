"""The losses of latent diffusion's autoencoder, and of the patch discriminator that judges its reconstructions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config.autoencoder import FirstStageConfig
from jgen.metrics.lpips import Distance
from jgen.models.patchgan import PatchGAN
from jgen.objectives import first_stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree

Reconstruct = Callable[[PyTree, Array, Key], tuple[Array, Array]]
"""(weights, images, key) -> (their reconstructions, the penalty of the bottleneck)."""


class Losses:
    """The losses of the two players, "net" and "critic", and the weights that they need besides the autoencoder's.

    distance, features: the perceptual distance and its weights, or None. accumulate: parts of a step; updates are counted
    in each.
    """

    def __init__(
        self, config: FirstStageConfig, reconstruct: Reconstruct, distance: Distance | None, features: PyTree,
        shape: Sequence[int], accumulate: int,
    ):  # fmt: skip
        side = shape[0]
        self.config, self.shape = config, tuple(shape)
        self.discriminator = PatchGAN(32 if config.first_channels < 64 else 64, 1 if side < 16 else 2 if side < 64 else 3)
        self.start = config.adversarial_from * accumulate
        self.reconstruct, self.distance, self.features = reconstruct, distance, features

    def init(self, key: Key) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
        """(params, extra) of the losses: weights of the perceptual distance, and a fresh discriminator."""
        params, extra = {}, {}
        if self.distance is not None:
            params["judge"] = jax.tree.map(jnp.asarray, self.features)
        if self.config.adversarial:
            made = self.discriminator.init(key, jnp.zeros((1, *self.shape)), train=False)
            params["critic"] = made["params"]
            extra = {"critic": made["batch_stats"], "updates": jnp.zeros((), jnp.int32)}
        return params, extra

    def discriminate(self, params: Params, extra: Extra, x: Array) -> tuple[Array, PyTree]:
        """(logits of patches, the discriminator's statistics after these images)."""
        variables = {"params": params["critic"], "batch_stats": extra["critic"]}
        found: Any = self.discriminator.apply(variables, x, train=True, mutable=["batch_stats"])
        return found

    def adversarial_term(self, params: Params, extra: Extra, out: Array) -> Array:
        """The discriminator's part of the autoencoder's loss."""
        return first_stage.generator_loss(self.discriminate(params, extra, out)[0])

    def nll(self, params: Params, x: Array, out: Array) -> Array:
        """The error of reconstructions: by pixels, and by the perceptual distance where it has a weight."""
        apart = None if self.distance is None else self.distance(params["judge"], x, out)[:, None, None, None]
        squared = self.config.pixel_loss == "l2"
        return jnp.mean(first_stage.reconstruction(x, out, apart, self.config.perceptual, squared))

    def weight(self, params: Params, extra: Extra, key: Key, x: Array) -> Array:
        """The weight of the adversarial term, from the gradients at the decoder's last layer."""
        net = params["net"]
        last = net["decoder"]["conv_out"]

        def with_last(kernel: Array) -> Array:
            own = {**net, "decoder": {**net["decoder"], "conv_out": {**last, "kernel": kernel}}}
            return self.reconstruct(own, x, key)[0]

        return first_stage.adaptive_weight(
            lambda k: self.nll(params, x, with_last(k)),
            lambda k: self.adversarial_term(params, extra, with_last(k)),
            last["kernel"],
            self.config.adversarial,
            1e4 / math.prod(self.shape),  # the authors' 1e4 is of sums over pixels, these are means
        )

    def autoencoder(self, train: bool) -> LossFn:
        """The autoencoder's loss; in training it counts the updates."""

        def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
            x = batch["image"]
            out, penalty = self.reconstruct(params["net"], x, key)
            error = self.nll(params, x, out)
            metrics = {"reconstruction": error, "penalty": penalty}
            if not self.config.adversarial:
                return error + penalty, (extra, metrics)
            weight, value = self.weight(params, extra, key, x), self.adversarial_term(params, extra, out)
            begun = first_stage.begun(extra["updates"], self.start)
            extra = {**extra, "updates": extra["updates"] + 1} if train else extra
            return error + penalty + begun * weight * value, (extra, {**metrics, "fooled": value, "weight": weight})

        return loss

    def critic(self, params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        """The discriminator's loss, which updates its statistics."""
        out = jax.lax.stop_gradient(self.reconstruct(params["net"], batch["image"], key)[0])
        real, _ = self.discriminate(params, extra, batch["image"])
        fake, after = self.discriminate(params, extra, out)
        begun = first_stage.begun(extra["updates"], self.start)
        return begun * first_stage.discriminator_loss(real, fake), ({**extra, "critic": after["batch_stats"]}, {})
