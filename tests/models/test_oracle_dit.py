"""DiT against the original and against diffusers' port: outputs and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.errors import UserError
from jgen.models import dit
from jgen.models.dit import position_code
from jgen.nn.embed import timestep_embedding
from jgen.samplers import guidance
from tests.models.whole import check_network, float_inputs, outputs, without
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


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


@pytest.mark.parametrize(
    "call, option, message",
    [
        (convert.dit.dit, {"depths": 3}, r"depths: no option of DiT"),
        (convert.dit.diffusers, {"activation_fn": "geglu"}, "activation_fn=geglu: must be gelu-approximate or gelu here"),
        (convert.dit.diffusers, {"caption_channels": 4}, "caption_channels: no option of DiTTransformer2DModel"),
    ],
)
def test_dit_refuses_options_by_name(call, option, message):
    with pytest.raises(UserError, match=message):
        call({}, **option)


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
