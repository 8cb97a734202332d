"""Measures of classes, for sets that have a classifier of their own and for those that have none."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jgen.config import DataConfig
from jgen.data.sources import resolve
from jgen.metrics.extract import open_extractor
from jgen.recipes.evaluation import observer
from jgen.recipes.evaluation.agreement import agreement
from jgen.recipes.evaluation.entanglement import entanglement
from jgen.recipes.evaluation.guidance_curve import guidance_curve
from jgen.recipes.evaluation.modes import modes

pytestmark = pytest.mark.slow
DATA = resolve(DataConfig("digits", batch_size=16))


def images(keys):
    return jnp.tanh(2 * jax.vmap(lambda key: jax.random.normal(key, (8, 8, 1)))(keys))


EVALUATIONS = {
    "modes": modes(DATA, lambda params, extra, keys, options: images(keys), None),
    "agreement": agreement(DATA, "label", lambda params, extra, keys, labels: images(keys)),
    "styles": entanglement(DATA, 4, lambda params, z: z, lambda params, extra, w, keys: images(keys) * jnp.mean(w)),
    "curve": guidance_curve(DATA, lambda params, extra, keys, guidance, scale: images(keys), [1.0]),
}


def names(evaluate):
    batch = {"image": images(jax.random.split(jax.random.key(0), 16)), "label": jnp.arange(16) % 10}
    return set(evaluate({}, {}, jax.random.key(1), itertools.repeat(batch), 1))


def test_classes_are_counted_by_the_own_classifier_of_a_set_alone(monkeypatch):
    """EfficientNet-Lite0's classes are ImageNet's, and say nothing of another set's."""
    kept = {"precision", "recall", "precision at guidance=1", "recall at guidance=1"}
    kept |= {f"path length in {space}, {part}" for space in "ZW" for part in ("full", "end")}
    known = {name: names(evaluate) for name, evaluate in EVALUATIONS.items()}
    assert "classes found" in known["modes"]
    assert "agreement: class" in known["agreement"]
    assert "agreement at guidance=1" in known["curve"]
    assert "separability in W (1 is perfect)" in known["styles"]
    own = open_extractor("", "digits")
    monkeypatch.setattr(observer, "open_extractor", lambda *_: replace(own, name="efficientnet_lite0"))
    assert {name: names(evaluate) for name, evaluate in EVALUATIONS.items()} == {k: v & kept for k, v in known.items()}
