"""Downscaling of signed signals of both signs by the strongest pixel of each block."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def strongest_signal(signal: Tensor, side: int) -> Tensor:
    """Signals (n, C, h, w) with at most ``side`` pixels a side; smaller ones are returned unchanged.

    Means over blocks would cancel signals of both signs, as gradients are. The pixel whose absolute values have the
    largest sum over the channels stands for its block. Signals are padded with zeros to whole blocks.

    Examples
    --------
    >>> import torch
    >>> strongest_signal(torch.tensor([[[[1.0, -3.0], [2.0, -1.0]]]]), 1)
    tensor([[[[-3.]]]])
    """
    height, width = signal.shape[-2:]
    step = math.ceil(max(height, width) / side)
    if step <= 1:
        return signal
    padded = functional.pad(signal, (0, -width % step, 0, -height % step))
    blocks = padded.unfold(2, step, step).unfold(3, step, step).flatten(4)  # (n, C, rows, columns, step^2)
    place = blocks.abs().sum(1, keepdim=True).argmax(-1, keepdim=True)
    return blocks.gather(-1, place.expand(*blocks.shape[:-1], 1)).squeeze(-1)
