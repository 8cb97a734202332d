"""diffusers' U-Net against its own: outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.errors import UserError
from jgen.models.unet import UNet
from jgen.nn.embed import timestep_embedding
from tests.models.whole import check_network, float_inputs
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


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
