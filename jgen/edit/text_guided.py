"""Styles that follow a text: TediGAN's control mechanism and instance-level optimisation (Xia et al. 2021, arXiv:2012.03308).

Text and image have codes in one space of styles, so that a row of the one can take the place of the other's: rows choose what
the text decides. The optimisation then moves those rows until a score says that the picture fits the text, and the other terms
of in-domain inversion hold the rest.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config import check
from jgen.edit.in_domain import InDomainOptions, Inversion, Network, in_domain_start, in_domain_step
from jgen.types import Array

Score = Callable[[Array], Array]
"""Images [B, H, W, C] in [-1, 1] -> how well each fits a text: cosines [B]."""


def controlled(content: Array, style: Array, rows: Array) -> Array:
    """Codes [B, num_ws, D] of the content with those `rows` (bool [num_ws]) that are the style's."""
    return jnp.where(rows[None, :, None], style, content)


def redescribed(content: Array, before: Array, after: Array, rows: Array) -> Array:
    """Codes [B, num_ws, D] of the content, whose `rows` (bool [num_ws]) move from what one text says to what another does.

    before, after: codes [B or 1, num_ws, D] of the texts. Not TediGAN's: what both texts say, and what neither does, stays.
    """
    return content + jnp.where(rows[None, :, None], after - before, 0.0)


def text_guided(
    synthesize: Network, encode: Network | None, features: Network, targets: Array, start: Array, rows: Array, score: Score,
    options: InDomainOptions,
) -> tuple[Array, Array]:  # fmt: skip
    """(codes [B, num_ws, D], losses [B, steps]): the start's, with `rows` (bool [num_ws]) moved to a better score.

    targets: images [B, H, W, C] that are kept as they are where the text does not speak. The text's term is one less the score,
    as the authors have it. Without an encoder the codes are not held by its term. Each image is independent of the others.
    Raises UserError for options that can't be.
    """
    check(options)

    def text(images: Array) -> Array:
        return 1.0 - jnp.mean(score(images))

    def one(target: Array, first: Array) -> tuple[Array, Array]:
        fixed = first[None]
        seen = encode or (lambda images: jax.lax.stop_gradient(fixed))

        def body(state: Inversion, _: Any) -> tuple[Inversion, Array]:
            moved, (value, _, _) = in_domain_step(synthesize, seen, features, target[None], options, state, text)
            return moved._replace(codes=controlled(fixed, moved.codes, rows)), value

        last, losses = jax.lax.scan(body, in_domain_start(fixed, options), length=options.num_steps)
        return last.codes[0], losses

    return jax.jit(jax.vmap(one))(targets, start)
