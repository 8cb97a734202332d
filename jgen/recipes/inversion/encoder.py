"""The training of pSp's and e4e's encoders for a generator that stays as it is: the player "g", which has no phase."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config import DataConfig
from jgen.config.inversion import EncoderConfig
from jgen.edit import latent_losses
from jgen.edit.pool import LatentPool, empty_pool, exchange
from jgen.edit.sketch import sketch
from jgen.edit.space import StyleSpace
from jgen.metrics.image_quality import psnr
from jgen.metrics.perceptual import open_perceptual
from jgen.models.style_encoder import GradualStyleEncoder, LatentDiscriminator, with_deltas
from jgen.nn.precision import in_dtype
from jgen.nn.warp import along, pooling
from jgen.objectives.gan import non_saturating
from jgen.objectives.gan_penalties import r1
from jgen.train.stage import Picture
from jgen.types import Array, Batch, Extra, Key, Metrics, Params

Loss = tuple[Array, tuple[Extra, Metrics]]


def splits(num_ws: int) -> tuple[int, int]:
    """The rows at which an encoder's styles pass to the next larger map: the authors' 3 and 7, thirds of fewer than 10."""
    return (3, 7) if num_ws >= 10 else (round(num_ws / 3), round(2 * num_ws / 3))


@dataclass(frozen=True)
class EncoderModel:
    """An encoder for a space of styles; extra["encoder"] holds its batch statistics, its steps and e4e's pool."""

    config: EncoderConfig
    space: StyleSpace
    data: DataConfig
    dtype: str = "float32"
    """That of both networks' layers; codes are float32."""

    @property
    def net(self) -> GradualStyleEncoder:
        """The encoder."""
        c, s = self.config, self.space
        return in_dtype(GradualStyleEncoder(s.num_ws, s.w_dim, splits(s.num_ws), c.channels, c.units), self.dtype)

    @property
    def judge(self) -> LatentDiscriminator:
        """e4e's discriminator of styles."""
        return in_dtype(LatentDiscriminator(self.space.w_dim), self.dtype)

    def init(self, key: Key) -> tuple[Params, Extra]:
        """Fresh players "encoder" and, of e4e, "w_d"; and their state."""
        keys = jax.random.split(key)
        made = self.net.init(keys[0], self.at_side(jnp.zeros((1, *self.data.shape))), False)
        params, own = {"encoder": made["params"]}, {"batch_stats": made["batch_stats"], "step": jnp.zeros((), jnp.int32)}
        if self.config.encoder == "e4e":
            params["w_d"] = self.judge.init(keys[1], jnp.zeros((1, self.space.w_dim)))["params"]
            own["pool"] = empty_pool(self.config.pool, (self.space.w_dim,))._asdict()
        return params, {"encoder": own}

    def stage(self, extra: Extra) -> Array:
        """How many of e4e's rows have deltas at this step."""
        c, step = self.config, extra["encoder"]["step"]
        begun = 1 + (step - c.delta_from) // c.delta_every
        return jnp.where(step < c.delta_from, 0, jnp.minimum(begun, self.space.num_ws - 1))

    def at_side(self, images: Array) -> Array:
        """Images as the encoder sees them: smaller ones are means of their pixels (the authors' pooling)."""
        side = self.config.side
        return along(images, *(pooling(n, side) for n in images.shape[1:3])) if side else images

    def codes(self, params: Params, extra: Extra, images: Array, train: bool) -> tuple[Array, Any]:
        """(ws [B, num_ws, D], new batch statistics)."""
        return self.codes_of_seen(params, extra, sketch(images) if self.config.sees == "sketches" else images, train)

    def codes_of_seen(self, params: Params, extra: Extra, images: Array, train: bool) -> tuple[Array, Any]:
        """`codes` for what the encoder itself is shown."""
        variables = {"params": params["encoder"], "batch_stats": extra["encoder"]["batch_stats"]}
        rows, moved = self.net.apply(variables, self.at_side(images), train, mutable=["batch_stats"])
        rows = with_deltas(rows, self.stage(extra)) if self.config.encoder == "e4e" else rows
        return rows + self.space.mean(extra)[None, None], moved["batch_stats"]

    def encode(self, params: Params, extra: Extra, images: Array) -> Array:
        """ws [B, num_ws, D] of images."""
        return self.codes(params, extra, images, False)[0]

    def from_sketch(self, params: Params, extra: Extra, sketches: Array) -> Array:
        """ws [B, num_ws, D] of sketches."""
        return self.codes_of_seen(params, extra, sketches, False)[0]

    def adversarial(self, params: Params, extra: Extra, codes: Array) -> Array:
        """e4e's loss against its discriminator: the mean over rows that are encoded yet."""
        logits = self.judge.apply({"params": params["w_d"]}, codes)
        own = jnp.arange(self.space.num_ws)[None] <= self.stage(extra)
        return jnp.mean(jax.nn.softplus(-logits), where=jnp.broadcast_to(own, logits.shape))  # pyright: ignore

    def distances(self, made: Array, images: Array) -> dict[str, Array]:
        """Mean distances of reconstructions: l2 and, where it has a weight, the perceptual one."""
        found = {"l2": jnp.mean(jnp.square(made - images))}
        if self.config.perceptual_weight:
            see = open_perceptual(self.config.extractor, self.data.name).see
            found["perceptual"] = jnp.mean(jnp.sum(jnp.square(see(made) - see(images)), -1))
        return found

    def weighted(self, distances: dict[str, Array]) -> Array:
        """The weighted sum of distances."""
        return self.config.l2_weight * distances["l2"] + self.config.perceptual_weight * distances.get("perceptual", 0.0)

    def loss(self, params: Params, extra: Extra, key: Key, batch: Batch) -> Loss:
        """The encoder's."""
        images, c = batch["image"], self.config
        codes, moved = self.codes(params, extra, images, True)
        metrics = self.distances(self.space.synthesize(params, extra, codes), images)
        value = self.weighted(metrics)
        if c.encoder == "psp":
            metrics["w_norm"] = latent_losses.w_norm(codes, self.space.mean(extra))
            value += c.w_norm_weight * metrics["w_norm"]
        else:
            metrics["delta"] = latent_losses.delta_loss(codes, self.space.num_ws - 1)  # rows without deltas add nothing
            metrics["w_adversarial"] = self.adversarial(params, extra, codes)
            value += c.delta_weight * metrics["delta"] + c.w_adversarial_weight * metrics["w_adversarial"]
        own = {**extra["encoder"], "batch_stats": moved, "step": extra["encoder"]["step"] + 1}
        return value, ({**extra, "encoder": own}, metrics)

    def real_styles(self, params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Styles [B, D] of the mapping."""
        return self.space.styles(params, extra, jax.random.split(key, len(batch["image"])))[:, 0]

    def judge_loss(self, params: Params, extra: Extra, key: Key, batch: Batch) -> Loss:
        """The discriminator's: styles of the mapping against codes, of which each image gives one row, by way of the pool."""
        keys, count = jax.random.split(key, 4), len(batch["image"])
        codes = jax.lax.stop_gradient(self.codes(params, extra, batch["image"], True)[0])
        rows = jax.random.randint(keys[0], (count,), 0, self.stage(extra) + 1)
        fake = jnp.take_along_axis(codes, rows[:, None, None], 1)[:, 0]
        uniforms, places = jax.random.uniform(keys[1], (count,)), jax.random.randint(keys[2], (count,), 0, self.config.pool)
        pool, fake = exchange(LatentPool(**extra["encoder"]["pool"]), fake, uniforms, places)
        real = self.real_styles(params, extra, keys[3], batch)
        logits: Any = [self.judge.apply({"params": params["w_d"]}, w) for w in (real, fake)]
        own = {**extra["encoder"], "pool": pool._asdict()}
        return non_saturating.d(*logits), ({**extra, "encoder": own}, {})

    def judge_penalty(self, params: Params, extra: Extra, key: Key, batch: Batch) -> Loss:
        """R1 of the discriminator, as often larger as it is rarer."""
        real = self.real_styles(params, extra, key, batch)
        logits: Any = lambda w: self.judge.apply({"params": params["w_d"]}, w)  # noqa: E731
        return r1(logits, real, self.config.w_r1_gamma * self.config.w_r1_every), (extra, {})

    def held_out(self, params: Params, extra: Extra, key: Key, batch: Batch) -> Loss:
        """How near reconstructions of held-out images are."""
        made = self.space.synthesize(params, extra, self.encode(params, extra, batch["image"]))
        distances = self.distances(made, batch["image"])
        quality = jnp.mean(psnr(jnp.clip(made, -1, 1), batch["image"]))
        return self.weighted(distances), (extra, {**distances, "psnr": quality})

    def pictures(self) -> dict[str, Picture]:
        """Held-out images, each with its inversion on the right."""

        def inversion(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
            images = batch["image"][:32]
            made = self.space.synthesize(params, extra, self.encode(params, extra, images))
            return jnp.stack([images, jnp.clip(made, -1, 1)], 1).reshape(-1, *images.shape[1:])

        return {"inversion": inversion}
