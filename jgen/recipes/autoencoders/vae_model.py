"""A VAE, or an autoencoder without a prior, as functions of its weights (Kingma & Welling 2013, arXiv:1312.6114)."""

from typing import Any

import jax

from jgen.config import DataConfig
from jgen.config.autoencoder import VAEConfig
from jgen.models.vae import VAE
from jgen.nn.precision import in_dtype
from jgen.objectives import likelihood as likelihoods
from jgen.objectives.likelihood import Likelihood
from jgen.objectives.vae import binarize
from jgen.recipes.common import refuse_dequantized
from jgen.types import Array, Key, Params, PyTree


def likelihood(config: VAEConfig, channels: int) -> Likelihood:
    """The distribution of pixels that the decoder's outputs stand for."""
    if config.likelihood == "gaussian":
        return likelihoods.gaussian(channels, config.c)
    return {"bernoulli": likelihoods.bernoulli, "logistic": likelihoods.logistic}[config.likelihood](channels)


class Model:
    """The two halves of an autoencoder as functions of its weights, and the likelihood of the decoder's outputs.

    Raises UserError for dequantised data and a likelihood of 8-bit values.
    """

    def __init__(self, config: VAEConfig, data: DataConfig, dtype: str = "float32"):
        if config.likelihood != "gaussian":
            refuse_dequantized(data, f"{config.likelihood} is a likelihood of the 8-bit values themselves")
        self.config, self.shape = config, data.shape
        height, width, channels = data.shape
        self.likelihood = likelihood(config, channels)
        net = VAE(
            (height, width, channels), self.likelihood.outputs, config.latents, config.widths, config.channels,
            gated=config.gated,
        )  # fmt: skip
        self.net = in_dtype(net, dtype)
        self.has_prior = config.kind in ("vae", "iwae")
        self.binarized = config.likelihood == "bernoulli"

    def encode(self, params: PyTree, x: Array) -> tuple[Array, Array]:
        """(mean, log variance) of the latents of images, for the weights of the network."""
        moments: Any = self.net.apply({"params": params}, x, method="encode")
        return moments

    def decode(self, params: PyTree, z: Array) -> Array:
        """The likelihood's parameters for latents."""
        outputs: Any = self.net.apply({"params": params}, z, method="decode")
        return outputs

    def images(self, params: Params, z: Array) -> Array:
        """The mean images for latents."""
        return self.likelihood.mean(self.decode(params["net"], z))

    def code(self, mean: Array) -> Array:
        """The decoder's input for the encoder's mean: activations between 0 and 1 where a KL keeps them sparse."""
        return jax.nn.sigmoid(mean) if self.config.kind == "sparse_kl" else mean

    def prepare(self, key: Key, x: Array) -> Array:
        """Images as the likelihood takes them: binarised, with the brightness as the probability, for bernoulli."""
        return binarize(key, x) if self.binarized else x
