"""Pictures of an autoencoder: reconstructions, traversals, interpolations, and the map of the first two latents."""

from collections.abc import Mapping

import jax.numpy as jnp

from jgen.edit import latents
from jgen.recipes.autoencoders.vae_model import Model
from jgen.train.stage import Picture
from jgen.types import Array, Batch, Extra, Key, Params


def pictures(model: Model) -> Mapping[str, Picture]:
    """The pictures by name; only a model with a prior has a map."""
    size = model.config.latents

    def reconstructions(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Held-out images, each with its reconstruction on the right."""
        x = model.prepare(key, batch["image"][:32])
        out = model.images(params, model.code(model.encode(params["net"], x)[0]))
        return jnp.stack([x, out], 1).reshape(-1, *model.shape)

    def traversals(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """One latent in each row, from -3 to 3, about the code of a held-out image; those that vary most over the batch."""
        means, _ = model.encode(params["net"], batch["image"])
        order = jnp.argsort(-jnp.var(means, 0))
        z = latents.traversal(means[0][order], min(8, size), 8)
        return model.images(params, model.code(z[:, jnp.argsort(order)]))

    def interpolations(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """From the code of one held-out image to that of another; rows follow a line and an arc by turns."""
        means, _ = model.encode(params["net"], batch["image"][:8])
        t = jnp.linspace(0, 1, 8)
        rows = [path(means[2 * i], means[2 * i + 1], t) for i in range(4) for path in (latents.lerp, latents.slerp)]
        return model.images(params, model.code(jnp.concatenate(rows)))

    def latent_map(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """The first two latents over the prior."""
        return model.images(params, latents.gaussian_map(8, size))

    found = {"reconstructions": reconstructions, "traversals": traversals, "interpolations": interpolations}
    return found | ({"map": latent_map} if model.has_prior and size >= 2 else {})
