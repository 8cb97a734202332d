"""pSp's and e4e's encoders, their trunk's units and e4e's judge of styles, against their authors' numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import load_weights, psp
from jgen.edit import latent_losses
from jgen.errors import UserError
from jgen.models.style_encoder import GradualStyleEncoder, with_deltas
from jgen.nn.warp import pooling
from jgen.objectives.gan import non_saturating
from jgen.objectives.gan_penalties import squared_gradient_norms
from tests.oracle import Oracle, files, official_gradient

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def images(o):
    return jnp.asarray(o.nhwc("in/x_u8") / np.float32(127.5) - 1, jnp.float32)


@pytest.mark.parametrize("path", files("inversion", "ir_units"))
def test_units(path):
    o = Oracle(path)
    for name, options in o.config.items():
        net, found = psp.unit(o.weights(name), **options)
        x = jnp.asarray(o.nhwc(f"in/{name}/x"))

        @jax.jit
        def run(x, net=net, found=found):
            y, back = jax.vjp(lambda x: net.apply(found, x, False), x)
            return y, back(2 * y / y.size)[0], net.apply(found, x, True, mutable=["batch_stats"])[0]

        for at, value in zip((f"out/{name}/y", f"out/grad/{name}/x_of_mean_square", f"out/{name}/y_train"), run(x)):
            o.check(at, value, image=True)
    o.check_whole()


def check_encoder(o, group, read, weights, codes=lambda rows: rows):
    """Codes, features and gradients of a mode; read: weights -> (network, variables); codes: rows -> what is out."""
    net, found = read(weights)
    train = group == "train"

    @jax.jit
    def run(params, x):
        def loss(params, x):
            both = {**found, "params": params}
            rows, state = net.apply(both, x, train, mutable=["batch_stats", "intermediates"], capture_intermediates=True)
            out = codes(rows)
            value = jnp.mean(out * o["in/cotangent"]) if "in/cotangent" in o else jnp.mean(out)
            return value, (out, state["intermediates"])

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    (d_params, dx), (out, features) = run(found["params"], images(o))
    o.check(f"out/{group}/latents", out)
    for name in o.under(f"out/{group}/body"):
        number, stride = map(int, re.fullmatch(r"(\d+)_stride(\d+)", name).groups())
        value = features["trunk"][f"unit_{number}"]["__call__"][0][:1, ::stride, ::stride]
        o.check(f"out/{group}/body{name}", value, image=True)
    for name in o.under(f"out/grad/{group}/"):
        if name.startswith("x_stride"):
            stride = int(name.removeprefix("x_stride"))
            o.check(f"out/grad/{group}/{name}", dx[:, ::stride, ::stride], image=True)
        else:
            o.check(f"out/grad/{group}/{name}", official_gradient(lambda w: read(w)[1], weights, name, d_params))
    return net, found


def groups(o):
    return [n.removesuffix("/latents") for n in o.under("out/") if n.endswith("/latents") and not n.startswith("stage")]


@pytest.mark.parametrize("path", files("inversion", "psp_encoder"))
def test_psp(path):
    o = Oracle(path)
    weights, c = load_weights(path), o.config

    given = {name: c[name] for name in ("num_layers", "mode", "input_nc") if name in c}

    def read(w):
        if "styles.0.linear.weight" in w:
            return psp.gradual_style_encoder(w, n_styles=c["n_styles"], **given)
        return psp.backbone_encoder(w, **given)

    for group in groups(o):
        check_encoder(o, group, read, weights)
    o.check_whole()


@pytest.mark.parametrize("path", files("inversion", "e4e_encoder"))
def test_e4e(path):
    o = Oracle(path)
    own, c = {k: v for k, v in o.weights().items() if not k.startswith("discriminator/")}, o.config
    given = {name: c[name] for name in ("num_layers", "mode", "n_styles", "input_nc") if name in c}
    read = lambda w: psp.gradual_style_encoder(w, **given)  # noqa: E731
    for group in groups(o):
        net, found = check_encoder(o, group, read, own, with_deltas)
    rows = jax.jit(lambda x: net.apply(found, x, False))(images(o))
    for name in o.under("out/stage"):
        o.check(f"out/stage{name}", with_deltas(rows, int(name.split("/")[0])))
    codes = jnp.asarray(o["out/inference/latents"]) if "out/inference/latents" in o else with_deltas(rows)
    for name in o.under("out/delta_loss_stage"):
        o.check(f"out/delta_loss_stage{name}", latent_losses.delta_loss(codes, int(name)), 1e-5)
    if "in/real_w" in o:
        check_discriminator(o, codes)
    o.check_whole()


def check_discriminator(o, codes):
    """e4e's judge of styles; codes: those that the encoder made."""
    weights = o.weights("discriminator")
    read = lambda w: psp.latent_discriminator(w, style_dim=o.config["disc"]["dim"], n_mlp=o.config["disc"]["layers"])  # noqa: E731
    net, found = read(weights)
    real, fake = jnp.asarray(o["in/real_w"]), jnp.asarray(o["in/fake_w"])

    def loss(params):
        logits = net.apply({"params": params}, real), net.apply({"params": params}, fake)
        return non_saturating.d(*logits), logits

    (value, (of_real, of_fake)), grads = jax.value_and_grad(loss, has_aux=True)(found["params"])
    o.check("out/disc_real", of_real[:, None], 1e-5)
    o.check("out/disc_fake", of_fake[:, None], 1e-5)
    o.check("out/disc_loss", value, 1e-5)
    o.check("out/disc_r1", jnp.mean(squared_gradient_norms(lambda w: net.apply(found, w), real)), 1e-5)
    for name in o.under("out/grad/disc_loss/"):
        o.check(f"out/grad/disc_loss/{name}", official_gradient(lambda w: read(w)[1], weights, name, grads), 1e-4)
    if "out/encoder_adv_loss_all_dims" in o:
        o.check("out/encoder_adv_loss_all_dims", latent_losses.encoder_adversarial_loss(net.apply(found, codes)), 1e-5)


def test_sizes_follow_the_generator_and_options_of_other_networks_are_refused():
    net = GradualStyleEncoder(4, 5, (2, 3), (4, 4, 4, 6), (1, 1, 1, 1))
    shape = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.zeros((3, 9, 8, 1)))[0]).shape
    assert shape == (3, 4, 5)
    np.testing.assert_allclose(pooling(5, 2), [[1 / 3] * 3 + [0] * 2, [0] * 2 + [1 / 3] * 3])  # PyTorch's adaptive bins
    np.testing.assert_allclose(pooling(2, 7).argmax(1), [0, 0, 0, 0, 1, 1, 1])
    for call, match in (
        (lambda: psp.gradual_style_encoder({}, num_layers=100), "num_layers=100: must be 50"),
        (lambda: psp.gradual_style_encoder({}, mode="resnet"), "mode=resnet: must be ir or ir_se"),
        (lambda: psp.backbone_encoder({}, num_layers=18), "num_layers=18: must be 50, 100, 152"),
        (lambda: psp.backbone_encoder({}), "weights have no body.2.res_layer.3.weight"),
    ):
        with pytest.raises(UserError, match=match):
            call()
