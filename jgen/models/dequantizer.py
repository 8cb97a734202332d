"""Variational dequantisation (Ho et al. 2019, arXiv:1902.00275, section 3.1): noise of a level's width, drawn by a flow that
sees the image."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.nn.flow import PORT, CouplingNet, Invertible1x1, gaussian_log_prob, per_image, squeeze, unsqueeze
from jgen.types import Array


class Dequantizer(nn.Module):
    """(eps [B, H, W, C] standard normal, images [B, H, W, C]) -> (u in (0, 1), log q(u | image) [B]); uniform at first."""

    width: int = 32
    steps: int = 4

    @nn.compact
    def __call__(self, eps: Array, x: Array) -> tuple[Array, Array]:
        log_q, z = per_image(gaussian_log_prob(eps, jnp.zeros(()), jnp.zeros(()))), squeeze(eps)
        seen = squeeze(x)
        for i in range(self.steps):
            z, logdet = Invertible1x1(name=f"mix_{i}")(z)
            first, second = jnp.split(z, 2, -1)
            net = CouplingNet(2 * second.shape[-1], self.width, PORT, name=f"net_{i}")
            raw, shift = jnp.split(net(jnp.concatenate([first, seen], -1)), 2, -1)
            log_scale = 2 * jnp.tanh(raw / 2)
            z = jnp.concatenate([first, second * jnp.exp(log_scale) + shift], -1)
            log_q = log_q - logdet - per_image(log_scale)
        scale = self.param("scale", lambda _: jnp.full((), 1.7))  # the logistic whose sigmoid is uniform, nearly
        z = unsqueeze(z) * scale
        log_q = log_q - z[0].size * jnp.log(jnp.abs(scale)) - per_image(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z))
        return jax.nn.sigmoid(z), log_q
