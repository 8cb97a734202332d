"""U-Nets, transformers and autoencoders of diffusion against their authors': outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.models.vqvae import straight_through
from jgen.nn.conv import convolve
from jgen.objectives import first_stage
from tests.oracle import Oracle, files
from tests.test_oracle_adm import find

pytestmark = pytest.mark.oracle


def checked_gradients(o, apply, params, inputs):
    """Gradients of sum(y * cotangent) by parameters, once y = apply(params, inputs) and the inputs' gradients are right."""
    cotangent = jnp.asarray(o.nhwc("in/cotangent/y"))

    @jax.jit
    def run(params, inputs):
        def weighed(params, inputs):
            y = apply(params, inputs)
            return jnp.sum(y * cotangent), y

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inputs)

    (grads, by_input), y = run(params, inputs)
    o.check("out/y", y, image=True)
    for name, gradient in by_input.items():
        o.check(f"out/grad/in/{name}", gradient, image=gradient.ndim == 4)
    return grads


def check_parameters(o, grads, of):
    """Every gradient of a parameter that the file has; of(name) -> the official name whose path it has here, or None."""
    checked = 0
    for name in o.names:
        plain = name.removeprefix("out/grad/")
        if not name.startswith("out/grad/") or plain.startswith("in/") or (place := of(plain)) is None:
            continue
        leaf = find(grads, place)
        if leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        o.check(name, leaf.T.reshape(o[name].shape) if leaf.ndim == 2 else leaf)
        checked += 1
    assert checked >= 2


EDM = {"songunet": convert.edm.song_unet, "dhariwalunet": convert.edm.dhariwal_unet}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind,path", [pytest.param(k, *p.values, marks=p.marks, id=p.id) for k in EDM for p in files("edm", k)]
)
def test_u_nets_of_edm(kind, path):
    o = Oracle(path)
    config = {k: v for k, v in o.config.items() if k != "network"}
    net, variables = EDM[kind](convert.load_weights(path), **config)
    # The snapshots of training hold more than the network, and that wrapped.
    snapshot = {f"ema.model.{k}": v for k, v in convert.load_weights(path).items()} | {"augment_pipe.Hz_geom": np.ones(3)}
    jax.tree.map(np.testing.assert_array_equal, EDM[kind](snapshot, **config)[1], variables)
    inputs = {"x": jnp.asarray(o.nhwc("in/x")), **{k: jnp.asarray(o[f"in/{k}"]) for k in ("class_labels", "augment_labels")}}
    noise = jnp.asarray(o["in/t_noise_labels"])

    def apply(params, i):
        return net.apply({"params": params}, i["x"], noise, i["class_labels"], i["augment_labels"])

    grads = checked_gradients(o, apply, variables["params"], inputs)
    check_parameters(o, grads, lambda name: name)
    none = net.apply(variables, inputs["x"], noise, jnp.full(2, net.classes), inputs["augment_labels"])
    zero = net.apply(variables, inputs["x"], noise, jnp.zeros((2, net.classes)), inputs["augment_labels"])
    assert jnp.array_equal(none, zero)


@pytest.mark.parametrize("path", files("dit", "dit_original"))
def test_dit_has_labels_times_and_guidance_of_the_original(path):
    o = Oracle(path)
    net, variables = convert.dit.dit(convert.load_weights(path), **o.config)
    t, label = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"])

    def apply(params, i):
        return net.apply({"params": params}, i["x"], t, label)

    grads = checked_gradients(o, apply, variables["params"], {"x": jnp.asarray(o.nhwc("in/x"))})
    flat = lambda name: f"embedder.{name.replace('.', '_').replace('_bias', '.bias')}"  # noqa: E731
    names = {
        "x_embedder.proj.bias": "x_embedder_proj.bias",
        "t_embedder.mlp.0.bias": flat("t_embedder.mlp.0.bias"),
        "blocks.0.adaLN_modulation.1.bias": "blocks.0.adaLN_modulation.1.bias",
        "blocks.1.attn.qkv.bias": "blocks.1.attn_qkv.bias",
        "final_layer.linear.bias": "final_layer_linear.bias",
    }
    check_parameters(o, grads, names.__getitem__)
    # Its guidance takes the first half of x twice, and mixes the first three channels only.
    half = jnp.asarray(o.nhwc("in/x"))[:2]
    labels, times = jnp.asarray(o["in/cfg_labels"]), jnp.asarray(o["in/cfg_timesteps"])
    out = net.apply(variables, jnp.concatenate([half, half]), times, labels)
    c, u = jnp.split(out[..., :3], 2)
    mixed = u + o.config["cfg_scale"] * (c - u)
    o.check("out/cfg", jnp.concatenate([jnp.concatenate([mixed, mixed]), out[..., 3:]], -1), image=True)


@pytest.mark.parametrize("path", [p for p in files("dit", "dit") if p.id == "dit"])
def test_dit_of_diffusers(path):
    o = Oracle(path)
    net, variables = convert.dit.diffusers(convert.load_weights(path), **o.config)
    t, label = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"])

    def apply(params, i):
        return net.apply({"params": params}, i["x"], t, label)

    grads = checked_gradients(o, apply, variables["params"], {"x": jnp.asarray(o.nhwc("in/x"))})
    names = {
        "pos_embed.proj.bias": "x_embedder_proj.bias",
        "transformer_blocks.0.norm1.linear.bias": "blocks.0.adaLN_modulation.1.bias",
        "proj_out_1.bias": "final_layer_adaLN_modulation_1.bias",
    }
    check_parameters(o, grads, names.get)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("diffusion", "unet2d"))
def test_u_net_of_diffusers(path):
    o = Oracle(path)
    net, variables = convert.diffusers.unet2d(convert.load_weights(path), **o.config)
    t = jnp.asarray(o["in/timesteps"])

    def apply(params, i):
        return net.apply({"params": params}, i["sample"], t)

    grads = checked_gradients(o, apply, variables["params"], {"sample": jnp.asarray(o.nhwc("in/sample"))})
    names = {"conv_in.bias": "input_blocks.0.0.bias", "time_embedding.linear_1.bias": "time_embed.0.bias"}
    check_parameters(o, grads, {**names, "conv_norm_out.weight": "out.0.weight"}.get)


@pytest.mark.parametrize("path", files("diffusion", "unet2d"))
def test_u_net_of_diffusers_first_releases(path):
    """Attention under its former names; what does not fit is named."""
    o = Oracle(path)
    weights, former = dict(convert.load_weights(path)), {"to_q": "query", "to_k": "key", "to_v": "value"}
    for name in [n for n in weights if ".attentions." in n]:
        new = ".".join(former.get(part, part) for part in name.replace("to_out.0", "proj_attn").split("."))
        weights[new] = weights.pop(name)
    assert any("proj_attn" in name for name in weights)
    assert any("query" in name for name in weights)
    for found, want in zip(
        jax.tree.leaves(convert.diffusers.unet2d(weights, **o.config)[1]),
        jax.tree.leaves(convert.diffusers.unet2d(convert.load_weights(path), **o.config)[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, want)
    for extra in ("foo", "down_blocks.0.other.0.weight", "down_blocks.x.weight"):
        with pytest.raises(ValueError, match=f"left over {extra}"):
            convert.diffusers.unet2d({**weights, extra: np.zeros(1)}, **o.config)
    with pytest.raises(ValueError, match="center_input_sample=True: must be False here"):
        convert.diffusers.unet2d(weights, **{**o.config, "center_input_sample": True})


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "unet_context"))
def test_u_net_with_cross_attention(path):
    o = Oracle(path)
    net, variables = convert.latent_diffusion.unet(convert.load_weights(path), **o.config)
    t = jnp.asarray(o["in/timesteps"])

    def apply(params, i):
        return net.apply({"params": params}, i["x"], t, context=i["context"])

    inputs = {"x": jnp.asarray(o.nhwc("in/x")), "context": jnp.asarray(o["in/context"])}
    grads = checked_gradients(o, apply, variables["params"], inputs)
    check_parameters(o, grads, lambda name: name)
    with pytest.raises(ValueError, match="transformer_depth=1 but none was given"):
        net.apply(variables, inputs["x"], t)


FIRST_STAGE = ("encoder.conv_in.bias", "quant_conv.weight", "post_quant_conv.bias", "decoder.conv_out.weight")


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "autoencoder_kl"))
def test_first_stage_with_a_kl(path):
    o = Oracle(path)
    net, variables = convert.latent_diffusion.autoencoder_kl(convert.load_weights(path), **o.config)
    noise = jnp.asarray(o.nhwc("in/noise"))
    names = ("moments", "z", "reconstruction", "kl")
    weights = [jnp.asarray(o.nhwc(f"in/cotangent/{n}") if n != "kl" else o["in/cotangent/kl"]) for n in names]

    @jax.jit
    def run(params, x, noise):
        def weighed(params, x, noise):
            mean, log_variance = net.apply({"params": params}, x, method="encode")
            z = mean + jnp.exp(0.5 * log_variance) * noise
            out = net.apply({"params": params}, z, method="decode")
            found = (jnp.concatenate([mean, log_variance], -1), z, out, first_stage.kl(mean, log_variance))
            return sum(jnp.sum(w * f) for w, f in zip(weights, found)), found

        return jax.grad(weighed, argnums=(0, 1, 2), has_aux=True)(params, x, noise)

    (grads, by_x, by_noise), found = run(variables["params"], jnp.asarray(o.nhwc("in/x")), noise)
    for name, value in zip(names, found):
        o.check(f"out/{name}", value, image=name != "kl")
    o.check("out/grad/in/x", by_x, image=True)
    o.check("out/grad/in/noise", by_noise, image=True)
    check_parameters(o, grads, lambda name: name if name in FIRST_STAGE else None)
    mean, log_variance = jnp.split(found[0], 2, -1)
    o.check("out/logvar", log_variance, image=True)
    o.check("out/nll_of_noise", first_stage.negative_log_density(noise, mean, log_variance))
    o.check("out/mode_reconstruction", net.apply(variables, mean, method="decode"), image=True)
    scale, fixed = first_stage.scale_factor(found[1]), o.config["fixed_scale_factor"]
    o.check("out/scale_factor", scale)
    o.check("out/scaled_latent", scale * found[1], image=True)
    o.check("out/fixed_scale_latent", fixed * found[1], image=True)
    o.check("out/fixed_scale_decode_of_noise", net.apply(variables, noise / fixed, method="decode"), image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "vq_model"))
def test_first_stage_with_codes(path):
    o = Oracle(path)
    net, variables = convert.latent_diffusion.vq_model(convert.load_weights(path), **o.config)
    names = ("prequant", "quantised", "codebook_loss", "reconstruction")
    weights = [jnp.asarray(o[f"in/cotangent/{n}"] if n == "codebook_loss" else o.nhwc(f"in/cotangent/{n}")) for n in names]

    def parts(params, x):
        z = net.apply({"params": params}, x, method="encode")
        q = net.apply({"params": params}, z, method="quantize")
        through = straight_through(q)
        loss = first_stage.codebook_loss(q, o.config["beta"], o.config["legacy"])
        return (z, through, loss, net.apply({"params": params}, through, method="decode")), q.codes

    def weighed(params, x):
        found, codes = parts(params, x)
        return sum(jnp.sum(w * f) for w, f in zip(weights, found)), (found, codes)

    run = jax.jit(jax.grad(weighed, argnums=(0, 1), has_aux=True))
    (grads, by_x), (found, codes) = run(variables["params"], jnp.asarray(o.nhwc("in/x")))
    for name, value in zip(names, found):
        o.check(f"out/{name}", value, image=name != "codebook_loss")
    assert codes.tolist() == o["out/indices"].tolist()
    o.check("out/grad/in/x", by_x, image=True)
    o.check("out/grad/quantize.embedding.weight", grads["codebook"])
    check_parameters(o, grads, lambda name: name if name in FIRST_STAGE else None)
    alone = jax.jit(jax.grad(lambda params, x: parts(params, x)[0][2]))(variables["params"], jnp.asarray(o.nhwc("in/x")))
    o.check("out/grad/codebook_loss_only/quantize.embedding.weight", alone["codebook"])
    kernel = alone["quant_conv"]["kernel"].T[..., None, None]
    o.check("out/grad/codebook_loss_only/quant_conv.weight", kernel)
    free = jnp.asarray(o.nhwc("in/free_latent"))
    o.check("out/free_latent_decoded", net.apply(variables, free, method="decode_nearest"), image=True)
    o.check("out/free_latent_decoded_unquantised", net.apply(variables, free, method="decode"), image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("latent_diffusion", "patchgan_loss"))
def test_adversarial_losses_of_first_stages(path):
    o = Oracle(path)
    c = o.config
    own = {k.removeprefix("discriminator/"): v for k, v in convert.load_weights(path).items() if k.startswith("discriminator/")}
    net, variables = convert.latent_diffusion.patchgan(own, ndf=c["ndf"], n_layers=c["n_layers"])
    images, features = jnp.asarray(o.nhwc("in/images")), jnp.asarray(o.nhwc("in/last_features"))
    moments, last = jnp.asarray(o.nhwc("in/moments")), jnp.asarray(o["w/last_layer"]).transpose(2, 3, 1, 0)
    o.check("out/logits_eval", net.apply(variables, images, train=False), image=True)
    logits, after = net.apply(variables, images, train=True, mutable=["batch_stats"])
    o.check("out/logits_train", logits, image=True)
    o.check("out/running_mean_after_train", after["batch_stats"]["main_3"]["mean"])
    o.check("out/running_var_after_train", after["batch_stats"]["main_3"]["var"])

    def decode(last):
        return convolve(features, last, 1, ((1, 1), (1, 1)))

    o.check("out/reconstruction", decode(last), image=True)

    def discriminate(params, x):
        return net.apply({**variables, "params": params}, x, train=c["train"], mutable=["batch_stats"])[0]

    def errors(last):
        out = decode(last)
        distance = 0.5 * jnp.mean(jnp.square(images - out), (1, 2, 3), keepdims=True)
        return first_stage.reconstruction(images, out, distance, c["perceptual_weight"]), distance

    for kind in ("kl", "vq"):

        def nll(last, log_variance=c["logvar"], kind=kind):
            rec = errors(last)[0]
            return first_stage.kl_nll(rec, log_variance) if kind == "kl" else jnp.mean(rec)

        def adversarial(last):
            return first_stage.generator_loss(discriminate(variables["params"], decode(last)))

        def total(last, moments, log_variance, factor, kind=kind, nll=nll):
            rest, own = {}, nll(last, log_variance)
            if kind == "kl":
                mean, spread = jnp.split(moments, 2, -1)
                rest["kl_loss"] = jnp.mean(first_stage.kl(mean, spread))
                value = own + c["kl_weight"] * rest["kl_loss"]
            else:
                rest["quant_loss"] = jnp.mean(jnp.square(moments))
                rest["p_loss"] = jnp.mean(errors(last)[1])
                value = own + c["codebook_weight"] * rest["quant_loss"]
            weight = first_stage.adaptive_weight(lambda last: nll(last, log_variance), adversarial, last, c["disc_weight"])
            g = adversarial(last)
            value = value + weight * factor * g
            rest |= {"total_loss": value, "nll_loss": own, "g_loss": g, "d_weight": weight, "disc_factor": factor}
            return value, {**rest, "rec_loss": jnp.mean(errors(last)[0])}

        run = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
        for law in ("hinge", "vanilla"):
            for step in c["steps"]:
                at, factor = f"{kind}/{law}/step{step}", first_stage.begun(step, c["disc_start"])
                (by_last, by_moments, by_variance), found = run(last, moments, c["logvar"], factor)
                for name, value in found.items():
                    o.check(f"out/{at}/generator/{name}", value)
                o.check(f"out/grad/{at}/generator/last_layer", by_last.transpose(3, 2, 0, 1))
                o.check(f"out/grad/{at}/generator/moments", by_moments, image=True)
                if kind == "kl":
                    o.check(f"out/grad/{at}/generator/logvar", by_variance)

                def own_loss(params, law=law, factor=factor):
                    real, fake = discriminate(params, images), discriminate(params, decode(last))
                    return factor * first_stage.discriminator_loss(real, fake, law), (jnp.mean(real), jnp.mean(fake))

                grads, (real, fake) = jax.grad(own_loss, has_aux=True)(variables["params"])
                o.check(f"out/{at}/discriminator/disc_loss", own_loss(variables["params"])[0])
                o.check(f"out/{at}/discriminator/logits_real", real)
                o.check(f"out/{at}/discriminator/logits_fake", fake)
                kernel = grads["main_0"]["kernel"].transpose(3, 2, 0, 1)
                o.check(f"out/grad/{at}/discriminator/main.0.weight", kernel)
                o.check(f"out/grad/{at}/discriminator/main.3.weight", grads["main_3"]["scale"])
