"""A VQ-VAE with PixelCNN priors over its codes, as functions of their weights (arXiv:1711.00937, arXiv:1906.00446)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig
from jgen.config.autoencoder import CodePriorConfig, CodeSampling, VQVAEConfig
from jgen.data import classes_of
from jgen.errors import UserError
from jgen.models.pixelcnn import GatedPixelCNN
from jgen.models.vqvae import VQVAE, Quantized
from jgen.nn.precision import in_dtype
from jgen.objectives import vqvae
from jgen.objectives.likelihood import categorical
from jgen.types import Array, Batch, Extra, Key, Params, PyTree


def network(config: VQVAEConfig, channels: int) -> VQVAE:
    """The autoencoder of images with so many channels."""
    return VQVAE(
        channels, config.channels, config.blocks, config.block_channels, config.code_size, config.levels, config.stride
    )  # fmt: skip


def priors(config: CodePriorConfig, codes: int, levels: int, classes: int) -> list[GatedPixelCNN]:
    """A gated PixelCNN for each level, coarse to fine."""
    width = config.prior_channels
    return [GatedPixelCNN(codes, width, config.prior_layers, 2 * width, classes, codes) for _ in range(levels)]


class Model:
    """The autoencoder with its codebooks, and the priors of its codes."""

    def __init__(self, config: VQVAEConfig, prior: CodePriorConfig, data: DataConfig, dtype: str = "float32"):
        self.config, self.shape = config, data.shape
        self.classes = classes_of(data, prior.conditional)
        self.net, self.dtype = network(config, data.shape[-1]), dtype
        self.priors = priors(prior, config.codes, config.levels, self.classes)
        self.grids = self.net.grids(*data.shape[:2])

    def apply(self, params: PyTree, x: Array, vectors: Sequence[Array]) -> tuple[Array, list[Quantized]]:
        """(reconstructions, every level's codes) of images, for the codebooks' vectors."""
        found: Any = in_dtype(self.net, self.dtype).apply({"params": params["autoencoder"]}, x, vectors)
        return found

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The autoencoder, its codebooks among the parameters or, where they follow their inputs, beside them."""
        config = self.config
        keys = jax.random.split(key, 1 + config.levels)
        books = [vqvae.new_codebook(k, config.codes, config.code_size) for k in keys[1:]]
        vectors = [b.vectors for b in books]
        params = {"autoencoder": self.net.init(keys[0], jnp.zeros((1, *self.shape)), vectors)["params"]}
        if config.ema:
            return {"net": params}, {"codebooks": books}
        return {"net": {**params, "codebooks": vectors}}, {}

    def vectors(self, params: Params, extra: Extra) -> list[Array]:
        """The vectors [codes, code_size] of every level's codebook."""
        return [b.vectors for b in extra["codebooks"]] if self.config.ema else params["net"]["codebooks"]

    def codes(self, params: Params, extra: Extra, x: Array) -> list[Array]:
        """The codes of images, level by level."""
        variables = {"params": params["net"]["autoencoder"]}
        found: Any = self.net.apply(variables, x, self.vectors(params, extra), method="encode")
        return [q.codes for q in found]

    def coarser(self, params: Params, extra: Extra, codes: Sequence[Array], level: int) -> dict[str, Any]:
        """The condition of a level's prior: the coarser codes' vectors, each repeated over the four places that it covers."""
        if level == 0:
            return {}
        return {"beneath": jnp.repeat(jnp.repeat(self.vectors(params, extra)[0][codes[0]], 2, 1), 2, 2)}

    def init_prior(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The result of `init`, with fresh priors."""
        params, extra = self.init(key, batch)
        label = jnp.zeros(1, jnp.int32) if self.classes else None
        codes = [jnp.zeros((1, *g), jnp.int32) for g in self.grids]
        keys = jax.random.split(jax.random.fold_in(key, 1), self.config.levels)
        made = [
            n.init(k, c[..., None], label, **self.coarser(params, extra, codes, i))["params"]
            for i, (n, k, c) in enumerate(zip(self.priors, keys, codes))
        ]
        return {**params, "prior": made}, extra

    def begin(self, params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        """The trained autoencoder with fresh priors. Raises UserError for an autoencoder of other sizes."""
        old, new = (jax.tree.map(jnp.shape, tree) for tree in ((params["net"], extra), (fresh["net"], fresh_extra)))
        if old != new:
            raise UserError(
                f"prior: its grids {self.grids} of {self.config.codes} codes are not those of the autoencoder it begins from"
            )
        return {**fresh, "net": params["net"]}, extra

    def sample(self, params: Params, extra: Extra, keys: Array, options: CodeSampling) -> Array:
        """Images of codes that the priors draw, coarse to fine."""
        label = samplers.class_labels(keys, options.label, self.classes)
        law = categorical(self.config.codes, codes=True, temperature=options.temperature, top_k=options.top_k)
        codes = []
        for i, (n, p, grid) in enumerate(zip(self.priors, params["prior"], self.grids)):
            size, known = (len(keys), *grid, 1), self.coarser(params, extra, codes, i)
            decode = samplers.decoder(n, {"params": p}, size, label, **known)
            level_keys = jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys)
            drawn = samplers.autoregressive(decode, law.draw, level_keys, shape=size[1:])
            codes.append(drawn[..., 0].astype(jnp.int32))
        vectors = [v[c] for v, c in zip(self.vectors(params, extra), codes)]
        images: Any = self.net.apply({"params": params["net"]["autoencoder"]}, vectors, method="decode")
        return jnp.clip(images, -1, 1)

    def reconstructions(self, params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Held-out images, each with its reconstruction on the right."""
        x = batch["image"][:32]
        out, _ = self.apply(params["net"], x, self.vectors(params, extra))
        return jnp.stack([x, jnp.clip(out, -1, 1)], 1).reshape(-1, *self.shape)
