"""Augmentation of what a discriminator sees, as one value: the augmentation, how it adapts, and what it keeps in extra."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax.numpy as jnp

from jgen.errors import UserError
from jgen.objectives import ada
from jgen.objectives.diffaug import diffaug
from jgen.types import Array, Condition, Extra, Key

Name = Literal["none", "ada", "diffaug"]


class Augmentation(NamedTuple):
    augment: Callable[[Key, Array, Extra], Array] = lambda key, images, extra: images
    """(key, images, extra) -> images as D sees them."""
    adapt: Callable[[Extra, Array], Extra] = lambda extra, real: extra
    """(extra, mean signs of D's logits of augmented reals [B]) -> extra."""
    state: Extra = MappingProxyType({})
    """The entries of extra that it starts with."""
    condition: Callable[[Key, Array, Extra, Condition], Condition] = lambda key, images, extra, condition: condition
    """(key, images, extra, condition) -> the condition that D gets with the images that `augment` makes of the same."""


NO_AUGMENTATION = Augmentation()
"""Images as they are."""


def adaptive(config: ada.ADA = ada.BGC, *, target: float = 0.6, kimg: float = 500.0, interval: int = 4) -> Augmentation:
    """ADA: its strength p moves every `interval` batches, so that the mean sign of D's logits of reals comes to `target`.

    kimg: thousands of images in which p could go from 0 to 1. extra["ada"] holds p, and the sum of the signs' means since it
    last moved with their count. Raises UserError for kimg of 0 or less.
    """
    if kimg <= 0:
        raise UserError(f"kimg={kimg}: must be above 0")

    def augment(key: Key, images: Array, extra: Extra) -> Array:
        batch, *shape = images.shape
        return ada.augment(images, ada.draw(key, batch, tuple(shape), config), extra["ada"]["p"], config)

    def adapt(extra: Extra, real: Array) -> Extra:
        state = extra["ada"]
        total, count = state["signs"] + jnp.mean(real), state["count"] + 1
        due = count == interval
        moved = ada.adjust_p(state["p"], total / interval, batch=len(real), interval=interval, kimg=kimg, target=target)
        p = jnp.where(due, moved, state["p"])
        new = {"p": p, "signs": jnp.where(due, 0.0, total), "count": jnp.where(due, 0, count)}
        return {**extra, "ada": new}

    zero = jnp.zeros(())
    return Augmentation(augment, adapt, {"ada": {"p": zero, "signs": zero, "count": jnp.zeros((), jnp.int32)}})


def named(name: Name, *, target: float = 0.6, kimg: float = 500.0) -> Augmentation:
    """None, DiffAugment's (colour, translation and cutout), or ADA's; target and kimg are those of `adaptive`."""
    if name == "none":
        return NO_AUGMENTATION
    if name == "diffaug":
        return Augmentation(lambda key, images, extra: diffaug(key, images))
    if name != "ada":
        raise UserError(f"augment={name}: must be none, diffaug or ada")
    return adaptive(target=target, kimg=kimg)
