"""The inverse of one operation: pseudo-inverse, inverse function, affine inverse or permutation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from microtome.network import Network
from microtome.spaces.inversion.activation_inverses import InverseFunction, inverse_function
from microtome.spaces.inversion.sequence import Step
from microtome.spaces.operators.convolution import ConvolutionOperator, convolution
from microtome.spaces.operators.linear_layer import LINEAR, PRODUCTS, bias_of, weight_of
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import Operator
from microtome.spaces.singular.tokenwise import pointwise

_AFFINE = frozenset(("add", "sub", "rsub", "mul", "div", "neg", "batch_norm"))
_MOVES = frozenset(
    """view reshape permute transpose contiguous flatten unflatten squeeze unsqueeze to float chunk split detach clone
    type_as t T movedim view_as dropout identity double getitem pixel_shuffle pixel_unshuffle channel_shuffle flip
    roll alias requires_grad_ expand""".split()
)
_DENSE_SIDE = 1600  # up to this many values on the shorter side the matrix is decomposed, else conjugate gradients


class Inverse(ABC):
    """The inverse of one operation.

    Attributes
    ----------
    exact : bool
        True when every input comes back; otherwise the part in the signal space does.
    proved : bool
        False if ``exact`` follows from the shape only, the rank not being known.
    condition_number : float
        By how much errors may grow; NaN if it was not computed.
    rank : int
        Directions that survive the step; 0 where it was not computed.
    """

    exact: bool = True
    proved: bool = True
    condition_number: float = math.nan
    rank: int = 0

    @abstractmethod
    def undo(self, y: Tensor, beside: Tensor | None) -> Tensor:
        """The input for an output; the null-space part is taken from ``beside``, else it is zero."""

    @abstractmethod
    def change(self, by: Tensor, y: Tensor) -> Tensor:
        """The change of the input for a small change of the output, at the output y."""

    def inside(self, y: Tensor) -> Tensor:
        """(N,): which outputs lie in the range of the operation."""
        return torch.ones(len(y), dtype=torch.bool, device=y.device)

    @property
    def range(self) -> str:
        """The range in words."""
        return "all values"


@final
class LinearInverse(Inverse):
    """x = A^+ (y - b), the shortest solution; with ``beside`` the solution nearest to it."""

    def __init__(self, operator: Operator, bias: Tensor | None) -> None:
        self._of, self._bias = operator, bias
        m, n = operator.shape
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None
        if isinstance(operator, MatrixOperator) or (min(m, n) <= _DENSE_SIDE and m * n <= 50_000_000):
            matrix = operator.weight if isinstance(operator, MatrixOperator) else operator.dense()
            u, s, v = torch.linalg.svd(matrix, full_matrices=False)
            rank = int((s > max(matrix.shape) * torch.finfo(torch.float64).eps * s[0]).sum()) if len(s) else 0
            self._factors = (u[:, :rank], s[:rank], v[:rank])
            self.rank, self.exact = rank, rank == matrix.shape[1]
            self.condition_number = float(s[0] / s[rank - 1]) if rank else math.nan
        elif isinstance(operator, ConvolutionOperator) and pointwise(operator) and set(operator.stride) == {1}:
            s = torch.linalg.svdvals(operator.weight.reshape(operator.groups, -1, operator.weight.shape[1]))
            counts = s > max(operator.shape) * torch.finfo(torch.float64).eps * s.max()
            self.rank = int(counts.sum()) * math.prod(operator.input_shape[1:])
            self.exact = self.rank == n
            self.condition_number = float(s.max() / s[counts].min()) if self.rank else math.nan
        else:
            self.exact, self.proved = m >= n, m < n

    def undo(self, y: Tensor, beside: Tensor | None) -> Tensor:
        """The pseudo-inverse."""
        shape = (-1, *[1] * (len(self._of.output_shape) - 1))
        bias = self._bias
        if bias is not None:
            y = y - (bias if isinstance(self._of, MatrixOperator) else bias.reshape(shape))
        if beside is not None:  # the solution nearest to it: beside + A^+ (y - A beside)
            return beside + self._shortest(y - self._of.apply(beside))
        return self._shortest(y)

    def change(self, by: Tensor, y: Tensor) -> Tensor:
        """The pseudo-inverse again, without the bias."""
        return self._shortest(by)

    def _shortest(self, y: Tensor) -> Tensor:
        if self._factors is None:
            return _least_squares(self._of, y)
        u, s, v = self._factors
        whole = y if isinstance(self._of, MatrixOperator) else y.flatten(1)
        return (((whole @ u) / s) @ v).reshape(-1, *self._of.input_shape)


@final
class FunctionInverse(Inverse):
    """The inverse of an activation, value by value."""

    def __init__(self, function: InverseFunction) -> None:
        self._function = function

    def undo(self, y: Tensor, beside: Tensor | None) -> Tensor:
        """The inverse function; NaN outside its range."""
        return self._function.undo(y)

    def change(self, by: Tensor, y: Tensor) -> Tensor:
        """Times the derivative of the inverse function."""
        at = y.detach().clone().requires_grad_()
        with torch.enable_grad():
            return by * torch.autograd.grad(self._function.undo(at).sum(), at)[0]

    def inside(self, y: Tensor) -> Tensor:
        """Whether all values are in the open range."""
        return self._function.inside(y)

    @property
    def range(self) -> str:
        """The range in words."""
        low, high = self._function.low, self._function.high
        return f"({low:.6g}, {high:.6g})"


@final
class AffineInverse(Inverse):
    """A scale and a shift for each value: batch norm, adding or multiplying by constants."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        self._scale, self._shift = scale, shift
        sizes = scale.abs()
        self.condition_number = float(sizes.max() / sizes.min())

    def undo(self, y: Tensor, beside: Tensor | None) -> Tensor:
        """(y - shift) / scale."""
        return (y - self._shift) / self._scale

    def change(self, by: Tensor, y: Tensor) -> Tensor:
        """Divided by the scale."""
        return by / self._scale


@final
class MoveInverse(Inverse):
    """The inverse of an operation that only permutes or reshapes values."""

    def __init__(self, source: Tensor, shape: tuple[int, ...]) -> None:
        self._source, self._shape = source, shape
        self.condition_number = 1.0

    def undo(self, y: Tensor, beside: Tensor | None) -> Tensor:
        """Move each value back to its place in the input."""
        x = y.new_empty(len(y), self._source.numel())
        x[:, self._source] = y.flatten(1)
        return x.reshape(-1, *self._shape)

    def change(self, by: Tensor, y: Tensor) -> Tensor:
        """Moved back as the values are."""
        return self.undo(by, None)


@dataclass(frozen=True)
class NoInverse:
    """The reason why an operation has no inverse."""

    reason: str


def inverse_of(net: Network, step: Step) -> Inverse | NoInverse:
    """The inverse of an operation, or the reason why it has none."""
    kind = step.call.kind
    if not step.alone:
        return NoInverse(f"{kind} reads more than one branch of the network")
    if kind in LINEAR and weight_of(step.call) is not None:
        return LinearInverse(_operator(net, step), bias_of(step.call))
    if kind == "batch_norm" and step.call.arguments["training"]:
        return NoInverse("batch_norm with the statistics of the batch mixes the images")
    if kind in _AFFINE:
        return _affine(step)
    if kind in _MOVES:
        return _moved(step)
    found = inverse_function(step.call)
    return NoInverse(found) if isinstance(found, str) else FunctionInverse(found)


def _operator(net: Network, step: Step) -> Operator:
    if step.call.kind in PRODUCTS:
        weight = weight_of(step.call)
        return MatrixOperator(
            step.name, step.reads.new_empty(0) if weight is None else weight, tuple(step.reads.shape[1:])
        )
    return convolution(net, step.name, step.call)


def _affine(step: Step) -> Inverse | NoInverse:
    zero = torch.zeros_like(step.reads[:1])
    shift = step.run(zero.clone())
    scale = step.run(torch.ones_like(zero)) - shift
    if scale.shape != zero.shape or not bool((scale != 0).all()):
        return NoInverse(f"{step.call.kind} multiplies values by zero or changes their number")
    return AffineInverse(scale, shift)


def _moved(step: Step) -> Inverse | NoInverse:
    """Send numbered values through the operation: a permutation has an inverse."""
    shape = tuple(step.reads.shape)
    numbers = torch.arange(math.prod(shape), dtype=torch.float64, device=step.reads.device).reshape(shape)
    try:
        source = step.run(numbers).double()
    except (RuntimeError, IndexError) as error:
        return NoInverse(f"{step.call.kind} cannot be followed: {error}")
    each = math.prod(shape[1:])
    first = source[0].flatten().long()
    places = torch.arange(each, device=first.device)
    if len(source) != shape[0] or first.numel() != each or not torch.equal(first.sort().values, places):
        return NoInverse(f"{step.call.kind} drops, repeats or mixes values")
    return MoveInverse(first, shape[1:])


def _least_squares(operator: Operator, y: Tensor, tolerance: float = 1e-12, iterations: int = 2000) -> Tensor:
    """A^+ y by conjugate gradients on the normal equations, from zero."""
    x = y.new_zeros(len(y), *operator.input_shape)
    residual = y.clone()
    slope = operator.adjoint(residual)
    step, length = slope.clone(), _square(slope)
    start = length.clone()
    for _ in range(iterations):
        if not bool((length > tolerance**2 * start).any()):
            break
        image = operator.apply(step)
        rate = length / _square(image).clamp(min=1e-300)
        x, residual = x + rate * step, residual - rate * image
        slope = operator.adjoint(residual)
        renewed = _square(slope)
        step, length = slope + renewed / length.clamp(min=1e-300) * step, renewed
    return x


def _square(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).reshape(-1, *[1] * (x.dim() - 1))
