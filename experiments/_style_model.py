"""A GAN that works in powers of 2 as a stage of training: its losses, its growth, its samples and what they are measured by."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import _style_pictures
from experiments._gan import cropped, entanglement, modes, pad
from experiments._style import Knobs, Labelled, Sampling, Shared
from jgen import samplers
from jgen.config import check_at_least, check_share
from jgen.data import classes_of
from jgen.edit import noise as kinds
from jgen.experiment import Stage
from jgen.models.gan import progan
from jgen.models.gan.stylegan2 import repeat, truncate
from jgen.objectives import augmentation, stylegan
from jgen.train import Phase
from jgen.train.lazy import ema_decay, lazy_adam
from jgen.types import Array, Extra, Key, LossFn, Params


class Family(NamedTuple):
    """A generator and a discriminator as functions; grown is what a growing network is told: skip and fade."""

    init: Callable[[Key, Array | None], dict[str, Any]]
    """(key, label [1, classes] or None) -> {"g", "d"}."""
    map: Callable[[Any, Array, Array | None], Array]
    """(params of g, z, label) -> w [B, w_dim]."""
    synthesize: Callable[..., Array]
    """(params of g, ws, noise, **grown) -> images."""
    discriminate: Callable[..., Array]
    """(params of d, images, label, **grown) -> logits [B]."""
    side: int
    """Of the whole network's images, in pixels."""
    num_ws: int
    w_dim: int
    sides: dict[str, int]
    """{noise layer: side}."""


def family(g: Any, d: Any, config: Knobs, sides: dict[str, int]) -> Family:
    """Of Linen modules with StyleGAN2's methods. Raises UserError for sizes and intervals below 1."""
    check_at_least(1, z_dim=config.z_dim, w_dim=config.w_dim, mapping_layers=config.mapping_layers)
    check_at_least(1, r1_every=config.r1_every, path_every=config.path_every)

    def init(key, label):
        keys = jax.random.split(key)
        side = (1, g.resolution, g.resolution, config.data.shape[-1])
        made = g.init(keys[0], jnp.zeros((1, config.z_dim)), label)["params"]
        return {"g": made, "d": d.init(keys[1], jnp.zeros(side), label)["params"]}

    return Family(
        init,
        lambda p, z, c: g.apply({"params": p}, z, c, method="map"),
        lambda p, ws, noise, **grown: g.apply({"params": p}, ws, noise, **grown, method="synthesize"),
        lambda p, x, c, **grown: d.apply({"params": p}, x, c, **grown),
        g.resolution,
        g.num_ws,
        config.w_dim,
        sides,
    )


class Growth(NamedTuple):
    """Of a stage that trains a network at part of its resolution."""

    skip: int
    """How many of the finest levels are left out."""
    fade_steps: int
    """In which the newest level comes in, each counted as often as gradients are accumulated; 0 for a stage without."""


At = Callable[[Callable[[stylegan.Nets], LossFn]], LossFn]
Losses = Callable[[Any, At, Any], tuple[list[Phase], dict[str, optax.GradientTransformation]]]
"""(config, at, adapt) -> (phases, optimizers); at(nets -> loss) is the loss on images as large as the network's."""


def style_losses(config: Knobs, at: At, adapt: Any) -> tuple[list[Phase], dict[str, optax.GradientTransformation]]:
    """StyleGAN's: non-saturating, with lazy path length and R1."""
    phases, plain = [Phase("g", at(stylegan.generator_loss))], optax.adam(config.learning_rate, 0.0, 0.99)
    if config.path_weight:
        path = at(lambda nets: stylegan.path_loss(nets, config.path_weight, config.path_every))
        phases += [Phase("g", path, config.path_every, "path")]
    phases += [Phase("d", at(lambda nets: stylegan.discriminator_loss(nets, adapt=adapt)))]
    if config.r1_gamma:
        r1 = at(lambda nets: stylegan.r1_loss(nets, config.r1_gamma, config.r1_every))
        phases += [Phase("d", r1, config.r1_every, "r1")]
    return phases, {
        "g": lazy_adam(config.learning_rate, interval=config.path_every) if config.path_weight else plain,
        "d": lazy_adam(config.learning_rate, interval=config.r1_every) if config.r1_gamma else plain,
    }


@dataclass(frozen=True)
class Model:
    """A family under a config's knobs; with growth at part of its resolution."""

    config: Shared
    parts: Family
    growth: Growth | None = None

    @property
    def classes(self) -> int:
        return classes_of(self.config.data, self.config.conditional)

    @property
    def augmentation(self) -> augmentation.Augmentation:
        return augmentation.named(self.config.augment, target=self.config.ada_target, kimg=self.config.ada_kimg)

    def grown(self, extra: Extra) -> dict[str, Any]:
        """What the networks are told of their growth."""
        if self.growth is None:
            return {}
        if not self.growth.fade_steps:
            return {"skip": self.growth.skip}
        return {"skip": self.growth.skip, "fade": jnp.clip(1 - extra["fade_step"] / self.growth.fade_steps, 0.0, 1.0)}

    def nets(self, extra: Extra) -> stylegan.Nets:
        now, parts = self.grown(extra), self.parts
        return stylegan.Nets(
            map=parts.map,
            synthesize=lambda p, ws, noise: parts.synthesize(p, ws, noise, **now),
            discriminate=lambda p, x, c: parts.discriminate(p, x, c, **now),
            noise=lambda keys: kinds.planes(keys, parts.sides),
            z_dim=self.config.z_dim,
            num_ws=parts.num_ws,
            used_ws=parts.num_ws - 2 * self.growth.skip if self.growth and parts.num_ws > 1 else parts.num_ws,
            classes=self.classes,
            mixing=self.config.mixing if isinstance(self.config, Knobs) else 0.0,
            augment=self.augmentation.augment,
        )

    def at(self, make: Callable[[stylegan.Nets], LossFn]) -> LossFn:
        """The loss that make(nets) is, on images as large as the network's, reals faded as its own are."""

        def loss(params, extra, key, batch):
            images = pad(batch["image"], self.parts.side)
            images = images if self.growth is None else progan.faded(images, **self.grown(extra))
            return make(self.nets(extra))(params, extra, key, {**batch, "image": images})

        return loss

    def counted(self, loss: LossFn) -> LossFn:
        """The loss of a phase that runs once a step, which counts the steps of fading."""

        def with_count(params, extra, key, batch):
            value, (extra, metrics) = loss(params, extra, key, batch)
            return value, ({**extra, "fade_step": extra["fade_step"] + 1}, metrics)

        return with_count if self.growth else loss

    def init(self, key: Key) -> tuple[Params, Extra]:
        label = jnp.zeros((1, self.classes)) if self.classes else None
        extra = {"w_avg": jnp.zeros(self.parts.w_dim), "pl_mean": jnp.zeros(()), **self.augmentation.state}
        return self.parts.init(key, label), extra | ({"fade_step": jnp.zeros((), jnp.int32)} if self.growth else {})

    def begin(self, params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        """The smaller network as it was trained, of G its moving average, its newest level still to come in."""
        return params, {**extra, "fade_step": fresh_extra["fade_step"]}

    def styled(self, params: Params, extra: Extra, keys: Key, options: Labelled, z: Array | None = None) -> Array:
        """ws [B, num_ws, D] of one key an image, or of given latents z [B, Z]."""
        label = samplers.class_labels(keys, options.label, self.classes)
        label = None if label is None else jax.nn.one_hot(label, self.classes)
        w = self.parts.map(params["g"], samplers.noise(keys, (self.config.z_dim,)) if z is None else z, label)
        ws = repeat(w, self.parts.num_ws)
        return truncate(ws, extra["w_avg"], options.psi) if isinstance(options, Sampling) else ws

    def synthesized(self, params: Params, extra: Extra, ws: Array, planes: dict[str, Array]) -> Array:
        """Images of the set's size, in [-1, 1]."""
        images = self.parts.synthesize(params["g"], ws, planes, **self.grown(extra))
        images = images if self.growth is None else progan.enlarge(images, self.parts.side)
        return jnp.clip(cropped(images, self.config.data.shape[0]), -1, 1)

    def sample(self, params: Params, extra: Extra, keys: Key, options: Labelled) -> Array:
        noisy = isinstance(options, Sampling) and options.noise != "none"
        planes = kinds.planes(keys, self.parts.sides, getattr(kinds, options.noise)) if noisy else {}
        return self.synthesized(params, extra, self.styled(params, extra, keys, options), planes)

    def from_w(self, params: Params, extra: Extra, w: Array, keys: Key) -> Array:
        """Images of w [B, D], with a key an image for the noise."""
        return self.synthesized(params, extra, repeat(w, self.parts.num_ws), kinds.planes(keys, self.parts.sides))


def style_stage(
    config: Any, name: str, parts: Family, losses: Losses = style_losses, growth: Growth | None = None, styles: bool = True
) -> Stage:
    """A stage of training. styles: with pictures of what they control, and with measures of how entangled they are."""
    model = Model(config, parts, growth)
    phases, optimizers = losses(config, model.at, model.augmentation.adapt)
    found = modes(config.data, model.sample, config.sampling)
    own = entanglement(config.data, config.z_dim, lambda params, z: parts.map(params["g"], z, None), model.from_w)

    def with_styles(*given):
        return found(*given) | own(*given)

    return Stage(
        name=name,
        data=config.data,
        train=config.train,
        init=model.init,
        phases=[phases[0]._replace(loss=model.counted(phases[0].loss)), *phases[1:]],
        optimizers=optimizers,
        ema={"g": ema_decay(config.data.batch_size, config.ema_kimg, config.ema_rampup or None)},
        sample=model.sample,
        options=config.sampling,
        pictures=_style_pictures.pictures(config, model.styled, model.synthesized, parts.sides) if styles else {},
        evaluate=with_styles if styles and not model.classes else found,
        begin=model.begin if growth else None,
    )


def growth(config: Any, skip: int, first: bool) -> Growth:
    """Of a stage of train.steps, with `skip` levels left out; the first has none that comes in."""
    return Growth(skip, 0 if first else int(config.fade * config.train.steps) * config.train.accumulate)


def growing(config: Any, parts: Family, losses: Losses = style_losses, styles: bool = True) -> list[Stage]:
    """A stage for every resolution from 4 on: of first_steps at 4x4, last_steps at the last, and train.steps at the others.

    Raises UserError for knobs that can't be.
    """
    levels = int(parts.side).bit_length() - 3
    check_at_least(1, first_steps=config.first_steps)
    check_at_least(0, last_steps=config.last_steps)
    check_share(fade=config.fade)
    steps = [config.first_steps, *[config.train.steps] * levels]
    steps[-1] = config.last_steps or steps[-1]
    stages = []
    for i, count in enumerate(steps):
        skip = levels - i
        at = replace(config, train=replace(config.train, steps=count))
        stages.append(style_stage(at, f"{4 << i}x{4 << i}", parts, losses, growth(at, skip, i == 0), styles and not skip))
    return stages
