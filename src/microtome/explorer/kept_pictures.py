"""Uploaded pictures: decoded within limits and kept in memory under a digest; the oldest are dropped."""

from __future__ import annotations

import collections
import hashlib
import io
import threading

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from microtome.data.picture import fitted
from microtome.errors import InputError

__all__ = ["FORMATS", "KeptPictures", "decoded"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class KeptPictures:
    """Pictures at the size of a network's input, (C, H, W) in bytes, found by a digest of their pixels.

    Parameters
    ----------
    limit : int
        Memory limit in bytes; beyond it the least recently used picture is dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._pictures: collections.OrderedDict[str, Tensor] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures)

    def keep(self, pixels: Tensor) -> str:
        """Keep a picture and return its digest, 32 hexadecimal digits."""
        shape = ",".join(map(str, pixels.shape))
        content = pixels.contiguous().numpy().tobytes()
        key = hashlib.blake2b(content, digest_size=16, person=shape.encode()[:16]).hexdigest()
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = pixels
                self._size += pixels.numel()
            self._pictures.move_to_end(key)
            while self._size > self._limit and len(self._pictures) > 1:
                _, dropped = self._pictures.popitem(last=False)
                self._size -= dropped.numel()
        return key

    def keep_raw(self, content: bytes, shape: tuple[int, int, int]) -> str:
        """Keep raw pixels, one byte per channel, row by row, the channels of a pixel next to each other.

        Raises
        ------
        InputError
            The number of bytes is not the number of values of the network's input.
        """
        channels, height, width = shape
        if len(content) != channels * height * width:
            raise InputError(
                f"{channels * height * width} bytes were expected for {height} x {width} pixels of {channels} "
                f"channels, got {len(content)}."
            )
        flat = torch.from_numpy(np.frombuffer(content, np.uint8).copy())
        return self.keep(flat.view(height, width, channels).permute(2, 0, 1).contiguous())

    def find(self, key: str) -> Tensor:
        """A kept picture.

        Raises
        ------
        InputError
            The picture was never sent, or has been dropped.
        """
        with self._lock:
            found = self._pictures.get(key)
            if found is None:
                raise InputError("the server no longer holds this picture; send it again.")
            self._pictures.move_to_end(key)
            return found


def decoded(content: bytes, shape: tuple[int, int, int], most_pixels: int) -> Tensor:
    """A picture file's pixels at the size of the network's input, (C, H, W) in bytes.

    Parameters
    ----------
    content : bytes
        The file: one of ``FORMATS``, recognised by its content, never by a name.
    shape : tuple of int
        Channels, height, width.
    most_pixels : int
        Larger pictures are refused before they are decoded.

    Raises
    ------
    InputError
        The file is of another kind, broken, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > most_pixels:
                raise InputError(
                    f"the picture has {width} x {height} pixels; at most {most_pixels:,} are allowed. Scale it down."
                )
            picture.draft(None, (2 * max(shape[1:]), 2 * max(shape[1:])))
            picture.load()
            return torch.from_numpy(fitted(picture, shape, "the picture"))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"this file is not a readable picture; send {', '.join(FORMATS)}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the picture is too large; at most {most_pixels:,} pixels are allowed.") from None
    except Exception as error:  # a broken file may raise anything inside the decoder
        raise InputError(f"the picture is broken and cannot be read ({type(error).__name__}).") from None
