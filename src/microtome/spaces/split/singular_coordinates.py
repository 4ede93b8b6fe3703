"""Coordinates of vectors on the singular vectors of a map, if all of them can be computed.

This holds for a Linear layer (once for every token), a 1 x 1 convolution (once for every position), and a map that is
small enough to be computed as a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.spaces.operators.convolution import ConvolutionOperator
from microtome.spaces.operators.jacobian import JacobianOperator
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import DENSE, Operator
from microtome.spaces.singular.tokenwise import pointwise, positions_read

FEW = 64  # maps with at most this many values on the shorter side are always computed as a matrix
SMALL = 1024  # the same if the caller allows that many products


@dataclass(frozen=True)
class SingularCoordinates:
    """The row space of a map, or of one map for each vector, by its singular vectors.

    Attributes
    ----------
    values : Tensor
        (N, r) or (1, r): nonzero singular values, and zeros for negligible ones.
    analyse : function
        Vectors ``(N, *input_shape)`` to coefficients (N, r).
    synthesise : function
        Coefficients back to vectors in the row space.
    rank : int
        Number of nonzero singular values, the minimum over all maps.
    """

    values: Tensor
    analyse: Callable[[Tensor], Tensor]
    synthesise: Callable[[Tensor], Tensor]
    rank: int


def singular_coordinates(operator: Operator, count: int, *, dense: bool) -> SingularCoordinates | None:
    """The singular coordinates of a map for ``count`` vectors; None if the map is too large.

    Parameters
    ----------
    operator : Operator
        The map.
    count : int
        Number of vectors: it determines the memory for a map that differs by image.
    dense : bool
        Whether a map of up to 1,024 values on its shorter side is computed as a matrix; else up to 64.

    Notes
    -----
    A singular value counts as nonzero if it is above max(m, n) eps s_1 with the eps of float64, as in LAPACK.
    """
    if isinstance(operator, MatrixOperator):
        return _of_tokens(operator)
    if isinstance(operator, ConvolutionOperator) and pointwise(operator):
        return _of_positions(operator)
    m, n = operator.shape
    maps = count if isinstance(operator, JacobianOperator) else 1
    if min(m, n) > (SMALL if dense else FEW) or maps * m * n > DENSE:
        return None
    matrices = _written_out(operator, count) if isinstance(operator, JacobianOperator) else operator.dense()[None]
    _, s, v = torch.linalg.svd(matrices, full_matrices=False)
    s = counting(s, (m, n))

    def analyse(x: Tensor) -> Tensor:
        return torch.einsum("nrp,np->nr", v.expand(len(x), -1, -1), x.flatten(1))

    def synthesise(c: Tensor) -> Tensor:
        return torch.einsum("nrp,nr->np", v.expand(len(c), -1, -1), c).reshape(-1, *operator.input_shape)

    return SingularCoordinates(s, analyse, synthesise, int((s > 0).sum(1).min()))


def counting(s: Tensor, shape: tuple[int, int]) -> Tensor:
    """Singular values (..., r) with those that are zero to rounding set to zero."""
    floor = max(shape) * torch.finfo(torch.float64).eps * s[..., :1]
    return torch.where(s > floor, s, torch.zeros_like(s))


def _of_tokens(operator: MatrixOperator) -> SingularCoordinates:
    tokens = math.prod(operator.input_shape[:-1])
    _, s, v = torch.linalg.svd(operator.weight, full_matrices=False)
    s = counting(s, tuple(operator.weight.shape))  # type: ignore[arg-type]  # a matrix

    def analyse(x: Tensor) -> Tensor:
        coefficients: Tensor = x @ v.T
        return coefficients.flatten(1)

    def synthesise(c: Tensor) -> Tensor:
        whole: Tensor = c.reshape(len(c), *operator.input_shape[:-1], len(s)) @ v
        return whole

    return SingularCoordinates(s.repeat(tokens)[None], analyse, synthesise, tokens * int((s > 0).sum()))


def _of_positions(operator: ConvolutionOperator) -> SingularCoordinates:
    _, s, v = torch.linalg.svd(
        operator.weight.reshape(operator.groups, -1, operator.weight.shape[1]), full_matrices=False
    )
    top = s.max()
    s = torch.where(s > max(operator.shape) * torch.finfo(torch.float64).eps * top, s, torch.zeros_like(s))
    reads = positions_read(operator)
    inputs = v.shape[2]

    def analyse(x: Tensor) -> Tensor:
        read = x.reshape(len(x), operator.groups, inputs, -1)[..., reads]
        return torch.einsum("grc,ngcp->ngrp", v, read).flatten(1)

    def synthesise(c: Tensor) -> Tensor:
        whole = c.new_zeros(len(c), operator.groups, inputs, math.prod(operator.input_shape[1:]))
        whole[..., reads] = torch.einsum("grc,ngrp->ngcp", v, c.reshape(len(c), operator.groups, -1, len(reads)))
        return whole.reshape(-1, *operator.input_shape)

    values = s[..., None].expand(-1, -1, len(reads)).flatten()[None]
    return SingularCoordinates(values, analyse, synthesise, len(reads) * int((s > 0).sum()))


def _written_out(operator: JacobianOperator, count: int) -> Tensor:
    """The matrix of each image's map, (N, m, n), by rows or by columns, whichever are fewer."""
    m, n = operator.shape
    if m <= n:
        unit = torch.eye(m, dtype=torch.float64, device=operator.value.device).reshape(m, 1, *operator.output_shape)
        return torch.stack([operator.adjoint(one.expand(count, *operator.output_shape)).flatten(1) for one in unit], 1)
    unit = torch.eye(n, dtype=torch.float64, device=operator.value.device).reshape(n, 1, *operator.input_shape)
    return torch.stack([operator.apply(one.expand(count, *operator.input_shape)).flatten(1) for one in unit], 2)
