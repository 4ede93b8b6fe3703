"""The idx files of MNIST and its relatives: header, shape, bytes, gzipped or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InputError

__all__ = ["read"]

_BYTES = 0x08  # the only element type that these data sets use


def read(path: Path) -> NDArray[np.uint8]:
    """An idx file of bytes as an array of its own shape.

    Raises
    ------
    InputError
        The file is missing, is no idx file of bytes, or is cut short.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the idx file {path} cannot be read: {error}.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _BYTES or len(data) < 4 + 4 * data[3]:
        raise InputError(f"{path} is not an idx file of bytes; it begins with {data[:4]!r}.")
    dimensions = data[3]
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    expected = 4 + 4 * dimensions + prod(shape)
    if len(data) != expected:
        raise InputError(f"the idx file {path} should hold {expected:,} bytes and holds {len(data):,}; fetch it again.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
