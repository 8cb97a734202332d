"""Samples of a run beside the training images that are nearest to them: does it draw new images, or copies?"""

from typing import Any

import jax
import numpy as np

from jgen.app.load import Run
from jgen.data import open_source
from jgen.data.source import good_example
from jgen.errors import UserError
from jgen.metrics import extract
from jgen.metrics.collect import collect
from jgen.metrics.neighbours import nearest_in
from jgen.metrics.reference import collect_reference, make_reference
from jgen.pictures import to_bytes
from jgen.sharding import rounded_up
from jgen.train.draw import draw

NEAREST = "nearest"
"""The picture's name."""
NEIGHBOURS = 7
"""Training images beside a sample."""
SHOWN, MOST, BATCH = 8, 64, 64
"""Samples where no number is given, and at most; images at a time."""


def nearest_images(run: Run, options: Any, num: int, seed: int) -> np.ndarray:
    """`num` samples, and beside each the training images nearest to it, nearest first: [num, 1 + k, H, W, C] in [-1, 1].

    Near is by the features that the set's scores are of. Training images are as many as the scores' reference. Raises UserError
    for more samples than a sheet shows, and in runs of several processes.
    """
    if not 1 <= num <= MOST:
        raise UserError(f"num={num}: this picture shows from 1 to {MOST} samples")
    if jax.process_count() > 1:
        raise UserError(f"picture={NEAREST}: is drawn by one process")
    stage, mesh = run.stage, run.mesh
    source, extractor = open_source(stage.data, stage.train.seed), extract.open_extractor("", stage.data.name)
    reference = make_reference(source, stage.data)
    real = collect_reference(reference, extractor, mesh, ("auth",), rounded_up(min(BATCH, reference.num), mesh))
    samples = draw(stage, run.params, run.extra, mesh, num=rounded_up(num, mesh), seed=seed, options=options)
    fake = collect([to_bytes(samples)], extractor, mesh, num, ("auth",), "samples")
    assert real.features is not None
    assert fake.features is not None
    places = nearest_in(np.asarray(real.features), fake.features, min(NEIGHBOURS, reference.num))[1]
    beside = np.stack([good_example(source, int(i))[0]["image"] for i in places.ravel()]).reshape(*places.shape, *source.shape)
    return np.concatenate([samples[:num, None], beside.astype(np.float32) / 127.5 - 1], 1)
