"""Singular triplets of a map that acts on every token or position alone, from those of its small matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from microtome.spaces.operators.convolution import ConvolutionOperator
from microtome.spaces.operators.matrix import MatrixOperator

Triplets = tuple[Tensor, Tensor, Tensor]  # left (k, m), values (k,), right (k, n)


def by_tokens(
    operator: MatrixOperator, k: int, which: str, single: Callable[[MatrixOperator, int], Triplets]
) -> Triplets:
    """The triplets of a Linear layer on tokens, from those of its matrix.

    Parameters
    ----------
    operator : MatrixOperator
        The layer, on tokens (T, n).
    k : int
        How many.
    which : str
        ``"largest"`` or ``"smallest"``.
    single : function
        From the layer on one token and a number k to k triplets at the same end of the spectrum.
    """
    tokens = math.prod(operator.input_shape[:-1])
    count = -(-k // tokens)
    left, values, right = single(MatrixOperator(operator.name, operator.weight, operator.input_shape[-1:]), count)
    whole = count * tokens
    part = slice(0, k) if which == "largest" else slice(whole - k, whole)
    number = torch.arange(whole, device=operator.device)[part]
    order, token = number // tokens, number % tokens
    row = torch.arange(k, device=operator.device)
    spread = left.new_zeros(k, tokens, left.shape[1]), right.new_zeros(k, tokens, right.shape[1])
    spread[0][row, token], spread[1][row, token] = left[order], right[order]
    return spread[0].flatten(1), values[order], spread[1].flatten(1)


def pointwise(operator: ConvolutionOperator) -> bool:
    """Whether every output reads one position only, and none reads padding."""
    return all(size == 1 for size in operator.weight.shape[2:]) and not any(
        side for width in operator.widths for side in width
    )


def positions_read(operator: ConvolutionOperator) -> Tensor:
    """The positions, numbered over the feature map, that the outputs of a 1 x 1 kernel read, in their order."""
    device = operator.weight.device
    places = torch.arange(math.prod(operator.input_shape[1:]), device=device).reshape(operator.input_shape[1:])
    for axis, step in enumerate(operator.stride):
        places = places.index_select(axis, torch.arange(operator.output_shape[1 + axis], device=device) * step)
    return places.flatten()


def by_points(operator: ConvolutionOperator, k: int, which: str) -> Triplets | None:
    """Each singular triplet of a 1 x 1 kernel, at every position that is read; None if zeros are among those wanted.

    Parameters
    ----------
    operator : ConvolutionOperator
        With ``pointwise(of)``.
    k : int
        How many.
    which : str
        ``"largest"`` or ``"smallest"`` of the min(m, n) values.
    """
    m, n = operator.shape
    matrices = operator.weight.reshape(operator.groups, -1, operator.weight.shape[1])
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    each = s.shape[1]
    reads = positions_read(operator)
    known = s.numel() * len(reads)
    if k > known or (which == "smallest" and known < min(m, n)):
        return None  # the rest are zeros, of which this route knows no vectors
    # All positions of one value before the next.
    order = s.flatten().argsort(descending=True).repeat_interleave(len(reads))
    part = slice(0, k) if which == "largest" else slice(known - k, known)
    order, at = order[part], (torch.arange(known, device=operator.device) % len(reads))[part]
    group, place = order // each, order % each
    row = torch.arange(k, device=operator.device)
    left = s.new_zeros(k, *operator.output_shape).reshape(k, operator.groups, -1, len(reads))
    right = s.new_zeros(k, *operator.input_shape).reshape(k, operator.groups, matrices.shape[2], -1)
    left[row, group, :, at] = u[group, :, place]
    right[row, group, :, reads[at]] = v[group, place]
    return left.reshape(k, m), s.flatten()[order], right.reshape(k, n)
