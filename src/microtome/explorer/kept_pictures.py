"""Pictures that browsers have sent: decoded within bounds, kept in memory by their content, the oldest dropped."""

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
        Bytes that are kept; beyond it the picture that was used least recently is dropped.
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
        """Keep pixels that come as they are, one byte each, row by row, the channels of a pixel side by side.

        Raises
        ------
        InputError
            There are more or fewer bytes than the network's input has numbers.
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
            It is not here, or not any more.
        """
        with self._lock:
            found = self._pictures.get(key)
            if found is None:
                raise InputError("this picture is not kept here any more; send it again.")
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
        It is no such file, it is broken, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > most_pixels:
                raise InputError(
                    f"the picture has {width} x {height} pixels; at most {most_pixels:,} are taken. Scale it down."
                )
            picture.draft(None, (2 * max(shape[1:]), 2 * max(shape[1:])))
            picture.load()
            return torch.from_numpy(fitted(picture, shape, "the picture"))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"this is no picture that can be read; send {', '.join(FORMATS)}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the picture is too large; at most {most_pixels:,} pixels are taken.") from None
    except Exception as error:  # a broken file may raise anything inside the decoder
        raise InputError(f"the picture is broken and cannot be read ({type(error).__name__}).") from None
