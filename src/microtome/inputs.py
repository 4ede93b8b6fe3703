"""Checks of what a user gives: models, images, targets, classes."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from microtome import batch_sizes
from microtome.errors import InputError, ModelError, nearest

# A network is read with several images at once: one that only takes their mean held 10 images of memory, one with a
# convolution of one channel 35.
_READ_AT_ONCE = 16

Target = int | str | Sequence[int | str] | Tensor | None


def checked(
    images: Any, shape: tuple[int, int, int], pixels: tuple[float, float] | None, *, values: bool = True
) -> Tensor:
    """Images as a batch (N, C, H, W), floating, finite and in range.

    Parameters
    ----------
    images : Tensor, array or list of images
        (N, C, H, W) or one image (C, H, W).
    shape : tuple of int
        (C, H, W) as the network takes them.
    pixels : (float, float) or None
        The range they must lie in, with a slack of 1e-4 of it; None admits any.
    values : bool
        Whether values are checked; otherwise only shape and type.

    Raises
    ------
    InputError
        When shape, type or range do not fit.
    """
    x = _tensor(images)
    x = x[None] if x.dim() == 3 else x
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        raise InputError(_wrong_shape(tuple(x.shape), shape, one=x.dim() == 4 and _dimensions(images) == 3))
    if not x.is_floating_point():
        low, high = pixels or (0.0, 1.0)
        bytes_ = x.dtype not in (torch.bool, torch.complex32, torch.complex64, torch.complex128)
        advice = "divide by 255 first" if bytes_ and (low, high) == (0.0, 1.0) else "convert them to float first"
        raise InputError(f"images must be floating point in [{low:g}, {high:g}], got {x.dtype}; {advice}.")
    if x.shape[0] == 0:
        raise InputError("there is no image: the batch is empty.")
    if not values:
        return x
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


def _tensor(images: Any) -> Tensor:
    """Images of any usual container as one tensor."""
    if isinstance(images, Tensor):
        if images.layout != torch.strided or images.device.type == "meta":
            what = "without numbers (device meta)" if images.device.type == "meta" else f"of layout {images.layout}"
            raise InputError(f"images as an ordinary dense tensor were expected, got a tensor {what}.")
        return images.as_subclass(Tensor)  # a library's own tensor class carries more than the image
    if isinstance(images, list | tuple) and images and all(isinstance(image, Tensor) for image in images):
        if len({image.shape for image in images}) == 1 and images[0].dim() == 3:
            return torch.stack(list(images))
        raise InputError(_no_images(images))
    if isinstance(images, str | bytes | Mapping) or not _like_array(images):
        raise InputError(_no_images(images))
    try:
        array = np.asarray(images)
        # torch takes no negative strides, warns about read-only memory, and has no foreign byte orders.
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=not array.flags.writeable)
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError) as error:
        raise InputError(_no_images(images)) from error


def _like_array(images: Any) -> bool:
    numbers = isinstance(images, np.ndarray | np.generic | list | tuple)
    return numbers or hasattr(images, "__array__") or hasattr(images, "__array_interface__")


def _no_images(images: Any) -> str:
    kind = type(images).__name__
    advice = "Give the images alone, stacked into one tensor."
    if isinstance(images, str | bytes) or hasattr(images, "__fspath__"):
        advice = "Read it first: microtome.data.folder reads the pictures of a folder."
    elif isinstance(images, Mapping):
        advice = f"Give one of its entries: {', '.join(map(str, list(images)[:6]))}."
    elif isinstance(images, list | tuple):
        shapes = [str(tuple(part.shape)) if hasattr(part, "shape") else type(part).__name__ for part in images[:4]]
        kind = f"{kind} of {', '.join(shapes)}"
        advice = "Give the images alone: the first part of a batch of images and labels, or torch.stack(images)."
    elif hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        advice = (
            "Only some methods take a data set; microtome.data.hugging_face adapts one of Hugging Face. "
            "Here, stack the images into one tensor."
        )
    return f"images as one tensor or array (N, C, H, W) were expected, got a {kind}. {advice}"


def _dimensions(images: Any) -> int:
    return int(getattr(images, "ndim", 4))


def _wrong_shape(came: tuple[int, ...], shape: tuple[int, int, int], *, one: bool) -> str:
    expected = f"images of shape (N, {', '.join(map(str, shape))}) were expected"
    if len(came) == 4 and came[1:] == (*shape[1:], shape[0]):
        order, came = ((2, 0, 1), came[1:]) if one else ((0, 3, 1, 2), came)
        return (
            f"{expected}, got {came}: the channels are last. Put them first, images.permute{order} of a tensor or "
            f"images.transpose{order} of an array."
        )
    if len(came) == 4 and came[1] != shape[0]:
        return f"{expected}, got {came}: {shape[0]} channels were expected, not {came[1]}."
    if len(came) == 4:
        return f"{expected}, got {came}; resize or crop them."
    return f"{expected}, got {came}."


def targets(target: Target, logits: Tensor, classes: list[str] | None) -> Tensor:
    """The class of each image, (N,): the one given by index or name, else the predicted one.

    Parameters
    ----------
    target : int, str, sequence, Tensor, array or None
        One class for all images; one for each, (N,) or (N, 1); one-hot rows (N, K); None for the predicted class.
    logits : Tensor
        (N, K), the class scores.
    classes : list of str or None
        Names of the classes.

    Raises
    ------
    InputError
        When a class does not exist or the number of targets is not that of the images.
    """
    n, k = logits.shape
    if target is None:
        return logits.detach().argmax(1)
    listed = per_image(target, n)
    indices = [class_index(_of_row(item, k), classes) for item in ([target] * n if listed is None else listed)]
    for index in indices:
        check_class(index, k)
    return torch.tensor(indices, device=logits.device)


def per_image(target: Any, count: int) -> list[Any] | None:
    """The targets as a list with one entry per image; None when one target serves all.

    Raises
    ------
    InputError
        When there are not as many targets as images.

    Examples
    --------
    >>> per_image([3, 8], 2), per_image(3, 2), per_image(None, 2)
    ([3, 8], None, None)
    """
    listed: Any = target.tolist() if isinstance(target, Tensor | np.ndarray | np.generic) else target
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        return None
    if len(listed) != count:
        raise InputError(f"{count} targets were expected, one per image, got {len(listed)}; one integer serves all.")
    return list(listed)


def _of_row(item: Any, classes: int) -> Any:
    """The class index of one image's target: a number, a name, a row of one number, or a one-hot row."""
    row = item.tolist() if isinstance(item, Tensor | np.ndarray | np.generic) else item
    if isinstance(row, str) or not isinstance(row, Sequence):
        return row
    if len(row) == 1 and not isinstance(row[0], bool):
        return row[0]
    numbers = all(isinstance(value, int | float) for value in row)
    if len(row) != classes or not numbers or sorted(row) != [0] * (classes - 1) + [1]:
        raise InputError(
            f"a target is a class, or one-hot: {classes} numbers, of which one is 1 and the others 0; got {row}."
        )
    return row.index(1)


def class_index(name: Any, classes: list[str] | None) -> int:
    """The index of a class given by index or by name.

    Raises
    ------
    InputError
        When there is no class of that name (the nearest are given), or several, or it is no integer.
    """
    if isinstance(name, str) and classes is not None and name in classes:
        same = [index for index, known in enumerate(classes) if known == name]
        if len(same) > 1:
            listed = ", ".join(map(str, same[:4]))
            raise InputError(
                f'{len(same)} classes are called "{name}", numbers {listed}; give the number in its place.'
            )
        return same[0]
    if isinstance(name, str) and not name.lstrip("-").isdigit():
        hint = f"Nearest: {nearest(name, classes)}." if classes else "The network was given no class names."
        raise InputError(f'there is no class "{name}". {hint}')
    try:
        if isinstance(name, bool):
            raise TypeError
        return int(name) if isinstance(name, str) or float(name).is_integer() else operator.index(name)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"a class is an integer or a name, got {name!r}.") from None


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
    """The module inside of torch.compile and data-parallel wrappers."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}; call it" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ModelError(f"a torch.nn.Module was expected, got {what}.")
    for inner in ("_orig_mod", "module"):
        wrapper = type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel")
        if wrapper and isinstance(getattr(model, inner, None), nn.Module):
            return unwrapped(getattr(model, inner))
    return model


def moved(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    """The model, or a copy of it on the device where it lives on another."""
    if device is None:
        return model
    try:
        wanted = torch.empty(0, dtype=torch.float32, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'the device "{device}" cannot be used: {error}') from error
    if all(value.device == wanted for value in state(model)):
        return model
    return copied(model).to(wanted)


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model. Tensors that it computed with gradients, which Python cannot copy, lose their graph."""
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in state(model) if not value.is_leaf})


def state(model: nn.Module) -> list[Tensor]:
    """All parameters and buffers, and tensors that are plain attributes of modules."""
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *held]


def shape(size: Any) -> tuple[int, int, int]:
    """Check the shape of an image: channels, height, width, all positive, and no more than memory can hold."""
    try:
        channels, height, width = (int(value) for value in size if not isinstance(value, str))
    except (TypeError, ValueError):
        channels = 0
    if channels < 1 or min(height, width) < 1:
        came = tuple(size) if isinstance(size, list | tuple) else repr(size)
        raise InputError(f"input_shape is (channels, height, width), all positive; got {came}.")
    each, memory = 4 * channels * height * width, batch_sizes.machine_memory()
    if memory is not None and each * _READ_AT_ONCE > memory:
        raise InputError(
            f"input_shape ({channels}, {height}, {width}) is too large: an image takes {each / 1e9:,.1f} GB of memory, "
            f"reading a network about {_READ_AT_ONCE} times as much, and there are {memory / 1e9:,.1f} GB. "
            "Give a smaller height and width."
        )
    return channels, height, width


def pixel_range(pixels: Any) -> tuple[float, float] | None:
    """Check the range of the images' values: two finite numbers, the lower one first, or None for any."""
    if pixels is None:
        return None
    try:
        low, high = (float(edge) for edge in pixels)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"pixels are the lowest and the highest value, (0, 1) or (0, 255), or None; got {pixels!r}.")
    return low, high


def class_names(classes: Any) -> list[str]:
    """Names of the classes in the order of their numbers; a mapping of numbers to names or of names to numbers, too."""
    if isinstance(classes, Mapping):
        for pairs in (list(classes.items()), [(number, name) for name, number in classes.items()]):
            if sorted(str(number) for number, _ in pairs) == sorted(map(str, range(len(pairs)))):
                return [str(name) for _, name in sorted(pairs, key=lambda pair: int(pair[0]))]
    if isinstance(classes, str | Mapping) or not hasattr(classes, "__iter__"):
        raise InputError(f"classes are a list of names, one for each class in order; got {classes!r:.100}.")
    return [str(name) for name in classes]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def column(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One number for each channel, (C, 1, 1); cached, since a copy to a GPU waits for running work."""
    return torch.tensor(numbers, dtype=dtype, device=device)[:, None, None]


def per_channel(value: float | Sequence[float], channels: int, what: str) -> tuple[float, ...]:
    """Check a mean or standard deviation; one number serves all channels."""
    try:
        values = [float(value)] if isinstance(value, int | float) else [float(item) for item in value]
    except (TypeError, ValueError):
        values = []
    values = values * channels if len(values) == 1 else values
    if len(values) != channels or not all(np.isfinite(values)):
        raise InputError(f"{what} must be one finite number or one for each of {channels} channels, got {value}.")
    return tuple(values)


def _finite(value: Tensor) -> bool:
    """Whether all numbers are finite: then so is their sum, unless it overflows."""
    return bool(torch.isfinite(value.detach().sum())) or bool(torch.isfinite(value).all())


def check_weights(model: nn.Module) -> None:
    """Refuse weights that are NaN, infinite or not yet initialised.

    A buffer may hold infinities: inactive clamp bounds, attention masks. Statistics of norms may not.

    Raises
    ------
    ModelError
        Names the first such weight.
    """
    names = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    lazy = [name for name, value in names.items() if is_lazy(value)]
    if lazy:
        owners = list(dict.fromkeys(name.rpartition(".")[0] or "the model" for name in lazy))
        raise ModelError(
            f"the lazy layers {', '.join(owners[:5])} have no weights yet; run the model once on images "
            "(or load its weights) before it is given to Network."
        )
    empty = next((name for name, value in names.items() if value.is_meta), None)
    if empty is not None:
        raise ModelError(
            f'the weight "{empty}" is on the device "meta" and has no content; load the weights (model.to_empty and '
            "load_state_dict, or load_state_dict(assign=True)) before the model is given to Network."
        )
    inference = next((name for name, value in names.items() if value.is_inference()), None)
    if inference is not None:
        raise ModelError(
            f'the weight "{inference}" was made under torch.inference_mode, so torch cannot differentiate the '
            "model. Give a copy: copy.deepcopy(model), or make the model outside of it."
        )
    bounds = {
        name
        for name, value in model.named_buffers()
        if not name.endswith(("running_mean", "running_var")) and value.is_floating_point() and not _finite(value)
    }
    bad = [
        name
        for name, value in names.items()
        if value.is_floating_point() and (bool(value.isnan().any()) if name in bounds else not _finite(value))
    ]
    if bad:
        raise ModelError(
            f"{len(bad)} weights hold NaN or infinity, first {bad[0]}; "
            "load a checkpoint from before the training diverged."
        )
