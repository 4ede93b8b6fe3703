"""The class scores of a model in training; what it expected, if it does not take the images of a data set."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

import torch
from torch import Tensor, nn

from microtome.data import Dataset, fetch
from microtome.errors import InputError, MicrotomeError, ModelError, is_out_of_memory
from microtome.inputs import check_weights
from microtome.trace.guard import as_found, named_modules
from microtome.trace.tracing.broken_pass import place
from microtome.trace.tracing.caller_modes import callers_autocast
from microtome.training.normalisation import Numbers, normalised

__all__ = ["check_takes", "class_scores"]


def check_takes(model: nn.Module, dataset: Dataset, *, mean: Numbers, std: Numbers, batch: int) -> None:
    """Run the model once on the first images of a data set, in evaluation mode; it is left as found.

    Raises
    ------
    InputError
        The model does not take images of this shape, or is not in single precision.
    ModelError
        The model does not give a row of class scores for each image, or has weights that cannot be trained.
    """
    check_weights(model)
    check_precision(model)
    count = min(batch, len(cast("Sized", dataset)))
    with torch.random.fork_rng(devices=[]):  # a data set may draw from it
        images, _ = fetch(dataset, torch.arange(count, device="cpu"))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with as_found(model), torch.no_grad():
        class_scores(model, normalised(images.to(device), mean, std))


def check_precision(model: nn.Module) -> None:
    """Refuse a model to train or evaluate whose weights are not in single precision.

    Raises
    ------
    InputError
        Names the precision.
    """
    found = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
    if found != torch.float32:
        raise InputError(
            f"training and evaluation are in float32, and the model is in {found}; convert it with .float()."
        )


def class_scores(model: nn.Module, images: Tensor) -> Tensor:
    """The scores (n, K) that the model gives for prepared images (n, C, H, W), in the mode that it is in.

    Raises
    ------
    InputError
        The model does not take images of this shape.
    ModelError
        The model does not give a row of class scores for each image.
    """
    try:
        with callers_autocast():
            scores: Any = model(images)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if isinstance(error, MicrotomeError) or is_out_of_memory(error):
            raise
        raise InputError(_refused(model, images, error)) from error
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != len(images):
        came = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ModelError(
            f"class scores of shape ({len(images)}, classes) were expected for {len(images)} images, the model gives "
            f"{came}. Wrap it so that it returns one row of scores per image."
        )
    return scores


def _refused(model: nn.Module, images: Tensor, error: Exception) -> str:
    """The shape of the images, the layer that failed, and what that layer expects, as far as it states it."""
    modules = dict(named_modules(model))
    name = place(error, {id(module): name for name, module in modules.items()})
    known = f", which expects {expects}," if (expects := _expects(modules[name])) else ""
    where = f' in layer "{name}" ({type(modules[name]).__name__})' if name else ""
    return (
        f"the model raised {type(error).__name__}{where}{known} on images of shape {tuple(images.shape[1:])}: {error}. "
        "If it was made for another shape, give such images: data.folder(path, (C, H, W)), or images.fit((C, H, W))."
    )


def _expects(module: nn.Module) -> str:
    for attribute, what in (("in_channels", "channels"), ("in_features", "features"), ("num_features", "channels")):
        if isinstance(number := getattr(module, attribute, None), int):
            return f"{number} {what if number != 1 else what[:-1]}"
    return ""
