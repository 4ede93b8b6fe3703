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


def largest_of_convolution(of: ConvolutionOperator, k: int, seed: int, tolerance: float) -> Triplets | None:
    """The ``k`` largest singular triplets of a convolution; None where no structure of it helps.

    A 1 x 1 kernel has those of its small matrix, once for every position: exact. Groups of channels do not
    meet, so that each is a convolution of its own; a group whose largest possible value is below those
    found is left out. Otherwise Davidson's method starts from the strongest waves of the symbol.

    Parameters
    ----------
    of : ConvolutionOperator
        The convolution.
    k : int
        How many.
    seed : int
        Seed of the starting vectors that are noise.
    tolerance : float
        Largest residual wanted, by the largest singular value.
    """
    if pointwise(of) and (found := by_points(of, k, "largest")) is not None:
        return found
    if of.groups > 1:
        return _by_groups(of, k, seed, tolerance)
    return _by_waves(of, None, k, seed, tolerance)


def _by_groups(of: ConvolutionOperator, k: int, seed: int, tolerance: float) -> Triplets | None:
    """The best of all groups, those with the highest bound first."""
    groups = [of.group(number) for number in range(of.groups)]
    if not _affordable(groups[0], of.groups):
        return None
    symbols = [Symbol(group, inputs=_reads_less(group)) for group in groups]
    bounds = [symbol.bound(_degree(of)) if of.mode == "zeros" else math.inf for symbol in symbols]
    parts: dict[int, Triplets] = {}
    values = of.weight.new_empty(0)
    for number in sorted(range(of.groups), key=lambda place: -bounds[place]):
        if len(values) >= k and bounds[number] < float(values[k - 1]):
            break
        found = _by_waves(groups[number], symbols[number], min(k, *groups[number].shape), seed, tolerance)
        if found is None:
            return None
        parts[number] = found
        values = torch.cat([values, found[1]]).sort(descending=True).values
    if len(values) < k:
        return None
    return _joined(of, parts, k)


def _joined(of: ConvolutionOperator, parts: dict[int, Triplets], k: int) -> Triplets:
    """The k largest triplets of some groups as triplets of the whole, zero in all other groups."""
    m, n = of.shape
    values = torch.cat([part[1] for part in parts.values()])
    owners = [(number, within) for number, part in parts.items() for within in range(len(part[1]))]
    left, right = values.new_zeros(k, of.groups, m // of.groups), values.new_zeros(k, of.groups, n // of.groups)
    order = values.argsort(descending=True)[:k]
    for row, chosen in enumerate(order.tolist()):
        number, within = owners[chosen]
        left[row, number], right[row, number] = parts[number][0][within], parts[number][2][within]
    return left.reshape(k, m), values[order], right.reshape(k, n)


def _degree(of: ConvolutionOperator) -> tuple[int, ...]:
    """How far apart two outputs may be that read a common input, for each spatial dimension."""
    sizes = zip(of.weight.shape[2:], of.dilation, of.stride, strict=True)
    return tuple(d * (length - 1) // step for length, d, step in sizes)


def _reads_less(of: ConvolutionOperator) -> bool:
    return of.shape[1] <= of.shape[0]


def _affordable(of: ConvolutionOperator, copies: int = 1) -> bool:
    """Whether the symbol's blocks, one a position, can be inverted in seconds."""
    channels = of.input_shape[0] * math.prod(of.stride) if _reads_less(of) else of.output_shape[0]
    return copies * math.prod(of.output_shape[1:]) * float(channels) ** 3 <= _WORK


def _by_waves(of: ConvolutionOperator, symbol: Symbol | None, k: int, seed: int, tolerance: float) -> Triplets | None:
    """Davidson's method from the strongest waves, on the shorter side."""
    inputs = _reads_less(of)
    shape = of.input_shape if inputs else of.output_shape
    if not _affordable(of):
        return None
    symbol = Symbol(of, inputs=inputs) if symbol is None else symbol
    if not symbol.most > 0:
        return None

    def gram(x: Tensor) -> Tensor:
        x = x.reshape(-1, *shape)
        return (of.adjoint(of.apply(x)) if inputs else of.apply(of.adjoint(x))).flatten(1)

    def precondition(x: Tensor) -> Tensor:
        return symbol.precondition(x.reshape(-1, *shape)).flatten(1)

    start = symbol.start(k + _AHEAD, max(2, k // 2), torch.Generator().manual_seed(seed)).flatten(1)
    start = start[: min(len(start), start.shape[1])]
    squares, vectors, converged = davidson(gram, precondition, start, k, tolerance / 2)
    values = squares.clamp(min=0).sqrt()
    if not converged or not float(values[-1]) > 1e-7 * float(values[0]):  # below, a square is rounding
        return None
    move = of.apply if inputs else of.adjoint
    other = move(vectors.reshape(-1, *shape)).flatten(1) / values[:, None]
    return (other, values, vectors) if inputs else (vectors, values, other)
