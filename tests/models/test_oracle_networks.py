"""U-Nets, transformers and autoencoders of diffusion against their authors': outputs and gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jgen import convert
from jgen.errors import UserError
from jgen.models import dit
from jgen.models.autoencoder import AutoencoderKL
from jgen.models.dit import position_code
from jgen.models.edm import DhariwalUNet, SongUNet, fourier, positional
from jgen.models.unet import UNet
from jgen.models.vqvae import straight_through
from jgen.nn.conv import convolve
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm, groups_of
from jgen.nn.resample import downsample, upsample
from jgen.objectives import first_stage
from jgen.samplers import guidance
from tests.models.whole import check_blocks, check_gradients, check_network, float_inputs, without
from tests.oracle import Oracle, files, official_gradient

pytestmark = pytest.mark.oracle


def outputs(seen, name):
    """A module's outputs."""
    return seen[name]["__call__"][0]


EDM = {"SongUNet": convert.edm.song_unet, "DhariwalUNet": convert.edm.dhariwal_unet}
"""{network of a file's configuration: its converter}."""


def parts_without_module(o, net, seen, params, x, noise):
    """{name: output} of EDM's parts that are no module here: embeddings of noise, resamplers, norms done with a convolution."""
    song = isinstance(net, SongUNet)
    if song:
        width = net.channels * net.channel_mult_noise
        waves = fourier(noise, params["freqs"]) if net.embedding == "fourier" else positional(noise, width)
        # Theirs begins with cosines, and is swapped after.
        found = {"map_noise": jnp.roll(waves, waves.shape[-1] // 2, -1)}
    else:
        found = {"map_noise": timestep_embedding(noise, net.channels)}

    def norm(at, features):
        return GroupNorm(groups_of(features.shape[-1]), 1e-6 if song else 1e-5).apply({"params": params[at]}, features)

    sides = [o.config["img_resolution"] >> level for level in range(len(net.channel_mult))]
    last = {side: outputs(seen, f"dec_{side}x{side}_block{net.num_blocks}") for side in sides}
    if not song:
        return found | {"out_norm": norm("out_norm", last[sides[0]])}
    small, image = x, None
    for side in sides[1:]:
        small = found[f"enc_{side}x{side}_aux_down"] = downsample(small, net.taps)
    for side in reversed(sides):
        at = f"dec_{side}x{side}_aux"
        if f"{at}_norm" not in params:
            continue
        found[f"{at}_norm"] = norm(f"{at}_norm", last[side])
        if image is not None:
            image = found[f"{at}_up"] = upsample(image, net.taps)
        image = outputs(seen, f"{at}_conv") + (0 if image is None else image)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for kind in EDM for p in files("edm", kind.lower())])
def test_u_nets_of_edm(path):
    o = Oracle(path)
    config, weights, build = o.config, convert.load_weights(path), EDM[o.config["network"]]
    net, variables = build(weights, **config)
    # The snapshots of training hold more than the network, and that wrapped.
    snapshot = {f"ema.model.{k}": v for k, v in weights.items()} | {"augment_pipe.Hz_geom": np.ones(3)}
    jax.tree.map(np.testing.assert_array_equal, build(snapshot, **config)[1], variables)
    given = {"x": jnp.asarray(o.nhwc("in/x"))}
    given |= {k: jnp.asarray(o[f"in/{k}"]) for k in ("class_labels", "augment_labels") if f"in/{k}" in o}
    noise, cotangent = jnp.asarray(o["in/t_noise_labels"]), jnp.asarray(o.nhwc("in/cotangent/y"))

    @jax.jit
    def run(params, given):
        def weighed(params, given):
            how = dict(capture_intermediates=True, mutable=["intermediates"])
            labels = given.get("class_labels"), given.get("augment_labels")
            y, seen = net.apply({"params": params}, given["x"], noise, *labels, **how)
            return jnp.sum(y * cotangent), (y, seen["intermediates"])

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, given)

    (grads, by_input), (y, seen) = run(variables["params"], given)
    o.check("out/y", y, image=True)
    for name in (n for n in o.names if n.startswith("out/grad/")):
        part = name.removeprefix("out/grad/")
        if part.startswith("in/"):
            gradient = by_input[part.removeprefix("in/")]
            o.check(name, gradient, image=gradient.ndim == 4)
        else:
            o.check(name, official_gradient(lambda w: build(w, **config)[1], weights, part, grads))
    if any(n.startswith("out/block/") for n in o.names):
        check_blocks(o, {**seen, **parts_without_module(o, net, seen, variables["params"], given["x"], noise)})
    o.check_whole()
    if net.classes:
        rest = given.get("augment_labels")
        none = net.apply(variables, given["x"], noise, jnp.full(len(noise), net.classes), rest)
        zero = net.apply(variables, given["x"], noise, jnp.zeros((len(noise), net.classes)), rest)
        assert jnp.array_equal(none, zero)


@pytest.mark.parametrize(
    "kind,option,message",
    [
        ("SongUNet", {"channel_mult_embb": 2}, r"channel_mult_embb: no option of SongUNet \(did you mean channel_mult_emb"),
        ("SongUNet", {"encoder_type": "wide"}, "encoder_type=wide: must be standard or skip or residual here"),
        ("SongUNet", {"network": "DhariwalUNet"}, "network=DhariwalUNet: must be SongUNet here"),
        ("DhariwalUNet", {"encoder_type": "skip"}, "encoder_type: no option of DhariwalUNet"),
    ],
)
def test_edm_refuses_options_by_name(kind, option, message):
    with pytest.raises(ValueError, match=message):
        EDM[kind]({}, img_resolution=8, in_channels=3, out_channels=3, **option)


def test_edm_attends_where_the_reference_does():
    """No resolutions are none, and below 64 channels DhariwalUNet's converter has no attention."""
    small = dict(img_resolution=8, in_channels=3, out_channels=3, model_channels=32, channel_mult=[1, 2], num_blocks=1)

    def attending(net):
        x, noise = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1)
        params = jax.eval_shape(net.init, jax.random.key(0), x, noise)["params"]
        return {name for name, part in params.items() if "qkv" in part}

    with pytest.raises(ValueError, match="missing") as refused:
        EDM["SongUNet"]({}, **small, attn_resolutions=[])
    assert "enc_8x8_block0/qkv" not in str(refused.value)
    nets = DhariwalUNet(channels=32, channel_mult=(1, 2), num_blocks=1, attention_resolutions=(8, 4), attend_narrow=False)
    assert attending(nets) == {"enc_4x4_block0", "dec_4x4_in0", "dec_4x4_block0", "dec_4x4_block1"}
    assert attending(nets.clone(attend_narrow=True)) > attending(nets)
    assert attending(SongUNet(channels=16, channel_mult=(1, 2), num_blocks=1, attention_resolutions=())) == {"dec_4x4_in0"}


CFG = ("cfg_scale",)
"""What the files of DiT have besides the constructor's arguments."""


@pytest.mark.parametrize("path", files("dit", "dit_original"))
def test_dit_has_labels_times_and_guidance_of_the_original(path):
    o = Oracle(path)
    config = without(o.config, *CFG)
    net, variables = convert.dit.dit(convert.load_weights(path), **config)
    t, label, inputs = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"]), float_inputs(o, "x")

    def of(name):
        name = re.sub(r"^([ty]_embedder)$", r"embedder.\1", name).replace("t_embedder", "t_embedder_mlp_2")
        name = re.sub(r"^blocks\.(\d+)\.(attn|mlp)$", r"blocks_\1.\2", name)
        ends = {"attn": "attn_proj", "mlp": "mlp_fc2", "x_embedder": "x_embedder_proj", "final_layer": "final_layer_linear"}
        head, dot, last = name.rpartition(".")
        return f"{head}{dot}{ends.get(last, last)}"

    check_network(o, net, lambda w: convert.dit.dit(w, **config)[1], lambda i: ((i["x"], t, label), {}), inputs, of)
    if "out/t_embedding" in o:
        o.check("out/t_embedding", timestep_embedding(jnp.asarray(o["in/t_embedding_query"]), o["out/t_embedding"].shape[1]))
    if "out/cfg" in o:
        # Its guidance takes the first half of x twice, and mixes the first three channels only.
        labels, times = jnp.asarray(o["in/cfg_labels"]), jnp.asarray(o["in/cfg_timesteps"])
        half = inputs["x"][: len(labels) // 2]
        out = net.apply(variables, jnp.concatenate([half, half]), times, labels)
        mixed = guidance.mix(*jnp.split(out[..., :3], 2), o.config["cfg_scale"])
        o.check("out/cfg", jnp.concatenate([jnp.concatenate([mixed, mixed]), out[..., 3:]], -1), image=True)
    o.check_whole()


@pytest.mark.parametrize("path", files("dit", "dit", apart=("dit_original",)))
def test_dit_of_diffusers(path):
    o = Oracle(path)
    config = without(o.config, *CFG)
    net, variables = convert.dit.diffusers(convert.load_weights(path), **config)
    t, label, inputs = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"]), float_inputs(o, "x")
    x, patch = inputs["x"], net.patch
    table = position_code(x.shape[1] // patch, x.shape[2] // patch, net.width)

    def of(name):
        for pattern, here in {
            r"norm1\.emb": r"embedder_\1",
            r"attn1": r"blocks_\1.attn_proj",
            r"ff": r"blocks_\1.mlp_fc2",
        }.items():
            name = re.sub(rf"^transformer_blocks\.(\d+)\.{pattern}$", here, name)
        return re.sub(r"^transformer_blocks\.(\d+)$", r"blocks_\1", name)

    def more(seen, params):
        """Frequencies of the time, and patches with the code of their places."""
        waves = timestep_embedding(t, 256, endpoint=True)
        return {
            **{f"transformer_blocks_{i}_norm1_emb_time_proj": waves for i in range(net.depth)},
            "pos_embed": outputs(seen, "x_embedder_proj").reshape(len(x), len(table), -1) + table[None],
        }

    def call(i):
        return (i["x"], t, label), {}

    check_network(o, net, lambda w: convert.dit.diffusers(w, **config)[1], call, inputs, of, more)
    if "out/pos_embed_table" in o:
        o.check("out/pos_embed_table", table)
    out = net.apply(variables, jnp.repeat(x[:1], 2, 0), jnp.repeat(t[:1], 2), jnp.array([label[0], net.classes]))
    noise, rest = out[..., : x.shape[-1]], out[..., x.shape[-1] :]
    for name in (n for n in o.names if n.startswith("out/cfg_eps_scale")):
        scale = float(name.removeprefix("out/cfg_eps_scale"))
        o.check(name, guidance.mix(noise[:1], noise[1:], scale), image=True)
    if "out/cfg_rest" in o:
        o.check("out/cfg_rest", rest, image=True)
    o.check_whole()


def unet2d(o):
    """official weights -> (network, variables)."""
    return lambda weights: convert.diffusers.unet2d(weights, **o.config)


def module_of_unet2d(name, layers, attends):
    """The module here of a diffusers' block; attends: whether the blocks of a level on the way up have attention."""
    fixed = {"time_embedding": "time_embed", "class_embedding": "label_emb", "conv_in": "input_blocks.0"}
    if name in fixed or not name.startswith(("down", "mid", "up")):
        return fixed.get(name, name)
    parts = name.split(".")
    if parts[0] == "mid_block":
        return "middle_block" if len(parts) == 1 else f"middle_block_{1 if parts[1] == 'attentions' else 2 * int(parts[2])}"
    level, kind, number = int(parts[1]), parts[2], int(parts[3])
    part, first = int(kind == "attentions"), level * (layers + 1)
    if parts[0] == "down_blocks":
        return f"input_blocks_{1 + first + layers}_0" if kind == "downsamplers" else f"input_blocks_{1 + first + number}_{part}"
    if kind == "upsamplers":
        return f"output_blocks_{first + layers}_{1 + attends[level]}"
    return f"output_blocks_{first + number}_{part}"


@pytest.mark.slow
@pytest.mark.parametrize("path", files("diffusion", "unet2d"))
def test_u_net_of_diffusers(path):
    o = Oracle(path)
    net = unet2d(o)(convert.load_weights(path))[0]
    t, label = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/class_labels"]) if "in/class_labels" in o else None
    attends = [kind.startswith("Attn") for kind in o.config["up_block_types"]]

    def of(name):
        return module_of_unet2d(name, net.num_res_blocks, attends)

    def call(i):
        return (i["sample"], t, label), {}

    check_network(o, net, lambda w: unet2d(o)(w)[1], call, float_inputs(o, "sample"), of)
    o.check_whole()


@pytest.mark.parametrize("path", files("diffusion", "unet2d"))
def test_u_net_of_diffusers_first_releases(path):
    """Attention under its former names; what does not fit is named."""
    o = Oracle(path)
    weights, former = dict(convert.load_weights(path)), {"to_q": "query", "to_k": "key", "to_v": "value"}
    for name in [n for n in weights if ".attentions." in n]:
        new = ".".join(former.get(part, part) for part in name.replace("to_out.0", "proj_attn").split("."))
        weights[new] = weights.pop(name)
    assert not any("to_q" in name for name in weights)
    for found, want in zip(
        jax.tree.leaves(unet2d(o)(weights)[1]),
        jax.tree.leaves(unet2d(o)(convert.load_weights(path))[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, want)
    for extra in ("foo", "down_blocks.0.other.0.weight", "down_blocks.x.weight"):
        with pytest.raises(UserError, match=f"left over {extra}"):
            unet2d(o)({**weights, extra: np.zeros(1)})


SMALL_UNET2D = dict(
    block_out_channels=(8, 12), down_block_types=("AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D"), norm_num_groups=4, attention_head_dim=4, layers_per_block=1,
)  # fmt: skip


@pytest.mark.parametrize(
    "option,message",
    [
        ({"center_input_sample": True}, "center_input_sample=True: must be False here"),
        ({"class_embed_type": "projection"}, "class_embed_type=projection: must be None or timestep or identity here"),
        ({"freq_shift": 0.5}, "freq_shift=0.5: must be 0 or 1 here"),
        ({"downsample_padding": 2}, "downsample_padding=2: must be 0 or 1 here"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type=fourier: must be positional here"),
        ({"time_embedding_dim": 8}, "time_embedding_dim=8: must be None or 32"),
        ({"attention_heads": 8}, "attention_heads: no option of UNet2DModel"),
        ({"up_block_types": ("AttnUpBlock2D", "UpBlock2D")}, r"up_block_types=\['AttnUpBlock2D', 'UpBlock2D'\]: must have"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type=UNetMidBlock2DCrossAttn: must be UNetMidBlock2D"),
    ],
)
def test_u_net_of_diffusers_refuses_options_by_name(option, message):
    with pytest.raises(UserError, match=message):
        convert.diffusers.unet2d({}, **{**SMALL_UNET2D, **option})


RESNET_UNET2D = {
    **SMALL_UNET2D, "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"), "norm_num_groups": 4,
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "downsample_type": "resnet", "upsample_type": "resnet",
}  # fmt: skip


def test_u_net_of_diffusers_resamples_in_residual_blocks():
    weights = {}
    for at, width in (("down_blocks.0.downsamplers.0", 8), ("up_blocks.0.upsamplers.0", 12)):
        for name in ("norm1", "norm2"):
            weights |= {f"{at}.{name}.{kind}": np.ones(width) for kind in ("weight", "bias")}
        for name, shape in (("conv1", (width, width, 3, 3)), ("conv2", (width, width, 3, 3)), ("time_emb_proj", (width, 32))):
            weights |= {f"{at}.{name}.weight": np.ones(shape), f"{at}.{name}.bias": np.ones(width)}
    with pytest.raises(UserError, match="left over none") as refused:
        convert.diffusers.unet2d(weights, **RESNET_UNET2D)
    for place in ("input_blocks_2_0", "output_blocks_1_2"):
        assert f"{place}/" not in str(refused.value)
    with pytest.raises(UserError, match="all must resample by residual blocks"):
        convert.diffusers.unet2d({}, **{**RESNET_UNET2D, "upsample_type": "conv"})


def test_labels_of_diffusers_as_numbers_and_as_vectors():
    """A number goes the way of the time, through layers of its own; a vector is added to the embedding, as a bias would be."""
    sample, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.array([3.0, 7.0])
    common = dict(channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), groups=4, num_classes=1)
    for kind, label in (("time", jnp.full(2, 5.0)), ("vector", jnp.tile(jnp.arange(32.0), (2, 1)))):
        net = UNet(**common, label_as=kind)
        params = jax.jit(net.init)(jax.random.key(2), sample, t, label)["params"]
        params = jax.tree.map(lambda v: v + 0.03 * jnp.sin(jnp.arange(v.size, dtype=float)).reshape(v.shape), params)
        added = label[0]
        if kind == "time":
            first, second = (params[f"label_emb_{i}"] for i in (0, 2))
            inner = timestep_embedding(label[:1], 8)[0] @ first["kernel"] + first["bias"]
            added = (inner * jax.nn.sigmoid(inner)) @ second["kernel"] + second["bias"]
        plain = {name: part for name, part in params.items() if not name.startswith("label")}
        last = plain["time_embed_2"]
        plain["time_embed_2"] = {**last, "bias": last["bias"] + added}
        want = net.clone(num_classes=0).apply({"params": plain}, sample, t)
        np.testing.assert_allclose(net.apply({"params": params}, sample, t, label), want, atol=1e-5)


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


def test_other_converters_refuse_options_by_name():
    for call, option, message in (
        (convert.dit.dit, {"depths": 3}, r"depths: no option of DiT"),
        (convert.dit.diffusers, {"activation_fn": "geglu"}, "activation_fn=geglu: must be gelu-approximate or gelu here"),
        (convert.dit.diffusers, {"caption_channels": 4}, "caption_channels: no option of DiTTransformer2DModel"),
        (convert.latent_diffusion.patchgan, {"use_actnorm": True}, "use_actnorm=True: must be False here"),
        (convert.latent_diffusion.unet, {"legacy_order": True}, "legacy_order: no argument of the reference constructors"),
    ):
        config = dict(in_channels=3, model_channels=32, out_channels=3, num_res_blocks=1, attention_resolutions=())
        config = config if call is convert.latent_diffusion.unet else {}
        with pytest.raises(UserError, match=message):
            call({}, **config, **option)


def test_dit_without_dropped_labels_or_biases_of_attention():
    """None is then embedded as zeros, and the biases are zeros."""
    rng = np.random.default_rng(0)
    small = dict(in_channels=2, patch_size=2)
    for call, config, plain in (
        (convert.dit.dit, dict(hidden_size=8, depth=1, num_heads=2, input_size=4, num_classes=3), {"class_dropout_prob": 0.0}),
        (
            convert.dit.diffusers,
            dict(num_attention_heads=2, attention_head_dim=4, num_layers=1, sample_size=4, num_embeds_ada_norm=3),
            {"attention_bias": False},
        ),
    ):
        weights = official_of(call, {**small, **config}, rng)
        gone = [n for n in weights if re.search(r"\.to_[qkv]\.bias$", n)]
        kept = {n: v[:-1] if n == "y_embedder.embedding_table.weight" else v for n, v in weights.items() if n not in gone}
        _, found = call(kept, **small, **config, **plain)
        block = found["params"]["blocks_0"]["attn_qkv"]["bias"]
        table = found["params"]["embedder_0" if gone else "embedder"]["y_embedder"]["embedding"]
        np.testing.assert_array_equal(block == 0 if gone else table[3] == 0, True)
        assert (np.asarray(table if gone else block) != 0).all()


def test_dit_with_other_options_of_the_mlp():
    """The exact GELU, and an epsilon of the norm before it, as diffusers' port has them."""
    block = dit.Block(2, 4.0, mlp_epsilon=0.5, exact_gelu=True)
    x, condition = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(1, 4, 8), (1, 8)]))
    params = jax.jit(block.init)(jax.random.key(2), x, condition)["params"]
    bias = jnp.concatenate([jnp.zeros(40), jnp.ones(8)])  # shifts, scales and the first gate are 0, the second gate is 1
    params = {**params, "adaLN_modulation_1": {**params["adaLN_modulation_1"], "bias": bias}}
    deviation = x.std(-1, keepdims=True)
    y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(deviation**2 + 0.5) @ params["mlp_fc1"]["kernel"]
    want = x + 0.5 * y * (1 + jax.scipy.special.erf(y / 2**0.5)) @ params["mlp_fc2"]["kernel"]
    np.testing.assert_allclose(block.apply({"params": params}, x, condition), want, atol=1e-5)


def official_of(call, config, rng):
    """Random official weights of a small DiT, as its converter says what it misses."""
    weights = {}
    if call is convert.dit.dit:
        width, kinds = config["hidden_size"], {"attn.qkv": 3, "attn.proj": 1, "mlp.fc1": 4, "adaLN_modulation.1": 6}
        shapes = {f"blocks.0.{n}": (k * width, width) for n, k in kinds.items()} | {"blocks.0.mlp.fc2": (width, 4 * width)}
        shapes |= {"t_embedder.mlp.0": (width, 256), "t_embedder.mlp.2": (width, width), "x_embedder.proj": (width, 2, 2, 2)}
        shapes |= {"final_layer.linear": (16, width), "final_layer.adaLN_modulation.1": (2 * width, width)}
        weights["y_embedder.embedding_table.weight"] = rng.normal(size=(4, width))
    else:
        width, block = 8, "transformer_blocks.0"
        shapes = {f"{block}.attn1.to_{x}": (width, width) for x in ("q", "k", "v", "out.0")}
        shapes |= {f"{block}.ff.net.0.proj": (4 * width, width), f"{block}.ff.net.2": (width, 4 * width)}
        shapes |= {f"{block}.norm1.linear": (6 * width, width), "pos_embed.proj": (width, 2, 2, 2)}
        shapes |= {f"{block}.norm1.emb.timestep_embedder.linear_{i}": (width, n) for i, n in ((1, 256), (2, width))}
        shapes |= {"proj_out_1": (2 * width, width), "proj_out_2": (8, width)}
        weights[f"{block}.norm1.emb.class_embedder.embedding_table.weight"] = rng.normal(size=(4, width))
    for name, shape in shapes.items():
        weights |= {f"{name}.weight": rng.normal(size=shape), f"{name}.bias": rng.normal(size=shape[:1])}
    return weights


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
