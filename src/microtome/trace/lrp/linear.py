"""Convolutions and linear layers as linear maps with their adjoints, the batch norm after them included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.by_hand.products_by_hand import Terms
from microtome.trace.lrp.image_sums import ImageSums
from microtome.trace.lrp.rules import Linear, Rule
from microtome.trace.operators.conv_arithmetic import each, sides
from microtome.trace.operators.nested_tensors import substitute
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import WEIGHTED as WEIGHTED
from microtome.trace.operators.operator_table import those

CONVOLUTIONS = those(role=("convolution", "transposed"))
_DENSE = frozenset(("matmul", "mm"))
_PRODUCTS = those(role="product")

Map = Callable[[Tensor, Tensor], Tensor]
Constants = Callable[[], tuple[Tensor, Tensor]]  # the scale and the shift of the channels, when they are needed


class Weighted:
    """A convolution or linear layer waiting for relevance, perhaps with the batch norm that follows it."""

    def __init__(self, rule: Rule, call: Call, pixels: tuple[Tensor, ...] | None, terms: Terms | None = None) -> None:
        self.rule, self.kind = rule, call.kind
        self.pixels, self._terms = pixels, terms
        self.readers = 0
        self.norm: tuple[Constants, Tensor | None] | None = None
        self.normed = False  # whether a batch norm has read its output
        self.affine: tuple[Tensor, Tensor] | None = None  # scale and shift of the channels, in steps by hand
        # Whether the channel axis is unknown.
        self.free = terms is not None or (call.kind in _PRODUCTS and not _on_the_right(call))
        vector = terms is None and any(value.dim() == 1 for value in call.tensors if not value.requires_grad)
        self._one_output = self.free and (vector if terms is None else terms.one_output)
        self._places = call.arguments["weight"].dim() - 2 if self.convolves else 0

    @property
    def convolves(self) -> bool:
        """Whether channels come before the positions of the output, not last."""
        return self.kind in CONVOLUTIONS

    def per_channel(self, output: Tensor) -> tuple[int, ...]:
        """The shape of one number for each channel that adds to the output."""
        return (output.shape[-1 - self._places], *(1,) * self._places)

    def added_bias(self, output: Tensor, added: Tensor) -> Tensor | None:
        """The constant that a sum adds to the output, if it is one number per channel; None otherwise.

        The constant may be repeated for each image.
        """
        if self.free:  # along one axis, whichever holds the channels
            once = without_repeats(added, range(1)) if added.dim() == output.dim() else added
            along = once.numel() in once.shape if once.numel() > 1 else self._one_output
            fits = along and once.dim() <= output.dim()
            return once.detach().clone() if fits else None
        shape = self.per_channel(output)
        channels = added.dim() - len(shape)
        if channels < 0 or added.shape[channels] != shape[0]:
            return None
        once = without_repeats(added, [axis for axis in range(added.dim()) if axis != channels])
        return once.detach().clone().flatten() if once.numel() == shape[0] else None  # the sum may write into it

    def operator(self, operation: Operation, images: ImageSums) -> Linear:
        """The linear operator at the values of this pass, with the sums by image for its result."""
        if self.free:
            return self._free_operator(operation, images)
        bound = operation.call.arguments
        forward, adjoint, weight, axis = linear_maps(self.kind, bound)
        bias, output = bound.get("bias"), operation.output
        channels = weight.shape[axis] * (int(bound.get("groups") or 1) if "transpose" in self.kind else 1)
        if bias is not None and self.kind == "addmm" and bias.dim() > 1:
            bias = bias[0]
        behind = self.affine
        if self.norm is not None and self.norm[1] is not None:
            behind, output = self.norm[0](), self.norm[1]
        elif behind is not None:
            shape = self.per_channel(output)
            output = output * behind[0].view(shape) + behind[1].view(shape)
        if behind is not None:
            scale, shift = behind
            groups = int(bound.get("groups") or 1)
            if "transpose" in self.kind and groups > 1:
                parts = scale.reshape(groups, 1, -1).repeat_interleave(weight.shape[0] // groups, 0)
                weight = weight * parts.reshape(weight.shape[0], -1, *(1,) * (weight.dim() - 2))
            else:
                weight = weight * scale.reshape([-1 if dim == axis else 1 for dim in range(weight.dim())])
            bias = shift if bias is None else torch.addcmul(shift, scale, bias)
        if bias is None:
            bias = weight.new_zeros(channels)
        if self.kind in CONVOLUTIONS:
            bias = bias.reshape(-1, *(1,) * (weight.dim() - 2))
        if operation.reduced:  # the network's z is rounded, and x w would not add up to it
            output = forward(bound["input"], weight) + bias
        x = bound["input"]
        low, high = (edge.to(x.dtype) for edge in self.pixels) if self.pixels is not None else (None, None)
        return Linear(x, weight, bias, output, forward, adjoint, low, high, images)

    def _free_operator(self, operation: Operation, images: ImageSums) -> Linear:
        """A product of any layout with a constant, its adjoint by autograd; its bias has the output's shape.

        Also a sum of elementwise products, whose terms are its inputs.
        """
        call, terms = operation.call, self._terms
        x, weight = _factors(operation) if terms is None else (terms.x, terms.weight)

        def forward(value: Tensor, w: Tensor) -> Tensor:
            swap = {id(x): value, id(weight): w} if terms is None else {id(call.input): value * w}
            output: Tensor = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
            return output

        def adjoint(signal: Tensor, w: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = torch.zeros_like(x, requires_grad=True)
                return torch.autograd.grad(forward(leaf, w.detach()), leaf, signal)[0]

        low, high = (edge.to(x.dtype) for edge in self.pixels) if self.pixels is not None else (None, None)
        bias, output = weight.new_zeros(()), operation.output
        if self.norm is not None and self.norm[1] is not None:
            bias, output = self.norm[0]()[1], self.norm[1]
        if operation.reduced:
            output = forward(x, weight) + bias
        return Linear(x, weight, bias.expand(output.shape), output, forward, adjoint, low, high, images)


def is_layer_by_product(call: Call) -> bool:
    """Whether a product is a linear layer written by hand: values times one constant, such as a matrix."""
    held = call.tensors
    return call.kind in _PRODUCTS and len(held) == 2 and sum(value.requires_grad for value in held) == 1


def read_by_layer(call: Call) -> Tensor:
    """The input of a layer that is not its weight."""
    if call.kind in _PRODUCTS:
        return next(value for value in call.tensors if value.requires_grad)
    x: Tensor = call.arguments["input"]
    return x


def _on_the_right(call: Call) -> bool:
    """Whether the constant is a matrix on the right, so that channels are last, as in a linear layer."""
    if call.kind not in _DENSE:
        return False
    x, matrix = call.arguments["input"], call.arguments["other"]
    constant = isinstance(matrix, Tensor) and matrix.dim() == 2 and not matrix.requires_grad
    return constant and isinstance(x, Tensor) and x.requires_grad and x.dim() >= 2


def _factors(operation: Operation) -> tuple[Tensor, Tensor]:
    """The value and the constant of a product."""
    first, second = operation.call.tensors
    return (first, second) if first is operation.inputs[0] else (second, first)


def linear_maps(kind: str, bound: dict[str, Any]) -> tuple[Map, Map, Tensor, int]:
    """The linear part of an operator and its adjoint, its weights, and the weights' output axis."""
    if kind in _DENSE:
        return (lambda x, w: x @ w), (lambda s, w: s @ w.t()), bound["other"], 1
    weight = bound["weight"]
    if kind == "linear":
        return (lambda x, w: functional.linear(x, w)), (lambda s, w: s @ w), weight, 0
    if kind == "addmm":
        return (lambda x, w: x @ w), (lambda s, w: s @ w.t()), weight, 1
    x, n = bound["input"], weight.dim() - 2
    transposed = "transpose" in kind
    stride, dilation = each(bound["stride"], n), each(bound["dilation"], n)
    groups, output_padding = int(bound["groups"]), each(bound.get("output_padding") or 0, n)
    alone = x.dim() == n + 1  # one image without an image axis
    around = sides(bound["padding"], weight.shape[2:], dilation)
    padding, uneven = [before for before, _ in around], [behind - before for before, behind in around]
    shape = [1, *x.shape] if alone else list(x.shape)
    for axis in range(n):
        shape[2 + axis] += uneven[axis]

    def forward(value: Tensor, w: Tensor) -> Tensor:
        value = (
            functional.pad(value, [side for extra in reversed(uneven) for side in (0, extra)]) if any(uneven) else value
        )
        value = value[None] if alone else value
        output = torch.convolution(value, w, None, stride, padding, dilation, transposed, output_padding, groups)
        return output[0] if alone else output

    # Only its shape counts, but numbers that are not laid out in a row would be copied.
    shaped = x if list(x.shape) == shape else x.new_empty(1).expand(shape)

    def adjoint(signal: Tensor, w: Tensor) -> Tensor:
        back: Tensor = torch.ops.aten.convolution_backward(
            signal[None] if alone else signal,
            shaped,
            w,
            None,
            stride,
            padding,
            dilation,
            transposed,
            output_padding,
            groups,
            [True, False, False],
        )[0]
        back = back[0] if alone else back
        return back[tuple(slice(0, size) for size in x.shape)] if any(uneven) else back

    return forward, adjoint, weight, 1 if transposed else 0


def without_repeats(constant: Tensor, axes: Iterable[int]) -> Tensor:
    """A constant without its repeats along some axes, as far as the first along which its numbers differ."""
    for axis in axes:
        if constant.shape[axis] > 1:
            first = constant.narrow(axis, 0, 1)
            if constant.stride(axis) != 0 and not bool((constant == first).all()):
                break
            constant = first
    return constant
