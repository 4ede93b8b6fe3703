"""Picture files as a network reads them: upright, 8 bits, gray or RGB, on white, cropped to size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from microtome.errors import DataWarning, InputError
from microtome.option_types import checks_types

__all__ = ["GRAY", "STRIP", "decode", "fitted", "to_bytes"]

GRAY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
STRIP = 16  # if a picture is this many times longer than the kept part, only that part is scaled


@checks_types
def decode(path: Path | str, input_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read one picture file for a network's input.

    EXIF rotation is applied; a palette becomes its colours; 16 bits are scaled to 8; transparency is laid over white,
    as a page shows it; CMYK becomes RGB; gray and RGB are exchanged to fit the channels (luma of ITU-R BT.601). Of an
    animation the first frame is read; colour profiles are ignored. The picture is scaled (bilinear, antialiased) so
    that it just covers the input, and its centre is cut out.

    Parameters
    ----------
    path
        The file; any format that Pillow reads.
    input_shape
        Channels (1 or 3), height and width.

    Returns
    -------
    ndarray, uint8, (C, H, W)

    Raises
    ------
    InputError
        The file is missing, is no picture, is broken or unreasonably large; the message names it.
    """
    with _reading(path), Image.open(path) as picture:
        # Twice the target, so that the decoder's coarse scaling of huge JPEGs does not show in the result.
        picture.draft(None, (2 * max(input_shape[1:]), 2 * max(input_shape[1:])))
        picture.load()
        return fitted(picture, input_shape, str(path))


def fitted(picture: Image.Image, input_shape: tuple[int, int, int], what: str) -> NDArray[np.uint8]:
    """A Pillow image, opened elsewhere, as :func:`decode` would read it."""
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise InputError(
            f"pictures give 1 (gray) or 3 (RGB) channels, the network takes {channels}. "
            "Give a torch data set of tensors instead."
        )
    pixels = to_bytes(ImageOps.exif_transpose(picture), channels, what)
    return np.ascontiguousarray(_cover(pixels, height, width).transpose(2, 0, 1))


@contextmanager
def _reading(path: Path | str) -> Iterator[None]:
    """Turn what Pillow and the file system raise into one error that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no image file {path}.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read; remove it or convert it to PNG or JPEG.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error} Scale it down first.") from error
    except InputError:
        raise
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; a picture file is expected.") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error.strerror}.") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise InputError(f"{path} is broken and cannot be read ({error}); remove it or replace it.") from error


def to_bytes(picture: Image.Image, channels: int, what: str) -> NDArray[np.uint8]:
    """The pixels of a Pillow image as gray or RGB bytes, (H, W, channels), transparency laid over white."""
    if picture.mode in _DEEP or picture.mode == "F":
        picture = Image.fromarray(_eight_bits(np.asarray(picture), picture.mode, what))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        page = Image.new("RGBA", coloured.size, "white")
        picture = Image.alpha_composite(page, coloured).convert("RGB")
    converted = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.array(converted, dtype=np.uint8)  # a copy: Pillow's own memory may not be written
    return pixels.reshape(*pixels.shape[:2], channels)


def _eight_bits(values: NDArray[np.generic], mode: str, what: str) -> NDArray[np.uint8]:
    """Deep gray values scaled to bytes; the range that the mode promises is kept, never stretched to the picture's."""
    numbers = values.astype(np.float64)
    top = 1.0 if mode == "F" else 65535.0
    if numbers.size and not (numbers.min() >= 0 and numbers.max() <= top):
        raise InputError(
            f"{what} has gray values from {numbers.min():g} to {numbers.max():g}; 0 to {top:g} is expected. "
            "Save it with 8 or 16 bits."
        )
    brightest = numbers.max() if numbers.size else 0
    if mode == "I" and 0 < brightest <= 255:  # 32 bits: possibly bytes stored in a wider type
        raise InputError(
            f"{what} has gray values from {numbers.min():g} to {brightest:g} in 32 bits, of which white would be "
            "65535: bytes in a wider type, or a black picture? Save it with 8 or 16 bits."
        )
    if mode != "F" and 0 < brightest <= 4095:
        # The message has no name, so that it appears once for all pictures of a folder.
        warnings.warn(
            "a picture uses no more than 12 of its 16 bits, as many cameras write it, and is read as nearly black, for "
            "65535 is white. Scale such pictures to their range and save them with 8 bits.",
            DataWarning,
            stacklevel=2,
        )
    return np.asarray(np.rint(numbers * (255.0 / top)), dtype=np.uint8)


def _cover(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Scale so that the target is covered, then cut its centre out."""
    h, w = pixels.shape[:2]
    if (h, w) == (height, width):
        return pixels
    scale = max(height / h, width / w)
    size = (max(round(w * scale), width), max(round(h * scale), height))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    bilinear = Image.Resampling.BILINEAR
    if size[0] * size[1] > STRIP * height * width:  # otherwise 60,000 x 1 pixels would fill gigabytes before the crop
        x, y = w / size[0], h / size[1]
        kept = (left * x, top * y, (left + width) * x, (top + height) * y)
        return np.array(picture.resize((width, height), bilinear, box=kept)).reshape(height, width, -1)
    scaled = np.array(picture.resize(size, bilinear)).reshape(size[1], size[0], -1)
    return scaled[top : top + height, left : left + width]
