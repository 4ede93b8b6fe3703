"""The condition number of a linear map, and all its singular values if its structure gives them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from microtome.spaces.operators.convolution import ConvolutionOperator
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import Operator
from microtome.spaces.singular.triplets import triplets


def condition_number(operator: Operator) -> float:
    """Largest by smallest of all min(m, n) singular values; infinite if the smallest is zero to rounding.

    Raises
    ------
    LayerError
        When the smallest singular value cannot be found reliably.
    """
    known = all_singular_values(operator)
    largest = float(known[0] if known is not None else triplets(operator, 1).values[0])
    smallest = float(known[-1] if known is not None else triplets(operator, 1, which="smallest").values[-1])
    floor = max(operator.shape) * torch.finfo(torch.float64).eps * largest
    return largest / smallest if smallest > floor else math.inf


def all_singular_values(operator: Operator) -> Tensor | None:
    """All min(m, n) singular values in descending order; None if no structure gives them.

    They are available for a Linear layer (those of its matrix, once for every token) and for a convolution with
    circular padding.
    """
    operator = operator.structure
    if isinstance(operator, MatrixOperator):
        s: Tensor = torch.linalg.svdvals(operator.weight)
        return s.repeat_interleave(math.prod(operator.input_shape[:-1]))
    return _circular(operator) if isinstance(operator, ConvolutionOperator) else None


def _circular(operator: ConvolutionOperator) -> Tensor | None:
    """By the Fourier transform, where the padding is circular and every position keeps its place.

    Sedghi, Gupta and Long (2019): the operator is then block diagonal over frequencies, with a
    C_out x C_in block for each.
    """
    size = operator.input_shape[1:]
    if operator.mode != "circular" or any(s != 1 for s in operator.stride) or operator.output_shape[1:] != size:
        return None
    symbol = operator.weight.new_zeros(*operator.weight.shape[:2], *size)
    for tap in np.ndindex(*operator.weight.shape[2:]):  # taps further than the picture is wide wrap round
        at = tuple((offset * d) % length for offset, d, length in zip(tap, operator.dilation, size, strict=True))
        symbol[(..., *at)] += operator.weight[(..., *tap)]
    transform = torch.fft.fftn(symbol, dim=tuple(range(2, symbol.dim())))
    blocks = transform.flatten(2).permute(2, 0, 1)
    outputs = blocks.shape[1] // operator.groups
    values = [torch.linalg.svdvals(part) for part in blocks.split(outputs, dim=1)]
    return torch.cat([value.flatten() for value in values]).sort(descending=True).values
