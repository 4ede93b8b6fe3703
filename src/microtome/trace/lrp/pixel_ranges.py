"""Which values of a pass are pixels, as given or as prepared by the network, and the range of these values.

A model may crop, fold or normalise its images before its first layer. The results are still pixels: each number is an
affine function of one pixel. So the first layer gets the rule of first layers, and its box is the range of these
pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.trace.lrp.moves import MOVES, WRITES
from microtome.trace.operators.nested_tensors import substitute, tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

# Operations that move, select, repeat or join values, also with constants.
_LAYING_OUT = (MOVES & those(function="identity")) | WRITES
# Operations from one number to one number: affine with constants, or clipped.
_SCALING = frozenset("add sub rsub mul div neg".split())
_CLIPPING = those(role="activation", kink="bounds") | {"relu"}
_NORMS = frozenset(("batch_norm",))
_PREPARING = _NORMS | _SCALING | _CLIPPING
_KEEPING = _LAYING_OUT | _PREPARING

Range = tuple[Tensor, Tensor]


class PixelRanges:
    """The values of one pass that consist of pixels only, each with its lowest and highest numbers."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Range]] = {}

    def keep(self, value: Tensor, low: Tensor, high: Tensor) -> None:
        """Remember the range of a value; ``low`` and ``high`` expand to its shape."""
        self._known[id(value)] = value, (low, high)

    def of(self, value: Any) -> Range | None:
        """The range of a value that consists of pixels only; None for all others."""
        found = self._known.get(id(value))
        return found[1] if found is not None and found[0] is value else None

    def pop(self, key: int, default: None) -> None:
        """Forget a value that an operation overwrites."""
        self._known.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def prepares(self, call: Call) -> bool:
        """Whether an operation scales, shifts or clips pixels: a pixel keeps its relevance through it."""
        if call.kind not in _PREPARING:
            return False
        live = _live(call)
        if len(live) != 1 or self.of(live[0]) is None:
            return False
        if call.kind in _NORMS:
            return not call.arguments["training"] and call.arguments["running_mean"] is not None
        if call.kind == "div":
            return call.arguments["input"] is live[0] and call.arguments["rounding_mode"] is None
        return True

    def after(self, call: Call) -> list[Range]:
        """The range of each tensor of pixels that an operation will return; empty if it returns none."""
        if not self._known or call.kind not in _KEEPING:
            return []
        live = _live(call)
        known = [found for value in live if (found := self.of(value)) is not None]
        if not live or len(known) < len(live) or not (call.kind in _LAYING_OUT or self.prepares(call)):
            return []
        if call.kind == "dropout" or any(value.is_complex() for value in call.tensors):
            return known if call.kind == "dropout" else []  # it must not draw random numbers again
        edges = [_made_of(call, live, [found[edge] for found in known]) for edge in (0, 1)]
        pairs = zip(*edges, strict=True)
        return [(torch.minimum(low, high), torch.maximum(low, high)) for low, high in pairs]  # a scale may be negative


def _live(call: Call) -> list[Tensor]:
    return [*{id(value): value for value in call.tensors if value.requires_grad}.values()]


def _made_of(call: Call, live: list[Tensor], edges: list[Tensor]) -> list[Tensor]:
    """The result of an operation on other numbers than these values, which stay unchanged."""
    swap = {id(value): edge.expand_as(value).clone() for value, edge in zip(live, edges, strict=True)}
    if call.inplace and id(call.input) not in swap:
        swap[id(call.input)] = call.input.detach().clone()
    with torch.no_grad():
        output = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
    return tensors(output) or [swap[id(call.input)]]  # x[0] = 1 returns nothing
