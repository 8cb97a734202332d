"""VAE, beta-VAE and importance-weighted losses against pythae's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.models.vae import MLP
from jgen.objectives import likelihood, vae
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle

NAMES = {"encoder": ("fc", ("mu", "lv")), "decoder": ("fc", ("out",))}


def halves(o):
    """The oracle's little network as our MLPs' weights: two heads side by side are one layer."""

    def layer(*names):
        kernel = np.concatenate([o[f"w/{n}.weight"] for n in names]).T
        return {"kernel": kernel, "bias": np.concatenate([o[f"w/{n}.bias"] for n in names])}

    return {
        half: {"dense_0": layer(f"{half}.{first}"), "dense_1": layer(*[f"{half}.{n}" for n in heads])}
        for half, (first, heads) in NAMES.items()
    }


@pytest.mark.parametrize("path", files("vae", "vae_losses"))
def test_losses_and_gradients(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        config, latent = o.config, o.config["latent"]
        weights = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), halves(o))
        x = jnp.asarray(o.nhwc("in/x"), jnp.float64)
        shape = x.shape[1:]
        channels = x.shape[-1]
        bce = config["reconstruction_loss"] == "bce"  # outputs are logits then, of pixels in [0, 1]
        law = likelihood.bernoulli(channels, low=0.0) if bce else likelihood.gaussian(channels, 1.0, constant=False)
        density = law if bce else likelihood.gaussian(channels, 1.0)
        nets = {"encoder": MLP((config["hidden"], 2 * latent), nn.tanh), "decoder": MLP((config["hidden"], x[0].size), nn.tanh)}

        def encode(w):  # their images are flattened channels first
            flat = lambda x: jnp.moveaxis(x, -1, 1).reshape(len(x), -1)  # noqa: E731
            return lambda x: jnp.split(nets["encoder"].apply({"params": w["encoder"]}, flat(x)), 2, -1)

        def decode(w):
            def outputs(z):
                flat = nets["decoder"].apply({"params": w["decoder"]}, z)
                logits = jnp.moveaxis(flat.reshape(len(z), channels, *shape[:2]), 1, -1)
                return logits if bce else nn.sigmoid(logits)

            return outputs

        mean, log_variance = encode(weights)(x)
        o.check("out/mu", mean)
        o.check("out/log_var", log_variance)

        def check_gradient(kind, loss):
            gradient = jax.grad(loss)(weights)
            for half, (first, heads) in NAMES.items():
                o.check(f"out/{kind}/grad/w/{half}.{first}.weight", gradient[half]["dense_0"]["kernel"].T)
                o.check(f"out/{kind}/grad/w/{half}.{first}.bias", gradient[half]["dense_0"]["bias"])
                parts = (
                    jnp.split(gradient[half]["dense_1"]["kernel"].T, len(heads)),
                    jnp.split(gradient[half]["dense_1"]["bias"], len(heads)),
                )
                for head, kernel, bias in zip(heads, *parts):
                    o.check(f"out/{kind}/grad/w/{half}.{head}.weight", kernel)
                    o.check(f"out/{kind}/grad/w/{half}.{head}.bias", bias)

        for kind, beta in (("vae", 1.0), ("beta", config["beta"])):
            terms = vae.elbo_terms(encode(weights), decode(weights), law, x, o["in/eps"].astype(np.float64))
            o.check(f"out/{kind}/recon_loss", jnp.mean(terms.reconstruction))
            o.check(f"out/{kind}/reg_loss", jnp.mean(jnp.sum(terms.kl, 1)))
            o.check(f"out/{kind}/z", terms.z)
            outputs = decode(weights)(terms.z)
            o.check(f"out/{kind}/recon_x", nn.sigmoid(outputs) if bce else outputs, image=True)

            def loss(w, beta=beta):
                terms = vae.elbo_terms(encode(w), decode(w), law, x, o["in/eps"].astype(np.float64))
                return jnp.mean(terms.reconstruction + beta * jnp.sum(terms.kl, 1))

            o.check(f"out/{kind}/loss", loss(weights))
            check_gradient(kind, loss)

        eps = o["in/eps_iwae"].astype(np.float64)
        log_w, log_likelihood, ratio = vae.log_weights(encode(weights), decode(weights), law, x, eps)
        o.check("out/iwae/loss", jnp.mean(vae.iwae_surrogate(log_w)))
        o.check("out/iwae/recon_loss", -jnp.mean(log_likelihood))
        o.check("out/iwae/reg_loss", jnp.mean(ratio))

        def bound(w):
            return -jnp.mean(vae.iwae_bound(vae.log_weights(encode(w), decode(w), law, x, eps)[0]))

        first = eps[:, 0] * np.exp(0.5 * np.asarray(log_variance)) + np.asarray(mean)
        outputs = decode(weights)(jnp.asarray(first))
        o.check("out/iwae/z", first.reshape(o["out/iwae/z"].shape))
        outputs = nn.sigmoid(outputs) if bce else outputs
        o.check("out/iwae/recon_x", jnp.moveaxis(outputs, -1, 1).reshape(o["out/iwae/recon_x"].shape))
        check_gradient("iwae", bound)  # the gradient of the bound itself is that of the reference's surrogate
        log_w, *_ = vae.log_weights(encode(weights), decode(weights), density, x, o["in/eps_nll"].astype(np.float64))
        o.check("out/vae/importance_loglik_mean", jnp.mean(vae.iwae_bound(log_w)))
        o.check_whole()
