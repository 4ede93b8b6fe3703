"""Whether a linear map is injective: from its structure, or by a Cholesky factorisation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from microtome.spaces.operators.convolution import ConvolutionOperator
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import DENSE, Operator
from microtome.spaces.singular.condition import all_singular_values
from microtome.spaces.singular.tokenwise import pointwise

_INPUTS = 4096  # the rank is computed for at most this many inputs: some seconds
_SHIFT = 1e-12  # of the largest squared singular value: above the rounding of a Cholesky factorisation
_WORK = 4.0e10  # multiply-adds that it may take, over all groups of channels
_CLEAR = 1e-8  # smallest by largest singular value of a block from which its rank is taken as full


def injective(operator: Operator, *, measure: bool = True) -> bool | None:
    r"""Whether only zero is mapped to zero.

    Parameters
    ----------
    operator : Operator
        The map.
    measure : bool
        Whether the rank of a map of up to 4,096 inputs is computed if its structure does not decide.

    Returns
    -------
    bool or None
        None if undecided.

    Notes
    -----
    A map with fewer outputs than inputs is not injective. A Linear layer and a 1 x 1 convolution have the
    rank of their small matrix. A convolution with zero padding is injective when its outputs, taken in raster order,
    determine the pixels one after the other: an output that is the first to read some pixels gives C_out equations for
    them, and has to have full column rank there. This is sufficient and costs a few small decompositions; it decides
    most first layers, which have few input channels. Otherwise the test is numerical: :math:`A^T A - \mu I` has a
    Cholesky factorisation only when every singular value is above :math:`\sqrt\mu`, here 1e-6 of the largest one. A
    factorisation that fails decides nothing.

    Examples
    --------
    >>> from microtome.spaces.operators.matrix import MatrixOperator
    >>> injective(MatrixOperator("tall", torch.tensor([[1.0], [2.0]]), (1,)))
    True
    >>> injective(MatrixOperator("wide", torch.tensor([[1.0, 2.0]]), (2,)))
    False
    """
    operator = operator.structure
    m, n = operator.shape
    if m < n:
        return False
    if isinstance(operator, MatrixOperator):
        return _full_rank(operator.weight)
    if isinstance(operator, ConvolutionOperator):
        known = _convolution(operator)
        if known is not None:
            return known
    groups = operator.groups
    if measure and n // groups <= _INPUTS and m * n // groups <= DENSE and float(m) * n * n / groups**2 <= _WORK:
        parts = [operator.group(g) for g in range(groups)] if isinstance(operator, ConvolutionOperator) else [operator]
        return True if all(_by_cholesky(part) for part in parts) else None
    return None


def _convolution(operator: ConvolutionOperator) -> bool | None:
    """The answer from the kernels of a convolution, without its matrix."""
    if operator.mode == "zeros":
        reads = [_first_reads(operator, axis) for axis in range(len(operator.stride))]
        if any(sum(map(len, taps)) < size for taps, size in zip(reads, operator.input_shape[1:], strict=True)):
            return False  # some position is read by no output
        if _by_raster_order(operator, reads):
            return True
        return False if pointwise(operator) else None
    known = all_singular_values(operator)
    return True if known is not None and float(known[-1]) > _CLEAR * float(known[0]) else None


def _full_rank(matrix: Tensor) -> bool:
    """Full column rank, by the tolerance of LAPACK."""
    if matrix.shape[0] < matrix.shape[1]:
        return False
    s = torch.linalg.svdvals(matrix)
    return bool(s[-1] > max(matrix.shape) * torch.finfo(torch.float64).eps * s[0])


def _by_raster_order(operator: ConvolutionOperator, reads: list[list[tuple[int, ...]]]) -> bool:
    """Whether each output, in raster order, determines all pixels that no output before has read."""
    kernels = operator.weight.reshape(operator.groups, -1, *operator.weight.shape[1:])
    for taps in itertools.product(*(sorted(set(each)) for each in reads)):
        block = kernels
        for axis, chosen in enumerate(taps):
            block = block.index_select(3 + axis, torch.tensor(chosen, device=block.device))
        for matrix in block.flatten(2):
            s = torch.linalg.svdvals(matrix) if matrix.shape[0] >= matrix.shape[1] else matrix.new_zeros(1)
            if not float(s[-1]) > _CLEAR * float(s[0]):
                return False
    return True


def _first_reads(operator: ConvolutionOperator, axis: int) -> list[tuple[int, ...]]:
    """For each output along an axis that is the first to read some position, the kernel taps by which it does."""
    before, size = operator.widths[axis][0], operator.input_shape[1 + axis]
    seen: set[int] = set()
    found = []
    for place in range(operator.output_shape[1 + axis]):
        new = []
        for tap in range(int(operator.weight.shape[2 + axis])):
            position = place * operator.stride[axis] + tap * operator.dilation[axis] - before
            if 0 <= position < size and position not in seen:
                new.append(tap)
                seen.add(position)
        if new:
            found.append(tuple(new))
    return found


def _by_cholesky(operator: Operator) -> bool:
    matrix = (
        operator.dense() if operator.band is None else torch.from_numpy(operator.sparse().toarray()).to(operator.device)
    )
    gram = matrix.T @ matrix
    largest = float(torch.linalg.matrix_norm(gram, 1))  # not below the largest eigenvalue
    gram.diagonal().sub_(_SHIFT * largest)
    return int(torch.linalg.cholesky_ex(gram).info) == 0
