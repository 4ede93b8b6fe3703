"""Binary frames: a JSON header and arrays; maps are quantised to bytes, for the screen only."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.errors import InputError

__all__ = ["Frame", "packed", "quantised", "unpacked"]

_MAGIC = b"MTF1"
_KINDS = {"u1": np.uint8, "f4": np.float32, "i4": np.int32}
_ZERO = 127  # the byte that stands for zero in signed maps; 254 is the highest


@dataclass(frozen=True, eq=False)
class Frame:
    """An answer to the browser.

    Attributes
    ----------
    header : dict
        Values that JSON can hold.
    blocks : dict of str to Tensor
        uint8, float32 or int32, by name.
    """

    header: dict[str, Any]
    blocks: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the blocks."""
        return sum(block.numel() * block.element_size() for block in self.blocks.values())


def quantised(maps: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Maps (n, h, w) as bytes, each on its own scale, and the scales (n, 2).

    Signed maps: byte 127 is zero, 0 and 254 the largest magnitude. Others: byte 0 is the smaller of zero and the
    lowest value, 255 the highest. NaN becomes the byte of zero.

    Examples
    --------
    >>> bytes_, limits = quantised(torch.tensor([[[-2.0, 0.0, 1.0]]]), signed=True)
    >>> bytes_.tolist(), limits.tolist()
    ([[[0, 127, 190]]], [[-2.0, 2.0]])
    """
    values = maps.detach().float().nan_to_num(0.0, posinf=0.0, neginf=0.0)
    flat = values.flatten(1)
    if signed:
        high = flat.abs().amax(1)
        low, steps = -high, 2 * _ZERO
    else:
        low, high, steps = flat.amin(1).clamp(max=0), flat.amax(1).clamp(min=0), 255
    span = (high - low).where(high > low, torch.ones_like(high))
    scaled = (values - low[:, None, None]) / span[:, None, None]
    scaled = scaled.where((high > low)[:, None, None], scaled.new_full((), 0.5 if signed else 0.0))
    return (scaled * steps).round().clamp(0, 255).to(torch.uint8), torch.stack([low, high], 1)


def packed(frame: Frame, **more: Any) -> bytes:
    """The bytes of a frame; ``more`` goes into its header.

    Four bytes of name, the length of the header, the header as JSON, the blocks; header and blocks begin at multiples
    of four. The header's ``blocks`` holds name, kind, shape and first byte of each block, counted from the first one.
    """
    table, parts, start = [], [], 0
    for name, block in frame.blocks.items():
        array = block.detach().cpu().contiguous().numpy()
        kind = next((kind for kind, dtype in _KINDS.items() if array.dtype == dtype), None)
        if kind is None:
            raise InputError(f'the block "{name}" is {array.dtype}; bytes, float32 or int32 were expected.')
        content = array.tobytes()
        content += bytes(-len(content) % 4)
        table.append([name, kind, list(array.shape), start])
        parts.append(content)
        start += len(content)
    header = json.dumps({**frame.header, **more, "blocks": table}, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % 4)
    return b"".join([_MAGIC, struct.pack("<I", len(header)), header, *parts])


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the blocks of a frame.

    Raises
    ------
    InputError
        The bytes are not a frame.

    Examples
    --------
    >>> header, blocks = unpacked(packed(Frame({"id": 3}, {"peak": torch.tensor([1.5])})))
    >>> header["id"], blocks["peak"].tolist()
    (3, [1.5])
    """
    try:
        if content[:4] != _MAGIC:
            raise ValueError("another beginning")
        (length,) = struct.unpack("<I", content[4:8])
        header = json.loads(content[8 : 8 + length])
        blocks = {}
        for name, kind, shape, start in header["blocks"]:
            count = int(np.prod(shape, dtype=np.int64))
            blocks[name] = np.frombuffer(content, _KINDS[kind], count, 8 + length + start).reshape(shape)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise InputError(f"these bytes are not a frame of the explorer: {error}.") from error
    return header, blocks
