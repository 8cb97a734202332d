"""Cascaded diffusion (Ho et al. 2021, arXiv:2106.15282): a small image, then super-resolution, stage by stage.

    python -m experiments.cascade                            # digits, 4 -> 8: under 3 minutes on 2 CPU cores
    python -m experiments.cascade --preset glyphs            # 8 -> 16 -> 32: an hour or so on 2 CPU cores
    python -m experiments.cascade --preset fashion_mnist     # 7 -> 14 -> 28: at most 30 minutes on 2 CPU cores
    python -m experiments.cascade --preset imagenet256       # the paper's run, for accelerators
    python -m experiments.cascade --stages.0.steps 1200 --stages.1.channels 16
    python -m experiments.cascade sample --augment 0.1 --samplers ddpm heun --steps-each 100 18

The super-resolution stages are trained on small images with noise (and now and then a blur) put on them, and are told how
much, so that they forgive the faults of the stage before; how much is put on when sampling is --augment. Of held-out images,
--picture inpainted puts what is known in at every stage, and --picture edited brings the smallest image to the noise level
--edit-from, from whose result the others follow.

Target of the imagenet256 preset: FID 4.88 (paper, table 1). Networks, objectives, chains and training are those of the paper's
hyperparameters for the cascade 32 -> 64 -> 256, stage by stage; the noise on the 32-pixel image is 0.31, as much as step 751 of
its chain has, one of the best the paper found. Two things differ: the last stage is told a step of its chain where the paper's
is told the noise itself, and that chain is a cosine, of which 100 steps are taken (the paper tunes it after training).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jgen
from experiments import ddpm
from experiments._diffusion import (
    ChainKnobs,
    ChainName,
    Prediction,
    classes,
    mean_loss,
    null_label,
    optimizer,
    paper_steps,
    schedule,
    unet,
)
from experiments._editing import begun, blocks_out, edit_levels, inpaint, redraw, rows, taken_out, told_of
from experiments._judge import Judge, asked, borrow, guide, heard, settings
from experiments._low_res import augmented, shrink, told
from experiments._sampling import OF_CHAIN, SamplerName, TimedSolver, check
from experiments._stages import Objective, StageKnobs, check_knobs, check_sampling, filled, levels, of_stage, sampling_of
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment, Picture, Stage


@dataclass(frozen=True)
class Sampling(TimedSolver):
    """Of every stage, or of each with a sampler and steps of its own."""

    sampler: SamplerName = "dpm"
    steps: int = 25
    samplers: tuple[SamplerName, ...] = ()
    """In place of sampler, that of each stage, from the smallest images up."""
    steps_each: tuple[int, ...] = ()
    """In place of steps, those of each stage."""
    augment: float = 0.1
    """Deviation of the noise that is put on the smaller image of a super-resolution stage; one that was trained with less has
    the most of it."""


@dataclass(frozen=True)
class Config(ChainKnobs):
    train: TrainConfig = TrainConfig(steps=400, save_every=200, sample_every=200)
    sampling: Sampling = Sampling()
    sizes: tuple[int, ...] = (4, 8)
    """Sides of the images, stage by stage; the last is that of the set."""
    schedule: ChainName = "cosine"
    """How the noise grows along the chain."""
    prediction: Prediction = "v"
    """What the network predicts. In so short a training one of noise sends some images off into specks."""
    attention: tuple[int, ...] = ()
    """Levels with attention, in pixels, besides the narrowest, which always has it."""
    num_heads: int = 0
    """Heads of attention, in place of as many as head_channels makes."""
    objective: Objective = "simple"
    """hybrid learns the variance of the steps back too (see experiments.improved_ddpm)."""
    most_augment: float = 0.5
    """Greatest deviation of the noise on smaller images in training."""
    blur: float = 0.5
    """Share of smaller images that are blurred in training."""
    stages: tuple[StageKnobs, ...] = (StageKnobs(),) * 3
    """What each stage has otherwise, from the smallest images up; more than there are say nothing."""


PRESETS = {
    "digits": Config(),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1000, save_every=500, sample_every=500),
        stages=(StageKnobs(steps=6000), StageKnobs(), StageKnobs()),
        sizes=(8, 16, 32),
        learning_rate=1e-3,
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1200, save_every=200, sample_every=400),
        sizes=(7, 14, 28),
        learning_rate=1e-3,
    ),
    "imagenet256": Config(
        data=DataConfig("imagenet2012", batch_size=2048, resolution=256, flip=True),
        train=paper_steps(400_000),
        sampling=Sampling("ddpm", variance="learned_range", steps_each=(4000, 4000, 100), augment=0.31),
        sizes=(32, 64, 256),
        channels=256,
        channel_mult=(1, 2, 3, 4),
        attention=(8, 16),
        num_heads=4,
        prediction="eps",
        objective="hybrid",
        diffusion_steps=4000,
        dropout=0.1,
        conditional=True,
        learning_rate=1e-4,
        warmup=10_000,
        final_learning_rate=1.0,
        ema=0.9999,
        most_augment=1.0,
        blur=0.0,
        stages=(
            StageKnobs(num_res_blocks=6, steps=700_000),
            StageKnobs(num_res_blocks=5),
            StageKnobs(
                steps=500_000,
                batch_size=1024,
                channels=128,
                channel_mult=(1, 2, 4, 4, 8, 8),
                num_res_blocks=3,
                attention=(16,),
                num_heads=1,
                dropout=0.0,
                objective="simple",
                diffusion_steps=2000,
                most_augment=0.0,
                blur=0.5,
            ),
        ),
    ),
}


def network(config: Config, stage: int) -> Any:
    """The base U-Net, or the super-resolution one, with as many of the widest levels as its images halve evenly."""
    from jgen.models.unet import SuperResUNet

    own, side = of_stage(config, stage), config.sizes[stage]
    sides = levels(own, side)
    factors = tuple(side // level for level in sides if level in own.attention)
    shaped = replace(own, channel_mult=own.channel_mult[-len(sides) :], attention=factors)
    more: dict[str, Any] = {}
    if own.num_heads:
        shaped, more = replace(shaped, head_channels=0), {"num_heads": own.num_heads}
    outputs = (1 + (own.objective == "hybrid")) * own.data.shape[-1]
    plain = unet(shaped, outputs, own.train.dtype, own.train.remat, **more)
    if stage == 0:
        return plain
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__ if name not in ("parent", "name")}
    return SuperResUNet(**fields)


Draw = Callable[[int, Sampling, Any, Any], Any]
"""(stage, its options, keys, the smaller images with noise as it is told of them, None for the first stage) -> images."""


class Cascade:
    """The networks of all stages, each a player of its own, and what is done with them."""

    def __init__(self, config: Config):
        self.config = filled(config)
        self.players = ["base", *(f"super_{side}" for side in config.sizes[1:])]
        check_knobs(self.config, self.players)
        self.own = [of_stage(self.config, i) for i in range(len(config.sizes))]
        self.nets = [network(self.config, i) for i in range(len(config.sizes))]

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

        from jgen.errors import in_stage

        sizes, channels = self.config.sizes, self.config.data.shape[-1]
        made, label = {}, jnp.zeros((1,), jnp.int32) if classes(self.config) else None
        for j in range(i + 1):
            x, t = jnp.zeros((1, sizes[j], sizes[j], channels)), jnp.zeros((1,))
            low = {"low_res": jnp.zeros((1, sizes[j - 1], sizes[j - 1], channels + 1))} if j else {}
            with in_stage(self.players[j]):
                made[self.players[j]] = self.nets[j].init(jax.random.fold_in(key, j), x, t, label, **low)["params"]
        return made, {}

    def objective(self, i: int, train: bool) -> Any:
        """The simple loss of stage i, or the hybrid one."""
        import jax

        from jgen.objectives import diffusion, vlb

        config, sizes = self.own[i], self.config.sizes
        kind = vlb.hybrid if config.objective == "hybrid" else diffusion.simple
        how: dict[str, Any] = dict(conditional=config.conditional, drop_label=config.drop_label, null_label=null_label(config))
        how |= dict(player=self.players[i], train=train)

        def loss(params, extra, key, batch):
            x = shrink(batch["image"], sizes[i])
            low = augmented(config, jax.random.fold_in(key, 7), shrink(batch["image"], sizes[i - 1])) if i else None
            own = kind(self.apply(i, low), schedule(config), config.prediction, **how)
            return own(params, extra, key, {**batch, "image": x})

        return loss

    def through(self, last: int, keys: Any, options: Sampling, draw: Draw) -> Any:
        """Images of stage `last`, each stage's drawn from what the one before says.

        Raises UserError for noise that the stages were not trained with, and for options that their samplers take not.
        """
        import jax
        import jax.numpy as jnp

        from jgen import samplers
        from jgen.errors import UserError

        most = max(own.most_augment for own in self.own[1:] or self.own)
        if not 0 <= options.augment <= most:
            raise UserError(f"augment={options.augment}: must be from 0 to the {most} it was trained with")
        check_sampling(self.config, options, self.players)
        steps = max(options.steps_each, default=options.steps)
        check(replace(options, steps=steps), self.config.sampling, OF_CHAIN, options.samplers)
        low = images = None
        for i in range(last + 1):
            stage_keys, noise_keys = (jax.vmap(lambda k, n=n: jax.random.fold_in(k, n))(keys) for n in (1000 + i, 2000 + i))
            if images is not None:
                level = min(options.augment, self.own[i].most_augment)
                noised = images + level * samplers.noise(noise_keys, images.shape[1:])
                low = told(noised, jnp.full(len(keys), level))
            images = jnp.clip(draw(i, sampling_of(self.config, i, options), stage_keys, low), -1, 1)
        return images

    def network(self, i: int, params: Any, low: Any) -> ddpm.Raw:
        apply = self.apply(i, low)
        return lambda x, t, label: apply(params[self.players[i]], x, t, heard(self.config, label))

    def judge(self, i: int, options: Sampling, extra: Any, label: Any) -> Judge | None:
        """The one of stage i, where a classifier guides and knows images of its size, or of none of the stages."""
        shapes = [(side, side, self.config.data.shape[-1]) for side in self.config.sizes]
        if options.classifier and shapes[i] != (known := tuple(settings(options).data.shape)) and known in shapes:
            return None
        return guide(options, extra, label, shapes[i])

    def anew(self, params: Any, extra: Any, label: Any) -> Draw:
        """Draws images of any stage from noise."""

        def draw(i, options, keys, low):
            shape = (self.config.sizes[i],) * 2 + self.config.data.shape[-1:]
            by = self.judge(i, options, extra, label)
            return ddpm.draw(self.own[i], options, self.network(i, params, low), label, keys, shape, by=by)

        return draw

    def sample(self, last: int, params: Any, extra: Any, keys: Any, options: Sampling) -> Any:
        """Images of stage `last`. Raises UserError as `through` does."""
        return self.through(last, keys, options, self.anew(params, extra, asked(self.config, keys, options)))

    def edits(self, last: int) -> dict[str, "Picture"]:
        """Held-out images, of the size of stage `last`, edited.

        What is known of an image is put in at every stage, as far as its pixels there are. SDEdit is of the first stage, from
        the image as small as that one's; the others draw anew what belongs to the result.
        """
        import jax.numpy as jnp

        config, options, sizes = self.config, self.config.sampling, self.config.sizes

        def denoiser(i, options, params, extra, low, label):
            by = self.judge(i, options, extra, label)
            return ddpm.denoising(self.own[i], options, self.network(i, params, low), label, by=by)

        def inpainted(params, extra, key, batch):
            many, keys = begun(options, key, batch)
            images, label = many["image"], told_of(config)(many, keys)
            out = taken_out(options.mask, *images.shape[1:3])

            def draw(i, options, keys, low):
                known, hidden = shrink(images, sizes[i]), jnp.asarray(blocks_out(out, sizes[i], sizes[i]))
                denoise = denoiser(i, options, params, extra, low, label)
                return inpaint(options, denoise, keys, known, hidden, edit_levels(schedule(self.own[i]), options))

            found, out = self.through(last, keys, options, draw), blocks_out(out, sizes[last], sizes[last])
            images = shrink(images, sizes[last])
            return rows(images, jnp.where(out, 0.0, images), found)

        def edited(params, extra, key, batch):
            many, keys = begun(options, key, batch)
            images, label, given = many["image"], told_of(config)(many, keys), []
            anew = self.anew(params, extra, label)

            def draw(i, options, keys, low):
                if i > 0:
                    return anew(i, options, keys, low)
                denoise, small = denoiser(i, options, params, extra, low, label), shrink(images, sizes[0])
                found, noised, level = redraw(options, denoise, keys, small, edit_levels(schedule(self.own[0]), options))
                given.append(noised / (1 + level))
                return found

            found = self.through(last, keys, options, draw)
            times = sizes[last] // sizes[0]
            return rows(shrink(images, sizes[last]), jnp.repeat(jnp.repeat(given[0], times, 1), times, 2), found)

        return {"inpainted": inpainted, "edited": edited}

    def stage(self, i: int) -> "Stage":
        from jgen.experiment import Stage
        from jgen.train import Phase
        from jgen.train.rates import ramped

        config, player = self.own[i], self.players[i]
        return Stage(
            name=player,
            data=config.data,
            train=config.train,
            init=lambda key: self.init(i, key),
            phases=[Phase(player, self.objective(i, train=True))],
            optimizers={player: optimizer(config, config.train.steps)},
            ema={player: ramped(config.ema)},
            supports=frozenset(("dtype", "remat")),
            sample=lambda params, extra, keys, options: self.sample(i, params, extra, keys, options),
            on_request=self.edits(i),
            options=config.sampling,
            borrow=borrow,
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
