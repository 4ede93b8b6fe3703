"""Receptive fields by interval arithmetic, exact, operator by operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from microtome.trace.operators.conv_arithmetic import pair, sides
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import IN_PLACE, TRANSPOSED, those

# Operators that leave every position where it is.
POINTWISE = IN_PLACE


@dataclass(frozen=True)
class ReceptiveField:
    """The rectangle of the picture that one position of a layer depends on.

    Position ``(i, j)`` reads rows ``offset[0] + i * stride[0]`` to that plus ``size[0]``, exclusive,
    and columns likewise; where padding is involved the rectangle leaves the picture. The stride is
    whole, except after upsampling or pooling into unequal bins: there the first row is rounded down,
    and the size is that of the widest position.

    Attributes
    ----------
    size, stride, offset : tuple of int
        Height and width, step between neighbouring positions, and upper left corner of position
        (0, 0), in pixels.
    """

    size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[int, int]

    def box(self, i: int, j: int) -> tuple[int, int, int, int]:
        """The rectangle of a position: top, left, bottom, right (exclusive); may leave the picture.

        Examples
        --------
        >>> ReceptiveField((5, 5), (2, 2), (-1, -1)).box(3, 0)
        (5, -1, 10, 4)
        """
        # A millionth of a pixel, so that thirds and sevenths do not fall below the whole number they reach.
        top = self.offset[0] + math.floor(i * self.stride[0] + 1e-6)
        left = self.offset[1] + math.floor(j * self.stride[1] + 1e-6)
        return top, left, top + self.size[0], left + self.size[1]


@dataclass(frozen=True)
class Axis:
    """One axis: position i reads pixels ``low + i * step`` to ``high + i * step``, both included."""

    step: Fraction
    low: Fraction
    high: Fraction

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
        """What a sliding window over this axis reads."""
        first = -padding
        last = dilation * (kernel - 1) - padding
        return Axis(self.step * stride, self.low + first * self.step, self.high + last * self.step)

    def whole(self, length: int) -> Axis:
        """What all positions together read."""
        return Axis(Fraction(0), self.low, self.high + (length - 1) * self.step)

    def union(self, other: Axis) -> Axis | None:
        """What either reads, where they step alike (or one does not step at all)."""
        if self.step != other.step and self.step != 0 and other.step != 0:
            return None
        return Axis(self.step or other.step, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Field:
    """The field of a value on both axes, and whether a global gate has widened it to the whole picture."""

    rows: Axis
    columns: Axis
    gated: bool = False

    @property
    def everywhere(self) -> bool:
        """True when all positions read the same: the value sees the whole of what came before."""
        return self.rows.step == 0 and self.columns.step == 0

    @cached_property
    def rectangle(self) -> ReceptiveField:
        """In whole pixels."""
        axes = [_whole_pixels(axis) for axis in (self.rows, self.columns)]
        return ReceptiveField(
            size=(axes[0][0], axes[1][0]), stride=(axes[0][1], axes[1][1]), offset=(axes[0][2], axes[1][2])
        )


def _whole_pixels(axis: Axis) -> tuple[int, float, int]:
    """Size, stride and offset in whole pixels; a fractional step costs up to two pixels of size."""
    low, high = math.floor(axis.low), math.ceil(axis.high)
    if axis.step.denominator == 1:
        return high - low + 1, int(axis.step), low
    return high - low + 2, float(axis.step), low


START = Field(Axis(Fraction(1), Fraction(0), Fraction(0)), Axis(Fraction(1), Fraction(0), Fraction(0)))


def propagate(call: Call, fields: Sequence[tuple[Tensor, Field]], output: Tensor) -> Field | None:
    """The field of an operation's output from those of its inputs; None if it cannot be known.

    Parameters
    ----------
    call : Call
        The operation.
    fields : sequence of (Tensor, Field)
        The inputs that depend on the picture, with their fields.
    output : Tensor
        What the operation computed.
    """
    if not fields:
        return None
    value, field = fields[0]
    spatial = value.dim() == 4 and output.dim() == 4
    kind, bound = call.kind, call.arguments
    if kind in _WINDOWS and spatial:
        return _window(kind, bound, field)
    if kind == "conv_transpose2d" and spatial:
        return _transposed(bound, field)
    if kind == "pad" and spatial:
        return _padded(bound["pad"], field)
    if kind in ("adaptive_avg_pool2d", "adaptive_max_pool2d") and spatial:
        return _adaptive(value, output, field)
    if kind == "getitem" and spatial:
        return _sliced(bound["index"], field)
    if kind in ("interpolate", "upsample") and spatial:
        return _resized(value, output, field, bound)
    if kind in _ALONG and _along_positions(kind, bound, value.dim()):
        return _everything(fields)
    if kind in POINTWISE and output.dim() == max(item.dim() for item, _ in fields):
        return _joined(fields, output)
    if spatial and kind in ("mean", "sum", "amax", "max", "instance_norm", "group_norm", "layer_norm", "softmax"):
        return _collapsed(kind, bound, value, field)
    if spatial and value.shape[2:] == output.shape[2:] and kind in ("view", "reshape"):
        return field  # channels regrouped (shuffle); positions stay
    return _everything(fields)


# Operators that split or join values along an axis.
_ALONG = those(role=("split", "join", "gate"))


def _along_positions(kind: str, bound: dict[str, Any], dims: int) -> bool:
    """Whether values are split or joined along rows or columns: the positions of the output are others."""
    if kind in ("dsplit", "dstack"):  # always the third axis
        return dims > 2
    axis = bound.get("dim", bound.get("argument2", -1 if kind == "glu" else 0))
    return isinstance(axis, int) and axis % max(dims, 1) >= 2


_WINDOWS = frozenset(kind for kind in those(reads="window") - TRANSPOSED if kind.endswith("2d"))


def _window(kind: str, bound: dict[str, Any], field: Field) -> Field:
    if kind == "conv2d":
        kernel = (bound["weight"].shape[2], bound["weight"].shape[3])
        stride, dilation = pair(bound["stride"]), pair(bound["dilation"])
        (top, _), (left, _) = sides(bound["padding"], kernel, dilation)
        padding = top, left
    else:
        kernel = pair(bound["kernel_size"])
        stride = pair(bound["stride"] if bound["stride"] not in (None, [], ()) else bound["kernel_size"])
        padding, dilation = pair(bound.get("padding") or 0), pair(bound.get("dilation") or 1)
    return Field(
        field.rows.window(kernel[0], stride[0], padding[0], dilation[0]),
        field.columns.window(kernel[1], stride[1], padding[1], dilation[1]),
        field.gated,
    )


def _transposed(bound: dict[str, Any], field: Field) -> Field:
    """Output o reads inputs i with o = i * stride - padding + dilation * k."""
    stride, padding, dilation = pair(bound["stride"]), pair(bound["padding"]), pair(bound["dilation"])
    axes = []
    for index, axis in enumerate((field.rows, field.columns)):
        reach = dilation[index] * (int(bound["weight"].shape[2 + index]) - 1)
        step = axis.step / stride[index]
        low = axis.low + step * (padding[index] - reach)
        axes.append(Axis(step, low, axis.high + step * padding[index]))
    return Field(axes[0], axes[1], field.gated)


def _padded(pad: Any, field: Field) -> Field:
    pad = [int(size) for size in pad]
    left, top = pad[0], pad[2] if len(pad) >= 4 else 0
    rows, columns = field.rows, field.columns
    return Field(
        Axis(rows.step, rows.low - top * rows.step, rows.high - top * rows.step),
        Axis(columns.step, columns.low - left * columns.step, columns.high - left * columns.step),
        field.gated,
    )


def _adaptive(value: Tensor, output: Tensor, field: Field) -> Field:
    """Equal bins are a pooling; unequal ones are bounded by the widest."""
    axes = []
    for index, axis in enumerate((field.rows, field.columns)):
        length, bins = int(value.shape[2 + index]), int(output.shape[2 + index])
        if bins == 1:
            axes.append(axis.whole(length))
        elif length % bins == 0:
            axes.append(axis.window(length // bins, length // bins, 0))
        else:
            step = Fraction(length, bins)
            widest = math.ceil(step) + 1
            axes.append(Axis(axis.step * step, axis.low - axis.step, axis.high + (widest - 1) * axis.step))
    return Field(axes[0], axes[1], field.gated)


def _sliced(index: Any, field: Field) -> Field | None:
    """``x[:, :, 1::2, ::2]``."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [part for part in parts if not isinstance(part, Tensor)]:
        at = next(place for place, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (4 - (len(parts) - 1))
    parts += [slice(None)] * (4 - len(parts))
    if len(parts) != 4 or not all(isinstance(part, slice) for part in parts[2:]):
        return None
    axes = []
    for part, axis in zip(parts[2:], (field.rows, field.columns), strict=True):
        start, step = part.start or 0, part.step or 1
        if start < 0 or step < 1:
            return None
        axes.append(Axis(axis.step * step, axis.low + start * axis.step, axis.high + start * axis.step))
    return Field(axes[0], axes[1], field.gated)


def _resized(value: Tensor, output: Tensor, field: Field, bound: dict[str, Any]) -> Field:
    """Position o reads the neighbours of o * ratio, shifted by the convention for corners; an upper bound."""
    axes = []
    for index, axis in enumerate((field.rows, field.columns)):
        ratio = Fraction(int(value.shape[2 + index]), int(output.shape[2 + index]))
        below, above = _neighbours(ratio, str(bound["mode"]), corners=bool(bound.get("align_corners")))
        wide = max(Fraction(1), ratio) if bound.get("antialias") else Fraction(1)
        axes.append(Axis(axis.step * ratio, axis.low - below * wide * axis.step, axis.high + above * wide * axis.step))
    return Field(axes[0], axes[1], field.gated)


def _neighbours(ratio: Fraction, mode: str, *, corners: bool) -> tuple[Fraction, Fraction]:
    """How far below and above o * ratio an interpolation reads, in input positions."""
    if mode == "nearest":
        return Fraction(1), Fraction(0)
    if mode == "nearest-exact":
        return Fraction(1), ratio / 2
    outer = Fraction(1 if mode == "bicubic" else 0)
    if corners:
        return 1 + outer + max(Fraction(0), 1 - ratio), 1 + outer + max(Fraction(0), ratio - 1)
    shift = (ratio - 1) / 2
    return 1 + outer - shift, 1 + outer + shift


def _joined(fields: Sequence[tuple[Tensor, Field]], output: Tensor) -> Field | None:
    """Branches that meet: the union. A branch without extent that meets one with extent is a gate."""
    local = [field for _, field in fields if not field.everywhere]
    if len(local) == len(fields) == 1:
        return local[0]
    if not local:
        return _everything(fields)
    merged = local[0]
    for field in local[1:]:
        rows, columns = merged.rows.union(field.rows), merged.columns.union(field.columns)
        if rows is None or columns is None:
            return None
        merged = Field(rows, columns, merged.gated or field.gated)
    gated = merged.gated or (len(local) < len(fields) and output.dim() == 4)
    return Field(merged.rows, merged.columns, gated)


def _collapsed(kind: str, bound: dict[str, Any], value: Tensor, field: Field) -> Field | None:
    """Means over rows, columns or channels."""
    if kind in ("instance_norm", "group_norm"):
        return Field(field.rows, field.columns, gated=True)
    dims = bound.get("dim", bound.get("argument1"))
    if kind == "layer_norm":
        dims = list(range(-len(bound["normalized_shape"]), 0))
    if kind == "max" and bound.get("other") is not None and isinstance(bound["other"], int):
        dims = bound["other"]
    if dims is None or dims == ():
        return _everything([(value, field)])
    reduced = {int(dim) % 4 for dim in (dims if isinstance(dims, list | tuple) else [dims])}
    if kind in ("softmax", "layer_norm"):
        return Field(field.rows, field.columns, field.gated or bool(reduced & {2, 3}))
    rows = field.rows.whole(int(value.shape[2])) if 2 in reduced else field.rows
    columns = field.columns.whole(int(value.shape[3])) if 3 in reduced else field.columns
    return Field(rows, columns, field.gated)


def _everything(fields: Sequence[tuple[Tensor, Field]]) -> Field:
    """All that any of the inputs reads, in one rectangle."""
    lows: list[list[Fraction]] = [[], []]
    highs: list[list[Fraction]] = [[], []]
    for value, field in fields:
        lengths = value.shape[2:4] if value.dim() == 4 else torch.Size((1, 1))
        for index, axis in enumerate((field.rows, field.columns)):
            whole = axis.whole(int(lengths[index]))
            lows[index].append(whole.low)
            highs[index].append(whole.high)
    gated = any(field.gated for _, field in fields)
    rows, columns = (Axis(Fraction(0), min(lows[index]), max(highs[index])) for index in range(2))
    return Field(rows, columns, gated)
