"""Scores of a set of images against a reference set: features once, streamed over the devices, then every metric."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jgen.config import DataConfig
from jgen.data.fingerprint import fingerprint
from jgen.data.images import image_files, read_image, say_passed_over
from jgen.data.source import IN_MEMORY, ArraySource, Source, good_example
from jgen.errors import UserError, nearest
from jgen.files import cache_folder, replacing
from jgen.metrics import frechet
from jgen.metrics.class_score import inception_score, modes_found
from jgen.metrics.extract import DAMAGED, Extractor
from jgen.metrics.kernel import kid
from jgen.metrics.neighbours import manifold
from jgen.metrics.record import Record
from jgen.progress import tracked
from jgen.sharding import batch_sharding, replicated, rounded_up
from jgen.types import Array
from jgen.untrusted import read_npz

METRICS = {
    "fd": "Fréchet distance (FID, where the features are Inception's)",
    "kid": "kernel distance, 100 subsets of 1,000",
    "is": "Inception Score of the extractor's classes, 10 splits",
    "modes": "classes that the extractor finds, and the divergence of their shares from equal ones",
    "pr": "improved precision and recall, k = 3",
    "dc": "density and coverage, k = 5",
}
NEIGHBOURS = {"pr": 3, "dc": 5}
OF_CLASSES = {"is", "modes"}
"""Metrics of the samples' classes alone."""
SPLITS = 10
ENDLESS = 10_000
"""Reference images of a set without end, where no number is given."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """Statistics of a set: moments always; features and logits where a metric needs them."""

    moments: frechet.Moments
    features: np.ndarray | None
    logits: np.ndarray | None

    @property
    def num(self) -> int:
        return int(self.moments.count)


USUAL = {
    "fid": "the FID of papers is fd with --extractor inception:FILE",
    "inception_score": "is, with --extractor inception:FILE",
    "precision": "pr", "recall": "pr", "density": "dc", "coverage": "dc",
}  # fmt: skip
"""Names that metrics have elsewhere, and what they are here."""


def parse(metrics: str, known: Mapping[str, str] = METRICS) -> tuple[str, ...]:
    """ "fd,kid" -> ("fd", "kid"). Raises UserError for a name that is none of the known metrics."""
    names = tuple(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))
    for name in names:
        if name not in known:
            meant = f" ({USUAL[name.lower()]})" if name.lower() in USUAL else nearest(name, list(known))
            raise UserError(f"metrics={name}: must be among {', '.join(known)}{meant}")
    if not names:
        raise UserError(f"metrics={metrics!r}: name at least one of {', '.join(known)}")
    return names


def check_num(metrics: Sequence[str], num: int, what: str) -> None:
    """Raises UserError where there are fewer images than a metric needs."""
    need = {"fd": 2, "kid": 2, "is": SPLITS, "modes": 1, "pr": NEIGHBOURS["pr"] + 1, "dc": NEIGHBOURS["dc"] + 1}
    for name in metrics:
        if num < need[name]:
            raise UserError(f"{what}: {num} images, {name} needs at least {need[name]}")


def collect(
    batches: Iterable[Array | np.ndarray],
    extractor: Extractor,
    mesh: Mesh,
    num: int,
    metrics: Sequence[str],
    title: str = "features",
) -> Collected:
    """Runs `num` images through the extractor, batch by batch: uint8, or float in [-1, 1] which is rounded to levels.

    Every batch must have the same number of rows, divisible by the devices; rows beyond `num` are left out. Features
    are fetched a batch behind the devices, and only where a metric needs more than moments. Raises UserError where
    features are not finite.
    """
    keep = set(metrics) & {"kid", "pr", "dc"}
    logits_too = bool(set(metrics) & OF_CLASSES)
    run, moments, rows = _runner(extractor, mesh, bool(keep), logits_too), None, []
    pending: Array | None = None
    seen = width = 0

    for images in tracked(batches, num, title):
        count = min(num - seen, len(images))
        weights = np.arange(len(images)) < count
        if moments is None:
            shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
            dim, classes = jax.eval_shape(extractor.apply, extractor.variables, shape)
            if logits_too and classes is None:
                raise UserError(f"metrics={next(m for m in metrics if m in OF_CLASSES)}: {extractor.name} has no classes")
            width = dim.shape[1] if keep else 0
            moments = jax.device_put(frechet.no_moments(dim.shape[1]), replicated(mesh))
        moments, kept = run(extractor.variables, moments, _spread(images, mesh), weights)
        if jax.default_backend() == "cpu":
            # Or the next batch's sampler starts beside it: with two cores, the collectives of two programs can hold both
            # threads and wait forever, each for the other device.
            jax.block_until_ready(moments)
        if pending is not None:
            rows.append(np.asarray(pending))
        pending, seen = kept, seen + count
    if moments is None or seen < num:
        raise UserError(f"{title}: {seen} images, {num} were asked for")
    if pending is not None:
        rows.append(np.asarray(pending))
    if not (np.isfinite(moments.mean).all() and np.isfinite(moments.scatter).all()):
        raise UserError(f"{title}: features of {extractor.name} hold NaN or infinity; are the images finite?")
    joined = np.concatenate(rows)[:num] if rows else None
    features = joined[:, :width] if joined is not None and keep else None
    return Collected(moments, features, joined[:, width:] if joined is not None and logits_too else None)


def _runner(extractor: Extractor, mesh: Mesh, features_too: bool, logits_too: bool) -> Callable[..., Any]:
    """(variables, moments, images, weights) -> (moments, what is kept of every image [B, K], or None)."""

    def run(variables: Any, moments: frechet.Moments, images: Array, weights: Array) -> Any:
        x = lax.with_sharding_constraint(images, batch_sharding(mesh)).astype(jnp.float32)
        if jnp.issubdtype(images.dtype, jnp.floating):
            # NaN stays NaN through clip and round, and is found in the features.
            x = jnp.clip(jnp.round((x + 1) * 127.5), 0, 255)
        with jax.default_matmul_precision("highest"):  # or a score would depend on the accelerator
            features, logits = extractor.apply(variables, x)
        found = features if logits is None or not logits_too else jnp.concatenate([features, logits], 1)
        # The one collective of the program; all that follows is done on every device alike.
        found = lax.with_sharding_constraint(found, replicated(mesh))
        moments = frechet.add(moments, found[:, : features.shape[1]], weights)
        kept = found if features_too else found[:, features.shape[1] :]
        return moments, kept if kept.shape[1] else None

    return jax.jit(run, donate_argnums=1, out_shardings=replicated(mesh))


def _spread(images: Array | np.ndarray, mesh: Mesh) -> Array:
    if isinstance(images, jax.Array):
        return images
    return jax.make_array_from_callback(images.shape, batch_sharding(mesh), lambda rows: images[rows])


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
        else:
            k = NEIGHBOURS[name]
            result = manifold(_features(real), _features(fake), k)
            for part in ("precision", "recall") if name == "pr" else ("density", "coverage"):
                found[extractor.short(part)] = getattr(result, part), {"k": k}
    return found


def _features(collected: Collected) -> np.ndarray:
    assert collected.features is not None
    return collected.features


@dataclasses.dataclass(frozen=True)
class Reference:
    """The images that others are compared with."""

    name: str
    split: str
    num: int
    sha256: str
    """Hash of the pixels; of an endless set, of 256 examples."""
    source: Source

    def facts(self) -> dict[str, Any]:
        """The facts that a record states about it."""
        return {f"reference{suffix}": value for suffix, value in
                (("", self.name), ("_split", self.split), ("_num", self.num), ("_sha256", self.sha256))}  # fmt: skip

    def batches(self, size: int) -> Iterator[np.ndarray]:
        return image_batches(self.source, self.num, size)


def make_reference(source: Source, data: DataConfig, num: int = 0) -> Reference:
    """The first `num` images of a source; all of them where num is 0. Raises UserError where there are fewer."""
    if num > len(source):
        raise UserError(f"reference_num={num}: the {data.split} split of {data.name} has {len(source)} images")
    num = num or (ENDLESS if source.endless else len(source))
    return Reference(data.name, data.split, num, fingerprint(source, num), source)


def collect_reference(reference: Reference, extractor: Extractor, mesh: Mesh, metrics: Sequence[str], batch: int) -> Collected:
    """Statistics of the reference, from the cache where it is there: moments, and features where a metric asks.

    The cache's file names hold the hashes of images and extractor, so that it can't be stale.
    """
    keep = bool(set(metrics) & {"kid", "pr", "dc"})
    key = hashlib.sha256(f"1 {reference.sha256} {reference.num} {extractor.sha256} {extractor.resize}".encode()).hexdigest()
    folder = cache_folder("references")
    paths = (folder / f"{key}.moments.npz", folder / f"{key}.features.npy") if folder else None
    # Several processes must all compute, or all not: their folders may differ.
    if paths and jax.process_count() == 1 and paths[0].is_file() and (not keep or paths[1].is_file()):
        try:
            with np.load(paths[0]) as file:
                moments = frechet.Moments(*(file[name] for name in frechet.Moments._fields))  # pyright: ignore
            return Collected(moments, np.load(paths[1], mmap_mode="r") if keep else None, None)
        except DAMAGED:
            pass  # a file cut short: made again below
    wanted = [m for m in metrics if m not in OF_CLASSES]
    found = collect(reference.batches(batch), extractor, mesh, reference.num, wanted, f"{reference.name} {reference.split}")
    if paths and jax.process_index() == 0:
        arrays: Any = {k: np.asarray(v) for k, v in found.moments._asdict().items()}
        _write(paths[0], lambda file: np.savez(file, **arrays))
        if found.features is not None:
            features = found.features
            _write(paths[1], lambda file: np.save(file, features))
    return found


def _write(path: Path, save: Callable[[Any], None]) -> None:
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            save(file)
    except OSError as error:
        print(f"{path}: the reference's statistics could not be kept ({error.strerror}); the score is not affected")


def image_batches(source: Source, num: int, size: int) -> Iterator[np.ndarray]:
    """The first `num` images of a source in order, uint8 [size, H, W, C]; the last batch is filled up with its last image.

    A bad file of a source that skips them counts as the next good one.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, num, size):
            rows = np.minimum(np.arange(start, start + size), num - 1)
            if isinstance(source, ArraySource):
                images = source.arrays["image"][rows]
            else:
                images = np.stack(list(pool.map(lambda i: good_example(source, int(i))[0]["image"], rows)))
            yield images


class Images(NamedTuple):
    """Images as they are, and their names: paths below the folder without suffixes, or the places in an .npz."""

    source: ArraySource
    names: tuple[str, ...]


def read_images(path: Path, ground: str = "white", option: str = "against") -> Images:
    """The images of a folder of PNG, JPEG or WebP files, or of an .npz with uint8 "images" [N, H, W, C].

    option: what names the path on the command line. Read as training reads them, but not resized. Raises UserError for
    images of different sizes or channels (naming the first two that differ), or none.
    """
    if path.suffix == ".npz" and path.is_file():
        try:
            images = read_npz(path, lambda name: name == "images")["images"]
        except DAMAGED as error:
            raise UserError(f"{option}={path}: not an .npz with uint8 images under the name images ({error})") from error
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"{option}={path}: images are {images.dtype} {images.shape}; must be uint8 [N, H, W, C]")
        return Images(ArraySource({"image": images}, name=str(path)), tuple(str(i) for i in range(len(images))))
    if not path.is_dir():
        raise UserError(f"{option}={path}: no such folder or .npz file")
    files, others = image_files(path)
    if others:
        say_passed_over(path, tuple(others.most_common()))
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda name: read_image(path / name, ground=ground), files))
    for file, image in zip(files, images):
        if image.shape != images[0].shape:
            sizes = ["x".join(map(str, x.shape)) for x in (images[0], image)]
            raise UserError(f"{option}={path}: {files[0]} is {sizes[0]}, {file} is {sizes[1]}; must be all alike")
    if len(images) * images[0].size > 16 * IN_MEMORY:
        raise UserError(f"{option}={path}: {len(images)} images do not fit in memory; score fewer")
    return Images(ArraySource({"image": np.stack(images)}, name=str(path)), tuple(os.path.splitext(file)[0] for file in files))


class Pairs(NamedTuple):
    """Images of two sets that have one name."""

    a: ArraySource
    b: ArraySource
    left_out: tuple[str, ...]
    """Names that only one of them has."""


def pair(a: Images, b: Images) -> Pairs:
    """Pairs by name. Raises UserError where none has one, names that occur twice, and for images of different sizes."""
    places = [{name: i for i, name in enumerate(each.names)} for each in (a, b)]
    for each, place in zip((a, b), places):
        if len(place) < len(each.names):
            name = next(n for i, n in enumerate(each.names) if place[n] != i)
            raise UserError(f"{each.source.name}: has two images of the name {name}, so that its pairs are not known")
    common = [name for name in a.names if name in places[1]]
    if not common:
        raise UserError(f"{a.source.name} and {b.source.name}: no image of one has the name of one in the other")
    if a.source.shape != b.source.shape:
        raise UserError(f"{a.source.name} holds images {a.source.shape}, {b.source.name} {b.source.shape}; they must be alike")
    found = [ArraySource(each.source[[place[n] for n in common]], name=each.source.name) for each, place in zip((a, b), places)]
    return Pairs(found[0], found[1], tuple(sorted(set(a.names) ^ set(b.names))))


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
