"""TensorFlow Datasets without TensorFlow: opening prepared sets, and preparing them as array_record files."""

import io
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import registered
from tensorflow_datasets.image_classification.mnist import FashionMNIST

from jgen.config.data import Resize
from jgen.data.folder import FolderSource
from jgen.data.idx import FASHION_MNIST, fashion_mnist_folder, idx_source
from jgen.data.images import eight_bits, fit
from jgen.data.source import BUILT_IN, Example, check_labels
from jgen.errors import UserError, nearest


def data_dir(root: str = "") -> Path:
    """Where TFDS keeps its sets: `root`, $TFDS_DATA_DIR, or its own default."""
    return Path(root or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


def known_sets() -> list[str]:
    """Every name that TFDS knows."""
    return tfds.list_builders(with_community_datasets=False)


def unknown_set(name: str) -> UserError:
    """The error for a name that no source has, with the nearest that exist."""
    if Path(name).is_dir():
        return UserError(f"data.name={name}: no such set; a folder of images is named folder:{name}")
    known = [*BUILT_IN, *known_sets()]
    return UserError(
        f"data.name={name}: no such set{nearest(name, known, cutoff=0.7)}; it may be {', '.join(BUILT_IN)}, idx:FOLDER, "
        "folder:FOLDER or a TFDS name (python -m jgen.data list)"
    )


def prepared_sets(root: str = "") -> list[str]:
    """Names with a prepared copy in the data_dir."""
    found = data_dir(root).glob("**/dataset_info.json")
    return sorted({str(p.relative_to(data_dir(root)).parts[0]) for p in found})


class TfdsSource:
    """A prepared TFDS set, read by index. Label and image are found by their usual feature names."""

    endless = False

    def __init__(self, name: str, split: str, root: str, channels: int, resolution: int, resize: Resize = "bicubic"):
        folder = data_dir(root)
        short = name.split("/")[0].split(":")[0]
        if not short.isidentifier():  # such as a path, which would lead out of the data_dir
            raise unknown_set(name)
        if not any((folder / short).glob("**/dataset_info.json")):
            if short not in known_sets():
                raise unknown_set(name)
            raise UserError(f"data.name={name}: not prepared in {folder}; run: {_how_to_prepare(name)}")
        builder: Any = tfds.builder(name, data_dir=folder)
        if split not in builder.info.splits:
            raise UserError(f"data.split={split}: {name} has {', '.join(builder.info.splits)}")
        file_format = str(builder.info.file_format)
        if "array_record" not in file_format.lower():
            raise UserError(f"data.name={name}: its files are {file_format}; run: {_how_to_prepare(name)} (array_record)")
        features = builder.info.features
        if "image" not in features:
            raise UserError(f"data.name={name}: has no feature named image, only {', '.join(features)}")
        self.name, self.resolution, self.folder = name, resolution, Path(builder.data_path)
        self.resize: Resize = resize
        self.data = builder.as_data_source(split=split)
        label = features["label"] if "label" in features else None
        self.classes = tuple(getattr(label, "names", ()))
        height, width, depth = features["image"].shape
        depth = 1 if depth in (1, 2) else 3  # transparent ones are laid on a ground
        size = (resolution, resolution) if resolution else (height, width)
        if None in size:
            raise UserError(f"data.name={name}: images of many sizes, choose one with --data.resolution")
        self.shape = (size[0], size[1], channels or depth)

    def __len__(self) -> int:
        return len(self.data)

    def paths(self) -> list[Path]:
        """The files, whose times and sizes tell whether the set has changed."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def __getitem__(self, index: int, /) -> Example:
        record = self.data[int(index)]
        image = np.asarray(record["image"])
        if image.shape != self.shape:
            image = _fit(image, self.shape, self.name, self.resize)
        example: dict[str, Any] = {"image": image}
        if self.classes:
            example["label"] = np.int32(record["label"])
            check_labels(np.atleast_1d(example["label"]), len(self.classes), self.name)
        return example


def tfds_source(name: str, split: str, root: str, channels: int, resolution: int, resize: Resize = "bicubic") -> TfdsSource:
    """The prepared TFDS set `name`; raises UserError saying what to run where it isn't prepared."""
    return TfdsSource(name, split, root, channels, resolution, resize)


def _how_to_prepare(name: str) -> str:
    hint = " (or apt-get install dataset-fashion-mnist)" if name == "fashion_mnist" else ""
    return f"python -m jgen.data prepare {name}{hint}"


def _fit(image: np.ndarray, shape: tuple[int, int, int], name: str, resize: Resize) -> np.ndarray:
    if image.dtype != np.uint8:
        raise UserError(f"data.name={name}: has images of {image.dtype}; must be uint8")
    plain = eight_bits(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), shape[2])
    return np.asarray(fit(plain, shape[:2], resize)).reshape(shape)


def png(image: np.ndarray) -> bytes:
    """A uint8 image [H, W, 1 or 3] as PNG bytes, which TFDS stores as they are (arrays would need TensorFlow)."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def prepare(name: str, root: str = "", resolution: int = 64, channels: int = 3, skip_bad: bool = False) -> Path:
    """Makes the TFDS copy of Fashion-MNIST's IDX files, of idx:FOLDER or folder:FOLDER, or downloads a TFDS set.

    Afterwards stock TFDS opens it: tfds.data_source(name, data_dir=...). Returns the set's folder. Raises UserError
    where there is nothing to prepare it from, and where another folder's images may have been prepared under its name.
    """
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest:
        source = FolderSource(Path(rest), resolution, channels, skip_bad)
        return _write_new(_builder(Path(rest).name, {"train": source}, root), name)
    if kind == "idx" and rest:
        sources = {split: idx_source(Path(rest), split, name) for split in ("train", "test")}
        return _write_new(_builder(Path(rest).name, sources, root), name)
    if name == "fashion_mnist" and (folder := fashion_mnist_folder(root)):
        sources = {split: idx_source(folder, split, name, FASHION_MNIST) for split in ("train", "test")}
        stock = _with_examples(FashionMNIST, sources)
        return _write(stock(data_dir=data_dir("" if folder == Path(root) else root), file_format="array_record"))
    if name.split("/")[0].split(":")[0] not in known_sets():
        raise unknown_set(name)
    builder = tfds.builder(name, data_dir=data_dir(root), file_format="array_record")
    _check_network(builder, name)
    builder.__class__ = _with_png(type(builder))
    return _write(builder)


def _check_network(builder: Any, name: str) -> None:
    """TFDS retries a download for minutes; a name that can't be looked up is an error at once."""
    for host in sorted({urlparse(url).hostname or "" for url in builder.url_infos} - {""}):
        try:
            socket.create_connection((host, 443), timeout=10).close()
        except OSError as error:
            raise UserError(
                f"{name}: its files can't be downloaded from {host} ({error.strerror or error}); prepare it where there "
                f"is a network and copy the folder to {builder.data_dir}"
            ) from error


def _write_new(builder: Any, name: str) -> Path:
    """Writes a set, which TFDS would leave as it is where there is one of this name: of other images, or of another size."""
    if (there := Path(builder.data_path)).exists():
        raise UserError(f"{name}: {there} was prepared before, maybe of other images; remove it first, or name another --root")
    return _write(builder)


def _write(builder: Any) -> Path:
    try:
        builder.download_and_prepare()
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{builder.name}: TFDS needs {error.name or error} to prepare this set; pip install it once") from error
    except Exception as error:  # TFDS raises many kinds for a failed download or a full disk
        raise UserError(f"{builder.name}: not prepared, {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return Path(builder.data_dir)


def _with_png(kind: Any) -> Any:
    """The builder class with its image arrays handed on as PNG bytes."""

    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        for key, example in kind._generate_examples(self, *args, **kwargs):
            yield key, {k: png(v) if k == "image" and isinstance(v, np.ndarray) else v for k, v in example.items()}

    return _subclass(kind, kind.__name__, {"_generate_examples": generate, "name": kind.name})


def _with_examples(kind: Any, sources: dict[str, Any]) -> Any:
    """The builder class generating from our sources instead of downloading."""

    def splits(self: Any, _: Any) -> Any:
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def generate(self: Any, source: Any) -> Any:
        skipped = 0
        for i in range(len(source)):
            try:
                example = source[i]
            except UserError:
                if not getattr(source, "skip_bad", False):
                    raise
                skipped += 1
                continue
            yield i, {k: png(v) if k == "image" else int(v) for k, v in example.items()}
        if skipped:
            print(f"skipped {skipped} files that can't be read")

    body = {"_split_generators": splits, "_generate_examples": generate, "name": kind.name}
    return _subclass(kind, kind.__name__, body)


def _subclass(kind: Any, name: str, body: dict[str, Any]) -> Any:
    """A subclass that TFDS does not take for a second set of the same name."""
    with registered.skip_registration():
        return type(name, (kind,), body)


def _builder(name: str, sources: dict[str, Any], root: str) -> Any:
    first = next(iter(sources.values()))
    words = "".join(c if c.isalnum() else "_" for c in name).strip("_").lower() or "images"

    def info(self: Any) -> Any:
        features: dict[str, Any] = {"image": tfds.features.Image(shape=first.shape)}
        if first.classes:
            features["label"] = tfds.features.ClassLabel(names=list(first.classes))
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    body = {
        "VERSION": tfds.core.Version("1.0.0"), "name": words, "_info": info,
        "_split_generators": None, "_generate_examples": None,
    }  # fmt: skip
    kind = _with_examples(_subclass(tfds.core.GeneratorBasedBuilder, words, body), sources)
    return kind(data_dir=data_dir(root), file_format="array_record")
