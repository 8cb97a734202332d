"""The very deep VAE against its authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.vdvae import INPUT, LOW_BIT, vdvae
from jgen.objectives.likelihood import logistic_mixture
from tests.models.whole import check_gradients, without
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.mark.parametrize("path", files("vdvae", "vdvae"))
def test_vdvae(path):
    o = Oracle(path)
    config, weights = without(o.config, "B", "n_manual_latents"), load_weights(path)
    net, variables = vdvae(weights, **config)
    data = config.get("dataset")
    law = logistic_mixture(config["num_mixtures"], config["image_channels"], low_bit=data in LOW_BIT)
    x, target = jnp.asarray(o["in/x"]), jnp.asarray(o["in/x_target"])
    if "in/image" in o and data in INPUT:
        mean, deviation = INPUT[data]
        np.testing.assert_allclose((o["in/image"] - mean) / deviation, o["in/x"], atol=1e-5)
    count = len(net.latent_shapes())
    posterior, prior = ([jnp.asarray(o.nhwc(f"in/eps_{k}/{i}")) for i in range(count)] for k in ("posterior", "prior"))

    @jax.jit
    def elbo(params, x):
        features, latents = net.apply(params, posterior, net.apply(params, x, method="activations"), method="decode")
        outputs = net.apply(params, features, method=lambda net, h: net.out_conv(h))
        distortion = -jnp.mean(law.log_prob(outputs, target), (1, 2)) / x.shape[-1]
        kl = jnp.stack([jnp.sum(v.kl, (1, 2, 3)) for v in latents], 1)
        rate = jnp.sum(kl, 1) / x[0].size
        return jnp.mean(distortion + rate), (distortion, rate, kl, latents, features, outputs)

    def both(params, x):
        return jax.value_and_grad(elbo, (0, 1), has_aux=True)(params, x)

    (value, found), (by_weight, by_x) = jax.jit(both)({"params": variables["params"]}, x)
    distortion, rate, kl, latents, features, outputs = found
    for name, array in dict(elbo=value, distortion=jnp.mean(distortion), rate=jnp.mean(rate)).items():
        o.check(f"out/{name}", array)
    o.check("out/distortion_per_image", distortion)
    o.check("out/kl_per_block_nats", kl)
    o.check("out/px_z", features, image=True)
    o.check("out/dmol_params", outputs)
    o.check("out/grad/in/x", by_x)
    check_gradients(o, lambda w: vdvae(w, **config)[1], weights, by_weight["params"], "out/grad/w/")
    activations = jax.jit(lambda v, x: net.apply(v, x, method="activations"))(variables, x)
    for name in (n for n in o.names if n.startswith("out/encoder_activation/")):
        o.check(name, activations[int(name.rpartition("/")[2])], image=True)
    for name in (n for n in o.names if n.startswith("out/dec_block/")):
        _, _, i, kind = name.split("/")
        o.check(name, getattr(latents[int(i)], "features" if kind == "x" else kind), image=True)

    @jax.jit
    def decode(temperature, given=()):
        return net.apply(variables, prior, None, temperature, given, method="decode")[0]

    given = [v.z for v in latents[: o.config["n_manual_latents"]]]
    for name in (n for n in o.names if n.startswith(("out/uncond_px_z/", "out/manual_px_z/"))):
        kind = name.rpartition("/")[2]
        t = jnp.asarray(o["in/temperatures_list"]) if kind == "tlist" else temperature_of(kind)
        o.check(name, decode(t, given if "manual" in name else ()), image=True)
    uniforms = jnp.concatenate([o["in/u_mix"], o["in/u"]], -1)
    for name in (n for n in o.names if n.startswith("out/uncond_sample_uint8/")):
        t = temperature_of(name.rpartition("/")[2])
        outputs = net.apply(variables, decode(t), method=lambda net, h: net.out_conv(h))
        drawn = law.draw(outputs, uniforms)
        levels = np.clip((np.asarray(drawn) + 1) * 127.5, 0, 255).astype(np.uint8)
        assert np.max(np.abs(levels.astype(int) - o[name].astype(int))) <= 1  # float32 against float64, then cut to levels
        assert np.mean(levels == o[name]) > 0.98
        o.checked.add(name)
    o.check_whole()


def temperature_of(tag):
    """t1 is 1, t07 is 0.7, t085 is 0.85."""
    digits = tag.removeprefix("t")
    return float(f"{digits[0]}.{digits[1:] or 0}")
