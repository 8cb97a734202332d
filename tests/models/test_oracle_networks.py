"""U-Nets, transformers and autoencoders of diffusion against their authors': outputs and gradients."""

from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.models.dit import position_code
from jgen.models.edm import fourier, positional
from jgen.models.vqvae import straight_through
from jgen.nn.conv import convolve
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm, groups_of
from jgen.objectives import first_stage
from jgen.samplers import guidance
from tests.oracle import PLAIN_RESAMPLING, Oracle, check_blocks, check_gradients, files

pytestmark = pytest.mark.oracle


def compared(o, net, convert_to, call, inputs, of=MappingProxyType({}), more=None):
    """Compares a network's output, its gradients by inputs and weights, and its blocks; gives the variables and the modules.

    convert_to: official weights -> (network, variables). call(inputs) -> (arguments, keywords) of the network. of: as of
    `check_blocks`. more: (what modules gave, variables) -> what no module gives.
    """
    weights, cotangent = convert.load_weights(o.path), jnp.asarray(o.nhwc("in/cotangent/y"))
    variables = convert_to(weights)[1]

    @jax.jit
    def run(params, inputs):
        def weighed(params, inputs):
            args, keywords = call(inputs)
            how = dict(capture_intermediates=True, mutable=["intermediates"])
            y, seen = net.apply({"params": params}, *args, **keywords, **how)
            return jnp.sum(y * cotangent), (y, seen["intermediates"])

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inputs)

    (grads, by_input), (y, seen) = run(variables["params"], inputs)
    o.check("out/y", y, image=True)
    for name, gradient in by_input.items():
        o.check(f"out/grad/in/{name}", gradient, image=gradient.ndim == 4)
    check_gradients(o, lambda w: convert_to(w)[1], weights, grads)
    check_blocks(o, {**seen, **(more(seen, variables["params"]) if more else {})}, of)
    return variables


def outputs(seen, name):
    """A module's outputs."""
    return seen[name]["__call__"][0]


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

    def more(seen, params):
        """The embedding of noise, and a norm that is done with the convolution behind it."""
        if kind == "dhariwalunet":
            return {"map_noise": timestep_embedding(noise, net.channels)}
        norm = GroupNorm(groups_of(net.channels), 1e-6).apply(
            {"params": params["dec_16x16_aux_norm"]}, outputs(seen, "dec_16x16_block1")
        )
        waves = fourier(noise, params["freqs"]) if net.embedding == "fourier" else positional(noise, net.channels)
        # Theirs begins with cosines, and is swapped after.
        return {"map_noise": jnp.roll(waves, waves.shape[-1] // 2, -1), "dec_16x16_aux_norm": norm}

    compared(
        o, net, lambda w: EDM[kind](w, **config),
        lambda i: ((i["x"], noise, i["class_labels"], i["augment_labels"]), {}), inputs, more=more,
    )  # fmt: skip
    none = net.apply(variables, inputs["x"], noise, jnp.full(2, net.classes), inputs["augment_labels"])
    zero = net.apply(variables, inputs["x"], noise, jnp.zeros((2, net.classes)), inputs["augment_labels"])
    assert jnp.array_equal(none, zero)


@pytest.mark.parametrize("path", files("dit", "dit_original"))
def test_dit_has_labels_times_and_guidance_of_the_original(path):
    o = Oracle(path)
    net, variables = convert.dit.dit(convert.load_weights(path), **o.config)
    t, label = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"])
    embedded = {"t_embedder": "embedder.t_embedder_mlp_2", "y_embedder": "embedder.y_embedder"}
    parts = {f"blocks.{i}.{k}": f"blocks_{i}.{v}" for i in range(2) for k, v in (("attn", "attn_proj"), ("mlp", "mlp_fc2"))}
    names = {**embedded, **parts, "x_embedder": "x_embedder_proj", "final_layer": "final_layer_linear"}
    inputs = {"x": jnp.asarray(o.nhwc("in/x"))}
    compared(o, net, lambda w: convert.dit.dit(w, **o.config), lambda i: ((i["x"], t, label), {}), inputs, names)
    o.check("out/t_embedding", timestep_embedding(jnp.asarray(o["in/t_embedding_query"]), 256))
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
    x, t, label = jnp.asarray(o.nhwc("in/x")), jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"])
    names = {"transformer_blocks.0.norm1.emb": "embedder_0"}
    for i in range(2):
        block = f"transformer_blocks.{i}"
        names |= {block: f"blocks_{i}", f"{block}.attn1": f"blocks_{i}.attn_proj", f"{block}.ff": f"blocks_{i}.mlp_fc2"}
    table = position_code(4, 4, net.width)

    def more(seen, params):
        """Frequencies of the time, and patches with the code of their places."""
        return {
            "transformer_blocks_0_norm1_emb_time_proj": timestep_embedding(t, 256, endpoint=True),
            "pos_embed": outputs(seen, "x_embedder_proj").reshape(len(x), 16, -1) + table[None],
        }

    def call(i):
        return (i["x"], t, label), {}

    compared(o, net, lambda w: convert.dit.diffusers(w, **o.config), call, {"x": x}, names, more)
    o.check("out/pos_embed_table", table)
    out = net.apply(variables, jnp.repeat(x[:1], 2, 0), jnp.repeat(t[:1], 2), jnp.array([label[0], net.classes]))
    noise, rest = jnp.split(out, 2, -1)
    o.check("out/cfg_eps_scale3", guidance.mix(noise[:1], noise[1:], 3.0), image=True)
    o.check("out/cfg_rest", rest, image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("diffusion", "unet2d"))
def test_u_net_of_diffusers(path):
    o = Oracle(path)
    net = convert.diffusers.unet2d(convert.load_weights(path), **o.config)[0]
    t = jnp.asarray(o["in/timesteps"])
    names = {"time_embedding": "time_embed", "conv_in": "input_blocks.0", "down_blocks.0.resnets.0": "input_blocks_1_0"}
    names |= {"down_blocks.0.downsamplers.0": "input_blocks_2_0_op", "down_blocks.1.resnets.0": "input_blocks_3_0"}
    names |= {"down_blocks.1.attentions.0": "input_blocks_3_1", "mid_block.attentions.0": "middle_block_1"}
    names |= {"mid_block": "middle_block", "up_blocks.0.upsamplers.0": "output_blocks_1_2_conv"}
    for i in range(2):
        names |= {f"up_blocks.{j}.resnets.{i}": f"output_blocks_{2 * j + i}_0" for j in range(2)}
        names |= {f"up_blocks.0.attentions.{i}": f"output_blocks_{i}_1"}
    inputs = {"sample": jnp.asarray(o.nhwc("in/sample"))}
    compared(o, net, lambda w: convert.diffusers.unet2d(w, **o.config), lambda i: ((i["sample"], t), {}), inputs, names)


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
    inputs = {"x": jnp.asarray(o.nhwc("in/x")), "context": jnp.asarray(o["in/context"])}

    def call(i):
        return (i["x"], t), {"context": i["context"]}

    convert_to = convert.latent_diffusion.unet
    compared(o, net, lambda w: convert_to(w, **o.config), call, inputs, PLAIN_RESAMPLING)
    with pytest.raises(ValueError, match="transformer_depth=1 but none was given"):
        net.apply(variables, inputs["x"], t)


RESAMPLED = {
    "encoder.down.0.downsample": "encoder.down_0_downsample_conv",
    "decoder.up.1.upsample": "decoder.up_1_upsample_conv",
}


def through(net, params, x, method):
    """(what a method of an autoencoder gives, what its modules do)."""
    found, seen = net.apply({"params": params}, x, method=method, capture_intermediates=True, mutable=["intermediates"])
    return found, seen["intermediates"]


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
            (mean, log_variance), encoder = through(net, params, x, "encode")
            z = mean + jnp.exp(0.5 * log_variance) * noise
            out, decoder = through(net, params, z, "decode")
            found = (jnp.concatenate([mean, log_variance], -1), z, out, first_stage.kl(mean, log_variance))
            return sum(jnp.sum(w * f) for w, f in zip(weights, found)), (found, encoder | decoder)

        return jax.grad(weighed, argnums=(0, 1, 2), has_aux=True)(params, x, noise)

    (grads, by_x, by_noise), (found, seen) = run(variables["params"], jnp.asarray(o.nhwc("in/x")), noise)
    for name, value in zip(names, found):
        o.check(f"out/{name}", value, image=name != "kl")
    o.check("out/grad/in/x", by_x, image=True)
    o.check("out/grad/in/noise", by_noise, image=True)
    official = convert.load_weights(path)
    check_gradients(o, lambda w: convert.latent_diffusion.autoencoder_kl(w, **o.config)[1], official, grads)
    check_blocks(o, seen, RESAMPLED)
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
        z, encoder = through(net, params, x, "encode")
        q = net.apply({"params": params}, z, method="quantize")
        passed = straight_through(q)
        loss = first_stage.codebook_loss(q, o.config["beta"], o.config["legacy"])
        out, decoder = through(net, params, passed, "decode")
        return (z, passed, loss, out), q.codes, encoder | decoder

    def weighed(params, x):
        found, codes, seen = parts(params, x)
        return sum(jnp.sum(w * f) for w, f in zip(weights, found)), (found, codes, seen)

    run = jax.jit(jax.grad(weighed, argnums=(0, 1), has_aux=True))
    (grads, by_x), (found, codes, seen) = run(variables["params"], jnp.asarray(o.nhwc("in/x")))
    for name, value in zip(names, found):
        o.check(f"out/{name}", value, image=name != "codebook_loss")
    assert codes.tolist() == o["out/indices"].tolist()
    o.check("out/grad/in/x", by_x, image=True)
    official = convert.load_weights(path)
    check_gradients(o, lambda w: convert.latent_diffusion.vq_model(w, **o.config)[1], official, grads, ("codebook_loss_only/",))
    check_blocks(o, seen, RESAMPLED)
    alone = jax.jit(jax.grad(lambda params, x: parts(params, x)[0][2]))(variables["params"], jnp.asarray(o.nhwc("in/x")))
    o.check("out/grad/codebook_loss_only/quantize.embedding.weight", alone["codebook"])
    kernel = alone["quant_conv"]["kernel"].T[..., None, None]
    o.check("out/grad/codebook_loss_only/quant_conv.weight", kernel)
    free = jnp.asarray(o.nhwc("in/free_latent"))
    nearest = net.apply(variables, free, method="quantize").codes
    np.testing.assert_array_equal(nearest.reshape(o["out/free_latent_indices"].shape), o["out/free_latent_indices"])
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
