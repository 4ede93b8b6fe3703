"""The largest singular triplets of a convolution, by positions, groups and Davidson's method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from microtome.spaces.operators.convolution import ConvolutionOperator
from microtome.spaces.operators.fourier import Symbol
from microtome.spaces.singular.davidson import davidson
from microtome.spaces.singular.tokenwise import Triplets, by_points, pointwise

_WORK = 2.0e9  # positions times channels cubed up to which the symbol's blocks are worth their inverses
_AHEAD = 4  # waves to start with beyond those wanted


def largest_of_convolution(operator: ConvolutionOperator, k: int, seed: int, tolerance: float) -> Triplets | None:
    """The ``k`` largest singular triplets of a convolution; None if no structure of it helps.

    A 1 x 1 kernel has those of its small matrix, once for every position: exact. Groups of channels do not
    meet, so that each is a convolution of its own; a group whose largest possible value is below those
    found is left out. Otherwise Davidson's method starts from the strongest waves of the symbol.

    Parameters
    ----------
    operator : ConvolutionOperator
        The convolution.
    k : int
        How many.
    seed : int
        Seed of the starting vectors that are noise.
    tolerance : float
        Largest residual wanted, by the largest singular value.
    """
    if pointwise(operator) and (found := by_points(operator, k, "largest")) is not None:
        return found
    if operator.groups > 1:
        return _by_groups(operator, k, seed, tolerance)
    return _by_waves(operator, None, k, seed, tolerance)


def _by_groups(operator: ConvolutionOperator, k: int, seed: int, tolerance: float) -> Triplets | None:
    """The best of all groups, those with the highest bound first."""
    groups = [operator.group(number) for number in range(operator.groups)]
    if not _affordable(groups[0], operator.groups):
        return None
    symbols = [Symbol(group, inputs=_reads_less(group)) for group in groups]
    bounds = [symbol.bound(_degree(operator)) if operator.mode == "zeros" else math.inf for symbol in symbols]
    parts: dict[int, Triplets] = {}
    values = operator.weight.new_empty(0)
    for number in sorted(range(operator.groups), key=lambda place: -bounds[place]):
        if len(values) >= k and bounds[number] < float(values[k - 1]):
            break
        found = _by_waves(groups[number], symbols[number], min(k, *groups[number].shape), seed, tolerance)
        if found is None:
            return None
        parts[number] = found
        values = torch.cat([values, found[1]]).sort(descending=True).values
    if len(values) < k:
        return None
    return _joined(operator, parts, k)


def _joined(operator: ConvolutionOperator, parts: dict[int, Triplets], k: int) -> Triplets:
    """The k largest triplets of some groups as triplets of the whole, zero in all other groups."""
    m, n = operator.shape
    values = torch.cat([part[1] for part in parts.values()])
    owners = [(number, within) for number, part in parts.items() for within in range(len(part[1]))]
    left, right = (
        values.new_zeros(k, operator.groups, m // operator.groups),
        values.new_zeros(k, operator.groups, n // operator.groups),
    )
    order = values.argsort(descending=True)[:k]
    for row, chosen in enumerate(order.tolist()):
        number, within = owners[chosen]
        left[row, number], right[row, number] = parts[number][0][within], parts[number][2][within]
    return left.reshape(k, m), values[order], right.reshape(k, n)


def _degree(operator: ConvolutionOperator) -> tuple[int, ...]:
    """How far apart two outputs may be that read a common input, for each spatial dimension."""
    sizes = zip(operator.weight.shape[2:], operator.dilation, operator.stride, strict=True)
    return tuple(d * (length - 1) // step for length, d, step in sizes)


def _reads_less(operator: ConvolutionOperator) -> bool:
    return operator.shape[1] <= operator.shape[0]


def _affordable(operator: ConvolutionOperator, copies: int = 1) -> bool:
    """Whether the symbol's blocks, one a position, can be inverted in seconds."""
    channels = (
        operator.input_shape[0] * math.prod(operator.stride) if _reads_less(operator) else operator.output_shape[0]
    )
    return copies * math.prod(operator.output_shape[1:]) * float(channels) ** 3 <= _WORK


def _by_waves(
    operator: ConvolutionOperator, symbol: Symbol | None, k: int, seed: int, tolerance: float
) -> Triplets | None:
    """Davidson's method from the strongest waves, on the shorter side."""
    inputs = _reads_less(operator)
    shape = operator.input_shape if inputs else operator.output_shape
    if not _affordable(operator):
        return None
    symbol = Symbol(operator, inputs=inputs) if symbol is None else symbol
    if not symbol.most > 0:
        return None

    def gram(x: Tensor) -> Tensor:
        x = x.reshape(-1, *shape)
        return (operator.adjoint(operator.apply(x)) if inputs else operator.apply(operator.adjoint(x))).flatten(1)

    def precondition(x: Tensor) -> Tensor:
        return symbol.precondition(x.reshape(-1, *shape)).flatten(1)

    start = symbol.start(k + _AHEAD, max(2, k // 2), torch.Generator().manual_seed(seed)).flatten(1)
    start = start[: min(len(start), start.shape[1])]
    squares, vectors, converged = davidson(gram, precondition, start, k, tolerance / 2)
    values = squares.clamp(min=0).sqrt()
    if not converged or not float(values[-1]) > 1e-7 * float(values[0]):  # below, a square is rounding
        return None
    move = operator.apply if inputs else operator.adjoint
    other = move(vectors.reshape(-1, *shape)).flatten(1) / values[:, None]
    return (other, values, vectors) if inputs else (vectors, values, other)
