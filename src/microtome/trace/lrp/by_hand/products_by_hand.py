"""Linear layers written as an elementwise product with weights and a sum: ``(x[:, None] * weight).sum(2)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.pixel_ranges import PixelRanges, Range
from microtome.trace.operators.nested_tensors import substitute
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

_SUMS = frozenset(("sum", "mean"))
_LAYING_OUT = those(role=("view", "rearrangement", "copy"), function="identity")


@dataclass(frozen=True)
class Terms:
    """Values times constants, element by element: the terms of a linear layer before their sum.

    Attributes
    ----------
    product : Operation
        The product of the values and the constants; it is notified if the model overwrites its values.
    layouts : tuple of Call
        The later calls that changed the layout of the terms.
    pixels : Range or None
        The range of the values if they are pixels.
    one_output : bool
        Whether the sum has one set of weights, so that its bias is one number.
    """

    product: Operation
    layouts: tuple[Call, ...] = ()
    pixels: Range | None = None
    one_output: bool = False

    @property
    def x(self) -> Tensor:
        """The values, in the present shape of the terms."""
        return self._laid_out(self.product.call.args[0])

    @property
    def weight(self) -> Tensor:
        """The constants, in the same shape."""
        return self._laid_out(self.product.call.args[1])

    @property
    def edges(self) -> Range | None:
        """The range of the values, in the same shape."""
        return None if self.pixels is None else (self._laid_out(self.pixels[0]), self._laid_out(self.pixels[1]))

    def differ_along(self, axes: Any) -> bool:
        """Whether the constants differ along one of these axes."""
        weight = self.weight
        return any(
            weight.stride(axis) != 0 and not bool((weight == weight.narrow(axis, 0, 1)).all())
            for axis in axes
            if weight.shape[axis] > 1
        )

    def _laid_out(self, value: Tensor) -> Tensor:
        value = value.expand(self.product.output.shape)
        with torch.no_grad():
            for call in self.layouts:
                swap = {id(call.input): value}
                value = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
        return value


class ProductsByHand:
    """The products of one pass that may become a linear layer by a sum."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Terms]] = {}

    def of(self, call: Call) -> Terms | None:
        """The terms of a sum that is a linear layer: its weights differ along a summed axis."""
        found = self._known.get(id(call.input)) if call.kind in _SUMS else None
        if found is None or found[0] is not call.input:
            return None
        axes = _summed(call)
        if not found[1].differ_along(axes):
            return None
        others = [axis for axis in range(call.input.dim()) if axis not in axes]
        return replace(found[1], one_output=not found[1].differ_along(others))

    def before(self, call: Call, ranges: PixelRanges) -> Terms | None:
        """The terms that an operation will produce."""
        if call.kind == "mul":
            a, b = call.arguments["input"], call.arguments["other"]
            for x, weight in ((a, b), (b, a)):
                if _are_terms(x, weight):
                    values = x.detach().clone() if call.inplace else x.detach()
                    read = Call("mul", torch.mul, (values, weight.detach()), {}, False, call.name)
                    return Terms(Operation(read, (values,), values), pixels=ranges.of(x))
        elif call.kind in _LAYING_OUT and self._known and not call.inplace:
            found = self._known.get(id(call.input))
            if found is not None and found[0] is call.input:
                return replace(found[1], layouts=(*found[1].layouts, call))
        return None

    def after(self, terms: Terms | None, output: Any, will_read: Callable[[Operation], None]) -> None:
        """Record the result of an operation."""
        if terms is not None and isinstance(output, Tensor):
            if not terms.layouts:
                terms.product.output = output.detach()
                will_read(terms.product)
            self._known[id(output)] = output, terms

    def pop(self, key: int, default: None) -> None:
        """Forget a value that an operation overwrites."""
        self._known.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()


def _summed(call: Call) -> list[int]:
    """The summed axes of a sum."""
    dims, axes = call.arguments["dim"], call.input.dim()
    named = range(axes) if dims is None else dims if isinstance(dims, tuple | list) else (dims,)
    return [axis % axes for axis in named]


def _are_terms(x: Any, weight: Any) -> bool:
    live = isinstance(x, Tensor) and x.requires_grad and not x.is_complex()
    constant = isinstance(weight, Tensor) and not weight.requires_grad and weight.is_floating_point()
    return live and constant and weight.numel() > 1
