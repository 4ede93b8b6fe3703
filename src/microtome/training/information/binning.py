"""Mutual information by binning: each binned state of a layer is one integer, and integers are counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.trace.tracing.caller_modes import own_modes
from microtome.training.information.binary_task import check_classes

__all__ = ["Bins", "binned_information", "entropy_of_codes", "state_codes"]

_LARGEST = 2**62  # of a code in int64


@dataclass(frozen=True)
class Bins:
    """The bins of a layer: ``edges`` of them evenly from ``low`` to ``high``.

    A value v is in bin i where edge i-1 <= v < edge i, so that values below the first and from the last edge on have
    their own bins, as in ``numpy.digitize``.
    """

    low: float
    high: float
    edges: int = 30

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.high < math.inf or self.edges < 1:
            raise InputError(
                "bins from a finite low to a high that is not below it, with at least one edge, were expected, got "
                f"{self.low}, {self.high} and {self.edges}."
            )

    def positions(self) -> Tensor:
        """The edges, ascending, in double precision."""
        return torch.linspace(self.low, self.high, self.edges, dtype=torch.float64, device="cpu")


def state_codes(states: Tensor, bins: Bins) -> Tensor:
    """One integer for each binned state of a layer; within a row equal states have equal integers.

    Parameters
    ----------
    states : Tensor
        (..., N, width) a layer's values for N inputs.
    bins : Bins
        Of every unit of the layer.

    Returns
    -------
    Tensor
        (..., N) int64. The units' bins are the digits of the number; if the digits do not fit into 62 bits, the
        numbers so far are renumbered, so that different states never share a number.
    """
    found = torch.bucketize(states.double().contiguous(), bins.positions().to(states.device), right=True)
    base, most = bins.edges + 1, 1
    codes = torch.zeros(found.shape[:-1], dtype=torch.int64, device=states.device)
    for digit in found.unbind(-1):
        if most > _LARGEST // base:
            codes = torch.unique(codes, return_inverse=True)[1]
            most = int(codes.max()) + 1
        codes, most = codes * base + digit, most * base
    return codes if most < _LARGEST // 2**20 else torch.unique(codes, return_inverse=True)[1]  # room for a class


def check_states(states: Tensor, labels: Tensor) -> None:
    """Refuse what cannot be counted: NaN has no bin, and a label -1 would be taken for a class of another state.

    Raises
    ------
    InputError
        There is no state, one is not finite, or a label is no class number from 0.
    """
    if not len(labels) or not bool(states.isfinite().all()):
        raise InputError("at least one state, and finite states only, were expected; got NaN, infinity or none.")
    check_classes(labels)


def entropy_of_codes(codes: Tensor) -> Tensor:
    """Entropy in bits of each row of numbers, by their frequencies; (R, N) to (R,), double precision.

    Examples
    --------
    >>> entropy_of_codes(torch.tensor([[5, 5, 9, 9], [1, 2, 3, 4]])).tolist()
    [1.0, 2.0]
    """
    return _entropy(_counts(codes.sort(1).values))


@own_modes()
def binned_information(states: Tensor, labels: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    r"""I(X;T) and I(T;Y) of a layer from its binned states, in bits [1]_.

    T is a function of X, so that with :math:`\hat T` the vector of the units' bins, over N equally likely inputs

    .. math:: I(X;\hat T) = H(\hat T), \qquad I(\hat T;Y) = H(\hat T) - \sum_y p(y)\, H(\hat T \mid y)

    Parameters
    ----------
    states : Tensor
        (N, width), or (R, N, width) for R networks.
    labels : Tensor
        (N,) class of each input.
    bins : Bins
        Of every unit.

    Returns
    -------
    i_xt, i_ty : Tensor
        A number each, or (R,); double precision.

    Raises
    ------
    InputError
        Shapes that do not fit, states that are not finite, or labels that are no class numbers from 0.

    Notes
    -----
    Cost: one sort of N integers. Neither can exceed log2 N, whatever the layer holds. For a sample of inputs,
    both are biased: ``admission`` measures by how much.

    References
    ----------
    .. [1] R. Shwartz-Ziv, N. Tishby. Opening the black box of deep neural networks via information.
       arXiv:1703.00810, 2017.

    Examples
    --------
    >>> states = torch.tensor([[-0.9], [-0.9], [0.9], [0.9]])
    >>> binned_information(states, torch.tensor([0, 0, 1, 1]), Bins(-1, 1))
    (tensor(1., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    if states.dim() not in (2, 3) or states.shape[-2] != len(labels):
        raise InputError(
            f"states must be (N, width) or (R, N, width) with N = {len(labels)} labels, got {tuple(states.shape)}."
        )
    check_states(states, labels)
    rows = states if states.dim() == 3 else states[None]
    own = labels.to(states.device).unique(return_inverse=True)[1]  # the numbers of classes may be any
    classes = int(own.max()) + 1
    joint = (state_codes(rows, bins) * classes + own).sort(1).values
    i_xt = _entropy(_counts(joint // classes))
    h_y = _entropy(_counts(own.sort().values[None]))
    i_ty = i_xt + h_y - _entropy(_counts(joint))
    return (i_xt, i_ty) if states.dim() == 3 else (i_xt[0], i_ty[0])


def _counts(ordered: Tensor) -> Tensor:
    """The frequency of each number, for ascending rows (R, N): (R, N), padded with zeros."""
    fresh = torch.ones_like(ordered)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    length = ordered.shape[1]
    places = fresh.cumsum(1) - 1 + length * torch.arange(len(ordered), device=ordered.device)[:, None]
    return torch.bincount(places.flatten(), minlength=ordered.numel()).view_as(ordered)


def _entropy(counts: Tensor) -> Tensor:
    r"""Bits of entropy of each row of counts: :math:`\log_2 N - \frac1N \sum_i n_i \log_2 n_i`."""
    total = counts.sum(1).double()
    weighted = torch.special.xlogy(counts, counts.double()).sum(1)
    bits: Tensor = (total.log() - weighted / total) / torch.log(total.new_tensor(2.0))
    return bits
