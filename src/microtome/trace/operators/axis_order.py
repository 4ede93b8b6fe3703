"""The order of axes after permute, transpose, movedim and similar, in any spelling."""

from __future__ import annotations

import torch

from microtome.trace.operators.operator_calls import Call


def axis_order(call: Call, dims: int) -> list[int]:
    """For each axis of the output the axis of the input that it comes from.

    The operation itself runs on a tensor without content whose axes differ in length, so every spelling is right.

    Examples
    --------
    >>> axis_order(Call("permute", torch.permute, (torch.zeros(2, 2, 2), (2, 0, 1)), {}, False), 3)
    [2, 0, 1]
    """
    marker = torch.empty(tuple(range(1, dims + 1)), dtype=torch.float32, device="meta")
    options = {key: value for key, value in call.kwargs.items() if key not in ("input", "self")}
    return [size - 1 for size in call.func(marker, *call.args[1:], **options).shape]
