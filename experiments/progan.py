"""ProGAN: progressive growing of GANs (Karras et al. 2018, arXiv:1710.10196), with WGAN-GP.

    python -m experiments.progan                            # digits, 4x4 and 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.progan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.progan --preset cifar10           # for accelerators

Every resolution is a stage in which its level fades in, both networks' and the reals'. Target of the cifar10 preset: Inception
Score 8.80 (paper, table 3).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jgen
from experiments._style import FASHION_MNIST, PAPER, Growing, Labelled, Shared
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Config(Growing, Shared):
    train: TrainConfig = TrainConfig(steps=3000, save_every=1500, sample_every=0)
    sampling: Labelled = Labelled()
    learning_rate: float = 2e-3
    penalty_weight: float = 10.0
    """Of the gradient penalty."""
    drift: float = 1e-3
    """Weight of the squares of D's logits of reals."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(**FASHION_MNIST, train=TrainConfig(steps=1000, save_every=1000, sample_every=1000, log_every=10)),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=18_750, save_every=10_000, sample_every=10_000, log_every=100),
        first_steps=9_375,
        **{**PAPER, "channel_base": 8192},
        ema_kimg=20.0,
    ),
}


def losses(config, at, adapt):
    """WGAN-GP with drift, as `experiments._style_model.style_losses`."""
    import jax
    import optax

    from jgen.objectives import gan, stylegan
    from jgen.objectives.gan_penalties import gradient_penalty
    from jgen.train import Phase

    critic = gan.separate(lambda x: -x + config.drift * x**2, lambda x: x, lambda x: -x)

    def penalty(see, real, fake, key):
        return config.penalty_weight * gradient_penalty(see, real, fake, jax.random.uniform(key, real.shape[:1]))

    adam = optax.adam(config.learning_rate, 0.0, 0.99)
    d = at(lambda nets: stylegan.discriminator_loss(nets, critic, adapt, penalty))
    return [Phase("g", at(lambda nets: stylegan.generator_loss(nets, critic))), Phase("d", d)], {"g": adam, "d": adam}


def build(config: Config) -> "Experiment":
    import jax
    import jax.numpy as jnp

    from experiments._gan import shape_of
    from experiments._style_model import Family, growing
    from jgen.data import resolve
    from jgen.experiment import Experiment
    from jgen.models.gan.progan import Discriminator, Generator

    config = replace(config, data=resolve(config.data))
    side, channels, classes = shape_of(config.data, config.conditional)
    g = Generator(config.z_dim, classes, side, channels, config.channel_base, config.channel_max)
    d = Discriminator(classes, side, channels, config.channel_base, config.channel_max)

    def init(key, label):
        keys = jax.random.split(key)
        # A whole network in the middle of its fading has every weight.
        made = g.init(keys[0], jnp.zeros((1, config.z_dim)), label, fade=0.5)["params"]
        return {"g": made, "d": d.init(keys[1], jnp.zeros((1, side, side, channels)), label, fade=0.5)["params"]}

    def join(z, c):
        return z if c is None else jnp.concatenate([z, c], -1)

    def synthesize(params, ws, noise, **grown):
        z, c = ws[:, 0, : config.z_dim], ws[:, 0, config.z_dim :] if classes else None
        return g.apply({"params": params}, z, c, **grown)

    parts = Family(
        init,
        lambda params, z, c: join(z, c),  # there is no mapping: the latent and the label are what the network takes
        synthesize,
        lambda params, x, c, **grown: d.apply({"params": params}, x, c, **grown),
        side,
        1,
        config.z_dim + classes,
        {},
    )
    return Experiment(growing(config, parts, losses, styles=False))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
