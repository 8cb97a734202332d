"""The curve of guidance: agreement, precision and recall of samples at several scales."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jgen import samplers
from jgen.config import DataConfig
from jgen.metrics.neighbours import manifold
from jgen.recipes.evaluation.observer import Observer, held_out, image_keys_like, to_host
from jgen.train.stage import Evaluate
from jgen.types import Array, Batch, Extra, Key, Params

Draw = Callable[[Params, Extra, Array, float, float], Array]
"""(params, extra, one key per image [B], guidance, classifier_scale) -> images in [-1, 1], each of a class drawn by its key."""


def guidance_curve(data: DataConfig, draw: Draw, scales: Sequence[float], classifier_scales: Sequence[float] = ()) -> Evaluate:
    """The evaluation by scale: how often the classifier that ships with jgen for the set agrees with the requested label,
    where there is one, and the precision (fidelity) and recall (diversity) of the samples against as many held-out images.

    scales: of classifier-free guidance, without the classifier. classifier_scales: of the classifier's gradient, at
    guidance 1; they are left out where the weights have no "classifier".
    """

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        observer, images = Observer(data.name), held_out(batches, count)
        real, found = observer.observe(images).features, {}
        requested = np.concatenate([_labels(keys, data.num_classes) for keys in image_keys_like(key, images)])
        runs = [(f"guidance={s:g}", s, 0.0) for s in scales]
        if "classifier" in params:
            runs += [(f"classifier_scale={s:g}", 1.0, s) for s in classifier_scales]
        for name, guidance, scale in runs:
            run = jax.jit(lambda params, extra, keys, g=guidance, s=scale: draw(params, extra, keys, g, s))
            fake = observer.observe_samples(lambda keys, run=run: run(params, extra, keys), key, images)
            result = manifold(real, fake.features, 3)
            if observer.knows_classes:
                found[f"agreement at {name}"] = np.mean(fake.logits.argmax(-1) == requested)
            found[f"precision at {name}"] = result.precision
            found[f"recall at {name}"] = result.recall
        return found

    return evaluate


def _labels(keys: Array, classes: int) -> np.ndarray:
    labels = samplers.class_labels(keys, -1, classes)
    assert labels is not None
    return to_host(labels)
