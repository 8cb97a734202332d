"""Cascaded diffusion (Ho et al. 2021, arXiv:2106.15282): a small image, then super-resolution, stage by stage.

    python -m experiments.cascade                            # digits, 4 -> 8: under 3 minutes on 2 CPU cores
    python -m experiments.cascade --preset glyphs            # 8 -> 16 -> 32: an hour or so on 2 CPU cores
    python -m experiments.cascade --preset fashion_mnist     # 7 -> 14 -> 28: at most 30 minutes on 2 CPU cores
    python -m experiments.cascade --preset imagenet256       # the paper's run, for accelerators
    python -m experiments.cascade sample --augment 0.1 --sampler heun --base-sampler ddpm --base-steps 100

The super-resolution stages are trained on small images with noise (and now and then a blur) put on them, and are told how
much, so that they forgive the faults of the stage before; how much is put on when sampling is --augment. Target of the
imagenet256 preset: FID 4.88 (paper, table 1).
"""

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments import ddpm
from experiments._diffusion import (
    ChainKnobs,
    ChainName,
    Prediction,
    asked,
    classes,
    mean_loss,
    null_label,
    optimizer,
    schedule,
    unet,
)
from experiments._sampling import OF_CHAIN, SamplerName, TimedSolver, check, for_sampler
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment, Stage


@dataclass(frozen=True)
class Sampling(TimedSolver):
    """Of every stage, or of the base with settings of its own."""

    sampler: SamplerName = "dpm"
    steps: int = 25
    base_sampler: Literal["", SamplerName] = ""
    """In place of sampler for the base stage alone."""
    base_steps: int = 0
    """In place of steps for the base stage alone."""
    augment: float = 0.1
    """Deviation of the noise that is put on the smaller image of a super-resolution stage."""


@dataclass(frozen=True)
class Config(ChainKnobs):
    train: TrainConfig = TrainConfig(steps=400, save_every=200, sample_every=200)
    """Of every stage."""
    base_steps: int = 0
    """Steps of the first stage, whose small images cost little; 0 for as many as the others take."""
    sampling: Sampling = Sampling()
    sizes: tuple[int, ...] = (4, 8)
    """Sides of the images, stage by stage; the last is that of the set."""
    schedule: ChainName = "cosine"
    """How the noise grows along the chain."""
    prediction: Prediction = "v"
    """What the network predicts. In so short a training one of noise sends some images off into specks."""
    most_augment: float = 0.5
    """Greatest deviation of the noise on smaller images in training."""
    blur: float = 0.5
    """Share of smaller images that are blurred in training."""


PRESETS = {
    "digits": Config(),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1000, save_every=500, sample_every=500),
        base_steps=6000,
        sizes=(8, 16, 32),
        attention=(),
        learning_rate=1e-3,
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1200, save_every=200, sample_every=400),
        sizes=(7, 14, 28),
        attention=(),
        learning_rate=1e-3,
    ),
    "imagenet256": Config(
        data=DataConfig("imagenet2012", batch_size=1024, resolution=256, flip=True),
        train=TrainConfig(steps=500_000, log_every=100, save_every=10_000, sample_every=10_000),
        sampling=Sampling("ddpm", steps=1000),
        sizes=(32, 64, 256),
        channels=256,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=3,
        attention=(2, 4),
        prediction="eps",
        dropout=0.1,
        conditional=True,
        learning_rate=1e-4,
        warmup=10_000,
        final_learning_rate=1.0,
        ema=0.9999,
    ),
}


def shrink(x: Any, side: int) -> Any:
    """Images averaged down to a side that divides theirs."""
    b, height, width, c = x.shape
    return x.reshape(b, side, height // side, side, width // side, c).mean((2, 4))


def network(config: Config, stage: int) -> Any:
    """The base U-Net, or the super-resolution one, with as many of the widest levels as its images halve evenly."""
    from jgen.models.unet import SuperResUNet

    side, most = config.sizes[stage], len(config.channel_mult)
    levels = next(n for n in range(most, 0, -1) if side % 2 ** (n - 1) == 0)
    shaped = replace(config, channel_mult=config.channel_mult[-levels:])
    plain = unet(shaped, config.data.shape[-1], config.train.dtype, config.train.remat)
    if stage == 0:
        return plain
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__ if name not in ("parent", "name")}
    return SuperResUNet(**fields)


def told(low: Any, level: Any) -> Any:
    """A smaller image [B, h, w, C] with a channel that says how much noise [B] is on it."""
    import jax.numpy as jnp

    return jnp.concatenate([low, jnp.broadcast_to(level[:, None, None, None], (*low.shape[:3], 1))], -1)


def soften(x: Any) -> Any:
    """Images blurred by (1, 2, 1) / 4 along both axes."""
    import jax.numpy as jnp

    from jgen.nn.fir import filter2d, setup_filter

    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return filter2d(padded, setup_filter([1, 2, 1]))[:, 1:-1, 1:-1]


def augmented(config: Config, key: Any, low: Any) -> Any:
    """A smaller image as a super-resolution stage is trained on it (Ho et al. 2021): some blurred, all noised."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(key, 3)
    level = jax.random.uniform(keys[0], low.shape[:1], maxval=config.most_augment)
    chosen = jax.random.bernoulli(keys[1], config.blur, low.shape[:1])[:, None, None, None]
    low = jnp.where(chosen, soften(low), low)
    return told(low + level[:, None, None, None] * jax.random.normal(keys[2], low.shape), level)


class Cascade:
    """The networks of all stages, each a player of its own, and what is done with them."""

    def __init__(self, config: Config):
        self.config, self.chain = config, schedule(config)
        self.nets = [network(config, i) for i in range(len(config.sizes))]
        self.players = ["base", *(f"super_{side}" for side in config.sizes[1:])]

    def apply(self, i: int, low: Any) -> Any:
        """(params, x, t, label) -> what the network of stage i predicts, given what the smaller image is to it."""
        import jax.numpy as jnp

        def apply(params, x, t, label, **kwargs):
            # A guided call has each image twice, one beside the other.
            known = {} if low is None else {"low_res": jnp.repeat(low, len(x) // len(low), 0)}
            return self.nets[i].apply({"params": params}, x, t, label, **known, **kwargs)

        return apply

    def init(self, i: int, key: Any) -> Any:
        """The weights of the stages up to i."""
        import jax
        import jax.numpy as jnp

        sizes, channels = self.config.sizes, self.config.data.shape[-1]
        made, label = {}, jnp.zeros((1,), jnp.int32) if classes(self.config) else None
        for j in range(i + 1):
            x, t = jnp.zeros((1, sizes[j], sizes[j], channels)), jnp.zeros((1,))
            low = {"low_res": jnp.zeros((1, sizes[j - 1], sizes[j - 1], channels + 1))} if j else {}
            made[self.players[j]] = self.nets[j].init(jax.random.fold_in(key, j), x, t, label, **low)["params"]
        return made, {}

    def objective(self, i: int, train: bool) -> Any:
        """The simple loss of stage i."""
        import jax

        from jgen.objectives import diffusion

        config, sizes = self.config, self.config.sizes
        how: dict[str, Any] = dict(conditional=config.conditional, drop_label=config.drop_label, null_label=null_label(config))
        how |= dict(player=self.players[i], train=train)

        def loss(params, extra, key, batch):
            x = shrink(batch["image"], sizes[i])
            low = augmented(config, jax.random.fold_in(key, 7), shrink(batch["image"], sizes[i - 1])) if i else None
            own = diffusion.simple(self.apply(i, low), self.chain, config.prediction, **how)
            return own(params, extra, key, {**batch, "image": x})

        return loss

    def draw(self, i: int, params: Any, keys: Any, options: Sampling, low: Any, label: Any) -> Any:
        """Images of stage i."""
        import jax
        import jax.numpy as jnp

        config, apply = self.config, self.apply(i, low)
        if i == 0:
            own: dict[str, Any] = dict(
                sampler=options.base_sampler or options.sampler, steps=options.base_steps or options.steps
            )
            options = replace(options, **own)
        options = for_sampler(options, OF_CHAIN)
        keys = jax.vmap(lambda k: jax.random.fold_in(k, 1000 + i))(keys)
        shape = (config.sizes[i],) * 2 + config.data.shape[-1:]
        network = lambda x, t, y: apply(params[self.players[i]], x, t, y)  # noqa: E731
        return jnp.clip(ddpm.draw(config, options, network, label, keys, shape), -1, 1)

    def sample(self, last: int, params: Any, keys: Any, options: Sampling) -> Any:
        """Images of stage `last`, through all that come before it. Raises UserError for noise it was not trained with."""
        import jax
        import jax.numpy as jnp

        from jgen import samplers
        from jgen.errors import UserError

        if not 0 <= options.augment <= self.config.most_augment:
            raise UserError(f"augment={options.augment}: must be from 0 to the {self.config.most_augment} it was trained with")
        check(
            options,
            self.config.sampling,
            OF_CHAIN,
            (options.sampler, *([options.base_sampler] if options.base_sampler else [])),
        )
        label = asked(self.config, keys, options.label)
        images = self.draw(0, params, keys, options, None, label)
        for i in range(1, last + 1):
            noise_keys = jax.vmap(lambda k, i=i: jax.random.fold_in(k, 2000 + i))(keys)
            low = images + options.augment * samplers.noise(noise_keys, images.shape[1:])
            images = self.draw(i, params, keys, options, told(low, jnp.full(len(keys), options.augment)), label)
        return images

    def stage(self, i: int) -> "Stage":
        from jgen.experiment import Stage
        from jgen.train import Phase
        from jgen.train.rates import ramped

        config, player = self.config, self.players[i]
        train = replace(config.train, steps=config.base_steps or config.train.steps) if i == 0 else config.train
        return Stage(
            name=player,
            data=config.data,
            train=train,
            init=lambda key: self.init(i, key),
            phases=[Phase(player, self.objective(i, train=True))],
            optimizers={player: optimizer(config, train.steps)},
            ema={player: ramped(config.ema)},
            supports=frozenset(("dtype", "remat")),
            sample=lambda params, extra, keys, options: self.sample(i, params, keys, options),
            options=config.sampling,
            validate=self.objective(i, train=False),
            evaluate=mean_loss(self.objective(i, train=False)),
            begin=lambda params, extra, fresh, fresh_extra: ({**fresh, **params}, fresh_extra),
        )


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment

    config = replace(config, data=resolve(config.data))
    (height, width, _), sizes = config.data.shape, config.sizes
    if sizes[-1] != height or height != width or any(b % a or a >= b for a, b in itertools.pairwise(sizes)):
        raise UserError(f"sizes={sizes}: each must divide the next, and the last be the set's {height}x{width}")
    cascade = Cascade(config)
    return Experiment([cascade.stage(i) for i in range(len(sizes))])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
