"""Recognises functions of one number whose constants are part of them: zero at zero, sigmoids and softplus.

``2 * torch.sigmoid(2 * x) - 1`` is ``tanh(x)``. The 1 centres it at zero and is not a bias of the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from microtome.trace.rectifiers.value_function import Value, computed

_GRID = torch.linspace(-8.0, 8.0, 161, dtype=torch.float64, device="cpu")
_ZERO, _ONE = 80, 90  # indices of 0 and 1 on the grid
_CLOSE = 1e-4  # of the largest value: constants such as log 2 are written with few digits


def is_recentred(value: Value, begin: Value) -> bool:
    """Whether a value is such a function of another one; False if it cannot be computed on other numbers."""
    try:
        with torch.no_grad():
            outputs = computed(value, _GRID.reshape(-1, *(1,) * 5), begin)  # more axes than an image has
    except (RuntimeError, TypeError, ValueError):
        return False
    y = torch.as_tensor(outputs, device=_GRID.device).double().reshape(len(_GRID), -1)
    return all(_is_known(column) for column in y.T.unique(dim=0))


def _is_known(y: Tensor) -> bool:
    """Whether y is a function f with f(0) = 0, or a sigmoid, hard sigmoid or softplus of any scale and sign."""
    largest, middle = float(y.abs().max()), float(y[_ZERO])
    if not math.isfinite(largest) or largest == 0:
        return False
    if abs(middle) <= _CLOSE * largest:
        return True
    halves, one = y / (2 * middle), float(y[_ONE] / (2 * middle))
    if 0 < one < 1:
        slope = math.log(one / (1 - one))
        hard = (halves[_ZERO + 1] - 0.5) / (_GRID[_ZERO + 1] - _GRID[_ZERO])
        known = [torch.sigmoid(slope * _GRID), (0.5 + hard * _GRID).clamp(0, 1)]
        if any(bool((halves - one_of).abs().max() <= _CLOSE) for one_of in known):
            return True
    scale = middle / math.log(2)
    grown = math.expm1(float(y[_ONE]) / scale) if abs(float(y[_ONE]) / scale) < 50 else 0.0
    if grown <= 0:
        return False
    return bool((y - scale * torch.nn.functional.softplus(math.log(grown) * _GRID)).abs().max() <= _CLOSE * largest)
