"""One image of any common kind as a float tensor (C, H, W) in the network's pixel range."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError

__all__ = ["Pixels", "as_image", "checksum", "in_range"]

Pixels = tuple[float, float] | None
_UNIT = (0.0, 1.0)
_SLACK = 1e-4  # of the range; what resizing with overshoot may add, as Network.images admits it


def as_image(
    image: Any, what: str = "the image", *, pixels: Pixels = _UNIT, input_shape: tuple[int, int, int] | None = None
) -> Tensor:
    """An image as float32 (C, H, W), on the processor.

    Parameters
    ----------
    image
        A tensor (C, H, W) or (H, W); a NumPy array, (H, W) or (H, W, C) as pictures are stored; a Pillow image.
    what
        Its name, for errors.
    pixels
        The range of the values. Bytes and Pillow images are spread over it; floats must lie in it; None admits any.
    input_shape
        Input shape of the network. A Pillow image is scaled and cut to it, like a picture file. An array of this
        shape is already (C, H, W).

    Raises
    ------
    InputError
        The object is not an image, or a value is outside the range.
    """
    if isinstance(image, Tensor):
        tensor = image.detach().cpu().as_subclass(Tensor)
        tensor = tensor[None] if tensor.ndim == 2 else tensor
    elif hasattr(image, "convert") and hasattr(image, "getbands"):  # a Pillow image, without importing Pillow
        tensor = _picture(image, what, input_shape)
    else:
        tensor = _array(image, what, input_shape)
    if tensor.ndim == 4:
        raise InputError(
            f"{what} has shape {tuple(tensor.shape)}, like a batch of a DataLoader; one image (C, H, W) was expected. "
            "Give the loader's data set, loader.dataset, or torch.utils.data.TensorDataset(images, labels)."
        )
    if tensor.ndim != 3:
        raise InputError(f"{what} has shape {tuple(tensor.shape)}; (C, H, W) is expected.")
    return _scaled(tensor, what, pixels)


def checksum(image: Tensor) -> int:
    """A number that tells an image from others: the CRC-32 of its values.

    Examples
    --------
    >>> checksum(torch.zeros(1, 2, 2)) == checksum(torch.zeros(2, 2, 2)[:1])
    True
    """
    return zlib.crc32(image.detach().contiguous().numpy().tobytes())


def in_range(images: Tensor, pixels: Pixels) -> Tensor:
    """Images in [0, 1] spread over another range.

    Examples
    --------
    >>> in_range(torch.tensor([0.0, 0.5, 1.0]), (-1.0, 1.0)).tolist()
    [-1.0, 0.0, 1.0]
    """
    if pixels is None or pixels == _UNIT:
        return images
    return pixels[0] + images * (pixels[1] - pixels[0])


def _picture(image: Any, what: str, input_shape: tuple[int, int, int] | None) -> Tensor:
    from microtome.data import picture

    if input_shape is not None and input_shape[0] in (1, 3):
        return torch.from_numpy(picture.fitted(image, input_shape, what))
    channels = 1 if image.mode in picture.GRAY else 3
    return torch.from_numpy(picture.to_bytes(image, channels, what)).permute(2, 0, 1)


def _array(image: Any, what: str, input_shape: tuple[int, int, int] | None) -> Tensor:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError):
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        hint = " Open picture files with microtome.data.folder." if isinstance(image, str) else ""
        raise InputError(
            f"{what} is a {type(image).__name__}; a tensor, a NumPy array or a Pillow image is expected.{hint}"
        )
    contiguous = np.ascontiguousarray(array)
    tensor = torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())
    if tensor.ndim == 2:
        return tensor[None]
    stored = tensor.ndim == 3 and tuple(tensor.shape) != input_shape
    return tensor.permute(2, 0, 1) if stored else tensor


def _scaled(tensor: Tensor, what: str, pixels: Pixels) -> Tensor:
    low, high = _UNIT if pixels is None else pixels
    if tensor.dtype == torch.uint8:
        values = tensor.to(torch.float32)
        return values / 255 if (low, high) == _UNIT else low + values * ((high - low) / 255)
    if tensor.dtype == torch.bool:
        return in_range(tensor.to(torch.float32), pixels)
    if not tensor.is_floating_point() and (tensor.is_complex() or pixels == _UNIT):
        raise InputError(f"{what} holds {tensor.dtype}; bytes or floats in [0, 1] are expected.")
    least, most = (float(value) for value in torch.aminmax(tensor)) if tensor.numel() else (low, high)
    if not np.isfinite(least + most):
        raise InputError(f"{what} holds NaN or infinity; clean it first.")
    slack = _SLACK * (high - low)
    if pixels is not None and not (least >= low - slack and most <= high + slack):
        raise InputError(
            f"{what} has values from {least:.3g} to {most:.3g}; [{low:g}, {high:g}] is expected. Take normalisation "
            "out of the data set and give mean and std to Network, or give the images' range: Network(..., pixels=)."
        )
    return tensor.to(torch.float32)
