"""NCSN: noise conditional score networks and annealed Langevin dynamics (Song & Ermon 2019, arXiv:1907.05600; 2020).

    python -m experiments.ncsn                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.ncsn --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ncsn --preset cifar10           # NCSNv2's run, for accelerators

Target of the cifar10 preset: FID 10.87 with the last denoising step (NCSNv2, arXiv:2006.09011, table 1); its authors
trained 300,000 steps. Images are taken as [0, 1] inside, so levels and step sizes read as in the papers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments._diffusion import mean_loss, optimizer, paper_steps
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from jgen.experiment import Experiment
    from jgen.types import Sample


@dataclass(frozen=True)
class Langevin:
    """How annealed Langevin dynamics samples."""

    sampler: Literal["annealed", "consistent"] = "annealed"
    """consistent: a step a level, its noise chosen so that the next level is met; steps_each levels for each trained one."""
    steps_each: int = 30
    """Steps at each level."""
    step_size: float = 0.0
    """epsilon; 0 takes the one at which the noise settles to each level in steps_each steps (NCSNv2, technique 4)."""
    denoise: bool = True
    """End with a step without noise."""


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=700, save_every=350, sample_every=350)
    mesh: MeshConfig = MeshConfig()
    sampling: Langevin = Langevin()
    version: Literal[1, 2] = 2
    """1: the network is told the level; 2: its output is divided by it."""
    channels: int = 24
    """Width of the RefineNet's first level; the later three have twice as many."""
    levels: int = 15
    sigma_max: float = 4.0
    """Noisiest level: as large as the distance of two images (NCSNv2, technique 1)."""
    sigma_min: float = 0.02
    objective: Literal["denoising", "sliced"] = "denoising"
    learning_rate: float = 1e-3
    """Of Adam, reached by a linear warm-up."""
    warmup: int = 50
    """Steps of it."""
    final_learning_rate: float = 0.05
    """Share of the learning rate that a cosine falls to by the last step; 1 keeps it constant, as the papers do."""
    ema: float = 0.99
    """Decay of the weights' moving average (NCSNv2, technique 5), reached as (1 + step) / (10 + step) grows."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1000, save_every=250, sample_every=500),
        sampling=Langevin(steps_each=5),
        levels=40,
        sigma_max=15.0,
        sigma_min=0.01,
        ema=0.995,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=paper_steps(300_000),
        sampling=Langevin(steps_each=5, step_size=6.2e-6),
        channels=128,
        levels=232,
        sigma_max=50.0,
        sigma_min=0.01,
        learning_rate=1e-4,
        warmup=1,
        final_learning_rate=1.0,
        ema=0.999,
    ),
}


def levels(config: Config) -> "np.ndarray":
    """The noise levels [L], noisiest first."""
    from jgen.samplers.langevin import geometric

    return geometric(config.sigma_max, config.sigma_min, config.levels)


def network(config: Config) -> tuple[Any, Callable[[Any], Any]]:
    """(network, what it is told of a level sigma [B])."""
    import jax.numpy as jnp
    import numpy as np

    from jgen.models.ncsn import NCSN, NCSNv2

    channels = config.data.shape[-1]
    if config.version == 2:
        return NCSNv2(config.channels, channels), lambda sigma: sigma
    rise = jnp.asarray(np.log(levels(config)[::-1]), jnp.float32)

    def index(sigma):
        """Of the nearest level, noisiest first."""
        place = jnp.interp(jnp.log(sigma), rise, jnp.arange(config.levels - 1.0, -1.0, -1.0))
        return jnp.round(place).astype(jnp.int32)

    return NCSN(config.channels, channels, levels=config.levels), index


def sampler(config: Config, apply: Callable[..., Any]) -> "Sample":
    """Annealed Langevin dynamics in the papers' two forms."""
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.samplers.langevin import geometric

    sigmas, shape = levels(config), config.data.shape

    def sample(params, extra, keys, options):
        def field(x, sigma):
            return apply(params["net"], x, sigma)

        x = sigmas[0] * samplers.noise(keys, shape)
        if options.sampler == "consistent":
            many = geometric(config.sigma_max, config.sigma_min, config.levels * options.steps_each)
            x = samplers.consistent_langevin(field, x, many, keys, denoise=options.denoise)
        else:
            size = options.step_size or samplers.step_size_for(sigmas, options.steps_each)
            how = dict(steps_each=options.steps_each, step_size=size, denoise=options.denoise)
            x = samplers.annealed_langevin(field, x, sigmas, keys, **how)
        return jnp.clip(2 * x - 1, -1, 1)

    return sample


def build(config: Config) -> "Experiment":
    import jax.numpy as jnp

    from jgen.data import resolve
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import score
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    (net, told), held = network(config), jnp.asarray(levels(config), jnp.float32)

    def apply(params, x, sigma, label=None, **_):
        return net.apply({"params": params}, x, told(sigma))

    def init(key):
        return {"net": net.init(key, jnp.zeros((1, *config.data.shape)), told(held[:1]))["params"]}, {}

    matching = {"denoising": score.annealed, "sliced": score.annealed_sliced}[config.objective]

    def loss(params, extra, key, batch):
        return matching(apply, held)(params, extra, key, {**batch, "image": 0.5 * (batch["image"] + 1)})

    return Experiment([
        Stage(
            name="ncsn",
            data=config.data,
            train=config.train,
            init=init,
            phases=[Phase("net", loss)],
            optimizers={"net": optimizer(config, config.train.steps)},
            ema={"net": ramped(config.ema)},
            sample=sampler(config, apply),
            options=config.sampling,
            validate=loss,
            evaluate=mean_loss(loss),
        )
    ])  # fmt: skip


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
