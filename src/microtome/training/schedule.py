"""Learning-rate schedules: a closed formula of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math

from microtome.errors import InputError

__all__ = ["SCHEDULES", "rate"]

SCHEDULES = ("constant", "one-cycle", "cosine")
_WARM_UP = 0.3  # share of the steps in which one-cycle rises
_FLOOR = 1e-3  # of the peak: the lowest rate of one-cycle


def rate(schedule: str, peak: float, step: int, steps: int) -> float:
    r"""The learning rate of a step.

    With :math:`u = \mathrm{step} / \mathrm{steps}`: ``constant`` is the peak; ``cosine`` is
    :math:`\mathrm{peak}\,(1 + \cos \pi u) / 2`; ``one-cycle`` rises linearly over the first 0.3 of the steps and falls
    as a cosine over the rest, never below a thousandth of the peak [1]_.

    Raises
    ------
    InputError
        There is no such schedule.

    References
    ----------
    .. [1] L. N. Smith, N. Topin. Super-convergence: very fast training of neural networks using large learning rates.
       arXiv:1708.07120, 2017.

    Examples
    --------
    >>> [round(rate("one-cycle", 1.0, step, 20), 3) for step in (0, 3, 6, 13, 19)]
    [0.001, 0.5, 1.0, 0.5, 0.013]
    >>> rate("constant", 0.1, 7, 20), rate("cosine", 0.1, 10, 20)
    (0.1, 0.05)
    """
    u = step / steps
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * u)) / 2
    if schedule == "one-cycle":
        rising = u / _WARM_UP
        falling = (1 + math.cos(math.pi * (u - _WARM_UP) / (1 - _WARM_UP))) / 2
        return peak * max(rising if u < _WARM_UP else falling, _FLOOR)
    raise InputError(f'there is no schedule "{schedule}"; choose from {", ".join(SCHEDULES)}.')
