"""What does a run look at? A recipe names model, weights and images by value, so that any worker can open them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome import data as datasets
from microtome import zoo
from microtome.atlas import factory
from microtome.atlas.store import digest
from microtome.errors import InputError
from microtome.network import Network

__all__ = ["Recipe", "Subject", "labelled"]

_IN_MEMORY = 1 << 30  # bytes of pixels; a larger folder is decoded again at each pass


@dataclass(frozen=True)
class Recipe:
    """Model, weights, normalisation, classes and data set by name.

    Attributes
    ----------
    model : str
        ``package.module:factory`` or ``zoo:name``.
    input_shape : (int, int, int) or None
        Channels, height, width; None for what the zoo's network takes.
    weights : str or None
        A safetensors file or one that ``torch.save`` wrote.
    mean, std : tuple of float or None
        Normalisation; None for the zoo's, or none at all.
    classes : tuple of str or None
        The classes' names.
    data : str or None
        A data set by name or a folder, see :func:`microtome.data.open_data`.
    device : str or None
        Where to run.
    """

    model: str
    input_shape: tuple[int, int, int] | None = None
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    data: str | None = None
    device: str | None = None

    @property
    def random_weights(self) -> bool:
        """Whether it names a network of the zoo for which no trained weights are at hand."""
        if not self.model.startswith("zoo:") or self.weights is not None:
            return False
        entry = zoo.architecture(self.model.removeprefix("zoo:"))
        return not entry.trained_for(self.input_shape or entry.input_shape, self.classes) or entry.pretrained is None

    def network(self) -> Network:
        """Build the model, load its weights, and watch it run once.

        Raises
        ------
        InputError, ModelError
            As the message says.
        """
        if self.model.startswith("zoo:"):
            name = self.model.removeprefix("zoo:")
            net = zoo.network(name, input_shape=self.input_shape, classes=self.classes, weights=self.weights)
            return Network(
                net.model, net.input_shape, self.mean or net.mean, self.std or net.std, net.classes, self.device
            )
        model = factory.build(self.model)
        if self.input_shape is None:
            raise InputError("the input shape is not known; give --input-shape channels,height,width.")
        if self.weights is not None:
            zoo.load_weights(model, self.weights)
        return Network(model, self.input_shape, self.mean or 0.0, self.std or 1.0, self.classes, self.device)

    def open(self) -> Subject:
        """Network and images.

        Raises
        ------
        InputError
            Also when no data set is named.
        """
        if self.data is None:
            raise InputError("there are no images to look at; give --data with a folder or a data set's name.")
        net = self.network()
        found = labelled(datasets.open_data(self.data, net.input_shape, classes=net.classes), net)
        if isinstance(found, datasets.Folder) and len(found) * _size(net.input_shape) <= _IN_MEMORY:
            found = found.load()
        classes = net.classes or (list(found.classes) if found.classes is not None else None)
        if (
            net.classes is None
            and classes is not None
            and len(net.output_shape) == 1 == len({*net.output_shape, len(classes)})
        ):
            net.classes = classes
        return Subject(net, found)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Subject:
    """An opened recipe: the network and the images of a run.

    Attributes
    ----------
    net : Network
        What is looked into.
    images : Images, Folder or any map-style data set
        The pictures, fitted to the network.
    """

    net: Network
    images: Any

    @functools.cached_property
    def labels(self) -> Tensor | None:
        """Class index of each image, where they are known."""
        return datasets.labels(self.images)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of the images' pixels, labels and names."""
        found = hashlib.sha256()
        if isinstance(self.images, datasets.Images):
            found.update(self.images.pixels.contiguous().numpy().tobytes())
        elif isinstance(self.images, datasets.Folder):
            for file in self.images.files:
                found.update(hashlib.sha256(Path(file).read_bytes()).digest())
        else:
            for _, images, _ in datasets.batches(self.images):
                found.update(images.contiguous().numpy().tobytes())
        labels = None if self.labels is None else self.labels.tolist()
        found.update(digest([len(self.images), labels, [self.name(i) for i in range(len(self.images))]]).encode())
        return found.hexdigest()[:16]

    def name(self, index: int) -> str:
        """An image's name."""
        return str(self.images.name(index)) if hasattr(self.images, "name") else f"{index:05d}"

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Some images (n, C, H, W) in [0, 1]."""
        from microtome.data.batches import fetch

        return fetch(self.images, torch.as_tensor(list(indices), dtype=torch.int64))[0]

    def commonest(self, count: int) -> Any:
        """The labelled images of the classes that have most of them, as a data set."""
        labels = torch.empty(0) if self.labels is None else self.labels
        known = labels[labels >= 0]
        often = (-torch.bincount(known)).argsort(stable=True)[:count] if len(known) else known
        return self.subset(torch.isin(labels, often).nonzero()[:, 0].tolist())

    def subset(self, indices: Sequence[int]) -> Any:
        """Some images as a data set."""
        if hasattr(self.images, "subset"):
            return self.images.subset(list(indices))
        return [self.images[index] for index in indices]


def labelled(found: Any, net: Network) -> Any:
    """A data set as it is, and of a folder see that its class folders are the network's classes.

    They are when the network knows their names, when there are as many of them, or when they are named by number.

    Raises
    ------
    InputError
        It cannot be known which folder is which class.
    """
    if not isinstance(found, datasets.Folder) or found.classes is None or net.classes is not None:
        return found
    outputs = net.output_shape[0] if len(net.output_shape) == 1 else len(found.classes)
    if len(found.classes) == outputs:
        return found
    if all(name.isdecimal() and int(name) < outputs for name in found.classes):
        return datasets.folder(found.root, net.input_shape, classes=[str(index) for index in range(outputs)])
    raise InputError(
        f"{found.root} has {len(found.classes)} class folders ({', '.join(found.classes[:4])}, ...), the network "
        f"{outputs} classes: which is which cannot be known. Give the names of all classes with --classes, in "
        "the order of the network's outputs, or name each folder by its class's number."
    )


def _size(shape: Sequence[int]) -> int:
    channels, height, width = shape
    return channels * height * width
