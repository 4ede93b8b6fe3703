"""Admission of an estimator of mutual information: it must recover planted information at the width and sample size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.trace.tracing.caller_modes import own_modes
from microtome.training.information.estimators import Binning, Estimator, Kernel

__all__ = ["Admission", "admit"]

_COVERAGE = 0.9  # share of the trials in which a planted value must be recovered
_RELATIVE = 0.1  # relative tolerance of I(X;T), if it exceeds the absolute one
_PARTS = (1.25, 1.0, 0.5, 0.25)  # planted values, as shares of the largest reported value
_APART = 12.0  # distance between planted points in deviations of the noise: their overlap is below 1e-8
_LABELS = (0.0, 1.0, 0.25, 0.75)  # share of class 1 in the planted states, in rotation


@dataclass(frozen=True)
class Admission:
    """Whether an estimator recovers planted information, and if not, the planted value on which it fails.

    Attributes
    ----------
    admitted : bool
        Whether every planted value was recovered within the tolerance in at least 9 of 10 trials.
    reason : str
        The reason for a rejection; else the recovered values.
    planted : tuple of float
        The values of I(X;T) planted, in bits, largest first, up to the one that failed.
    """

    admitted: bool
    reason: str
    planted: tuple[float, ...]


@own_modes()
def admit(
    estimator: Estimator,
    width: int,
    samples: int,
    *,
    reported: float = 4.0,
    exhaustive: bool = False,
    tolerance: float = 0.1,
    trials: int = 10,
    seed: int = 0,
) -> Admission:
    r"""Plant known information at a layer's width and sample size, and test whether the estimator recovers it.

    The planted values are 1.25, 1, 1/2 and 1/4 of ``reported``, so that an estimator at its ceiling fails.

    - *Discrete*: :math:`M` equally frequent states with known shares of classes:
      :math:`I(X;T) = \log_2 M`, and I(T;Y) follows from the shares.
    - *Gaussian* (only for samples): independent normal units of deviation s, and independent classes,
      :math:`I(T;Y) = 0`. For kernels :math:`I(X;T) = \frac d2 \log_2(1 + s^2/\sigma^2)`; for bins it is d times the
      entropy of one binned normal unit. s is set such that the value is the planted one.

    Parameters
    ----------
    estimator : Binning or Kernel
        The estimator to test.
    width, samples : int
        Number of units of the layer, number of inputs.
    reported : float
        The largest I(X;T) that the estimator reports for the layer, in bits.
    exhaustive : bool
        Whether the inputs are all that exist. Then frequencies are exact and not estimated from a sample: only discrete
        plantings apply, up to log2 of the number of inputs.
    tolerance : float
        Largest difference in bits between recovered and planted value, or between the planted value and the bounds; for
        I(X;T) a tenth of the planted value if that is more.
    trials, seed : int
        Trials of each planting, which stop as soon as nine of ten cannot be reached.

    Returns
    -------
    Admission

    Raises
    ------
    InputError
        Width, samples or trials are out of range.

    Examples
    --------
    >>> admit(Binning(-1, 1), 512, 64, reported=5).admitted
    False
    >>> admit(Binning(-1, 1), 2, 4096, reported=2).admitted
    True
    """
    if width < 1 or samples < 2 or trials < 1:
        raise InputError(
            f"a planting needs units, two inputs and a trial, got width {width}, {samples} inputs, {trials} trials."
        )
    top = math.log2(samples)
    wanted = sorted({max(part * reported, 0.25) for part in _PARTS}, reverse=True)
    plantings: list[tuple[str, float]] = []
    if not exhaustive:
        limit = _widest(estimator, width)
        plantings += [("Gaussian", min(value, limit)) for value in wanted]
    largest = min(top, _capacity(estimator, width))
    plantings += [("discrete", value) for value in sorted({_whole(value, largest) for value in wanted}, reverse=True)]
    generator = torch.Generator().manual_seed(seed)
    done: list[float] = []
    for kind, value in plantings:
        done.append(value)
        plant = _gaussian if kind == "Gaussian" else _discrete
        failure = _failure(estimator, plant, value, width, samples, tolerance, trials, generator)
        if failure:
            return Admission(False, f"{kind} planting of {value:.2f} bits: {failure}", tuple(done))
    return Admission(True, f"recovered plantings of {min(done):.2f} to {max(done):.2f} bits", tuple(done))


_Planting = tuple[Tensor, Tensor, float, float]  # states, labels, I(X;T), I(T;Y)


def _failure(
    estimator: Estimator,
    plant: Callable[[Estimator, float, int, int, torch.Generator], _Planting],
    value: float,
    width: int,
    samples: int,
    tolerance: float,
    trials: int,
    generator: torch.Generator,
) -> str:
    """The failure in too many trials; empty if there is none."""
    missed = 0
    for _ in range(trials):
        states, labels, i_xt, i_ty = plant(estimator, value, width, samples, generator)
        found = estimator(states[None], labels)
        low, high = float(found.xt_low[0]), float(found.xt_high[0])
        decoded = float(found.i_ty[0])
        slack = max(tolerance, _RELATIVE * i_xt)
        right = low - slack <= i_xt <= high + slack
        if not (right and abs(decoded - i_ty) <= tolerance):
            missed += 1
            if missed > (1 - _COVERAGE) * trials + 1e-9:
                if right:
                    return f"I(T;Y) is {decoded:.2f} where {i_ty:.2f} is planted"
                return f"I(X;T) is {high:.2f}" if low == high else f"I(X;T) is {low:.2f} to {high:.2f}"
    return ""


def _discrete(estimator: Estimator, bits: float, width: int, samples: int, generator: torch.Generator) -> _Planting:
    """Equally frequent (to within one) states that the estimator can distinguish, with known shares of classes."""
    count = min(round(2**bits), samples)
    grid = estimator.edges - 1 if isinstance(estimator, Binning) else math.ceil(count ** (1 / width))
    digits = _distinct(count, grid, width, generator)
    if isinstance(estimator, Binning):
        step = (estimator.high - estimator.low) / grid
        points = estimator.low + step * (digits + 0.5)
        spread = 0.8 * step  # within its bin
    else:
        points, spread = _APART * estimator.noise**0.5 * digits, 0.0
    which = torch.arange(samples, device="cpu") % count
    states = points[which] + spread * (
        torch.rand(samples, width, generator=generator, dtype=torch.float64, device="cpu") - 0.5
    )
    sizes = torch.bincount(which, minlength=count)
    ones = (sizes * torch.tensor(_LABELS, device="cpu").repeat(count // len(_LABELS) + 1)[:count]).round().long()
    labels = (which.new_tensor(range(samples)) // count < ones[which]).long()
    i_xt = _bits(sizes)
    i_ty = _bits(torch.stack([ones.sum(), samples - ones.sum()])) + i_xt - _bits(torch.cat([ones, sizes - ones]))
    return states, labels, i_xt, i_ty


def _gaussian(estimator: Estimator, bits: float, width: int, samples: int, generator: torch.Generator) -> _Planting:
    """Independent normal units, and independent classes."""
    states = torch.randn(samples, width, generator=generator, dtype=torch.float64, device="cpu")
    labels = torch.randint(2, (samples,), generator=generator, device="cpu")
    if isinstance(estimator, Kernel):
        deviation, middle = (estimator.noise * (4 ** (bits / width) - 1)) ** 0.5, 0.0
    else:
        deviation, middle = _deviation(estimator, bits / width), _middle(estimator)
    return middle + deviation * states, labels, bits, 0.0


def _middle(bins: Binning) -> float:
    """The middle of the bin nearest to the middle of the range."""
    positions = bins.positions()
    place = bins.edges // 2 - 1
    return float(positions[place : place + 2].mean())


def _unit_entropy(bins: Binning, deviation: float) -> float:
    """Entropy in bits of one binned normal unit."""
    edges = bins.positions()
    below = torch.special.ndtr((edges - _middle(bins)) / deviation)
    share = torch.diff(torch.cat([below.new_zeros(1), below, below.new_ones(1)]))
    return float(-torch.special.xlogy(share, share).sum()) / math.log(2)


def _deviation(bins: Binning, bits: float) -> float:
    """The deviation for which a binned normal unit has an entropy, by bisection."""
    low, high = 1e-6 * (bins.high - bins.low), bins.high - bins.low
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _unit_entropy(bins, middle) < bits else (low, middle)
    return high


def _widest(estimator: Estimator, width: int) -> float:
    """The largest entropy of a Gaussian planting: its deviation is a quarter of the range of the bins."""
    if isinstance(estimator, Kernel):
        return math.inf
    return width * _unit_entropy(estimator, (estimator.high - estimator.low) / 4)


def _capacity(estimator: Estimator, width: int) -> float:
    """Capacity in bits of the bins within the range."""
    return math.inf if isinstance(estimator, Kernel) else width * math.log2(estimator.edges - 1)


def _whole(bits: float, largest: float) -> float:
    """The bits of a whole number of states, two at least."""
    return math.log2(max(2, math.floor(2 ** min(math.ceil(bits), largest) + 1e-9)))


def _distinct(count: int, grid: int, width: int, generator: torch.Generator) -> Tensor:
    """(count, width) distinct points of a grid, drawn at random if there are more."""
    if grid**width <= 4 * count:
        numbers = torch.randperm(grid**width, generator=generator, device="cpu")[:count]
        powers = grid ** torch.arange(width, device="cpu")
        return (numbers[:, None] // powers % grid).double()
    found = torch.empty(0, width, dtype=torch.int64, device="cpu")
    while len(found) < count:
        more = torch.randint(grid, (2 * count, width), generator=generator, device="cpu")
        found = torch.unique(torch.cat([found, more]), dim=0)
    return found[torch.randperm(len(found), generator=generator, device="cpu")[:count]].double()


def _bits(counts: Tensor) -> float:
    share = counts.double() / counts.sum()
    return float(-torch.special.xlogy(share, share).sum()) / math.log(2)
