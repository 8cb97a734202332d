"""NVAE's normals and decoders against its authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.objectives.nvae_decoders import log_prob_of_normal, logistic_decoder, mixture_decoder
from jgen.objectives.residual_normal import clamped, residual, soft_clamp
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def inputs(o, image=()):
    """The arrays of in/, wide; images channels last."""
    names = [n.removeprefix("in/") for n in o.names if n.startswith("in/")]
    return {n: jnp.asarray(o.nhwc(f"in/{n}") if o[f"in/{n}"].ndim == 4 and image else o[f"in/{n}"], jnp.float64) for n in names}


@pytest.mark.parametrize("path", files("nvae", "normal"))
def test_residual_normals(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        v, t = inputs(o), o.config["temperature"]
        prior, posterior = (
            clamped(v["mu_p"], v["log_sigma_p"]),
            residual(v["dmu"], v["dlog_sigma"], v["mu_p"], v["log_sigma_p"]),
        )
        z = posterior.sample(v["eps"])
        cold = clamped(v["mu_p"], v["log_sigma_p"], t)
        for name, value in {
            "soft_clamp5": [soft_clamp(v["mu_p"]), soft_clamp(v["z"]), soft_clamp(v["log_sigma_p"])],
            "prior/mu": prior.mean, "prior/sigma": prior.deviation, "prior/log_p": prior.log_prob(v["z"]),
            "posterior_residual/mu": posterior.mean, "posterior_residual/sigma": posterior.deviation,
            "posterior_residual/z": z, "posterior_residual/kl": posterior.kl(prior),
            "posterior_residual/log_p_of_own_z": posterior.log_prob(z),
            "posterior_absolute/kl": clamped(v["dmu"], v["dlog_sigma"]).kl(prior),
            "prior_temperature/sigma": cold.deviation, "prior_temperature/z": cold.sample(v["eps"]),
        }.items():  # fmt: skip
            if isinstance(value, list):  # whichever of the inputs it is of
                value = min(value, key=lambda x: np.max(np.abs(x - o[f"out/{name}"])))
            o.check(f"out/{name}", value)

        def kl(mu_p, log_sigma_p, dmu, dlog_sigma):
            return jnp.sum(residual(dmu, dlog_sigma, mu_p, log_sigma_p).kl(clamped(mu_p, log_sigma_p)))

        order = ("mu_p", "log_sigma_p", "dmu", "dlog_sigma")
        for name, gradient in zip(order, jax.grad(kl, range(4))(*[v[n] for n in order])):
            o.check(f"out/grad_kl/in/{name}", gradient)
        o.check_whole()


@pytest.mark.parametrize("path", files("nvae", "decoders"))
def test_decoders(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        v, c = inputs(o, image=True), o.config
        law = mixture_decoder(c["num_mix"], num_bits=c["num_bits"])
        x, outputs = 2 * v["x"] - 1, v["params_mix"]
        uniforms = jnp.concatenate([v["u_mix"], v["u"]], -1)
        o.check("out/mix/log_prob", law.log_prob(outputs, x))
        o.check("out/mix/grad/params", jax.grad(lambda p: jnp.sum(law.log_prob(p, x)))(outputs), image=True)
        for name, t in (("t1", 1.0), ("temp", c["temperature"])):
            drawn = mixture_decoder(c["num_mix"], num_bits=c["num_bits"], temperature=t).draw(outputs, uniforms)
            o.check(f"out/mix/sample_{name}", (drawn + 1) / 2, image=True)
        o.check("out/mix/mean", (law.mean(outputs) + 1) / 2, image=True)
        single = logistic_decoder(x.shape[-1])
        o.check("out/logistic/log_prob", single.each(v["params_logistic"], x), image=True)
        by_params = jax.grad(lambda p: jnp.sum(single.each(p, x)))(v["params_logistic"])
        o.check("out/logistic/grad/params", by_params, image=True)
        o.check("out/logistic/sample", (single.draw(v["params_logistic"], v["u_logistic"]) + 1) / 2, image=True)
        o.check("out/normal_decoder/log_prob", log_prob_of_normal(v["params_normal"], x), image=True)
        o.check_whole()
