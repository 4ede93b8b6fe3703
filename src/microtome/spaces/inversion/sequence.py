"""A network as the sequence of operations from the image to the class scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from microtome.network import Network
from microtome.trace import Call, Tracer
from microtome.trace.operators.nested_tensors import substitute, tensors


@dataclass(frozen=True)
class Step:
    """One operation on the way.

    Attributes
    ----------
    name : str
        The layer it belongs to.
    call : Call
        The operation; its ``arguments`` hold the weights as used.
    reads, gives : Tensor
        What it read and what it gave for the images of the pass.
    alone : bool
        True when it reads nothing of the image but what the step before gave.
    """

    name: str
    call: Call
    reads: Tensor
    gives: Tensor
    alone: bool

    @torch.no_grad()
    def run(self, x: Tensor) -> Tensor:
        """The operation on another value in place of what it read."""
        source = self.call.input
        out = self.call.func(
            *substitute(self.call.args, {id(source): x}), **substitute(self.call.kwargs, {id(source): x})
        )
        return x if out is None else tensors(out)[0]


class _Chain:
    """Notes operations that depend on the image, in order."""

    def __init__(self, images: Tensor, names: dict[str, str]) -> None:
        self.steps: list[Step] = []
        self._names = names
        self._made: dict[int, Tensor] = {id(images): images}
        self._last = images
        self._before = images.clone()

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        sources = [value for value in call.tensors if id(value) in self._made]
        outputs = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        if not sources or not outputs or not outputs[0].is_floating_point():
            return
        alone = all(value is self._last for value in sources) and call.input is self._last
        gives = outputs[0].detach().clone()
        name = self._names.get(call.name, call.name)
        self.steps.append(Step(name, call, self._before, gives, alone))
        self._made |= {id(value): value for value in outputs}
        self._last, self._before = outputs[0], gives


def chain(net: Network, images: Tensor) -> list[Step]:
    """The operations from the picture to the class scores, in order, without a closing softmax or sigmoid.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W): on which images.
    """
    names = {layer.operation: layer.name for layer in net.layers.values() if layer.leaf}
    prepared = net.normalise(net.images(images, check=False))
    found = _Chain(prepared, names)
    with torch.no_grad():
        Tracer(net.model, observer=found)(prepared)
    steps = found.steps
    if net.head.cut:
        ends = [place for place, step in enumerate(steps) if step.call.name == net.head.cut]
        steps = steps[: ends[-1]] if ends else steps
    return _with_own_padding(net, steps)


def _with_own_padding(net: Network, steps: list[Step]) -> list[Step]:
    """A convolution module that pads by itself (circular, reflected, replicated) is one step with its padding."""
    joined: list[Step] = []
    for step in steps:
        layer = net.layers.get(step.name)
        pads = getattr(layer.module, "padding_mode", "zeros") != "zeros" if layer is not None else False
        before = joined[-1] if joined else None
        if pads and before is not None and before.call.kind == "pad" and before.call.name.startswith(f"{step.name}/"):
            step = replace(step, reads=before.reads, alone=before.alone)
            joined.pop()
        joined.append(step)
    return joined
