"""Batch norm by hand: scales and shifts of the channels behind a layer, which form one layer with it.

``(conv(x) - mean) / deviation * weight + bias`` is a batch norm, and so is ``conv(x) * scale + shift``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.trace.lrp.linear import Weighted
from microtome.trace.operators.operator_calls import Call


@dataclass(eq=False)
class Scaled:
    """The output of a layer with its channels scaled and shifted.

    Attributes
    ----------
    value : Tensor
        The tensor that the model uses next.
    weighted : Weighted
        The layer.
    scale, shift : Tensor
        By channel, (C,).
    before : Scaled or None
        The value before the last step; None for the layer's own output.
    readers : int
        Number of operations that have read the value.
    """

    value: Tensor
    weighted: Weighted
    scale: Tensor
    shift: Tensor
    before: Scaled | None = None
    readers: int = 0

    def steps(self) -> Iterator[Scaled]:
        """All values up to this one."""
        step: Scaled | None = self
        while step is not None:
            yield step
            step = step.before


Maker = Callable[[Tensor], Weighted | None]


class ChannelScaling:
    """The scaled outputs of layers in one pass."""

    def __init__(self) -> None:
        self._known: dict[int, Scaled] = {}

    def of(self, value: object) -> Scaled | None:
        """The scaled output that a tensor holds, if any."""
        found = self._known.get(id(value))
        return found if found is not None and found.value is value else None

    def read(self, call: Call) -> None:
        """Count the operations that read each value."""
        if self._known:
            for value in call.tensors:
                if (found := self.of(value)) is not None:
                    found.readers += 1

    def note(self, call: Call, output: object, made_by: Maker) -> None:
        """Record the result of a product, quotient or difference with one constant for each channel."""
        if call.kind not in ("mul", "div", "sub") or call.inplace or not isinstance(output, Tensor):
            return
        bound = call.arguments
        if bound.get("rounding_mode") is not None or bound.get("alpha", 1) != 1:
            return
        pairs = [(bound["input"], bound["other"])]
        pairs += [(bound["other"], bound["input"])] if call.kind == "mul" else []
        for x, constant in pairs:
            before = self.of(x)
            weighted = before.weighted if before is not None else made_by(x) if isinstance(x, Tensor) else None
            if weighted is None or weighted.free or weighted.norm is not None or x.shape != output.shape:
                continue
            by_channel = _by_channel(weighted, x, constant)
            if by_channel is not None:
                one, none = torch.ones_like(by_channel), torch.zeros_like(by_channel)
                scale, shift = (one, none) if before is None else (before.scale, before.shift)
                changed = {
                    "mul": (scale * by_channel, shift * by_channel),
                    "div": (scale / by_channel, shift / by_channel),
                    "sub": (scale, shift - by_channel),
                }[call.kind]
                self._known[id(output)] = Scaled(output, weighted, *changed, before)

    def pop(self, key: int, default: None) -> None:
        """Forget a value that an operation overwrites."""
        self._known.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()


def _by_channel(weighted: Weighted, x: Tensor, constant: object) -> Tensor | None:
    if isinstance(constant, int | float):
        channels = weighted.per_channel(x)[0]
        return torch.full((channels,), float(constant), dtype=x.dtype, device=x.device)
    if not isinstance(constant, Tensor) or constant.requires_grad or not constant.is_floating_point():
        return None
    return weighted.added_bias(x, constant)
