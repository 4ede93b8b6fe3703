"""Adapter for any map-style data set: finds its labels and detects changed items."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from microtome.data.adapters import class_labels
from microtome.data.adapters.class_numbers import ClassNumbers, classes_by_name, own_classes
from microtome.data.adapters.declared_labels import declared
from microtome.data.adapters.image_values import Pixels, as_image, checksum, in_range
from microtome.data.adapters.items import second_counts, split
from microtome.errors import DataWarning, InputError, MicrotomeError

__all__ = ["Adapter", "Dataset", "Expected", "Fetching", "Input", "adapt"]


class Dataset(Protocol):
    """Any map-style data set: a length, and items that are an image or hold an image and a label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Fetching(Protocol):
    """A data set that hands out many images at once."""

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (n, C, H, W) in [0, 1] and labels (n,) of these indices."""


class Input(Protocol):
    """The attributes of a network that data sets need."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    @property
    def pixels(self) -> Pixels:
        """Range of the images' values; None admits any."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the classes."""


@dataclass(frozen=True)
class Expected:
    """Input shape, range of pixels (None: any) and class names without a network."""

    input_shape: tuple[int, int, int]
    pixels: Pixels = None
    classes: Sequence[str] | None = None


def adapt(dataset: Any, net: Input | None = None) -> Adapter:
    """Read a data set through an :class:`Adapter`; an adapted data set is returned unchanged.

    Parameters
    ----------
    dataset
        :class:`~microtome.data.Images`, :class:`~microtome.data.Folder`, or any map-style data set, see
        :func:`~microtome.data.batches`.
    net
        The network for the images; it defines the range of pixels, input shape and class names.

    Raises
    ------
    InputError
        The object is not a map-style data set; the message says what to give instead.
    """
    if isinstance(dataset, Adapter):
        return dataset if net is None or dataset.is_for(net) else Adapter(dataset.dataset, net)
    _check_container(dataset)
    return Adapter(dataset, net)


class Adapter:
    """Reads the items of a data set; made by :func:`adapt`.

    Labels are noted as items are read, so that no image is decoded for its label alone; they are classes of the
    network, by name where both have names. The pixels of each item are
    noted by a checksum: an item that differs when it is read again, as under random augmentation, is an error.

    Attributes
    ----------
    dataset
        The user's data set.
    pixels : (float, float) or None
        Range of the images' values.
    """

    def __init__(self, dataset: Any, net: Input | None) -> None:
        self.dataset = dataset
        self.pixels: Pixels = (0.0, 1.0) if net is None else net.pixels
        self._input_shape = None if net is None else net.input_shape
        self._for = _wishes(net)
        self._own, self._classes = own_classes(dataset), None if net is None else net.classes
        self._numbers = ClassNumbers(self._own, self._classes, _decisions(net), by_name=classes_by_name(dataset))
        self._label: dict[int, int | str] = {}
        self._own_label: dict[int, int | str] = {}
        self._checksum: dict[int, int] = {}
        self._place: int | None = None  # of the label in an item, once it is known

    def is_for(self, net: Input) -> bool:
        """Whether the data set is already adapted to this network."""
        return self._for == _wishes(net)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | Tensor:
        images, labels = self.fetch(torch.tensor([index], device="cpu"))
        return images[0] if labels is None else (images[0], int(labels[0]))

    def fetch(self, indices: Tensor, *, labelled: bool = False) -> tuple[Tensor, Tensor | None]:
        """Some images (n, C, H, W) in the range of pixels, and their labels (n,), -1 for none.

        Both are on the processor, wherever the data set has them: tables over a data set are kept there, and the
        network moves each batch to its device.

        With ``labelled`` the labels are never None; a label that is no class index is an error.
        """
        if isinstance(self.dataset, Fetching):
            images, labels = self.dataset.fetch(indices)
            images = in_range(images.cpu(), self.pixels)
            labels, found = self._numbers.of_all(labels)
            if labelled and (error := class_labels.fault(zip(indices.tolist(), found, strict=False))) is not None:
                raise error
        else:
            images = self._stacked([self._read(index) for index in indices.tolist()])
            notes = [(index, self._label[index]) for index in indices.tolist()]
            labels = class_labels.resolved(label for _, label in notes)
            if labelled and (error := class_labels.fault(notes)) is not None:
                raise error
        if labelled and labels is None:
            labels = torch.full((len(indices),), class_labels.UNLABELLED, device="cpu")
        return images, labels

    @property
    def gray(self) -> float:
        """The middle of the pixel range, for positions outside a picture."""
        return 0.5 if self.pixels is None else (self.pixels[0] + self.pixels[1]) / 2

    @property
    def labels(self) -> Tensor | None:
        """Label of every item, -1 for none; None if the labels are missing or not class indices.

        Labels that the data set declares (``targets``) are taken without reading items if the items read so far,
        or one item, bear them out; else items that have not been read yet are read.
        """
        if isinstance(self.dataset, Fetching):
            known = getattr(self.dataset, "labels", None)
            return self._numbers.of_all(known)[0] if isinstance(known, Tensor) else None
        if len(self._label) < len(self):
            declared = self._declared()
            if declared is not None:
                return class_labels.resolved(declared)
            for index in range(len(self)):
                if index not in self._label:
                    self._read(index)
        return class_labels.resolved(self._label[index] for index in range(len(self)))

    def label_fault(self) -> InputError | None:
        """The error for the first known label that is no class index, which is why ``labels`` are None."""
        if isinstance(self.dataset, Fetching):
            known = getattr(self.dataset, "labels", None)
            return class_labels.fault(enumerate(self._numbers.of_all(known)[1])) if isinstance(known, Tensor) else None
        declared = self._declared()
        return class_labels.fault(sorted(self._label.items()) if declared is None else enumerate(declared))

    @property
    def labels_known(self) -> bool:
        """Whether ``labels`` are known without reading more than one item."""
        if isinstance(self.dataset, Fetching):
            return hasattr(self.dataset, "labels")
        return len(self._label) == len(self) or self._declared() is not None

    @property
    def stored_labels(self) -> Tensor | None:
        """Label of every item in the numbering of the data set, -1 for none; None if it does not store class indices.

        They are the same whichever items have been read, and no item is read for them.
        """
        if isinstance(self.dataset, Fetching):
            known = getattr(self.dataset, "labels", None)
            return known.cpu() if isinstance(known, Tensor) else None
        raw = declared(self.dataset)
        return None if raw is None else class_labels.resolved(self._own_class_of(label) for label in raw)

    @property
    def shown_classes(self) -> tuple[Tensor | None, list[str] | None]:
        """Labels (N,) and the names of their classes, for results that compare or name classes of images.

        They are the network's classes if every label is one of them, otherwise the data set's own.
        """
        labels = self.labels
        if labels is None and (known := self._own_labels()) is not None:
            return known, None if self._own is None else list(self._own)
        return labels, None if self._classes is None else list(self._classes)

    def _own_labels(self) -> Tensor | None:
        """Label of every item in the numbering of the data set, after ``labels`` have been read."""
        if isinstance(self.dataset, Fetching) or len(self._own_label) < len(self):
            return self.stored_labels
        return class_labels.resolved(self._own_label[index] for index in range(len(self)))

    def bears_out(self, labels: Tensor) -> bool:
        """Whether the items that were read so far have these labels (N,), -1 for none."""
        return all(label == int(labels[index]) for index, label in self._label.items())

    def _declared(self) -> list[int | str] | None:
        raw = declared(self.dataset)
        if raw is None or not len(raw):
            return None
        labels = [self._class_of(label) for label in raw]
        if not self._label:
            self._read(len(labels) - 1)
        # The label of an item prevails: a data set may change labels when it is read.
        return labels if all(labels[index] == label for index, label in self._label.items()) else None

    def _read(self, index: int) -> Tensor:
        """One image; its label and checksum are noted."""
        what = f"item {index} of the data set"
        item = self._item(index)
        if self._place is None:
            self._place = self._label_place(item, index)
        raw, label = split(item, what, self._place)
        image = as_image(raw, what, pixels=self.pixels, input_shape=self._input_shape)
        found = checksum(image)
        if self._checksum.setdefault(index, found) != found:
            raise InputError(
                f"{what} differs between two reads, so the shown image would not be the measured one. "
                "Take augmentation (random crops, flips, noise) out of the data set, as for evaluation."
            )
        self._label[index], self._own_label[index] = self._class_of(label), self._own_class_of(label)
        return image

    def _item(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except MicrotomeError:
            raise
        except Exception as error:  # the user's code: name the item
            raise InputError(f"item {index} of the data set cannot be read: {type(error).__name__}: {error}") from error

    def _label_place(self, item: Any, index: int) -> int:
        """Where a plain item has its label: behind the image, or behind its own index, as (image, index, label)."""
        others = {k for k in (0, len(self) // 2, len(self) - 1) if k != index}
        if not others or not second_counts(item, index) or not all(second_counts(self._item(k), k) for k in others):
            return 1
        warnings.warn(
            "the second part of the data set's items is their own index, so the third is taken as their label. Give "
            "pairs (image, label) if it is not.",
            DataWarning,
            stacklevel=2,
        )
        return 2

    def _class_of(self, label: Any) -> int | str:
        """The network's class of a label as the data set gives it, or why there is none."""
        found = self._own_class_of(label)
        if isinstance(found, str) and isinstance(label, str | bytes) and self._numbers.names is not None:
            return self._numbers.refused(found)
        return self._numbers.of(found)

    def _own_class_of(self, label: Any) -> int | str:
        """The data set's class of a label as it gives it, or why there is none."""
        return class_labels.class_index(label, self._numbers.names)

    def _stacked(self, images: list[Tensor]) -> Tensor:
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise InputError(
                f"the data set's images differ in shape: {', '.join(map(str, sorted(shapes)))}. Resize them in the "
                "data set; microtome.data.folder and microtome.data.hugging_face resize pictures by themselves."
            )
        return (
            torch.stack(images)
            if images
            else torch.empty(0, *(self._input_shape or ()), dtype=torch.float32, device="cpu")
        )


def _wishes(net: Input | None) -> tuple[Any, ...]:
    """The facts of a network that determine how a data set is read."""
    return () if net is None else (net.input_shape, net.pixels, net.classes, _decisions(net))


def _decisions(net: Input | None) -> int:
    """Number of classes of a network; 0 if unknown, or if it gives values."""
    return int(getattr(getattr(net, "head", None), "decisions", 0)) if getattr(net, "output_shape", ()) else 0


def _check_container(dataset: Any) -> None:
    """Raise an error for an object that is not a map-style data set; it says what to give instead."""
    kind = type(dataset).__name__
    if isinstance(dataset, str | Path):
        raise InputError(
            f'a data set is expected, got the path or name "{dataset}". Open it with '
            "microtome.data.folder(path, input_shape) or microtome.data.open_data(name, input_shape)."
        )
    if isinstance(dataset, Mapping):
        raise InputError(
            f"a data set of items is expected, got a {kind} with {', '.join(map(repr, list(dataset)[:4]))}. Choose one "
            "split and open it with microtome.data.hugging_face(table, input_shape), or give "
            "torch.utils.data.TensorDataset(images, labels)."
        )
    if hasattr(dataset, "batch_sampler") and hasattr(dataset, "dataset"):
        raise InputError(f"a data set of single images is expected, got a {kind} of batches; give its .dataset.")
    stream = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
    if stream or not hasattr(dataset, "__len__"):
        raise InputError(
            f"a map-style data set with a length is expected, got {kind}. Collect a stream into a list first; "
            "microtome.data.hugging_face opens one split of a Hugging Face data set."
        )
