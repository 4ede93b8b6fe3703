"""Are this model, these images and these classes ones that can be worked with? The checks that all methods share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from microtome.errors import InputError, ModelError, nearest

Target = int | str | Sequence[int | str] | Tensor | None


def checked(images: Any, shape: tuple[int, int, int], pixels: tuple[float, float] | None) -> Tensor:
    """Images as a batch (N, C, H, W), floating, finite and in range.

    Parameters
    ----------
    images : Tensor or array
        (N, C, H, W) or one image (C, H, W).
    shape : tuple of int
        (C, H, W) as the network takes them.
    pixels : (float, float) or None
        The range they must lie in, with a slack of 1e-4 of it; None admits any.

    Raises
    ------
    InputError
        When shape, type or range do not fit.
    """
    x = images if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images))
    x = x[None] if x.dim() == 3 else x
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        expected = f"(N, {', '.join(map(str, shape))})"
        raise InputError(f"images of shape {expected} were expected, got {tuple(x.shape)}; resize or crop them.")
    if not x.is_floating_point():
        raise InputError(f"images must be floating point in [0, 1], got {x.dtype}; divide by 255 first.")
    if x.shape[0] == 0:
        raise InputError("there is no image: the batch is empty.")
    low, high = (float(edge) for edge in torch.aminmax(x.detach()))
    if not np.isfinite(low + high):
        raise InputError("the images hold NaN or infinity; clean them first.")
    if pixels is not None:
        slack = 1e-4 * (pixels[1] - pixels[0])
        if low < pixels[0] - slack or high > pixels[1] + slack:
            raise InputError(
                f"images must lie in [{pixels[0]:g}, {pixels[1]:g}], got [{low:.3g}, {high:.3g}]. "
                "Give images before normalisation (the network applies mean and std itself), "
                "or Network(..., pixels=None) to admit any range."
            )
    return x


def targets(target: Target, logits: Tensor, classes: list[str] | None) -> Tensor:
    """The class asked about for each image, shape (N,): given by index or name, or the predicted one.

    Raises
    ------
    InputError
        When a class does not exist or the number of targets is not that of the images.
    """
    n, k = logits.shape
    if target is None:
        return logits.detach().argmax(1)
    many = target.tolist() if isinstance(target, Tensor | np.ndarray) else target
    many = list(many) if isinstance(many, Sequence) and not isinstance(many, str) else [many] * n
    given = [class_index(item, classes) for item in many]
    if len(given) != n:
        raise InputError(f"{n} targets were expected, one per image, got {len(given)}; one integer serves all.")
    for index in given:
        check_class(index, k)
    return torch.tensor(given, device=logits.device)


def class_index(name: Any, classes: list[str] | None) -> int:
    """The index of a class given by index or by name.

    Raises
    ------
    InputError
        When there is no class of that name (the nearest are given), or it is no integer.
    """
    if isinstance(name, str) and classes is not None and name in classes:
        return classes.index(name)
    if isinstance(name, str) and not name.lstrip("-").isdigit():
        hint = f"Nearest: {nearest(name, classes)}." if classes else "The network was given no class names."
        raise InputError(f'there is no class "{name}". {hint}')
    if isinstance(name, bool) or (isinstance(name, float) and not name.is_integer()):
        raise InputError(f"a class is an integer or a name, got {name}.")
    return int(name)


def check_class(index: int, count: int) -> None:
    """Refuse a class that the network does not have.

    Raises
    ------
    InputError
        Naming the range.
    """
    if not 0 <= index < count:
        raise InputError(f"class {index} does not exist: the network has {count} classes, 0 to {count - 1}.")


# -- the model ---------------------------------------------------------------------------------------------------------


def unwrapped(model: Any) -> nn.Module:
    """Look through torch.compile and data-parallel wrappers."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}; call it" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ModelError(f"a torch.nn.Module was expected, got {what}.")
    for inner in ("_orig_mod", "module"):
        wrapper = type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel")
        if wrapper and isinstance(getattr(model, inner, None), nn.Module):
            return unwrapped(getattr(model, inner))
    return model


def moved(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    """The model, or a copy of it where it lives on another device than asked for."""
    if device is None:
        return model
    try:
        wanted = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'the device "{device}" cannot be used: {error}') from error
    if all(value.device == wanted for value in state(model)):
        return model
    return copy.deepcopy(model).to(wanted)


def state(model: nn.Module) -> list[Tensor]:
    """All parameters and buffers, and tensors that modules hold as plain attributes."""
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *held]


def shape(size: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image, checked: channels, height, width."""
    if len(size) != 3 or min(size) < 1:
        raise InputError(f"input_shape is (channels, height, width), all positive; got {tuple(size)}.")
    channels, height, width = (int(value) for value in size)
    return channels, height, width


def per_channel(value: float | Sequence[float], channels: int, what: str) -> tuple[float, ...]:
    """A mean or deviation for each channel, checked."""
    values = [float(value)] if isinstance(value, int | float) else [float(item) for item in value]
    values = values * channels if len(values) == 1 else values
    if len(values) != channels or not all(np.isfinite(values)):
        raise InputError(f"{what} must be one finite number or one for each of {channels} channels, got {value}.")
    return tuple(values)


def check_weights(model: nn.Module) -> None:
    """Refuse weights that are not numbers."""
    names = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bad = [name for name, value in names.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if bad:
        raise ModelError(
            f"{len(bad)} weights hold NaN or infinity, first {bad[0]}; "
            "load a checkpoint from before the training diverged."
        )
