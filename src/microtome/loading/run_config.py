"""Model, weights, normalisation, classes and data set of a run, held by value so that any process can open them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from microtome import data as datasets
from microtome import zoo
from microtome.errors import InputError
from microtome.loading import factory
from microtome.loading.class_folders import labelled
from microtome.loading.subject import Subject
from microtome.network import Network

__all__ = ["RunConfig"]

_IN_MEMORY = 1 << 30  # bytes of pixels; a larger folder is decoded again at each pass


@dataclass(frozen=True)
class RunConfig:
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
        if isinstance(found, datasets.Folder) and len(found) * math.prod(net.input_shape) <= _IN_MEMORY:
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
