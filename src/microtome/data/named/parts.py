"""Data sets in parts (train, validation, test), cached as bytes in one safetensors file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.data.images import Images
from microtome.data.named import cache, idx
from microtome.errors import InputError, StoreError

__all__ = ["PARTS", "cached", "from_idx"]

PARTS = ("train", "validation", "test")
_VALIDATION = 10_000  # the end of the 60,000 training images, as the 50,000 / 10,000 / 10,000 parts of MNIST have it
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def cached(
    key: str, part: str, fetch: Callable[[], Mapping[str, Tensor]], classes: Sequence[str], source: str
) -> Images:
    """A part of a data set from the cache; the data set is fetched first if it is not there."""
    wanted = _split(part)
    path = cache.folder() / f"{key}.safetensors"
    if not path.exists():
        tensors = dict(fetch())
        try:
            with cache.writing(path) as beside:
                save_file(tensors, beside)
        except StoreError:  # without a cache the next run downloads again
            return _joined(tensors, wanted, classes, source)
    try:
        with safe_open(path, framework="pt") as file:
            names = [f"{name}.{kind}" for name in wanted for kind in ("pixels", "labels")]
            return _joined({name: file.get_tensor(name) for name in names}, wanted, classes, source)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the cached data set {path} cannot be read ({error}); delete it and run again.") from error


def from_idx(folder: Path, part: str, classes: Sequence[str], source: str) -> Images:
    """Parts of a data set from its four idx files."""
    wanted = _split(part)
    tensors: dict[str, Tensor] = {}
    for published in {"test" if name == "test" else "train" for name in wanted}:
        pixels, labels = (torch.from_numpy(idx.read(_find(folder, name)).copy()) for name in _FILES[published])
        if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
            raise InputError(
                f"the idx files in {folder} do not fit: images {tuple(pixels.shape)}, labels {tuple(labels.shape)}."
            )
        cut = len(pixels) - min(_VALIDATION, len(pixels) // 6) if published == "train" else len(pixels)
        tensors |= {f"{published}.pixels": pixels[:cut, None], f"{published}.labels": labels[:cut]}
        if published == "train":
            tensors |= {"validation.pixels": pixels[cut:, None], "validation.labels": labels[cut:]}
    return _joined(tensors, wanted, classes, source)


def _find(folder: Path, name: str) -> Path:
    """An idx file under its usual spellings: gzipped or not, a dot for the last dash."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (path := folder / f"{spelling}{suffix}").is_file():
                return path
    raise InputError(f"the folder {folder} has no file {name} (or {name}.gz).")


def _split(part: str) -> list[str]:
    names = part.split("+")
    if unknown := [name for name in names if name not in PARTS]:
        raise InputError(f'there is no part "{unknown[0]}"; choose from {", ".join(PARTS)}, joined by + if several.')
    return names


def _joined(tensors: Mapping[str, Tensor], names: Sequence[str], classes: Sequence[str], source: str) -> Images:
    pixels = [tensors[f"{name}.pixels"] for name in names]
    labels = [tensors[f"{name}.labels"] for name in names]
    return Images(
        torch.cat(pixels) if len(pixels) > 1 else pixels[0],
        torch.cat(labels) if len(labels) > 1 else labels[0],
        tuple(classes),
        source=f"{source} {'+'.join(names)}",
    )
