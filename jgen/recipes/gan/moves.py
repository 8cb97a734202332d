"""GANs whose latents are moved before every update: LOGAN's and CS-GAN's forms of any pair of players."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgen.arrays import shard_like
from jgen.config import DataConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, LatentMoveConfig, MovedSampling, NaturalMoveConfig
from jgen.errors import UserError
from jgen.objectives.adversarial import GAN, scores
from jgen.objectives.gan import Adversarial, non_saturating
from jgen.objectives.latent_moves import gradient_steps, natural_gradient, project, squared_distance
from jgen.recipes.gan.biggan import biggan_stage
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, Extra, Key, Params, PyTree


def _score(form: GAN, params: Params, extra: Extra, condition: Condition, train: bool) -> Callable[[Array], Array]:
    """z -> D's logits [B] of its images; in sampling (not train) each depends on its own latents alone."""

    def score(z: Array) -> Array:
        images, _ = form.generate(params, extra, z, condition, train=train)
        return scores(form.discriminate(params, extra, images, condition, train=train)[0].logits)

    return score


def logan(config: NaturalMoveConfig, z_dim: int) -> Callable[[GAN], GAN]:
    """The form with LOGAN's latents, uniform in [-1, 1], moved along the natural gradient of D's logits.

    Raises UserError for several steps of the form that takes one.
    """
    if config.form == "studiogan" and config.move_steps > 1:
        raise UserError(
            f"move_steps={config.move_steps}: has no effect with --form studiogan, which takes one step; leave it out"
        )

    def form(plain: GAN) -> GAN:
        def move(params: Params, extra: Extra, key: Key | None, z: PyTree, condition: Condition) -> tuple[PyTree, Array]:
            score = _score(plain, params, extra, condition, train=key is not None)
            uniform = jnp.ones(len(z)) if key is None else shard_like(jax.random.uniform(key, (len(z),)), z)
            how = dict(alpha=config.move_size, beta=config.damping, rate=config.moved)
            z, cost = natural_gradient(score, z, uniform, **how, steps=config.move_steps, form=config.form)
            return z, config.cost_weight * cost

        def one(key: Key) -> Array:
            return jax.random.uniform(key, (z_dim,), minval=-1.0)

        def train_latents(key: Key, images: Array, rows: int) -> Array:
            return shard_like(jax.random.uniform(key, (rows, z_dim), minval=-1.0), images)

        found = plain._replace(latents=lambda keys, condition: jax.vmap(one)(keys), train_latents=train_latents)
        return found._replace(move=move) if config.move_steps else found

    return form


def cs_gan(config: LatentMoveConfig, adversarial: Adversarial, batch: int) -> Callable[[GAN], GAN]:
    """The form with CS-GAN's latents, moved along the gradient of G's loss; the size of a step is a weight of G.

    batch: images over which G's loss is a mean in training, so that moves in sampling are as large.
    """

    def form(plain: GAN) -> GAN:
        def init(key: Key, images: Batch) -> tuple[Params, Extra]:
            params, extra = plain.init(key, images)
            return {**params, "g": {**params["g"], "log_step": jnp.log(config.move_size) * jnp.ones(())}}, extra

        def move(params: Params, extra: Extra, key: Key | None, z: PyTree, condition: Condition) -> tuple[PyTree, Array]:
            score = _score(plain, params, extra, condition, train=key is not None)

            def loss(z: Array) -> Array:
                logits = score(z)
                return adversarial.g(logits, logits) * len(z) / batch

            size = jnp.exp(params["g"]["log_step"])
            path = gradient_steps(loss, z, step_size=size, steps=config.move_steps)
            return path[-1], config.cost_weight * squared_distance(path[-1], z)

        def latents(keys: Key, condition: Condition) -> PyTree:
            return project(plain.latents(keys, condition), "norm")  # as every move begins, so that G knows them without one too

        return plain._replace(init=init, latents=latents, move=move) if config.move_steps else plain

    return form


def logan_stage(
    config: BigGANConfig, move: NaturalMoveConfig, data: DataConfig, train: TrainConfig, options: MovedSampling
) -> Stage:
    """LOGAN's training, of BigGAN's players."""
    return biggan_stage(config, data, train, options, change=logan(move, config.z_dim))


def csgan_stage(
    config: BigGANConfig, move: LatentMoveConfig, data: DataConfig, train: TrainConfig, options: MovedSampling
) -> Stage:
    """CS-GAN's training, with the non-saturating loss, of BigGAN's players."""
    change = cs_gan(move, non_saturating, data.batch_size)
    return biggan_stage(config, data, train, options, adversarial=non_saturating, change=change)
