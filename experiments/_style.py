"""What the StyleGAN experiments share: their knobs, the stage of training, sampling, and pictures of what styles control."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from jgen.config import DataConfig, MeshConfig, TrainConfig


@dataclass(frozen=True)
class Sampling:
    psi: float = 1.0
    """Truncation: 1 is without, 0 the mean image."""
    noise: Literal["gaussian", "none", "uniform", "salt_and_pepper", "perlin", "octaves"] = "gaussian"
    """What the noise inputs are fed with."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a conditional model."""


@dataclass(frozen=True)
class Shared:
    """Knobs of every GAN that works in powers of 2."""

    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=2000, save_every=1000, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
    z_dim: int = 64
    channel_base: int = 256
    """Channels of a resolution are channel_base / side,"""
    channel_max: int = 32
    """but at most so many."""
    conditional: bool = False
    """Give both networks the class."""
    learning_rate: float = 2.5e-3
    """Of Adam, for both players."""
    ema_kimg: float = 2.0
    """Half-life of G's moving average in thousands of images."""
    augment: Literal["none", "ada", "diffaug"] = "none"
    """What D sees of reals and fakes: ada adapts its strength."""
    ada_target: float = 0.6
    """Mean sign of D's logits of reals at which ada's strength rests."""
    ada_kimg: float = 500.0
    """Thousands of images in which it could go from 0 to 1."""


@dataclass(frozen=True)
class Knobs(Shared):
    """Those of the StyleGANs besides."""

    w_dim: int = 64
    mapping_layers: int = 4
    mapping_lr_mul: float = 0.01
    """The mapping's learning rate as a share of the others'."""
    r1_gamma: float = 1.0
    """Weight of the R1 penalty; 0 for none."""
    r1_every: int = 8
    """Steps between R1 penalties."""
    path_weight: float = 0.0
    """Weight of path length regularisation; 0 for none."""
    path_every: int = 4
    """Steps between path length penalties."""
    mixing: float = 0.9
    """Probability of style mixing."""


class Family(NamedTuple):
    """A generator and a discriminator as functions; grown is what a growing network is told: skip and fade."""

    init: Callable[[Any, Any], Any]
    """(key, label [1, classes] or None) -> {"g", "d"}."""
    map: Callable[[Any, Any, Any], Any]
    """(params of g, z, label) -> w [B, w_dim]."""
    synthesize: Callable[..., Any]
    """(params of g, ws, noise, **grown) -> images."""
    discriminate: Callable[..., Any]
    """(params of d, images, label, **grown) -> logits [B]."""
    side: int
    """Of the whole network's images, in pixels."""
    num_ws: int
    w_dim: int
    sides: dict[str, int]
    """{noise layer: side}."""


class Growth(NamedTuple):
    """Of a stage that trains a network at part of its resolution."""

    skip: int
    """How many of the finest levels are left out."""
    fade_steps: int
    """In which the newest level comes in; 0 for a stage without."""


def family(g: Any, d: Any, config: Knobs, sides: dict[str, int]) -> Family:
    """Of Linen modules with StyleGAN2's methods."""
    import jax
    import jax.numpy as jnp

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


ADA_INTERVAL = 4
"""Steps between changes of ada's strength."""


def augmentation(config: Shared) -> tuple[Any, Any, dict[str, Any]]:
    """(augment, adapt, what extra holds for them), as `jgen.objectives.stylegan` takes them."""
    import jax.numpy as jnp

    from jgen.objectives import ada
    from jgen.objectives.diffaug import diffaug

    if config.augment == "none":
        return (lambda key, images, extra: images), (lambda extra, real: extra), {}
    if config.augment == "diffaug":
        return (lambda key, images, extra: diffaug(key, images)), (lambda extra, real: extra), {}

    def augment(key, images, extra):
        return ada.augment(images, ada.draw(key, len(images), images.shape[1:], ada.BGC), extra["ada"]["p"], ada.BGC)

    def adapt(extra, real):
        state = extra["ada"]
        total, count = state["signs"] + jnp.mean(jnp.sign(real)), state["count"] + 1
        due = count == ADA_INTERVAL
        how = dict(batch=len(real), interval=ADA_INTERVAL, kimg=config.ada_kimg, target=config.ada_target)
        p = jnp.where(due, ada.adjust_p(state["p"], total / ADA_INTERVAL, **how), state["p"])
        new = {"p": p, "signs": jnp.where(due, 0.0, total), "count": jnp.where(due, 0, count)}
        return {**extra, "ada": new}

    zero = jnp.zeros(())
    return augment, adapt, {"ada": {"p": zero, "signs": zero, "count": jnp.zeros((), jnp.int32)}}


Made = tuple[list[Any], dict[str, Any]]
"""(phases, optimizers)."""


def style_losses(config: Knobs, at: Callable[[Callable[[Any], Any]], Any], adapt: Any) -> Made:
    """StyleGAN's: non-saturating, with lazy path length and R1. at(nets -> loss) -> loss."""
    import optax

    from jgen.objectives import stylegan
    from jgen.train import Phase
    from jgen.train.lazy import lazy_adam

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


def style_stage(
    config: Any, name: str, parts: Family, losses: Any = style_losses, growth: Growth | None = None, pictures: bool = True
) -> Any:
    """A stage of training; losses as `style_losses`. With growth it trains and shows the network at part of its resolution."""
    import jax
    import jax.numpy as jnp

    from experiments._gan import cropped, entanglement, modes, pad
    from jgen import samplers
    from jgen.edit import noise as kinds
    from jgen.experiment import Stage
    from jgen.models.gan import progan
    from jgen.models.gan.stylegan2 import repeat, truncate
    from jgen.objectives import stylegan
    from jgen.train.lazy import ema_decay

    pixels, classes = config.data.shape, config.data.num_classes if config.conditional else 0
    augment, adapt, state = augmentation(config)

    def grown(extra):
        if growth is None:
            return {}
        if not growth.fade_steps:
            return {"skip": growth.skip}
        return {"skip": growth.skip, "fade": jnp.clip(1 - extra["fade_step"] / growth.fade_steps, 0.0, 1.0)}

    def nets(extra):
        now = grown(extra)
        return stylegan.Nets(
            map=parts.map,
            synthesize=lambda p, ws, noise: parts.synthesize(p, ws, noise, **now),
            discriminate=lambda p, x, c: parts.discriminate(p, x, c, **now),
            noise=lambda keys: kinds.planes(keys, parts.sides),
            z_dim=config.z_dim,
            num_ws=parts.num_ws,
            classes=classes,
            mixing=getattr(config, "mixing", 0.0),
            augment=augment,
        )

    def at(make):
        """The loss that make(nets) is, on images as large as the network's, reals faded as its own are."""

        def loss(params, extra, key, batch):
            images = pad(batch["image"], parts.side)
            images = images if growth is None else progan.faded(images, **grown(extra))
            return make(nets(extra))(params, extra, key, {**batch, "image": images})

        return loss

    def counted(loss):
        """The loss of a phase that runs once a step, which counts the steps of fading."""

        def with_count(params, extra, key, batch):
            value, (extra, metrics) = loss(params, extra, key, batch)
            return value, ({**extra, "fade_step": extra["fade_step"] + 1}, metrics)

        return with_count

    def init(key):
        label = jnp.zeros((1, classes)) if classes else None
        extra = {"w_avg": jnp.zeros(parts.w_dim), "pl_mean": jnp.zeros(()), **state}
        return parts.init(key, label), extra | ({"fade_step": jnp.zeros((), jnp.int32)} if growth else {})

    def begin(params, extra, fresh, fresh_extra):
        """The smaller network as it was trained, its newest level still to come in."""
        return params, {**extra, "fade_step": fresh_extra["fade_step"]}

    phases, optimizers = losses(config, at, adapt)
    if growth:
        phases = [phases[0]._replace(loss=counted(phases[0].loss)), *phases[1:]]

    def styled(params, extra, keys, options, z=None):
        """ws [B, num_ws, D] of one key an image, or of given latents z [B, Z]."""
        label = samplers.class_labels(keys, options.label, classes)
        label = None if label is None else jax.nn.one_hot(label, classes)
        w = parts.map(params["g"], samplers.noise(keys, (config.z_dim,)) if z is None else z, label)
        return truncate(repeat(w, parts.num_ws), extra["w_avg"], options.psi)

    def synthesized(params, extra, ws, noise):
        images = parts.synthesize(params["g"], ws, noise, **grown(extra))
        images = images if growth is None else progan.enlarge(images, parts.side)
        return jnp.clip(cropped(images, pixels[0]), -1, 1)

    def sample(params, extra, keys, options):
        planes = {} if options.noise == "none" else kinds.planes(keys, parts.sides, getattr(kinds, options.noise))
        return synthesized(params, extra, styled(params, extra, keys, options), planes)

    def measured(params, extra, key, batches, count):
        """The modes found, and for a network with styles how entangled they are."""
        found = modes(config.data, sample, config.sampling)(params, extra, key, batches, count)
        if not pictures or classes:
            return found
        from_w = lambda params, extra, w, keys: synthesized(  # noqa: E731
            params, extra, repeat(w, parts.num_ws), kinds.planes(keys, parts.sides)
        )
        own = entanglement(config.data, config.z_dim, lambda params, z: parts.map(params["g"], z, None), from_w)
        return found | own(params, extra, key, batches, count)

    return Stage(
        name=name,
        data=config.data,
        train=config.train,
        init=init,
        phases=phases,
        optimizers=optimizers,
        ema={"g": ema_decay(config.data.batch_size, config.ema_kimg)},
        sample=sample,
        options=config.sampling,
        pictures=style_pictures(config, styled, synthesized, parts.sides) if pictures else {},
        evaluate=measured,
        begin=begin if growth else None,
    )


def growing(config: Any, parts: Family, losses: Any, first_steps: int, fade: float, pictures: bool = True) -> list[Any]:
    """A stage for every resolution from 4 to the network's: of first_steps at 4x4, and of train.steps at the others.

    fade: the share of a stage in which its level comes in.
    """
    levels = int(parts.side).bit_length() - 3
    stages = []
    for i in range(levels + 1):
        count, skip = config.train.steps if i else first_steps, levels - i
        train = replace(config.train, steps=count)
        growth = Growth(skip, int(fade * count) if i else 0)
        shown = pictures and not skip
        stages.append(style_stage(replace(config, train=train), f"{4 << i}x{4 << i}", parts, losses, growth, shown))
    return stages


def style_pictures(config: Shared, styled: Any, synthesized: Any, sides: dict[str, int]) -> dict[str, Any]:
    """Pictures by name, each (params, extra, key, batch) -> images of a grid."""
    import jax
    import jax.numpy as jnp

    from jgen.edit import latents, noise, styles
    from jgen.samplers.common import noise as normal

    def some(params, extra, key, num):
        return styled(params, extra, jax.random.split(key, num), config.sampling)

    def mixing(rows):
        def picture(params, extra, key, batch):
            ws = some(params, extra, key, 14)
            return styles.mixing_grid(lambda ws: synthesized(params, extra, ws, {}), ws[:7], ws[7:], rows)

        return picture

    def truncation(params, extra, key, batch):
        ws = some(params, extra, key, 7)
        return styles.truncation_sweep(
            lambda ws: synthesized(params, extra, ws, {}), ws, extra["w_avg"], jnp.linspace(-1, 1, 7)
        )

    def noise_layers(params, extra, key, batch):
        """Rows: no noise, noise in all, the finer, the coarser layers, and the deviation that all of it makes, times 4."""
        ws, keys = some(params, extra, key, 5), jax.random.split(jax.random.fold_in(key, 1), 5)
        drawn = noise.planes(keys, sides)
        rows = [
            synthesized(params, extra, ws, {k: v for k, v in drawn.items() if k in layers})
            for layers in styles.noise_groups(sides).values()
        ]
        draw = lambda keys: noise.planes(keys, sides)  # noqa: E731
        many = jax.random.split(jax.random.fold_in(key, 2), 20)
        spread = styles.noise_deviation(lambda ws, n: synthesized(params, extra, ws, n), ws, draw, many, set(sides))
        return jnp.concatenate([*rows, jnp.clip(4 * spread - 1, -1, 1)])

    def ways(params, extra, key, batch):
        """Lines between two styles in W, and arcs in Z, by turns."""
        t, rows = jnp.linspace(0, 1, 8), []
        for i in range(4):
            ends = jax.random.split(jax.random.fold_in(key, i), 2)
            a, b = styled(params, extra, ends, config.sampling)
            line = latents.lerp(a.reshape(-1), b.reshape(-1), t).reshape(8, *a.shape)
            arc = latents.slerp(*normal(ends, (config.z_dim,)), t)
            same = jnp.broadcast_to(ends[:1], (8,))  # one key, so one label
            rows += [
                synthesized(params, extra, line, {}),
                synthesized(params, extra, styled(params, extra, same, config.sampling, arc), {}),
            ]
        return jnp.concatenate(rows)

    groups = styles.ranges(2 * len(set(sides.values())))
    return {
        **{f"mixing_{name}": mixing(rows) for name, rows in groups.items()},
        "truncation": truncation,
        "noise": noise_layers,
        "interpolation": ways,
    }
