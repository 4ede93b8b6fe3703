"""Models of timm, torchvision and the Hugging Face hub by name, with the input and classes that they expect."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from microtome import zoo
from microtome.errors import InputError, ModelError, nearest
from microtome.loading.own_model import fixed_random_state

__all__ = ["HUBS", "RANDOM", "HubModel", "hub_model"]

RANDOM = "random"  # instead of a weight file: the library's random initialisation
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubModel:
    """A model with the settings of its training.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode.
    input_shape : (int, int, int)
        Channels, height and width.
    mean, std : tuple of float
        Normalisation, one number per channel.
    classes : tuple of str or None
        Names of the classes, if the library has them.
    """

    model: nn.Module
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] | None


def hub_model(
    name: str,
    *,
    weights: str | None = None,
    state: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    classes: Sequence[str] | None = None,
) -> HubModel:
    """Make a model of a library, with its pretrained weights, those of a file, or random ones.

    Parameters
    ----------
    name
        ``timm:resnet18.a1_in1k``, ``torchvision:resnet18``, ``hf:google/vit-base-patch16-224`` or a local folder as
        ``hf:./folder``.
    weights
        A weight file (then nothing is downloaded), ``"random"``, or None for the library's pretrained weights, which it
        downloads once.
    state
        Which state dict of the file, see :func:`microtome.zoo.load_weights`.
    input_shape, classes
        Only if they differ from the library's. The numbers of channels and classes are passed to the library.

    Raises
    ------
    InputError
        The library has no such model; the message gives the nearest names.
    ModelError
        The library is not installed, the weights cannot be downloaded, or do not fit.
    """
    hub, _, known = name.partition(":")
    if not known:
        raise InputError(f'"{name}" has no model name; give one after the colon, as in {hub}:resnet18.')
    with fixed_random_state():
        made = HUBS[hub](known, weights, input_shape, classes)
    if weights is not None and weights != RANDOM:
        zoo.load_weights(made.model, weights, state=state)
    made.model.eval()
    return made


def _timm(
    name: str, weights: str | None, input_shape: tuple[int, int, int] | None, classes: Sequence[str] | None
) -> HubModel:
    timm = _imported("timm", "timm")
    if ":" not in name and not timm.is_model(name):
        raise InputError(f'timm has no model "{name}". Nearest: {nearest(name, timm.list_models())}.')
    options: dict[str, Any] = {} if input_shape is None else {"in_chans": input_shape[0]}
    count = len(classes) if classes is not None else _head_size(weights, ("classifier", "fc", "head", "head.fc"))
    options |= {} if count is None else {"num_classes": count}
    with _fetching(f"timm:{name}"):
        try:
            sized = {} if input_shape is None else {"img_size": input_shape[1:]}
            model = timm.create_model(name, pretrained=weights is None, **options, **sized)
        except TypeError:  # convolutional networks take every size and no such option
            model = timm.create_model(name, pretrained=weights is None, **options)
    expected = timm.data.resolve_model_data_config(model)
    shape = input_shape or tuple(expected["input_size"])
    names = classes or _timm_classes(timm, model)
    return HubModel(model, shape, _each(expected["mean"], shape), _each(expected["std"], shape), _names(names))


def _timm_classes(timm: ModuleType, model: Any) -> list[str] | None:
    label_names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    if label_names:
        return [str(name) for name in label_names]
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None or model.num_classes != 1000:
        return None
    info = timm.data.ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(model.num_classes)]


def _torchvision(
    name: str, weights: str | None, input_shape: tuple[int, int, int] | None, classes: Sequence[str] | None
) -> HubModel:
    models = _imported("torchvision.models", "torchvision")
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f'torchvision has no classification model "{name}". Nearest: {nearest(name, known)}.')
    trained = models.get_model_weights(name).DEFAULT
    count = len(classes) if classes is not None else _head_size(weights, ("fc", "classifier", "head", "heads.head"))
    options = {} if count is None else {"num_classes": count}
    with _fetching(f"torchvision:{name}"):
        if weights is None and count not in (None, len(trained.meta["categories"])):
            raise ModelError(
                f"the weights of torchvision:{name} are for {len(trained.meta['categories'])} classes, --classes names "
                f"{count}; give the weights of the network that was trained on them."
            )
        model = models.get_model(name, weights=trained if weights is None else None, **options)
    transform = trained.transforms()
    side = int(transform.crop_size[0])
    names = classes or (trained.meta["categories"] if count in (None, len(trained.meta["categories"])) else None)
    shape = input_shape or (3, side, side)
    return HubModel(model, shape, _each(transform.mean, shape), _each(transform.std, shape), _names(names))


def _hugging_face(
    name: str, weights: str | None, input_shape: tuple[int, int, int] | None, classes: Sequence[str] | None
) -> HubModel:
    transformers = _imported("transformers", "transformers")
    auto = transformers.AutoModelForImageClassification
    options: dict[str, Any] = {} if classes is None else {"num_labels": len(classes)}
    with _fetching(f"hf:{name}"):
        config = transformers.AutoConfig.from_pretrained(name, **options)
        model = auto.from_pretrained(name, config=config) if weights is None else auto.from_config(config)
    prepared = _processor(transformers, name)
    side = prepared.get("crop_size") or prepared.get("size") or getattr(config, "image_size", 224)
    shape = input_shape or (int(getattr(config, "num_channels", 3)), *_height_width(side))
    mean, std = prepared.get("image_mean"), prepared.get("image_std")
    if prepared.get("do_normalize", True) and (mean is None or std is None):
        _LOG.warning("hf:%s does not say how images were normalised; give --mean and --std if they were.", name)
    if not prepared.get("do_normalize", True) or mean is None or std is None:
        mean, std = (0.0,), (1.0,)
    labels = config.id2label
    named = all(not str(label).startswith("LABEL_") for label in labels.values())
    names = classes or ([str(labels[index]) for index in sorted(labels)] if named else None)
    return HubModel(model, shape, _each(mean, shape), _each(std, shape), _names(names))


HUBS: dict[str, Callable[..., HubModel]] = {"timm": _timm, "torchvision": _torchvision, "hf": _hugging_face}


def _processor(transformers: ModuleType, name: str) -> dict[str, Any]:
    """The settings of a model's image processor; empty if it has none."""
    try:
        found, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, AttributeError, ValueError):
        return {}
    return dict(found)


def _height_width(side: Any) -> tuple[int, int]:
    """Height and width from any of the formats of image processors."""
    if isinstance(side, dict):
        edge = side.get("shortest_edge") or side.get("longest_edge") or 224
        return int(side.get("height") or edge), int(side.get("width") or edge)
    if isinstance(side, list | tuple):
        return int(side[0]), int(side[-1])
    return int(side), int(side)


def _head_size(weights: str | None, heads: Sequence[str]) -> int | None:
    """The number of classes of a weight file, from the shape of its last layer; None if unknown."""
    if weights is None or weights == RANDOM or not Path(weights).exists():
        return None
    tensors = next(iter(dict(zoo.state_dicts.states(zoo.content_of(weights))).values()), {})
    last = [
        value
        for key, value in tensors.items()
        if any(f".{key}".endswith((f".{head}.weight", f".{head}.1.weight", f".{head}.fc.weight")) for head in heads)
    ]
    biases = [key for key, value in tensors.items() if value.ndim == 1 and key.endswith("bias")]
    if last:
        return int(last[-1].shape[0])
    return int(tensors[biases[-1]].shape[0]) if biases else None


@contextlib.contextmanager
def _fetching(name: str) -> Iterator[None]:
    """Turn exceptions of libraries during download and construction into one error."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # hubs raise exceptions of any type
        text = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be built or its weights cannot be downloaded ({type(error).__name__}: {text}). Check the "
            f"connection, or give a weight file with --weights; --weights {RANDOM} uses random weights."
        ) from error


def _imported(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"{package} is not installed or cannot be imported ({error}): pip install {package}."
        ) from error
    except RuntimeError as error:  # torchvision's operators are compiled for one build of torch
        raise ModelError(
            f"{package} cannot be imported: {' '.join(str(error).split())[:200]}. Install the build that matches "
            "this build of torch."
        ) from error


def _each(values: Sequence[float], shape: Sequence[int]) -> tuple[float, ...]:
    """One number per channel: the given ones, or their average for another number of channels."""
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == shape[0] else (sum(numbers) / len(numbers),) * shape[0]


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(str(name) for name in names)
