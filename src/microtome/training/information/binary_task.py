"""The 12-bit task of Shwartz-Ziv and Tishby: a rule on the vertices of an icosahedron instead of a data file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError

__all__ = ["Patterns", "entropy", "twelve_bits"]

_GOLDEN = (1 + 5**0.5) / 2
_ACTIVE, _ANTIPODAL, _NEAR, _FAR, _THRESHOLD = 23, 8, 5, 1, 99


@dataclass(frozen=True, eq=False)
class Patterns:
    """Labelled vectors for small networks.

    Attributes
    ----------
    inputs : Tensor
        (N, d) the vectors.
    labels : Tensor
        (N,) the class of each.
    exhaustive : bool
        Whether these are all inputs that exist, each equally likely. Then frequencies are exact;
        otherwise they are a sample.
    """

    inputs: Tensor
    labels: Tensor
    exhaustive: bool = False

    def __post_init__(self) -> None:
        check_classes(self.labels)
        if len(self.inputs) != len(self.labels):
            raise InputError(f"a label for each vector was expected, got {len(self.inputs)} and {len(self.labels)}.")

    def __len__(self) -> int:
        return len(self.labels)


def twelve_bits() -> Patterns:
    r"""All 4096 patterns of 12 bits with their label, invariant under rotations of the icosahedron [1]_.

    Each bit sits on a vertex of the icosahedron. With w vertices active, and :math:`n_a, n_n, n_f` pairs of active
    vertices that are opposite, adjacent, or at the distance between,

    .. math:: y = 1 \iff 23 w - 8 n_a - 5 n_n + n_f \ge 99

    Returns
    -------
    Patterns
        ``.inputs`` (4096, 12) of 0 and 1, ``.labels`` (4096,) of 0 and 1; ``.exhaustive`` is true.

    References
    ----------
    .. [1] R. Shwartz-Ziv, N. Tishby. Opening the black box of deep neural networks via information.
       arXiv:1703.00810, 2017.

    Examples
    --------
    >>> task = twelve_bits()
    >>> round(float(task.labels.double().mean()), 5), round(entropy(task.labels), 5)
    (0.51709, 0.99916)
    """
    numbers = torch.arange(4096, device="cpu")
    bits = (numbers[:, None] >> torch.arange(12, device="cpu")) & 1
    pairs = _pairs()
    active = [((bits @ kind) * bits).sum(1) // 2 for kind in pairs]  # each pair counts from both ends
    neighbours, far, antipodal = active
    sums = _ACTIVE * bits.sum(1) - _ANTIPODAL * antipodal - _NEAR * neighbours + _FAR * far
    return Patterns(bits.float(), (sums >= _THRESHOLD).long(), exhaustive=True)


def check_classes(labels: Tensor) -> None:
    """Refuse labels that are no class numbers from 0.

    Raises
    ------
    InputError
        There is no label, or one is negative or not a whole number.
    """
    if labels.is_floating_point() or not len(labels) or int(labels.min()) < 0:
        came = f"{len(labels)} labels of type {labels.dtype}" + (f" from {labels.min()}" if len(labels) else "")
        raise InputError(f"class numbers from 0 were expected as labels, got {came}.")


def entropy(labels: Tensor) -> float:
    """Entropy of the labels' frequencies, in bits.

    Raises
    ------
    InputError
        There is no label, or one is no class number from 0.

    Examples
    --------
    >>> entropy(torch.tensor([0, 1, 2, 3]))
    2.0
    """
    check_classes(labels)
    share = labels.unique(return_counts=True)[1].double() / len(labels)  # the numbers may be any
    return float(-torch.special.xlogy(share, share).sum() / torch.log(share.new_tensor(2.0)))


def _pairs() -> list[Tensor]:
    """For each of the three distances, nearest first, (12, 12) of 1 where two vertices have it."""
    corners = [
        [0.0, *signs] for signs in itertools.product((-1.0, 1.0), (-_GOLDEN, _GOLDEN))
    ]  # of one golden rectangle; the others are its cyclic permutations
    vertices = torch.tensor([corner[-turn:] + corner[:-turn] for turn in range(3) for corner in corners], device="cpu")
    squares = (vertices[:, None] - vertices).square().sum(2).round(decimals=3)
    return [(squares == distance).long() for distance in squares.unique()[1:]]
