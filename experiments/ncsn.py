"""NCSN: noise conditional score networks and annealed Langevin dynamics (Song & Ermon 2019, arXiv:1907.05600; 2020).

    python -m experiments.ncsn                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.ncsn --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ncsn --preset cifar10           # NCSNv2's run, for accelerators

Target of the cifar10 preset: FID 10.87 with the last denoising step (NCSNv2, arXiv:2006.09011, table 1); its authors
trained 300,000 steps. Images are taken as [0, 1] inside, so levels and step sizes read as in the papers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments import _sampling
from experiments._diffusion import mean_loss, optimizer, paper_steps
from experiments._editing import edits, told_of
from experiments._judge import Judge, asked, borrow, guide, steered, steered_score
from experiments._sampling import CONTINUOUS, DISCRETE, SamplerName, Solver, bounded, check, from_noise
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from jgen.experiment import Experiment
    from jgen.types import Denoise, Sample


OWN = ("annealed", "consistent")
DENOISING = (*DISCRETE, *CONTINUOUS)
HEEDED = {
    **_sampling.HEEDED,
    **{name: OWN for name in ("steps_each", "denoise")},
    **{name: DENOISING for name in ("sigma_min", "threshold")},
    "step_size": ("annealed",),
}
"""Options that are for some samplers alone."""


@dataclass(frozen=True)
class Sampling(Solver):
    """Annealed Langevin dynamics, or any sampler of a denoiser."""

    sampler: Literal["annealed", "consistent", SamplerName] = "annealed"
    """annealed: the papers' Langevin dynamics; consistent: a step a level, its noise chosen so that the next level is met, and
    steps_each levels for each trained one. The others run on the denoiser x + sigma^2 score."""
    steps_each: int = 30
    """Steps of Langevin dynamics at each level."""
    step_size: float = 0.0
    """epsilon; 0 takes the one at which the noise settles to each level in steps_each steps (NCSNv2, technique 4)."""
    denoise: bool = True
    """End Langevin dynamics with a step without noise."""


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=700, save_every=350, sample_every=350)
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
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
    clip: float = 1.0
    """Greatest norm of the gradient of all weights, scaled down where above; 0 leaves it as it is."""
    ema: float = 0.99
    """Decay of the weights' moving average (NCSNv2, technique 5), reached as (1 + step) / (10 + step) grows."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1000, save_every=250, sample_every=500),
        sampling=Sampling(steps_each=5),
        levels=40,
        sigma_max=15.0,
        sigma_min=0.01,
        ema=0.995,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=paper_steps(300_000),
        sampling=Sampling(steps_each=5, step_size=6.2e-6),
        channels=128,
        levels=232,
        sigma_max=50.0,
        sigma_min=0.01,
        learning_rate=1e-4,
        warmup=1,
        final_learning_rate=1.0,
        clip=0.0,
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


def denoising(apply: Callable[..., Any], params: Any, options: Sampling, by: Judge | None = None) -> "Denoise":
    """(x, sigma) -> the clean image, of images in [-1, 1]: their levels are twice those of images in [0, 1]."""
    import jax.numpy as jnp

    from jgen.arrays import wide

    def denoise(x, sigma):
        inside, level = 0.5 * (x + 1), jnp.broadcast_to(0.5 * sigma, x.shape[:1])
        return x + 2 * wide(level, x) ** 2 * apply(params["net"], inside, level)

    return steered(options, bounded(options, denoise), by)


def grid_of(config: Config, options: Sampling) -> Any:
    """The noise levels of the samplers that take a denoiser."""
    return _sampling.levels(options, 2 * config.sigma_min, 2 * config.sigma_max)


def sampler(config: Config, apply: Callable[..., Any]) -> "Sample":
    """Annealed Langevin dynamics in the papers' two forms, or the denoiser of the score under any sampler."""
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.errors import UserError
    from jgen.samplers.langevin import geometric

    sigmas, shape = levels(config), config.data.shape

    def langevin(field, keys, options):
        x = sigmas[0] * samplers.noise(keys, shape)
        if options.sampler == "consistent":
            many = geometric(config.sigma_max, config.sigma_min, config.levels * options.steps_each)
            return samplers.consistent_langevin(field, x, many, keys, denoise=options.denoise)
        size = options.step_size or samplers.step_size_for(sigmas, options.steps_each)
        how = dict(steps_each=options.steps_each, step_size=size, denoise=options.denoise)
        return samplers.annealed_langevin(field, x, sigmas, keys, **how)

    def sample(params, extra, keys, options):
        check(options, config.sampling, HEEDED)
        if options.guidance != 1:
            raise UserError(f"guidance={options.guidance}: this model is not class-conditional; try --classifier")
        by = guide(options, extra, asked(config, keys, options), shape)
        if options.sampler in OWN:
            field = lambda x, sigma: apply(params["net"], x, sigma)  # noqa: E731
            # Of images in [0, 1], whose levels are half of those that the judge knows.
            led = steered_score(options, field, by, lambda x, sigma: 2 * x - 1, lambda sigma: 2 * sigma)
            return jnp.clip(2 * langevin(led, keys, options) - 1, -1, 1)
        denoise = denoising(apply, params, options, by)
        return jnp.clip(from_noise(denoise, options, keys, shape, grid_of(config, options)), -1, 1)

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
            on_request=edits(
                config.sampling,
                lambda params, extra, label: denoising(
                    apply, params, config.sampling, guide(config.sampling, extra, label, config.data.shape)
                ),
                partial(grid_of, config),
                told_of(config),
            ),
            options=config.sampling,
            borrow=borrow,
            validate=loss,
            evaluate=mean_loss(loss),
        )
    ])  # fmt: skip


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
