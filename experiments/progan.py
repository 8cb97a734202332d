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
from experiments._style import Shared
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Config(Shared):
    first_steps: int = 300
    """Steps at 4x4; train.steps are those at each larger resolution."""
    fade: float = 0.5
    """Share of a stage in which its level comes in."""
    train: TrainConfig = TrainConfig(steps=3000, save_every=1500, sample_every=0)
    learning_rate: float = 2e-3
    penalty_weight: float = 10.0
    """Of the gradient penalty."""
    drift: float = 1e-3
    """Weight of the squares of D's logits of reals."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        channel_base=512,
        channel_max=64,
        train=TrainConfig(steps=1500, save_every=1500, sample_every=1500, log_every=10),
        ema_kimg=5.0,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=18_750, save_every=10_000, sample_every=10_000, log_every=100),
        first_steps=9_375,
        z_dim=512,
        channel_base=8192,
        channel_max=512,
        ema_kimg=20.0,
    ),
}


def losses(config, at, adapt):
    """WGAN-GP with drift, as `experiments._style.style_losses`."""
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

    from experiments._gan import padded_side
    from experiments._style import Family, growing
    from jgen.data import resolve
    from jgen.experiment import Experiment
    from jgen.models.gan.progan import Discriminator, Generator

    config = replace(config, data=resolve(config.data))
    side, channels = padded_side(config.data), config.data.shape[-1]
    classes = config.data.num_classes if config.conditional else 0
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
    return Experiment(growing(config, parts, losses, config.first_steps, config.fade, pictures=False))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
