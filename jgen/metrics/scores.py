"""Scores of a set of images against a reference set: features once, then every metric."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jgen.config import DataConfig
from jgen.data.source import Source
from jgen.errors import UserError, nearest
from jgen.metrics import frechet
from jgen.metrics.class_score import inception_score, modes_found
from jgen.metrics.collect import OF_CLASSES, Collected, collect
from jgen.metrics.extract import Extractor
from jgen.metrics.image_sets import image_batches, read_images
from jgen.metrics.kernel import kid
from jgen.metrics.neighbours import authenticity, manifold
from jgen.metrics.record import Record
from jgen.metrics.reference import Reference, collect_reference, make_reference
from jgen.sharding import rounded_up

METRICS = {
    "fd": "Fréchet distance (FID, where the features are Inception's)",
    "kid": "kernel distance, 100 subsets of 1,000",
    "is": "Inception Score of the extractor's classes, 10 splits",
    "modes": "classes that the extractor finds, and the divergence of their shares from equal ones",
    "pr": "improved precision and recall, k = 3",
    "dc": "density and coverage, k = 5",
    "auth": "authenticity, the share of samples that are no near copies of reference images",
}
NEIGHBOURS = {"pr": 3, "dc": 5}
SPLITS = 10
USUAL = {
    "fid": "the FID of papers is fd with --extractor inception:FILE",
    "inception_score": "is, with --extractor inception:FILE",
    "precision": "pr", "recall": "pr", "density": "dc", "coverage": "dc",
    "authenticity": "auth", "authpct": "auth",
}  # fmt: skip
"""Names that metrics have elsewhere, and what they are here."""


def parse(metrics: str, known: Mapping[str, str] = METRICS) -> tuple[str, ...]:
    """ "fd,kid" -> ("fd", "kid"). Raises UserError for a name that is none of the known metrics."""
    names = tuple(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))
    for name in names:
        if name not in known:
            meant = f" ({USUAL[name.lower()]})" if name.lower() in USUAL else nearest(name.lower(), list(known))
            raise UserError(f"metrics={name}: must be among {', '.join(known)}{meant}")
    if not names:
        raise UserError(f"metrics={metrics!r}: name at least one of {', '.join(known)}")
    return names


def check_num(metrics: Sequence[str], num: int, what: str) -> None:
    """Raises UserError where there are fewer images than a metric needs."""
    need = {"fd": 2, "kid": 2, "is": SPLITS, "modes": 1, "pr": NEIGHBOURS["pr"] + 1, "dc": NEIGHBOURS["dc"] + 1, "auth": 2}
    for name in metrics:
        if num < need[name]:
            raise UserError(f"{what}: {num} images, {name} needs at least {need[name]}")


def scores(
    metrics: Sequence[str], fake: Collected, real: Collected, extractor: Extractor, seed: int = 0
) -> dict[str, tuple[float, dict[str, Any]]]:
    """Full name -> (value, the metric's own settings), for every requested metric; `seed` draws the subsets of kid."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for name in metrics:
        if name == "fd":
            found[extractor.short("fd")] = frechet.distance(fake.moments, real.moments), {"covariance": "n - 1"}
        elif name == "kid":
            options = {"subsets": 100, "size": 1000}
            mean, deviation = kid(_features(real), _features(fake), seed=seed, **options)
            settings = {**options, "kernel": "(x.y / d + 1)^3", "subset_seed": seed}
            found[extractor.short("kid")] = mean, settings
            found[extractor.short("kid_deviation")] = deviation, settings
        elif name == "is":
            assert fake.logits is not None
            mean, deviation = inception_score(fake.logits, SPLITS)
            found[extractor.short("is")] = mean, {"splits": SPLITS}
            found[extractor.short("is_deviation")] = deviation, {"splits": SPLITS}
        elif name == "modes":
            assert fake.logits is not None
            count, divergence = modes_found(fake.logits)
            found[extractor.short("modes")] = count, {}
            found[extractor.short("modes_kl")] = divergence, {"against": "equal shares"}
        elif name == "auth":
            found[extractor.short("authenticity")] = authenticity(_features(real), _features(fake)), {"k": 1}
        else:
            k = NEIGHBOURS[name]
            result = manifold(_features(real), _features(fake), k)
            for part in ("precision", "recall") if name == "pr" else ("density", "coverage"):
                found[extractor.short(part)] = getattr(result, part), {"k": k}
    return found


def _features(collected: Collected) -> np.ndarray:
    assert collected.features is not None
    return collected.features


def measure(
    batches: Iterable[Any],
    num: int,
    reference: Reference,
    extractor: Extractor,
    mesh: Mesh,
    metrics: Sequence[str],
    subject: Mapping[str, Any],
    batch: int,
    title: str = "samples",
) -> list[Record]:
    """The records of `num` images, given in batches as `collect` takes them, against a reference."""
    check_num(metrics, num, title)
    check_num([m for m in metrics if m not in OF_CLASSES], reference.num, f"reference {reference.name}")
    # The reference first: it fails early where the extractor does not fit, and is cached for the next time.
    real = collect_reference(reference, extractor, mesh, metrics, batch)
    fake = collect(batches, extractor, mesh, num, metrics, title)
    found = scores(metrics, fake, real, extractor)
    how = {"extractor": extractor.name, "extractor_sha256": extractor.sha256, "resize": extractor.resize}
    how |= {"num": num, **reference.facts()}
    return [Record(name, value, {**how, **settings}, subject) for name, (value, settings) in found.items()]


def of_images(
    path: Path,
    source: Source,
    data: DataConfig,
    extractor: Extractor,
    mesh: Mesh,
    metrics: Sequence[str],
    *,
    num: int = 0,
    reference_num: int = 0,
    batch: int = 64,
) -> list[Record]:
    """The records of a folder or .npz of images against a set. Raises UserError where their shapes or numbers differ."""
    images = read_images(path, data.ground).source
    if tuple(images.shape) != tuple(source.shape):
        shapes = ["x".join(map(str, s)) for s in (images.shape, source.shape)]
        raise UserError(f"{path}: its images are {shapes[0]}, those of {data.name} are {shapes[1]}")
    if batch < 1:
        raise UserError(f"batch={batch}: must be at least 1")
    num = num or len(images)
    if num > len(images):
        raise UserError(f"num={num}: {path} holds {len(images)} images")
    size = rounded_up(min(batch, num), mesh)
    reference = make_reference(source, data, reference_num)
    batches = image_batches(images, num, size)
    return measure(batches, num, reference, extractor, mesh, metrics, {"images": str(path)}, size, str(path))
