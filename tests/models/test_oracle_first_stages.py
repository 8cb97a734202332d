"""Latent diffusion's U-Net, autoencoders and adversarial losses against their authors': outputs and gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jgen import convert
from jgen.errors import UserError
from jgen.models.autoencoder import AutoencoderKL
from jgen.models.vqvae import straight_through
from jgen.nn.conv import convolve
from jgen.objectives import first_stage
from tests.models.whole import check_blocks, check_gradients, check_network, float_inputs, outputs, without
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "unet"))
def test_u_net_with_cross_attention(path):
    o = Oracle(path)
    convert_to = convert.latent_diffusion.unet
    net, variables = convert_to(convert.load_weights(path), **o.config)
    t, inputs = jnp.asarray(o["in/timesteps"]), float_inputs(o, "x", "context")
    label = {"label": jnp.asarray(o["in/labels"])} if "in/labels" in o else {}

    def call(i):
        return (i["x"], t), {**label, **({"context": i["context"]} if "context" in i else {})}

    check_network(o, net, lambda w: convert_to(w, **o.config)[1], call, inputs)
    o.check_whole()
    if net.transformer_depth:
        with pytest.raises(UserError, match=f"transformer_depth={net.transformer_depth} but none was given"):
            net.apply(variables, inputs["x"], t, **label)
    with pytest.raises(UserError, match="use_spatial_transformer=True, context_dim=None"):
        convert_to({}, **{**o.config, "use_spatial_transformer": True, "context_dim": None})
    with pytest.raises(UserError, match="n_embed=3: must be None"):
        convert_to({}, **{**o.config, "n_embed": 3})


def through(net, params, x, method):
    """(what a method of an autoencoder gives, what its modules do)."""
    found, seen = net.apply({"params": params}, x, method=method, capture_intermediates=True, mutable=["intermediates"])
    return found, seen["intermediates"]


def cotangents(o, *names):
    """{name: weight} of those outputs that the file weighs."""
    there = [n for n in names if f"in/cotangent/{n}" in o]
    return {n: jnp.asarray(o.nhwc(f"in/cotangent/{n}") if o[f"out/{n}"].ndim == 4 else o[f"in/cotangent/{n}"]) for n in there}


def check_all(o, found):
    """Compares every {name: value} that the file has, images channels last."""
    for name, value in found.items():
        if f"out/{name}" in o:
            o.check(f"out/{name}", value, image=o[f"out/{name}"].ndim == 4)


def first_stage_module(name):
    """Of a first stage's part; levels and their numbers are one word here."""
    return re.sub(r"\.(down|up)\.(\d+)\.", r".\1_\2_", name)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "autoencoder_kl"))
def test_first_stage_with_a_kl(path):
    o = Oracle(path)
    config = without(o.config, "fixed_scale_factor", "input_shape")
    official = convert.load_weights(path)
    net, variables = convert.latent_diffusion.autoencoder_kl(official, **config)
    noise, weights = jnp.asarray(o.nhwc("in/noise")), cotangents(o, "moments", "z", "reconstruction", "kl")

    @jax.jit
    def run(params, x, noise):
        def weighed(params, x, noise):
            (mean, log_variance), encoder = through(net, params, x, "encode")
            z = first_stage.latents(mean, log_variance, noise)
            out, decoder = through(net, params, z, "decode")
            found = {"moments": jnp.concatenate([mean, log_variance], -1), "z": z, "reconstruction": out}
            found["kl"] = first_stage.kl(mean, log_variance)
            return sum(jnp.sum(w * found[n]) for n, w in weights.items()), (found, encoder | decoder)

        return jax.grad(weighed, argnums=(0, 1, 2), has_aux=True)(params, x, noise)

    (grads, by_x, by_noise), (found, seen) = run(variables["params"], jnp.asarray(o.nhwc("in/x")), noise)
    check_all(o, {**found, "grad/in/x": by_x, "grad/in/noise": by_noise})
    check_gradients(o, lambda w: convert.latent_diffusion.autoencoder_kl(w, **config)[1], official, grads)
    check_blocks(o, seen, first_stage_module)
    mean, log_variance = jnp.split(found["moments"], 2, -1)
    decode = functools.partial(net.apply, variables, method="decode")
    scale, fixed, z = first_stage.scale_factor(found["z"]), o.config.get("fixed_scale_factor", 1.0), found["z"]
    more = {
        "logvar": log_variance, "nll_of_noise": first_stage.negative_log_density(noise, mean, log_variance),
        "mode_reconstruction": decode(mean), "scale_factor": scale, "scaled_latent": scale * z, "fixed_scale_latent": fixed * z,
        "fixed_scale_decode_of_noise": decode(noise / fixed),
    }  # fmt: skip
    check_all(o, more)
    o.check_whole()


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "vq_model"))
def test_first_stage_with_codes(path):
    o = Oracle(path)
    official, of_the_loss = convert.load_weights(path), (o.config.get("beta", 0.25), o.config.get("legacy", True))
    net, variables = convert.latent_diffusion.vq_model(official, **o.config)
    weights = cotangents(o, "prequant", "quantised", "codebook_loss", "reconstruction")

    def parts(params, x):
        z, encoder = through(net, params, x, "encode")
        q = net.apply({"params": params}, z, method="quantize")
        passed = straight_through(q)
        out, decoder = through(net, params, passed, "decode")
        found = {"prequant": z, "quantised": passed, "codebook_loss": first_stage.codebook_loss(q, *of_the_loss)}
        return {**found, "reconstruction": out}, q.codes, encoder | decoder

    def weighed(params, x):
        found, codes, seen = parts(params, x)
        return sum(jnp.sum(w * found[n]) for n, w in weights.items()), (found, codes, seen)

    x, convert_to = jnp.asarray(o.nhwc("in/x")), lambda w: convert.latent_diffusion.vq_model(w, **o.config)[1]
    run = jax.jit(jax.grad(weighed, argnums=(0, 1), has_aux=True))
    (grads, by_x), (found, codes, seen) = run(variables["params"], x)
    check_all(o, {**found, "grad/in/x": by_x, "indices": codes.reshape(o["out/indices"].shape)})
    check_gradients(o, convert_to, official, grads, apart=("codebook_loss_only/",))
    check_blocks(o, seen, first_stage_module)
    alone = jax.jit(jax.grad(lambda params, x: parts(params, x)[0]["codebook_loss"]))(variables["params"], x)
    check_gradients(o, convert_to, official, alone, at="out/grad/codebook_loss_only/")
    if "in/free_latent" in o:
        free = jnp.asarray(o.nhwc("in/free_latent"))
        nearest = net.apply(variables, free, method="quantize").codes
        check_all(o, {
            "free_latent_indices": nearest.reshape(o["out/free_latent_indices"].shape),
            "free_latent_decoded": net.apply(variables, free, method="decode_nearest"),
            "free_latent_decoded_unquantised": net.apply(variables, free, method="decode"),
        })  # fmt: skip
    o.check_whole()


@pytest.mark.parametrize(
    "name,option,message",
    [
        ("autoencoder_kl", {"embed_dims": 3}, "embed_dims: no option of AutoencoderKL"),
        ("autoencoder_kl", {"ddconfig": {"give_pre_end": True}}, "give_pre_end=True: must be False here"),
        ("autoencoder_kl", {"ddconfig": {"double_z": False}}, "double_z=False: must be True here"),
        ("autoencoder_kl", {"ddconfig": {"use_conv": True}}, "use_conv: no option of ddconfig"),
        ("vq_model", {"n_embed": 4, "remap": "x.npy"}, "remap=x.npy: must be None here"),
        ("vq_model", {"n_embed": 4, "ddconfig": {"attn_type": "full"}}, "attn_type=full: must be vanilla or linear or none"),
    ],
)
def test_first_stages_refuse_options_by_name(name, option, message):
    small = dict(
        z_channels=3, resolution=8, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2], num_res_blocks=1, attn_resolutions=[]
    )
    option = {**option, "ddconfig": {**small, **option.get("ddconfig", {})}}
    with pytest.raises(UserError, match=message):
        getattr(convert.latent_diffusion, name)({}, embed_dim=3, **option)
    with pytest.raises(UserError, match="ch, ch_mult: missing in the options of ddconfig"):
        getattr(convert.latent_diffusion, name)({}, embed_dim=3, n_embed=4, ddconfig=without(small, "ch", "ch_mult")) if (
            name == "vq_model"
        ) else getattr(convert.latent_diffusion, name)({}, embed_dim=3, ddconfig=without(small, "ch", "ch_mult"))


SMALL_FIRST_STAGE = dict(
    z_channels=2, resolution=8, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 1], num_res_blocks=1, attn_resolutions=[4],
    double_z=True,
)  # fmt: skip


def first_stage_of(**options):
    """(network, variables) of a first stage with other options, its weights random and given by their official names."""
    net = AutoencoderKL(
        image_channels=3, z_channels=2, embed=2, channels=32, channel_mult=(1, 1), num_res_blocks=1, attention=(1,),
        attention_kind=options.get("attn_type", "vanilla"), resample_conv=options.get("resamp_with_conv", True),
        tanh=options.get("tanh_out", False),
    )  # fmt: skip
    x = jnp.zeros((1, 8, 8, 3))
    shapes = traverse_util.flatten_dict(jax.eval_shape(net.init, jax.random.key(0), x)["params"])
    rng, official = np.random.default_rng(0), {}
    for path, leaf in shapes.items():
        name = re.sub(r"_(\d+)_(attn|block)_(\d+)", r".\1.\2.\3", ".".join(path))
        name = re.sub(r"_(\d+)_(downsample|upsample)_conv", r".\1.\2.conv", name).replace("mid_", "mid.")
        last = {"kernel": "weight", "scale": "weight"}.get(path[-1], path[-1])
        value = rng.normal(size=leaf.shape) / 4
        order = (3, 2, 0, 1) if value.ndim == 4 else (1, 0) if value.ndim == 2 else (0,)
        official[f"{name.rpartition('.')[0]}.{last}"] = value.transpose(order)
    return convert.latent_diffusion.autoencoder_kl(official, embed_dim=2, ddconfig={**SMALL_FIRST_STAGE, **options})


def test_options_of_first_stages():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    net, variables = first_stage_of(resamp_with_conv=False, tanh_out=True, attn_type="none")
    assert not [path for path in traverse_util.flatten_dict(variables["params"]) if "attn" in path[1] or "sample" in path[1]]
    (z, _), seen = through(net, variables["params"], x, "encode")
    fine, coarse = (outputs(seen["encoder"], f"down_0_{name}") for name in ("block_0", "downsample"))
    np.testing.assert_allclose(coarse, fine.reshape(2, 4, 2, 4, 2, 32).mean((2, 4)), atol=1e-5)
    np.testing.assert_array_equal(outputs(seen["encoder"], "mid_attn_1"), outputs(seen["encoder"], "mid_block_1"))
    images, seen = through(net, variables["params"], z, "decode")
    repeated = outputs(seen["decoder"], "up_1_block_1").repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(outputs(seen["decoder"], "up_1_upsample"), repeated)
    plain = net.clone(tanh=False).apply(variables, z, method="decode")
    np.testing.assert_allclose(images, np.tanh(plain), atol=1e-6)


def test_linear_attention_of_first_stages():
    """Each output channel of a pixel is its query times the keys' mean of the values."""
    net, variables = first_stage_of(attn_type="linear")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    seen = through(net, variables["params"], x, "encode")[1]["encoder"]
    own, h = variables["params"]["encoder"]["mid_attn_1"], np.asarray(outputs(seen, "mid_block_1"), np.float64)
    q, k, v = np.split(h.reshape(2, 16, 32) @ np.asarray(own["to_qkv"]["kernel"], np.float64), 3, -1)
    k = np.exp(k - k.max(1, keepdims=True))
    context = np.swapaxes(k / k.sum(1, keepdims=True), 1, 2) @ v
    want = (q @ context) @ np.asarray(own["to_out"]["kernel"]) + np.asarray(own["to_out"]["bias"])
    np.testing.assert_allclose(outputs(seen, "mid_attn_1").reshape(want.shape), want, rtol=1e-3, atol=1e-3)


def test_patchgan_and_the_u_net_refuse_options_by_name():
    with pytest.raises(UserError, match="use_actnorm=True: must be False here"):
        convert.latent_diffusion.patchgan({}, use_actnorm=True)
    config = dict(in_channels=3, model_channels=32, out_channels=3, num_res_blocks=1, attention_resolutions=())
    with pytest.raises(UserError, match="legacy_order: no argument of the reference constructors"):
        convert.latent_diffusion.unet({}, **config, legacy_order=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "patchgan_loss"))
def test_adversarial_losses_of_first_stages(path):
    o = Oracle(path)
    c = o.config
    own = {k.removeprefix("discriminator/"): v for k, v in convert.load_weights(path).items() if k.startswith("discriminator/")}
    size = {name: c[name] for name in ("ndf", "n_layers", "input_nc", "use_actnorm") if name in c}
    images, features = jnp.asarray(o.nhwc("in/images")), jnp.asarray(o.nhwc("in/last_features"))
    size.setdefault("input_nc", images.shape[-1])
    net, variables = convert.latent_diffusion.patchgan(own, **size)
    moments, last = jnp.asarray(o.nhwc("in/moments")), jnp.asarray(o["w/last_layer"]).transpose(2, 3, 1, 0)
    rim = last.shape[0] // 2

    def decode(last):
        return convolve(features, last, 1, ((rim, rim), (rim, rim)))

    logits, after = net.apply(variables, images, train=True, mutable=["batch_stats"])
    running = after["batch_stats"]["main_3"]
    check_all(o, {
        "logits_eval": net.apply(variables, images, train=False), "logits_train": logits, "reconstruction": decode(last),
        "running_mean_after_train": running["mean"], "running_var_after_train": running["var"],
    })  # fmt: skip

    def discriminate(params, x):
        return net.apply({**variables, "params": params}, x, train=c["train"], mutable=["batch_stats"])[0]

    def errors(last, squared):
        out = decode(last)
        distance = 0.5 * jnp.mean(jnp.square(images - out), (1, 2, 3), keepdims=True)
        return first_stage.reconstruction(images, out, distance, c["perceptual_weight"], squared), distance

    def adversarial(last):
        return first_stage.generator_loss(discriminate(variables["params"], decode(last)))

    def total(kind, last, moments, log_variance, factor):
        # The loss with codes may have squares; the other has absolute differences always.
        squared = kind == "vq" and c.get("pixel_loss", "l1") == "l2"

        def nll(last):
            rec = errors(last, squared)[0]
            return first_stage.kl_nll(rec, log_variance) if kind == "kl" else jnp.mean(rec)

        rest, own = {}, nll(last)
        if kind == "kl":
            mean, spread = jnp.split(moments, 2, -1)
            rest |= {"kl_loss": jnp.mean(first_stage.kl(mean, spread)), "logvar": log_variance}
            value = own + c["kl_weight"] * rest["kl_loss"]
        else:
            rest |= {"quant_loss": jnp.mean(jnp.square(moments)), "p_loss": jnp.mean(errors(last, squared)[1])}
            value = own + c["codebook_weight"] * rest["quant_loss"]
        weight, g = first_stage.adaptive_weight(nll, adversarial, last, c["disc_weight"]), adversarial(last)
        value = value + weight * factor * g
        rest |= {"total_loss": value, "nll_loss": own, "g_loss": g, "d_weight": weight, "disc_factor": factor}
        return value, {**rest, "rec_loss": jnp.mean(errors(last, squared)[0])}

    run = jax.jit(jax.grad(total, argnums=(1, 2, 3), has_aux=True), static_argnums=0)
    cases = sorted({m[0] for n in o.names if (m := re.match(r"out/(\w+)/(\w+)/step(\d+)/", n))})
    for case in cases:
        kind, law, step = re.findall(r"out/(\w+)/(\w+)/step(\d+)/", case)[0]
        at, factor = case.removeprefix("out/").rstrip("/"), first_stage.begun(int(step), c["disc_start"])
        factor = c.get("disc_factor", 1.0) * factor
        (by_last, by_moments, by_variance), found = run(kind, last, moments, c.get("logvar", 0.0), factor)
        by_last = by_last.transpose(3, 2, 0, 1)
        if f"out/grad/{at}/generator/last_layer" in o:
            o.check(f"out/grad/{at}/generator/last_layer", by_last)
        found = {f"{at}/generator/{name}": value for name, value in found.items()}
        grads = {"moments": by_moments, "logvar": by_variance}
        check_all(o, {**found, **{f"grad/{at}/generator/{name}": value for name, value in grads.items()}})

        def own_loss(params, law=law, factor=factor):
            real, fake = discriminate(params, images), discriminate(params, decode(last))
            loss = factor * first_stage.discriminator_loss(real, fake, law)
            return loss, {"disc_loss": loss, "logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)}

        grads, found = jax.jit(jax.grad(own_loss, has_aux=True))(variables["params"])
        check_all(o, {f"{at}/discriminator/{name}": value for name, value in found.items()})
        convert_to = lambda w: convert.latent_diffusion.patchgan(w, **size)[1]  # noqa: E731
        check_gradients(o, convert_to, own, grads, at=f"out/grad/{at}/discriminator/")
    o.check_whole()
