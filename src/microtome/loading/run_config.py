"""Model, weights, normalisation, classes and data set of a run, held by value so that any process can open them."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

from microtome import data as datasets
from microtome import inputs, zoo
from microtome.errors import ClassNameError, DataWarning, InputError
from microtome.loading import hubs, own_model
from microtome.loading.class_folders import labelled as by_class_folders
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
        ``path/to/file.py:factory``, ``package.module:factory``, ``zoo:name``, ``timm:name``, ``torchvision:name`` or
        ``hf:name``.
    input_shape : (int, int, int) or None
        Channels, height, width; None for those of the named network.
    weights : str or None
        A weight file, see :func:`microtome.zoo.load_weights`; ``"random"`` for random weights.
    mean, std : tuple of float or None
        Normalisation; None for that of the named network, or for none.
    classes : tuple of str or None
        The classes' names.
    data : str or None
        A data set by name or a folder, see :func:`microtome.data.open_data`.
    device : str or None
        Where to run.
    state : str or None
        Which state dict of the weight file, if it holds several.
    head : str or None
        Which of several outputs holds the scores, see :class:`microtome.Network`.
    output : str or None
        What the scores are, see :class:`microtome.Network`.
    run : str or None
        The folder of the training that the network comes from.
    """

    model: str
    input_shape: tuple[int, int, int] | None = None
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    data: str | None = None
    device: str | None = None
    state: str | None = None
    head: str | None = None
    output: str | None = None
    run: str | None = None

    @property
    def random_weights(self) -> bool:
        """Whether the weights are random: on request, or because the zoo has no trained ones."""
        if not self.model.startswith("zoo:") or self.weights is not None:
            return self.weights == hubs.RANDOM
        entry = zoo.architecture(self.model.removeprefix("zoo:"))
        return not entry.trained_for(self.input_shape or entry.input_shape, self.classes) or entry.pretrained is None

    def network(self) -> Network:
        """Build the model, load its weights, and run it once.

        Raises
        ------
        InputError, ModelError
            As the message says.
        """
        if self.input_shape is not None:
            inputs.shape(self.input_shape)  # before weights are made for it
        head = int(self.head) if self.head is not None and self.head.isdecimal() else self.head
        hub, _, name = self.model.partition(":")
        if hub == "zoo":
            return zoo.network(
                name, input_shape=self.input_shape, classes=self.classes, weights=self._file(), state=self.state,
                mean=self.mean or None, std=self.std or None, device=self.device, output=self.output, head=head,
            )  # fmt: skip
        model = self._build()
        return Network(
            model.model, model.input_shape, self.mean or model.mean, self.std or model.std, model.classes, self.device,
            output=self.output, head=head,
        )  # fmt: skip

    def _build(self) -> hubs.HubModel:
        """A model of a hub, or the user's own, with the known facts about its input."""
        if self.model.partition(":")[0] in hubs.HUBS:
            return hubs.hub_model(
                self.model,
                weights=self.weights,
                state=self.state,
                input_shape=self.input_shape,
                classes=self.classes,
            )
        model = own_model.build(self.model)
        if self.input_shape is None:
            raise InputError("the input shape is not known; give --input-shape channels,height,width.")
        if (file := self._file()) is not None:
            zoo.load_weights(model, file, state=self.state)
        return hubs.HubModel(model, self.input_shape, (0.0,), (1.0,), self.classes)

    def _file(self) -> str | None:
        return None if self.weights == hubs.RANDOM else self.weights

    def open(self, *, labelled: bool = False) -> Subject:
        """Network and images; class folders name the classes of a network without class names.

        With ``labelled`` class folders that are not the network's are an error, otherwise they keep their names.

        Raises
        ------
        InputError
            Also when no data set is named.
        """
        if self.data is None:
            raise InputError("there are no images to look at; give --data with a folder or a data set's name.")
        return replace(opened(self.network(), self.data, labelled=labelled), run=self.run)

    def to_json(self) -> dict[str, Any]:
        """The options in a form that JSON can hold."""
        return asdict(self)


def opened(net: Network, source: str, *, part: str = "test", labelled: bool = False) -> Subject:
    """A network with a data set that is labelled by the network's classes; the data set names unnamed classes.

    Class folders that are not the network's keep their names, with a warning: results show these, and no label is a
    class of the network.

    Parameters
    ----------
    net
        The network; it gets class names if it has none and the class folders are its classes.
    source, part
        See :func:`microtome.data.open_data`.
    labelled
        Whether class folders that are not the network's are an error.

    Raises
    ------
    InputError
        The data set does not exist, or its folders cannot be matched with the classes and have to be.
    """
    try:
        found = by_class_folders(datasets.open_data(source, net.input_shape, part=part, classes=net.classes), net)
    except ClassNameError as error:
        found = datasets.open_data(source, net.input_shape, part=part)
        if labelled or not isinstance(found, datasets.Folder):
            raise
        found = found.by_name()
        warnings.warn(
            f"the labels of the images are not taken for the network's classes: {error}", DataWarning, stacklevel=2
        )
    if isinstance(found, datasets.Folder) and len(found) * math.prod(net.input_shape) <= _IN_MEMORY:
        found = found.load()
    named = found.classes is not None and not found.classes_by_name
    if net.classes is None and named and net.output_shape == (len(found.classes),):
        net.classes = list(found.classes)
    return Subject(net, found)
