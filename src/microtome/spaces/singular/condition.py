"""The condition number of a linear map, and all its singular values where its structure gives them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from microtome.spaces.operators.convolution import ConvolutionOperator
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import Operator
from microtome.spaces.singular.triplets import triplets


def condition_number(of: Operator) -> float:
    """Largest by smallest of all min(m, n) singular values; infinite where the smallest is zero to rounding.

    Raises
    ------
    LayerError
        When the smallest singular value cannot be found reliably.
    """
    known = all_singular_values(of)
    largest = float(known[0] if known is not None else triplets(of, 1).values[0])
    smallest = float(known[-1] if known is not None else triplets(of, 1, which="smallest").values[-1])
    floor = max(of.shape) * torch.finfo(torch.float64).eps * largest
    return largest / smallest if smallest > floor else math.inf


def all_singular_values(of: Operator) -> Tensor | None:
    """All min(m, n) singular values, falling; None where no structure gives them.

    They are at hand for a Linear layer (those of its matrix, once for every token) and for a convolution with circular
    padding.
    """
    of = of.structure
    if isinstance(of, MatrixOperator):
        s: Tensor = torch.linalg.svdvals(of.weight)
        return s.repeat_interleave(math.prod(of.input_shape[:-1]))
    return _circular(of) if isinstance(of, ConvolutionOperator) else None


def _circular(of: ConvolutionOperator) -> Tensor | None:
    """By the Fourier transform, where the padding is circular and every position keeps its place.

    Sedghi, Gupta and Long (2019): the operator is then block diagonal over frequencies, with a
    C_out x C_in block for each.
    """
    size = of.input_shape[1:]
    if of.mode != "circular" or any(s != 1 for s in of.stride) or of.output_shape[1:] != size:
        return None
    symbol = of.weight.new_zeros(*of.weight.shape[:2], *size)
    for tap in np.ndindex(*of.weight.shape[2:]):  # taps further than the picture is wide wrap round
        at = tuple((offset * d) % length for offset, d, length in zip(tap, of.dilation, size, strict=True))
        symbol[(..., *at)] += of.weight[(..., *tap)]
    transform = torch.fft.fftn(symbol, dim=tuple(range(2, symbol.dim())))
    blocks = transform.flatten(2).permute(2, 0, 1)
    outputs = blocks.shape[1] // of.groups
    values = [torch.linalg.svdvals(part) for part in blocks.split(outputs, dim=1)]
    return torch.cat([value.flatten() for value in values]).sort(descending=True).values
