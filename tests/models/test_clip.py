"""CLIP against its formulas in numpy, under the authors' names and Hugging Face's; its tokens; what is refused."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert.clip import clip, clip_hugging_face
from jgen.data.clip_tokens import tokenizer
from jgen.errors import UserError
from jgen.models.clip import MEAN, STD, prepared

ARGUMENTS = dict(embed_dim=6, image_resolution=8, vision_layers=1, vision_width=128, vision_patch_size=4, context_length=7,
                 vocab_size=11, transformer_width=8, transformer_heads=2, transformer_layers=2)  # fmt: skip


def official():
    """Random weights under the authors' names."""
    shapes = {"visual.conv1.weight": (128, 3, 4, 4), "visual.class_embedding": (128,), "visual.proj": (128, 6),
              "visual.positional_embedding": (5, 128), "token_embedding.weight": (11, 8), "positional_embedding": (7, 8),
              "text_projection": (8, 6), "logit_scale": ()}  # fmt: skip
    for stem, width, layers in (("visual.transformer", 128, 1), ("transformer", 8, 2)):
        for name in (f"{stem}.resblocks.{i}" for i in range(layers)):
            for part, out, inner in (("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4), ("attn.out_proj", 1, 1)):
                shapes |= {f"{name}.{part}.weight": (out * width, inner * width), f"{name}.{part}.bias": (out * width,)}
            shapes |= {f"{name}.attn.in_proj_weight": (3 * width, width), f"{name}.attn.in_proj_bias": (3 * width,)}
            shapes |= {f"{name}.{ln}.{kind}": (width,) for ln in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    norms = (("visual.ln_pre", 128), ("visual.ln_post", 128), ("ln_final", 8))
    shapes |= {f"{ln}.{kind}": (width,) for ln, width in norms for kind in ("weight", "bias")}
    random = np.random.default_rng(0)
    return {name: (random.normal(size=shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


def norm(w, x, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def block(w, x, name, heads, causal, exact=False):
    """One block on tokens [L, C]."""
    qkv = norm(w, x, f"{name}.ln_1") @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
    q, k, v = (part.reshape(len(x), heads, -1) for part in np.split(qkv, 3, -1))
    scores = np.einsum("qhc,khc->hqk", q, k) / np.sqrt(q.shape[-1])
    if causal:
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hqk,khc->qhc", weights / weights.sum(-1, keepdims=True), v).reshape(x.shape)
    x = x + mixed @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
    inner = norm(w, x, f"{name}.ln_2") @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"]
    inner = np.asarray(jax.nn.gelu(inner, approximate=False)) if exact else inner / (1 + np.exp(-1.702 * inner))
    return x + inner @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"]


def by_hand(w, image, tokens, text_exact=False):
    """(embedding of an image [H, W, 3], of tokens [L])."""
    patches = image.reshape(2, 4, 2, 4, 3).transpose(0, 2, 4, 1, 3).reshape(4, -1)
    x = np.concatenate([w["visual.class_embedding"][None], patches @ w["visual.conv1.weight"].reshape(128, -1).T])
    x = norm(w, x + w["visual.positional_embedding"], "visual.ln_pre")
    x = block(w, x, "visual.transformer.resblocks.0", 2, False)
    y = w["token_embedding.weight"][tokens] + w["positional_embedding"][: len(tokens)]
    for i in range(2):
        y = block(w, y, f"transformer.resblocks.{i}", 2, True, text_exact)
    text = norm(w, y, "ln_final")[np.argmax(tokens)] @ w["text_projection"]
    return norm(w, x, "visual.ln_post")[0] @ w["visual.proj"], text


IMAGE = np.random.default_rng(1).normal(size=(8, 8, 3)).astype(np.float32)
TOKENS = np.array([9, 3, 4, 10, 0, 0])


def hugging_face(weights):
    """The same weights under Hugging Face's names."""
    outer = {"token_embedding.weight": "text_model.embeddings.token_embedding.weight",
             "positional_embedding": "text_model.embeddings.position_embedding.weight",
             "visual.class_embedding": "vision_model.embeddings.class_embedding",
             "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
             "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
             "logit_scale": "logit_scale"}  # fmt: skip
    stems = {"visual.transformer.resblocks": "vision_model.encoder.layers",
             "transformer.resblocks": "text_model.encoder.layers",
             "visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm",
             "ln_final": "text_model.final_layer_norm", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "c_fc": "fc1",
             "c_proj": "fc2", "attn.": "self_attn."}  # fmt: skip
    found = {"text_model.embeddings.position_ids": np.arange(7)[None]}
    for name, array in weights.items():
        if name in ("visual.proj", "text_projection"):
            found[f"{'visual' if name[0] == 'v' else 'text'}_projection.weight"] = array.T
            continue
        new = outer.get(name, name)
        for old, word in stems.items() if name not in outer else ():
            new = new.replace(old, word)
        parts = np.split(array, 3) if "in_proj_" in name else [array]
        names = [new.replace("in_proj_", f"{p}_proj.") for p in "qkv"] if len(parts) > 1 else [new]
        found |= dict(zip(names, parts))
    return found


def test_towers_are_their_formulas_under_both_names():
    weights = official()
    net, variables = clip({**weights, "context_length": np.asarray(7)}, **ARGUMENTS)
    expected = by_hand(weights, IMAGE, TOKENS)
    *found, scale = jax.jit(net.apply)(variables, IMAGE[None], TOKENS[None])
    for ours, hand in zip(found, expected):
        np.testing.assert_allclose(ours[0], hand, atol=2e-5 * np.abs(hand).max())
    np.testing.assert_allclose(scale, np.exp(weights["logit_scale"]), rtol=1e-6)
    config = {"text_config": {"num_attention_heads": 2, "hidden_size": 8, "eos_token_id": 2, "hidden_act": "gelu"},
              "vision_config": {"num_attention_heads": 2, "image_size": 8}, "projection_dim": 6}  # fmt: skip
    other, same = clip_hugging_face(hugging_face(weights), **config)
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    exact = other.apply(same, TOKENS[None], method="text")
    np.testing.assert_allclose(exact[0], by_hand(weights, IMAGE, TOKENS, True)[1], rtol=1e-4, atol=1e-5)


def test_other_networks_are_refused_by_name():
    weights = official()
    for change, given, match in (
        ({}, {"vision_width": 64}, "vision_width=64: must be 128 here"),
        ({}, {"dropout": 0.1}, "dropout: no option of CLIP"),
        ({}, {"transformer_heads": 3}, "transformer_heads=3: must divide its width, 8"),
        ({"visual.proj": None}, {}, "CLIP's ResNets are not built"),
        ({"visual.conv1.weight": None}, {}, "weights have no visual.conv1.weight"),
        ({"ln_final.bias": None}, {}, "missing transformer/ln_final/bias"),
        ({"visual.attnpool.bias": np.zeros(3)}, {}, "left over visual.attnpool.bias"),
    ):
        altered = {name: array for name, array in {**weights, **change}.items() if array is not None}
        with pytest.raises(UserError, match=match):
            clip(altered, **given)
    for given, match in (
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act=relu: must be quick_gelu or gelu here"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps=1e-06: must be 1e-05 here"),
        ({"text_config": {"vocab_size": 12}}, "vocab_size=12: must be 11 here"),
        ({"pooling": "mean"}, "pooling: no option of CLIPModel"),
        ({"projection_dim": 7}, "projection_dim=7: must be 6 here"),
    ):
        with pytest.raises(UserError, match=match):
            clip_hugging_face(hugging_face(weights), **given)
    net, variables = clip(weights, **ARGUMENTS)
    with pytest.raises(UserError, match="images of 4x4: this CLIP takes 8x8"):
        jax.eval_shape(lambda: net.apply(variables, jnp.zeros((1, 4, 4, 3)), method="image"))
    with pytest.raises(UserError, match="text of 9 tokens: this CLIP reads 7"):
        jax.eval_shape(lambda: net.apply(variables, jnp.zeros((1, 9), jnp.int32), method="text"))


def test_a_picture_is_prepared_as_clip_takes_it():
    grey = prepared(jnp.zeros((2, 5, 5, 1)), 8)
    np.testing.assert_allclose(grey, np.broadcast_to((0.5 - np.asarray(MEAN)) / STD, (2, 8, 8, 3)), rtol=1e-5)


def test_tokens_are_joined_in_the_order_of_the_merges(tmp_path):
    """By hand: "low" is l + ow</w>, since "o w</w>" comes first; in "lower" w is not the last letter."""
    merges = ["#version", "o w</w>", "l o", "lo w", "e r</w>", ""]
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress("\n".join(merges).encode()))
    tokens, plain = tokenizer(path, 12), tmp_path / "merges.txt"
    letter = {c: i for i, c in enumerate(map(chr, range(ord("!"), ord("~") + 1)))}
    first = 512  # 256 letters, and 256 that end a word
    start, end = first + 4, first + 5
    assert tokens("low  LOWER 7's&amp;").tolist() == [
        start, letter["l"], first, first + 2, first + 3, 256 + letter["7"], letter["'"], 256 + letter["s"], 256 + letter["&"],
        end, 0, 0,
    ]  # fmt: skip
    assert tokens("é_²").tolist()[:6] == [start, tokens("é")[1], tokens("é")[2], 256 + letter["_"], *tokens("²")[1:3]]
    with pytest.raises(UserError, match="text of 22 tokens: CLIP reads 12, of 'a a"):
        tokens("a " * 20)
    for text, match in (("a b\nc", "must have a header, then two pieces a line"), ("", "must have a header")):
        plain.write_text(text)
        with pytest.raises(UserError, match=match):
            tokenizer(plain)
    damaged = bytearray(path.read_bytes())
    damaged[10] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(UserError, match="no text of merges"):
        tokenizer(path)
    with pytest.raises(UserError, match="no such file; CLIP's is bpe_simple_vocab"):
        tokenizer(tmp_path / "none.txt")
