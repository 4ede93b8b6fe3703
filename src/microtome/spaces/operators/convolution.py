"""The operator of a convolution or transposed convolution on whole feature maps, with its true padding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import LayerError
from microtome.network import Network
from microtome.spaces.operators.linear_layer import CONVOLUTIONS, TRANSPOSED, pair, shape_read_by, weight_of
from microtome.spaces.operators.operator import Operator
from microtome.trace import Call

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@final
class ConvolutionOperator(Operator):
    """A convolution without its bias: pad, slide, sum.

    Parameters
    ----------
    name : str
        The layer.
    weight : Tensor
        (C_out, C_in / groups, ...) kernels.
    input_shape : tuple of int
        (C_in, ...) feature maps that it reads.
    stride, dilation : tuple of int
        One for each spatial dimension.
    widths : tuple of (int, int)
        Padding before and after, for each spatial dimension.
    mode : str
        ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``: what the padding holds.
    groups : int
        Groups of channels.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        input_shape: tuple[int, ...],
        *,
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        widths: tuple[tuple[int, int], ...],
        mode: str = "zeros",
        groups: int = 1,
    ) -> None:
        self.name, self.weight, self.input_shape = name, weight.double(), input_shape
        self.device = weight.device
        self.stride, self.dilation, self.widths, self.mode, self.groups = stride, dilation, widths, mode, groups
        dims = len(stride)
        self._forward = getattr(functional, f"conv{dims}d")
        self._backward = getattr(functional, f"conv_transpose{dims}d")
        self._padded = tuple(size + sum(width) for size, width in zip(input_shape[1:], widths, strict=True))
        window = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        room = [size - far for size, far in zip(self._padded, window, strict=True)]
        # Rows at the far edge that no window reaches: the adjoint puts zeros there.
        self._unread = tuple(free % step for free, step in zip(room, stride, strict=True))
        spread = tuple(free // step + 1 for free, step in zip(room, stride, strict=True))
        self.output_shape = (int(weight.shape[0]), *spread)
        if mode != "circular":  # around the edge the far ends meet, and the band is the whole matrix
            rest = max(math.prod(input_shape[2:]) * input_shape[0], math.prod(spread[1:]) * int(weight.shape[0]))
            self.band = (window[0] // 2 + 1) * rest // groups
        else:
            self.band = min(self.shape) // groups

    def apply(self, x: Tensor) -> Tensor:
        """Convolve feature maps (N, C_in, ...)."""
        padded = self._pad(self.as_batch(x, self.input_shape))
        out: Tensor = self._forward(padded, self.weight, None, self.stride, 0, self.dilation, self.groups)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """Spread feature maps (N, C_out, ...) back over the input."""
        y = self.as_batch(y, self.output_shape)
        spread = self._backward(y, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        spread = functional.pad(spread, [side for unread in reversed(self._unread) for side in (0, unread)])
        if self.mode == "zeros":
            for axis, ((before, _), size) in enumerate(zip(self.widths, self.input_shape[1:], strict=True)):
                spread = spread.narrow(2 + axis, before, size)
            return spread
        with torch.enable_grad():
            source = y.new_zeros(len(y), *self.input_shape).requires_grad_()
            return torch.autograd.grad(self._pad(source), source, spread)[0]

    def sparse(self) -> csr_matrix:
        """The matrix, one entry for each kernel weight and position that meets a value."""
        from scipy.sparse import coo_matrix

        m, n = self.shape
        numbers = torch.arange(1, n + 1, dtype=torch.float64, device=self.device).reshape(1, *self.input_shape)
        source = self._pad(numbers)[0].long() - 1  # -1 where the padding is zero
        positions = math.prod(self.output_shape[1:])
        outputs, inputs = int(self.weight.shape[0]) // self.groups, int(self.weight.shape[1])
        rows, columns, values = [], [], []
        for tap in np.ndindex(*self.weight.shape[2:]):
            seen = source
            for axis, (offset, step, d) in enumerate(zip(tap, self.stride, self.dilation, strict=True)):
                picked = torch.arange(self.output_shape[1 + axis], device=self.device) * step + offset * d
                seen = seen.index_select(1 + axis, picked)
            seen = seen.reshape(self.groups, 1, inputs, positions).expand(-1, outputs, -1, -1)
            row = torch.arange(m, device=self.device).reshape(self.groups, outputs, 1, positions).expand_as(seen)
            weight = self.weight[(..., *tap)].reshape(self.groups, outputs, inputs, 1).expand_as(seen)
            met = seen >= 0
            rows.append(row[met])
            columns.append(seen[met])
            values.append(weight[met])
        entry, at, reads = (torch.cat(part).cpu().numpy() for part in (values, rows, columns))
        entries = (entry, (at, reads))
        return coo_matrix(entries, shape=(m, n)).tocsr()

    def group(self, number: int) -> ConvolutionOperator:
        """One group of channels as a convolution of its own."""
        outputs, inputs = int(self.weight.shape[0]) // self.groups, int(self.weight.shape[1])
        return ConvolutionOperator(
            self.name,
            self.weight[number * outputs : (number + 1) * outputs],
            (inputs, *self.input_shape[1:]),
            stride=self.stride,
            dilation=self.dilation,
            widths=self.widths,
            mode=self.mode,
        )

    def _pad(self, x: Tensor) -> Tensor:
        widths = [side for width in reversed(self.widths) for side in width]
        if not any(widths):
            return x
        return functional.pad(x, widths, mode="constant" if self.mode == "zeros" else self.mode)


@final
class TransposedConvolutionOperator(Operator):
    """A transposed convolution: the adjoint of a convolution."""

    def __init__(self, name: str, convolution: ConvolutionOperator) -> None:
        self.name, self.convolution = name, convolution
        self.input_shape, self.output_shape = convolution.output_shape, convolution.input_shape
        self.groups, self.band, self.device = convolution.groups, convolution.band, convolution.device

    def apply(self, x: Tensor) -> Tensor:
        """Spread feature maps."""
        return self.convolution.adjoint(self.as_batch(x, self.input_shape))

    def adjoint(self, y: Tensor) -> Tensor:
        """Convolve feature maps."""
        return self.convolution.apply(self.as_batch(y, self.output_shape))

    def sparse(self) -> csr_matrix:
        """The transposed matrix of the convolution."""
        return self.convolution.sparse().T.tocsr()


def convolution(net: Network, layer: str, call: Call) -> ConvolutionOperator | TransposedConvolutionOperator:
    """The operator of a convolution call; see ``spaces.operator``.

    Raises
    ------
    LayerError
        When the call is no convolution with a weight.
    """
    weight = weight_of(call)
    if weight is None or call.kind not in CONVOLUTIONS | TRANSPOSED:
        raise LayerError(f'"{layer}" is {call.kind}, not a convolution.')
    bound, dims = call.arguments, weight.dim() - 2
    stride, dilation = pair(bound["stride"], dims), pair(bound["dilation"], dims)
    groups = int(bound["groups"])
    if call.kind in TRANSPOSED:
        return _transposed(layer, call, weight, stride, dilation, groups)
    widths = _widths(bound["padding"], tuple(weight.shape[2:]), dilation)
    module: Any = net.layers[layer].module if layer in net.layers else None
    mode, shape = "zeros", tuple(call.input.shape[-dims - 1 :])
    if getattr(module, "padding_mode", "zeros") != "zeros":  # the module pads before it convolves
        mode, shape = str(module.padding_mode), shape_read_by(net, layer)[-dims - 1 :]
        flat = [int(side) for side in module._reversed_padding_repeated_twice]
        widths = tuple((flat[2 * axis], flat[2 * axis + 1]) for axis in reversed(range(dims)))
    return ConvolutionOperator(
        layer, weight, shape, stride=stride, dilation=dilation, widths=widths, mode=mode, groups=groups
    )


def _widths(padding: object, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Padding before and after; "same" puts the smaller half before."""
    if padding == "valid":
        return tuple((0, 0) for _ in kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((side, side) for side in pair(padding, len(kernel)))


def _transposed(
    layer: str, call: Call, weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> TransposedConvolutionOperator:
    """The convolution whose adjoint the layer is: from the layer's output to its input."""
    bound, dims = call.arguments, weight.dim() - 2
    padding, extra = pair(bound["padding"], dims), pair(bound["output_padding"], dims)
    reads = tuple(call.input.shape[-dims:])
    sizes = tuple(
        (length - 1) * s - 2 * p + d * (k - 1) + 1 + more
        for length, s, p, d, k, more in zip(reads, stride, padding, dilation, weight.shape[2:], extra, strict=True)
    )
    channels = int(weight.shape[1]) * groups
    whole = ConvolutionOperator(
        layer,
        weight,
        (channels, *sizes),
        stride=stride,
        dilation=dilation,
        widths=tuple((side, side) for side in padding),
        groups=groups,
    )
    return TransposedConvolutionOperator(layer, whole)
