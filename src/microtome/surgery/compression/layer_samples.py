"""Inputs and outputs of a layer at positions of its output: the samples of a least-squares fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome.surgery.channels.channel_families import Operation
from microtome.trace.operators.operator_calls import Call

_ROWS = 16  # samples per unknown of a fit; if there are more positions, a random subset is used


def drawn(operation: Operation, unknowns: int, images: int, seed: int) -> Tensor | None:
    """Positions of one batch to sample; None for all of them."""
    wanted = wanted_positions(operation, unknowns, images)
    if operation.positions <= wanted:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(operation.positions, generator=generator, device="cpu")[:wanted].sort().values


def wanted_positions(operation: Operation, unknowns: int, images: int) -> int:
    """The number of positions of each image for a fit, from the numbers of images and unknowns."""
    return min(operation.positions, max(4, -(-_ROWS * unknowns // max(images, 1))))


def inputs_of(call: Call, draw: Tensor | None = None, images: slice = slice(None)) -> Tensor:
    """The inputs of each output: (groups, p, samples), p = inputs of a group times taps.

    Parameters
    ----------
    call : Call
        A 2-D convolution or a matrix product.
    draw : Tensor, optional
        Positions of the output; by default all.
    images : slice
        Images of the pass; by default all.
    """
    arguments = call.arguments
    x, weight = arguments["input"], arguments["weight"]
    if call.kind == "linear":
        x = x[images]
        rows = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2)
        groups = 1
        if draw is not None:
            rows = rows[:, :, draw.to(rows.device)]
    else:
        x = (x[None] if x.dim() == 3 else x)[images]
        groups = int(arguments["groups"])
        rows = _patches(x, weight.shape[2:], arguments, draw)
    n, p, positions = rows.shape
    by_group: Tensor = rows.view(n, groups, p // groups, positions).permute(1, 2, 0, 3)
    return by_group.reshape(groups, p // groups, -1)


def outputs_of(value: Tensor, groups: int, kind: str, draw: Tensor | None = None) -> Tensor:
    """The outputs of a layer: (groups, outputs of a group, samples), in the order of ``inputs_of``."""
    tokens = kind == "linear"
    rows = value.reshape(len(value), -1, value.shape[-1]).transpose(1, 2) if tokens else value.flatten(2)
    if draw is not None:
        rows = rows[:, :, draw.to(rows.device)]
    n, o, positions = rows.shape
    return rows.view(n, groups, o // groups, positions).permute(1, 2, 0, 3).reshape(groups, o // groups, -1)


def with_one(x: Tensor) -> Tensor:
    """The inputs with a 1 appended, for the bias."""
    return torch.cat([x, x.new_ones(x.shape[0], 1, x.shape[2])], 1)


def _patches(x: Tensor, kernel: Sequence[int], arguments: dict[str, Any], draw: Tensor | None) -> Tensor:
    """The patches under a kernel, (images, inputs times taps, positions)."""
    stride, dilation, padding = (_pair(arguments[key]) for key in ("stride", "dilation", "padding"))
    if isinstance(arguments["padding"], str):
        reach = [d * (k - 1) if arguments["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        x = functional.pad(x, (reach[1] // 2, reach[1] - reach[1] // 2, reach[0] // 2, reach[0] - reach[0] // 2))
        padding = (0, 0)
    if draw is not None:  # all patches of 3 x 3 would take nine times the memory of the image
        x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else x
        return _gathered(x, kernel, stride, dilation, draw.to(x.device))
    if tuple(kernel) == (1, 1) and padding == (0, 0):
        return x[:, :, :: stride[0], :: stride[1]].flatten(2)
    return functional.unfold(x, tuple(kernel), dilation, padding, stride)


def _gathered(
    x: Tensor, kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int], draw: Tensor
) -> Tensor:
    """The columns of ``unfold`` at some positions of a padded image."""
    width = (x.shape[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    rows, columns = (torch.arange(k, device=x.device) * d for k, d in zip(kernel, dilation, strict=True))
    corner = (draw // width) * stride[0] * x.shape[3] + (draw % width) * stride[1]
    places = (rows[:, None] * x.shape[3] + columns).flatten()[:, None] + corner  # (taps, positions)
    found = x.flatten(2).index_select(2, places.flatten())
    return found.view(len(x), -1, len(draw))


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return 0, 0
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))
