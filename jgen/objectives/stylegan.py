"""The training losses of the StyleGAN family: adversarial with style mixing, R1, path length, and the centre of truncation.

Karras et al. 2019 (arXiv:1812.04948), 2020 (arXiv:1912.04958, 2006.06676). A network is given as functions (`Nets`), so all
of the family share these. Players are "g" and "d"; extra holds "w_avg" [D], "pl_mean" [] and what the augmentation keeps. Every
loss is a core on given draws (`Draws`) and a LossFn that makes them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgen.arrays import spread
from jgen.models.gan.stylegan2 import mix, repeat
from jgen.objectives.gan import Adversarial, non_saturating
from jgen.objectives.gan_penalties import path_length, r1
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree

Augment = Callable[[Key, Array, Extra], Array]
"""(key, images, extra) -> images as the discriminator sees them."""


class Nets(NamedTuple):
    map: Callable[[PyTree, Array, Array | None], Array]
    """(params of g, z [B, Z], labels [B, classes] or None) -> w [B, D]."""
    synthesize: Callable[[PyTree, Array, Mapping[str, Array]], Array]
    """(params of g, ws [B, num_ws, D], noise planes) -> images."""
    discriminate: Callable[[PyTree, Array, Array | None], Array]
    """(params of d, images, labels) -> logits [B]."""
    noise: Callable[[Key], Mapping[str, Array]]
    """One key an image -> the planes of every layer."""
    z_dim: int
    num_ws: int
    used_ws: int = 0
    """How many of them a network that still grows has a use for; 0 for all."""
    classes: int = 0
    mixing: float = 0.9
    """Probability of style mixing."""
    w_decay: float = 0.995
    """Of the moving average w_avg."""
    augment: Augment = lambda key, images, extra: images
    """Of what D sees, reals and fakes."""


class Draws(NamedTuple):
    z: Array
    z2: Array
    cutoff: Array
    """int []: rows from here on are of z2; num_ws for no mixing."""
    noise: Mapping[str, Array]


def draw(nets: Nets, key: Key, images: Array, rows: int | None = None) -> Draws:
    """The latents and noise of as many images, or of `rows`, and their mixing: one draw for all, as in the authors' code."""
    rows = len(images) if rows is None else rows
    z_key, z2_key, cut_key, mix_key, noise_key = jax.random.split(key, 5)
    cutoff = jax.random.randint(cut_key, (), 1, max(nets.used_ws or nets.num_ws, 2))
    mixed = jax.random.uniform(mix_key) < nets.mixing
    noise = spread(nets.noise(jax.random.split(noise_key, rows)), images)
    z, z2 = (spread(jax.random.normal(k, (rows, nets.z_dim)), images) for k in (z_key, z2_key))
    return Draws(z, z2, jnp.where(mixed, cutoff, nets.num_ws), noise)


def styles(nets: Nets, params: PyTree, draws: Draws, label: Array | None, w_avg: Array) -> tuple[Array, Array]:
    """(ws [B, num_ws, D] after mixing, w_avg moved towards the mean of the first latents' w)."""
    w = nets.map(params, draws.z, label)
    ws = mix(repeat(w, nets.num_ws), repeat(nets.map(params, draws.z2, label), nets.num_ws), draws.cutoff)
    centre = jax.lax.stop_gradient(jnp.mean(w, 0))
    return ws, centre + nets.w_decay * (w_avg - centre)


def fakes(nets: Nets, params: PyTree, draws: Draws, label: Array | None, w_avg: Array) -> tuple[Array, Array]:
    """(images, w_avg) of given draws."""
    ws, w_avg = styles(nets, params, draws, label, w_avg)
    return nets.synthesize(params, ws, draws.noise), w_avg


def path_terms(
    nets: Nets, params: PyTree, draws: Draws, label: Array | None, pl_noise: Array, extra: Extra, decay: float = 0.01
) -> tuple[Array, Extra]:
    """(path length penalty [B], extra with the new pl_mean and w_avg) of given draws and pl_noise [B, H, W, C]."""
    ws, w_avg = styles(nets, params, draws, label, extra["w_avg"])
    synthesis = lambda ws: nets.synthesize(params, ws, draws.noise)  # noqa: E731
    penalty, _, mean = path_length(synthesis, ws, pl_noise, extra["pl_mean"], decay)
    return penalty, {**extra, "w_avg": w_avg, "pl_mean": mean}


def one_hot(nets: Nets, batch: Batch, rows: int | None = None) -> Array | None:
    """The batch's labels [rows, classes], which generated images are given too; None for an unconditional network."""
    return jax.nn.one_hot(batch["label"][:rows], nets.classes) if nets.classes else None


def generator_loss(nets: Nets, adversarial: Adversarial = non_saturating) -> LossFn:
    """G's main loss."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        draw_key, real_key, fake_key = jax.random.split(key, 3)
        x, label = batch["image"], one_hot(nets, batch)
        images, w_avg = fakes(nets, params["g"], draw(nets, draw_key, x), label, extra["w_avg"])
        fake = nets.discriminate(params["d"], nets.augment(fake_key, images, extra), label)
        real = nets.discriminate(params["d"], nets.augment(real_key, x, extra), label)  # left out where no loss asks for it
        return adversarial.g(fake, real), ({**extra, "w_avg": w_avg}, {"fake_logits": jnp.mean(fake)})

    return loss


def discriminator_loss(
    nets: Nets,
    adversarial: Adversarial = non_saturating,
    adapt: Callable[[Extra, Array], Extra] = lambda extra, real: extra,
    penalty: Callable[[Callable[[Array], Array], Array, Array, Key], Array | float] = lambda see, real, fake, key: 0.0,
) -> LossFn:
    """D's main loss. adapt(extra, logits of reals) keeps what an adaptive augmentation goes by.

    penalty(discriminator, reals, fakes, key): what is added in every step, such as WGAN-GP's.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        draw_key, real_key, fake_key, penalty_key = jax.random.split(key, 4)
        x, label = batch["image"], one_hot(nets, batch)
        images, w_avg = fakes(nets, params["g"], draw(nets, draw_key, x), label, extra["w_avg"])
        images, x = nets.augment(fake_key, jax.lax.stop_gradient(images), extra), nets.augment(real_key, x, extra)
        see = lambda x: nets.discriminate(params["d"], x, label)  # noqa: E731
        real, fake = see(x), see(images)
        extra = adapt({**extra, "w_avg": w_avg}, jax.lax.stop_gradient(real))
        added = penalty(see, x, images, penalty_key)
        return adversarial.d(real, fake) + added, (extra, {"real_logits": jnp.mean(real)})

    return loss


def r1_loss(nets: Nets, gamma: float, interval: int = 16) -> LossFn:
    """D's regulariser for a phase that runs every `interval` steps: R1 at the augmented reals, times interval."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        label = one_hot(nets, batch)
        see = lambda x: nets.discriminate(params["d"], nets.augment(key, x, extra), label)  # noqa: E731
        penalty = r1(see, batch["image"], gamma)
        return interval * penalty, (extra, {"penalty": penalty})

    return loss


def path_loss(nets: Nets, weight: float = 2.0, interval: int = 4, shrink: int = 2) -> LossFn:
    """G's regulariser for a phase that runs every `interval` steps: path length of a batch / shrink, times interval."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        draw_key, noise_key = jax.random.split(key)
        rows = max(len(batch["image"]) // shrink, 1)
        pl_noise = jax.random.normal(noise_key, (rows, *batch["image"].shape[1:]))
        draws, label = draw(nets, draw_key, batch["image"], rows), one_hot(nets, batch, rows)
        penalty, extra = path_terms(nets, params["g"], draws, label, pl_noise, extra)
        value = jnp.mean(penalty)
        return interval * weight * value, (extra, {"penalty": value, "pl_mean": extra["pl_mean"]})

    return loss
