"""The inverse function of each invertible activation, with its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.trace import Call

_SELU_SCALE = 1.0507009873554805
_SELU_ALPHA = 1.6732632423543772


@dataclass(frozen=True)
class InverseFunction:
    """An activation's inverse on its open range.

    Attributes
    ----------
    low, high : float
        Values strictly between them are reached.
    undo : function
        From values to what made them.
    """

    low: float
    high: float
    undo: Callable[[Tensor], Tensor]

    def inside(self, y: Tensor) -> Tensor:
        """(N,): whether all values of an image are in the range."""
        return ((y > self.low) & (y < self.high)).flatten(1).all(1)


def inverse_function(call: Call) -> InverseFunction | str:
    """The inverse of an activation as the model calls it, or the reason why it has none.

    Examples
    --------
    >>> selu = inverse_function(Call("selu", torch.selu, (torch.zeros(1),), {}, False))
    >>> round(selu.low, 4), round(selu.undo(torch.tensor([1.05070099])).item(), 4)
    (-1.7581, 1.0)
    >>> inverse_function(Call("relu", torch.relu, (torch.zeros(1),), {}, False))
    'relu gives 0 for every negative value'
    """
    make = _INVERSES.get(call.kind)
    if make is not None:
        return make(call)
    return _REASONS.get(call.kind, f"{call.kind} has no inverse that is known here")


def _selu(call: Call) -> InverseFunction:
    floor = _SELU_SCALE * _SELU_ALPHA
    return InverseFunction(-floor, math.inf, lambda y: torch.where(y > 0, y / _SELU_SCALE, torch.log1p(y / floor)))


def _elu(call: Call) -> InverseFunction | str:
    alpha = float(call.arguments["alpha"])
    if alpha <= 0:
        return f"elu with alpha {alpha:g} is not rising"
    return InverseFunction(-alpha, math.inf, lambda y: torch.where(y > 0, y, torch.log1p(y / alpha)))


def _celu(call: Call) -> InverseFunction | str:
    alpha = float(call.arguments["alpha"])
    if alpha <= 0:
        return f"celu with alpha {alpha:g} is not rising"
    return InverseFunction(-alpha, math.inf, lambda y: torch.where(y > 0, y, alpha * torch.log1p(y / alpha)))


def _leaky_relu(call: Call) -> InverseFunction | str:
    slope = float(call.arguments["negative_slope"])
    if slope <= 0:
        return f"leaky_relu with slope {slope:g} gives one value for several"
    return InverseFunction(-math.inf, math.inf, lambda y: torch.where(y > 0, y, y / slope))


def _prelu(call: Call) -> InverseFunction | str:
    slopes = call.arguments["weight"].detach().double()
    if not bool((slopes > 0).all()):
        return f"prelu has a slope of {float(slopes.min()):g}; only positive ones can be undone"

    def undo(y: Tensor) -> Tensor:
        slope = slopes if slopes.numel() == 1 else slopes.reshape(-1, *[1] * (y.dim() - 2))
        return torch.where(y > 0, y, y / slope)

    return InverseFunction(-math.inf, math.inf, undo)


def _softplus(call: Call) -> InverseFunction:
    beta, threshold = float(call.arguments["beta"]), float(call.arguments["threshold"])

    def undo(y: Tensor) -> Tensor:
        return torch.where(y * beta > threshold, y, y + torch.log(-torch.expm1(-beta * y)) / beta)

    return InverseFunction(0.0, math.inf, undo)


def _fixed(low: float, high: float, undo: Callable[[Tensor], Tensor]) -> Callable[[Call], InverseFunction]:
    return lambda call: InverseFunction(low, high, undo)


_INVERSES: dict[str, Callable[[Call], InverseFunction | str]] = {
    "selu": _selu,
    "elu": _elu,
    "celu": _celu,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "softplus": _softplus,
    "tanh": _fixed(-1.0, 1.0, torch.atanh),
    "sigmoid": _fixed(0.0, 1.0, torch.logit),
    "softsign": _fixed(-1.0, 1.0, lambda y: y / (1 - y.abs())),
    "logsigmoid": _fixed(-math.inf, 0.0, lambda y: y - torch.log(-torch.expm1(y))),
    "exp": _fixed(0.0, math.inf, torch.log),
}

_REASONS = {
    "relu": "relu gives 0 for every negative value",
    "relu6": "relu6 gives 0 for every negative value and 6 for every value above",
    "rectifying_clamp": "a clamp gives one value for all that it cuts",
    "clamp": "a clamp gives one value for all that it cuts",
    "hardtanh": "hardtanh gives one value for all that it cuts",
    "gelu": "gelu falls before it rises: two values give the same",
    "silu": "silu falls before it rises: two values give the same",
    "mish": "mish falls before it rises: two values give the same",
    "hardswish": "hardswish falls before it rises: two values give the same",
    "max_pool2d": "max pooling keeps one value of each window",
    "max_pool1d": "max pooling keeps one value of each window",
    "max_pool3d": "max pooling keeps one value of each window",
    "adaptive_max_pool2d": "max pooling keeps one value of each window",
    "avg_pool2d": "average pooling keeps one value of each window",
    "adaptive_avg_pool2d": "average pooling keeps one value of each window",
    "mean": "a mean keeps one value of many",
    "layer_norm": "layer norm takes mean and scale away",
    "group_norm": "group norm takes mean and scale away",
    "instance_norm": "instance norm takes mean and scale away",
    "softmax": "softmax takes the common part of its inputs away",
    "log_softmax": "log-softmax takes the common part of its inputs away",
    "abs": "abs forgets the sign",
}
