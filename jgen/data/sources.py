"""Sources by name: the sets that come with jgen, files of IDX, folders, and what TFDS has prepared."""

import dataclasses
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jgen.config import DataConfig
from jgen.data import idx
from jgen.data.captions import described
from jgen.data.emoji import emoji_source
from jgen.data.folder import FolderSource
from jgen.data.glyphs import Glyphs
from jgen.data.source import IN_MEMORY, ArraySource, Limited, Source, load
from jgen.data.stacked import stacked
from jgen.errors import UserError


def open_source(config: DataConfig, seed: int = 0) -> Source:
    """The source that `config.name` means; `seed` matters to generated sets only.

    Raises UserError for an unknown set (with the nearest names), one that isn't prepared, or files that can't be read.
    """
    if config.captions == "bytes":
        return _opened(config, seed)
    if config.workers:
        raise UserError(f"data.workers={config.workers}: captions become features in this process; use 0")
    return described(_opened(config, seed))


def _opened(config: DataConfig, seed: int) -> Source:
    source = _find(config, seed)
    _check_unchanged(config, source)
    if config.resize != "bicubic" and not hasattr(source, "resize"):
        raise UserError(f"data.resize={config.resize}: {config.name} is not resized")
    if config.channels and source.shape[2] != config.channels:
        raise UserError(f"data.channels={config.channels}: {config.name} has {source.shape[2]}")
    if config.resolution and source.shape[:2] != (config.resolution,) * 2:
        size = "x".join(map(str, source.shape[:2]))
        raise UserError(f"data.resolution={config.resolution}: {config.name} is {size} and is not resized")
    if config.limit < 0:
        raise UserError(f"data.limit={config.limit}: must be at least 0")
    if isinstance(source, ArraySource):
        return ArraySource(source[: config.limit], source.classes, config.name) if config.limit else source
    count = min(len(source), config.limit or len(source))
    if not count:
        raise UserError(f"{config.name}: holds no images")
    if not (source.endless and not config.limit) and count * int(np.prod(source.shape)) <= IN_MEMORY:
        return load(source, count, config.name, config.skip_bad)
    return Limited(source, count) if config.limit else source


def _check_unchanged(config: DataConfig, source: Source) -> None:
    """Raises UserError where a run's set has other shapes or classes than when it began: its labels would mean others."""
    if not config.shape:
        return
    if tuple(source.shape) != tuple(config.shape):
        raise UserError(f"data: {config.name} is {source.shape} now, the run began with {tuple(config.shape)}")
    if config.num_classes and len(source.classes) != config.num_classes:
        now, before = set(source.classes), set(config.classes)
        other = ", ".join(
            [*(f"{name} is new" for name in sorted(now - before)), *(f"{name} is gone" for name in sorted(before - now))]
        )
        raise UserError(
            f"data: {config.name} has {len(source.classes)} classes now, the run began with {config.num_classes}: "
            f"{other or 'they have no names'}; a run keeps its classes, so start another for these"
        )
    if config.classes and (new := [f"{a} for {b}" for a, b in zip(source.classes, config.classes) if a != b]):
        raise UserError(f"data: {config.name} has other classes than the run began with: {', '.join(new[:5])}")


def _find(config: DataConfig, seed: int) -> Source:
    kind, colon, rest = config.name.partition(":")
    if kind in ("folder", "idx") and colon:
        if not rest:
            raise UserError(f"data.name={config.name}: names no folder; write {kind}:FOLDER")
        if kind == "folder":
            size = config.resolution or 64, config.channels or 3
            return FolderSource(Path(rest), *size, config.skip_bad, config.ground, config.resize)
        return idx.idx_source(Path(rest), config.split, config.name)
    if config.name == "digits":
        return digits(config.split)
    if config.name == "stacked_digits":
        return stacked(digits(config.split), config.split)
    if config.name == "glyphs":
        return Glyphs(config.resolution or 64, config.channels or 3, seed, config.split)
    if kind == "emoji":
        return emoji_source(
            config.name, config.root, config.resolution, config.channels, config.split, config.ground, config.skip_bad
        )
    if config.name == "fashion_mnist" and (folder := idx.fashion_mnist_folder(config.root)):
        return idx.idx_source(folder, config.split, config.name, idx.FASHION_MNIST)
    from jgen.data import tfds_sets  # whose own imports take a second

    return tfds_sets.tfds_source(config.name, config.split, config.root, config.channels, config.resolution, config.resize)


def census(config: DataConfig) -> str:
    """How many files a set of files has, and a hash of their names and sizes, by which a run knows its set again.

    "" for a set that is not of files of one's own. Raises UserError where they are not there.
    """
    kind, _, rest = config.name.partition(":")
    if kind not in ("folder", "idx"):
        return ""
    source, folder = _find(config, 0), Path(rest)
    paths = source.paths() if isinstance(source, FolderSource) else sorted(path for path in folder.iterdir() if path.is_file())
    lines = (f"{path.relative_to(folder)} {path.stat().st_size}\n" for path in paths)
    digest = hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    return f"{len(paths):,} files of hash {digest[:8]}"


def check_split(config: DataConfig) -> None:
    """Raises UserError for a split of a folder, which has none."""
    if config.name.startswith("folder:") and config.split != "train":
        raise UserError(f"data.split={config.split}: a folder has no splits, all of its images are train; name another folder")


def digits(split: str) -> ArraySource:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, in 17 levels: the first 1,500 are train, the rest test."""
    if split not in ("train", "test"):
        raise UserError(f"data.split={split}: digits has train and test")
    chosen = slice(1500) if split == "train" else slice(1500, None)
    # The file that scikit-learn carries is read in place, since importing the package takes a second of every start.
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = spec.submodule_search_locations[0]
    table = np.loadtxt(Path(folder) / "datasets" / "data" / "digits.csv.gz", np.float32, delimiter=",")[chosen]
    images = np.round(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    classes = tuple(str(i) for i in range(10))
    return ArraySource({"image": images, "label": table[:, 64].astype(np.int32)}, classes, "digits")


def index_order(count: int, most: int = 50_000) -> list[int]:
    """Indices of a set in a mixed order, since that of a folder follows its classes; of the first `most` images."""
    return np.random.default_rng(0).permutation(min(count, most)).tolist()


def classes_of(config: DataConfig, conditional: bool, option: str = "conditional=True") -> int:
    """How many classes a model of a (resolved) set takes: 0 where it is unconditional.

    option: what asks for them, as it is typed. Raises UserError that names it for a set without labels.
    """
    if conditional and not config.num_classes:
        raise UserError(f"{option}: {config.name} has no labels")
    return config.num_classes if conditional else 0


def resolve(config: DataConfig) -> DataConfig:
    """The config with the set's shape and number of classes filled in; opens the set only where they are missing.

    Raises UserError for a set that can't be opened, and for a split that it does not have.
    """
    if config.shape:
        return config
    check_split(config)
    source = open_source(config)
    return dataclasses.replace(
        config, shape=tuple(source.shape), num_classes=len(source.classes), classes=tuple(source.classes)
    )
