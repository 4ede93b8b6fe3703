"""Bounds on mutual information from pairwise distances, where a layer's state carries Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import InputError
from microtome.trace.tracing.caller_modes import own_modes
from microtome.training.information.binning import check_states

__all__ = ["KernelBounds", "kernel_bounds"]

_BLOCK = 1024  # rows of distances at a time: 16 MB for 4096 inputs
_COARSE = 1e-4  # largest error of an exponent by products, in single precision and then in double


@dataclass(frozen=True)
class KernelBounds:
    """Bounds in bits; ``i_ty`` is between the two, the upper entropies of all and of each class subtracted."""

    xt_lower: float
    xt_upper: float
    ty_lower: float
    ty_upper: float
    i_ty: float


@own_modes()
def kernel_bounds(states: Tensor, labels: Tensor, noise: float) -> KernelBounds:
    r"""Lower and upper bounds of Kolchinsky and Tracey on I(X;T) and I(T;Y), T = h(X) + noise [1]_, in bits.

    With :math:`d_{ij}` the distance of the states of inputs i and j, and noise of variance :math:`\sigma^2` per unit,

    .. math::
       I(X;T) \le -\frac1N \sum_i \log \frac1N \sum_j e^{-d_{ij}^2 / 2\sigma^2}, \qquad
       I(X;T) \ge -\frac1N \sum_i \log \frac1N \sum_j e^{-d_{ij}^2 / 8\sigma^2}

    for N equally likely inputs. The same sums within a class bound I(X;T|y); I(T;Y) = I(X;T) - sum of p(y) I(X;T|y)
    lies between lower minus upper and upper minus lower, and within 0 and H(Y).

    Parameters
    ----------
    states : Tensor
        (N, width).
    labels : Tensor
        (N,).
    noise : float
        Variance of the noise.

    Raises
    ------
    InputError
        Shapes that do not fit, states that are not finite, labels that are no class numbers from 0, or a variance that
        is not positive.

    Notes
    -----
    Cost: N^2 exponentials. Single precision where the distances allow it, else double; where the states are so large
    beside the noise that products would cancel, differences, which take several times as long.

    References
    ----------
    .. [1] A. Kolchinsky, B. D. Tracey. Estimating mixture entropy with pairwise distances. Entropy 19(7), 2017.

    Examples
    --------
    Two distant points are one bit, by both bounds.

    >>> kernel_bounds(torch.tensor([[0.0], [9.0]]), torch.tensor([0, 1]), 0.1).xt_lower
    1.0
    """
    if not noise > 0:
        raise InputError(f"the noise's variance must be positive, got {noise}.")
    if states.dim() != 2 or len(states) != len(labels):
        raise InputError(f"states must be (N, width) with N = {len(labels)} labels, got {tuple(states.shape)}.")
    check_states(states, labels)
    centred = states.double() - states.double().mean(0)
    centred = centred / noise**0.5  # in units of the noise
    squares = centred.square().sum(1)
    error = float(squares.max()) / 2  # of an exponent, in units of the precision
    if error * torch.finfo(torch.float32).eps < _COARSE:
        centred, squares = centred.float(), squares.float()
    by_products = error * torch.finfo(torch.float64).eps < _COARSE
    own = labels.to(states.device).unique(return_inverse=True)[1]  # the numbers of classes may be any
    classes = functional.one_hot(own).to(centred.dtype)
    counts = classes.double().sum(0)
    narrow, wide = [], []  # log of the sums of kernels: over the own class, over all
    for start in range(0, len(centred), _BLOCK):
        rows = slice(start, start + _BLOCK)
        if by_products:
            apart = (squares[rows, None] + squares - 2 * centred[rows] @ centred.T).clamp(min=0)
        else:  # by differences: equal states have a distance of 0, whatever their size
            apart = torch.cdist(centred[rows], centred, compute_mode="donot_use_mm_for_euclid_dist").square()
        kernel = apart.div_(-8).exp_()
        wide.append(_logs(kernel @ classes, own[rows]))
        kernel.square_().square_()  # the upper bound's exponent is four times the lower's
        narrow.append(_logs(kernel @ classes, own[rows]))
    lower, upper = torch.cat(wide), torch.cat(narrow)
    share = counts / len(states)
    within = counts.log()[own]
    xt_lower, xt_upper = (math.log(len(states)) - float(logs[:, 1].mean()) for logs in (lower, upper))
    conditional_lower, conditional_upper = (float((within - logs[:, 0]).mean()) for logs in (lower, upper))
    bits, h_y = math.log(2), abs(float((share * share.log()).sum()))

    def possible(value: float) -> float:
        """Bits about the class, between none and H(Y)."""
        return min(max(value, 0.0), h_y) / bits

    return KernelBounds(
        xt_lower / bits,
        xt_upper / bits,
        possible(xt_lower - conditional_upper),
        possible(xt_upper - conditional_lower),
        possible(xt_upper - conditional_upper),
    )


def _logs(sums: Tensor, own: Tensor) -> Tensor:
    """(n, 2) logarithms of the kernels' sums over the own class and over all."""
    mine = sums.gather(1, own[:, None])[:, 0]
    return torch.stack([mine, sums.sum(1)], 1).double().log()
