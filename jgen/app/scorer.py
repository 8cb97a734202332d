"""How well pictures fit a text, by a run of experiments.image_text or by official weights of CLIP."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jgen import convert
from jgen.app.load import load
from jgen.app.words import known_text
from jgen.data.captions import encoded
from jgen.data.clip_tokens import tokenizer
from jgen.edit.text_guided import Score
from jgen.errors import UserError
from jgen.models.clip import prepared
from jgen.objectives.contrastive import similarities
from jgen.recipes.image_text import network
from jgen.types import Array


def open_scorer(name: str, text: str, vocabulary: str = "") -> Score:
    """The score of a text: a function of images of any size.

    name: a run's folder, or a file of CLIP's weights, which needs its vocabulary. Raises UserError for a run of another
    experiment, for other weights, and for a text that the scorer can't read.
    """
    path = Path(name)
    if not path.is_file():
        return _of_run(path, text)
    if not vocabulary:
        raise UserError("vocabulary: CLIP's weights need its table of merges, bpe_simple_vocab_16e6.txt.gz")
    weights = convert.load_weights(path)
    official = "visual.proj" in weights or not any(key.startswith("vision_model.") for key in weights)
    net, variables = convert.clip.clip(weights) if official else convert.clip.clip_hugging_face(weights, **_config(path))
    tokens = tokenizer(vocabulary, net.transformer.context)(text)
    if tokens.max() >= net.transformer.vocabulary:
        raise UserError(f"vocabulary={vocabulary}: has tokens to {tokens.max()}; {name} knows {net.transformer.vocabulary}")
    run: Any = net.apply
    embedding = run(variables, jnp.asarray(tokens)[None], method="text")
    return _score(lambda images: run(variables, prepared(images, net.visual.side), method="image"), embedding)


def _config(path: Path) -> dict[str, Any]:
    """The config.json beside weights in Hugging Face's names, which says what the weights do not: heads and activations."""
    beside = path.parent / "config.json"
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("text_config", "vision_config", "projection_dim") if name in found}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"scorer={path}: weights in Hugging Face's names need their config.json beside them") from error


def _of_run(folder: Path, text: str) -> Score:
    run = load(folder)
    if run.stage.name != "image_text":
        raise UserError(f"scorer={folder}: is a run of {run.stage.name}; must be of experiments.image_text, or CLIP's weights")
    data, apply = run.stage.data, network(run.config.network).apply
    text = known_text(text, data, run.stage.train.seed)
    variables: Any = {"params": run.params["net"]}
    embedding: Any = apply(variables, jnp.asarray(encoded(text, data, "text"))[None], method="text")

    def embed(images: Array) -> Array:
        if images.shape[-1] > data.shape[-1]:
            raise UserError(
                f"scorer={folder}: was trained on images of {data.shape[-1]} channel; these have {images.shape[-1]}"
            )
        colour = jnp.broadcast_to(images, (*images.shape[:3], data.shape[-1]))
        found: Any = apply(variables, jax.image.resize(colour, (len(images), *data.shape), "cubic"), method="image")
        return found

    return _score(embed, embedding)


def _score(embed: Callable[[Array], Array], embedding: Array) -> Score:
    return lambda images: similarities(embed(images), embedding)[:, 0]
