"""The facets of each operation of a piecewise linear network, as functions that are zero at its kinks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import OpaqueError
from microtome.spaces.operators.linear_layer import pair
from microtome.trace import Call
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_table import those

# Affine in the image as long as everything else they read is fixed.
_AFFINE = those(function=("identity", "affine", "product")) - those(role="writing") - {"masked_select"} | {"div"}
_PRODUCTS = those(function="product")
# The argument that a product adds and does not multiply.
_ADDED = {"addcmul": "input"} | dict.fromkeys(
    those(role=("linear", "convolution", "transposed", "bilinear"), function="product"), "bias"
)
_AT_ZERO = those(kink="zero")
_CUTS = those(kink="bounds")
POOLS = those(kink="window")
PAIRS = those(kink="pair")
KINKED = _AT_ZERO | _CUTS | POOLS | PAIRS


@dataclass(frozen=True)
class Facets:
    """The facets of one operation: the network bends where one of their functions passes zero.

    Attributes
    ----------
    name, kind : str
        The operation.
    value : Tensor
        (N, facets): each function at the image.
    along : Callable
        The linear part of the functions, for a change of what the operation reads.
    shape : tuple of int
        Shape of the units of one image.
    each : int
        Facets of each unit.
    """

    name: str
    kind: str
    value: Tensor
    along: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    each: int

    def owner(self, facet: int) -> dict[str, Any]:
        """Which unit a facet belongs to."""
        place = facet // self.each if self.kind in POOLS else facet % math.prod(self.shape)
        unit = [int(i) for i in np.unravel_index(place, self.shape)]
        which = facet % self.each if self.kind in POOLS else facet // math.prod(self.shape)
        return {"layer": self.name, "kind": self.kind, "unit": unit, "which": int(which)}


def check(call: Call, depends: Callable[[Tensor], bool]) -> None:
    """Refuse an operation that is not piecewise linear in the image.

    Raises
    ------
    OpaqueError
        Naming the operation.
    """
    sources = [value for value in call.tensors if depends(value)]
    if not sources:
        return
    if call.kind in _PRODUCTS and len(_factors(call, depends)) > 1:
        raise bent(call, "multiplies two values of the image")
    if call.kind == "div" and isinstance(call.arguments["other"], Tensor) and depends(call.arguments["other"]):
        raise bent(call, "divides by a value of the image")
    if call.kind == "batch_norm" and call.arguments["training"]:
        raise bent(call, "uses the statistics of the batch")
    if call.kind in ("interpolate", "upsample", "add", "sub") or call.kind in _AFFINE:
        return
    if call.kind in PAIRS and len(call.tensors) < 2:
        raise bent(call, "takes an extreme over a dimension; write a maximum as max pooling")
    if call.kind not in KINKED:
        raise bent(call, "is not piecewise linear, or not known to be")


def _factors(call: Call, depends: Callable[[Tensor], bool]) -> list[Tensor]:
    """The values of the image that a product multiplies; what it only adds, such as a bias, is none."""
    if call.kind == "lerp":  # (end - start) * weight + start
        start, end, weight = (call.arguments.get(name) for name in ("input", "end", "weight"))
        moved = [value for value in (start, end) if isinstance(value, Tensor) and depends(value)]
        return [*moved[:1], *([weight] if isinstance(weight, Tensor) and depends(weight) else [])]
    added = _ADDED.get(call.kind)
    if added is None:
        return [value for value in call.tensors if depends(value)]
    read = tensors([value for name, value in call.arguments.items() if name != added])
    return [value for value in read if depends(value)]


def bent(call: Call, why: str) -> OpaqueError:
    """The error that refuses an operation."""
    return OpaqueError(
        f'a piecewise linear network was expected, but "{call.name}" {why}. Linear regions exist for ReLU, LeakyReLU, '
        "PReLU, ReLU6, clamp, abs, maximum, minimum, max pooling, batch norm in evaluation and linear maps; "
        "for others spaces.jacobian gives the linear approximation."
    )


def facets_of(call: Call, z: Tensor) -> Facets | None:
    """The facets of an operation from the values it reads.

    Parameters
    ----------
    call : Call
        The operation.
    z : Tensor
        What it reads, with the images first; for a maximum or minimum the difference of its two values.
    """
    shape = tuple(z.shape[1:])
    if call.kind in _AT_ZERO or call.kind in PAIRS:
        # Copies: the model may write into its input later.
        return Facets(call.name, call.kind, z.flatten(1).clone(), lambda v: v.flatten(1).clone(), shape, 1)
    if call.kind in _CUTS:
        levels = edges(call)
        value = torch.cat([(z - edge).flatten(1) for edge in levels], 1)
        return Facets(call.name, call.kind, value, lambda v: v.flatten(1).repeat(1, len(levels)), shape, len(levels))
    if call.kind in POOLS:
        return _pooled(call, z)
    return None


def edges(call: Call) -> list[float]:
    """The levels at which an operation on single values bends."""
    if call.kind in _AT_ZERO:
        return [0.0]
    bound = call.arguments
    if call.kind == "relu6":
        return [0.0, 6.0]
    low, high = bound.get("min", bound.get("min_val")), bound.get("max", bound.get("max_val"))
    return [float(edge) for edge in (low, high) if edge is not None]


def _pooled(call: Call, z: Tensor) -> Facets:
    """How far the largest value of each window is above each of the others."""
    reads, sizes = windows(call, z)
    spread = z.flatten(-len(sizes[0]))  # (N, C, positions)
    missing = reads < 0
    taps = spread[..., reads.clamp(min=0)].masked_fill(missing, -math.inf)
    top = taps.argmax(-1, keepdim=True)
    value = (taps.gather(-1, top) - taps).flatten(1)  # the top itself: 0 with no slope, so never a facet

    def along(v: Tensor) -> Tensor:
        change = v.flatten(-len(sizes[0]))[..., reads.clamp(min=0)]
        below: Tensor = change.gather(-1, top) - change
        return torch.where(missing, torch.zeros_like(below), below).flatten(1)

    return Facets(call.name, call.kind, value, along, (*z.shape[1 : -len(sizes[0])], *sizes[1]), reads.shape[1])


def windows(call: Call, z: Tensor) -> tuple[Tensor, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Which positions each output reads, (outputs, taps), -1 for padding; sizes of input and output."""
    bound, dims = call.arguments, 2 if call.kind.endswith("2d") else 1 if call.kind.endswith("1d") else 3
    size = tuple(z.shape[-dims:])
    if call.kind == "adaptive_max_pool2d":
        out = tuple(n if want is None else int(want) for n, want in zip(size, _wanted(bound, dims), strict=True))
        reads = [_adaptive(n, want, z.device) for n, want in zip(size, out, strict=True)]
    else:
        kernel, padding = pair(bound["kernel_size"], dims), pair(bound["padding"], dims)
        stride = kernel if bound["stride"] in (None, [], ()) else pair(bound["stride"], dims)
        dilation = pair(bound["dilation"], dims)
        pool = getattr(torch.nn.functional, f"max_pool{dims}d")
        probe = z.new_zeros(1, 1, *size)
        out = tuple(pool(probe, kernel, stride, padding, dilation, ceil_mode=bool(bound["ceil_mode"])).shape[2:])
        reads = [
            torch.arange(out[axis], device=z.device)[:, None] * stride[axis]
            + torch.arange(kernel[axis], device=z.device) * dilation[axis]
            - padding[axis]
            for axis in range(dims)
        ]
    numbers = torch.arange(math.prod(size), device=z.device).reshape(size)
    for axis in range(dims):
        numbers = _taken(numbers, 2 * axis, reads[axis], size[axis])
    order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)]  # outputs first, then taps
    taps = math.prod(read.shape[1] for read in reads)
    return numbers.permute(order).reshape(math.prod(out), taps), (size, out)


def _adaptive(size: int, out: int, device: torch.device) -> Tensor:
    """Positions that each output of an adaptive pooling reads, (out, longest); -1 where a window is shorter."""
    starts = [place * size // out for place in range(out)]
    ends = [-(-(place + 1) * size // out) for place in range(out)]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    rows = [[*range(start, end), *[-1] * (longest - end + start)] for start, end in zip(starts, ends, strict=True)]
    return torch.tensor(rows, device=device)


def _taken(numbers: Tensor, axis: int, picked: Tensor, size: int) -> Tensor:
    """Windows along one axis; -1 outside."""
    found = numbers.index_select(axis, picked.clamp(0, size - 1).flatten())
    found = found.unflatten(axis, tuple(picked.shape))
    outside = ((picked < 0) | (picked >= size)).reshape(*picked.shape, *[1] * (found.dim() - axis - 2))
    return torch.where(outside, torch.full_like(found, -1), found)


def _wanted(bound: dict[str, Any], dims: int) -> tuple[Any, ...]:
    size = bound["output_size"]
    return tuple(size) if isinstance(size, list | tuple) else (size,) * dims
