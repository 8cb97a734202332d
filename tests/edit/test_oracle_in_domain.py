"""In-domain inversion, with a text and without, against TediGAN's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.edit import in_domain as d
from jgen.errors import UserError
from jgen.nn.plain import convolve
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


def networks(o):
    """The toy generator, encoder, features and text loss that the file describes, channels last."""
    layers, dim, side = o.config["layers"], o.config["w_dim"], o.config["img"]
    w = {name: jnp.asarray(array) for name, array in o.weights().items()}

    def synthesize(codes):
        flat = jnp.tanh(codes.reshape(len(codes), -1) @ w["G/a.weight"].T + w["G/a.bias"][None])
        return jnp.moveaxis(flat.reshape(len(codes), -1, side, side), 1, -1)

    def flat(x):
        return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)

    def encode(x):
        return jnp.tanh(flat(x) @ w["E/a.weight"].T + w["E/a.bias"][None]).reshape(len(x), layers, dim)

    def features(x):
        kernel = w["F/c.weight"].transpose(2, 3, 1, 0)
        return jax.nn.softplus(convolve(x, kernel, 1, "SAME") + w["F/c.bias"][None, None, None])

    def text(x):
        return 1 - jnp.tanh(jnp.sum(flat(x) * o["in/text_vector"]))

    return synthesize, encode, features, text if "in/text_vector" in o else None


@pytest.mark.parametrize("path", files("inversion", "tedigan_inversion"))
def test_in_domain_inversion(path):
    o = Oracle(path)
    *nets, text = networks(o)
    given, target = o.config["weights"], jnp.asarray(o.nhwc("in/image"))[None]
    options = d.InDomainOptions(
        o.config["iterations"], o.config["learning_rate"], given["pix"], given["feat"], given["reg"], given.get("clip") or 0.0
    )
    state = d.in_domain_start(nets[1](target), options)
    o.check("out/z_init", state.codes)
    step = jax.jit(lambda state: d.in_domain_step(*nets, target, options, state, text))
    codes, grads, first = [], [], None
    for _ in range(options.num_steps):
        state, (value, grad, terms) = step(state)
        first = first or (*terms, value)
        codes.append(state.codes)
        grads.append(grad)
    for name, value in zip(("pix", "feat", "reg", "clip", "total"), first):
        if f"out/loss_{name}_0" in o:
            o.check(f"out/loss_{name}_0", value)
    o.check("out/z_trajectory", codes)
    o.check("out/grad/z_trajectory", grads)
    o.check("out/z_final", codes[-1])
    whole, losses = d.in_domain_inversion(*nets, jnp.concatenate([target, -target]), options, text)
    np.testing.assert_allclose(whole[:1], codes[-1], atol=1e-5)
    assert losses.shape == (2, options.num_steps)
    o.check_whole()


def test_options_that_cannot_be():
    with pytest.raises(UserError, match="num_steps=0"):
        d.in_domain_inversion(lambda x: x, lambda x: x, lambda x: x, jnp.zeros((1, 2, 2)), d.InDomainOptions(num_steps=0))
