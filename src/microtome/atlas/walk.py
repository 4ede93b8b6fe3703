"""Which units made the score, and which units made those? A class score taken apart, with amounts that add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.network import Network
from microtome.results import Result, provenance

__all__ = ["Walk", "amounts", "walk"]

_WIDTH = (4, 2, 2)  # units that are followed further, by depth
_SHOWN = 6  # units listed at each step


@dataclass(frozen=True, eq=False, kw_only=True)
class Walk(Result):
    """A score, the units it is made of, the units those are made of.

    ``steps`` is a list of ``[layer, unit, amount, rest, parts]`` with parts of the same form; an amount equals the
    sum of its parts plus its rest, in which biases and the units not listed lie.
    """

    target: int
    score: float
    rest: float
    steps: list[Any]


def walk(net: Network, image: Tensor, target: int, layers: Sequence[str]) -> Walk:
    r"""Follow a class score down through some layers.

    The amount of unit u of layer l in the score is its gradient times its value, summed over positions,

    .. math:: A_u = \sum_p \frac{\partial S}{\partial f_u(p)} f_u(p),

    and of unit v of the layer below in that amount the same with the gradient taken through u alone. For networks of
    linear maps, rectifiers and max-pooling these are exact shares: what they leave is what the biases give.

    Parameters
    ----------
    net : Network
    image : Tensor
        (1, C, H, W).
    target : int
        The class.
    layers : sequence of str
        In the order they run; they are walked from the last.
    """
    down = list(reversed(layers))[: len(_WIDTH)]
    record = net.run(image, [target], record=down[0], gradient=True)
    score = float(record.score[0])
    shares = amounts(record.value[down[0]], record.gradient[down[0]])
    steps = _parts(net, image, down, 0, shares, record.gradient[down[0]])
    return Walk(
        provenance=provenance(net, "gradient-x-activation", layers=list(layers), target=target),
        target=target,
        score=score,
        rest=score - sum(step[2] for step in steps),
        steps=steps,
    )


def amounts(value: Tensor, gradient: Tensor) -> Tensor:
    """Gradient times value by unit: channels of maps, columns of tokens, neurons."""
    shares = (value.double() * gradient.double())[0]
    if shares.dim() == 2:
        return shares.sum(0)
    return shares.flatten(1).sum(1) if shares.dim() > 1 else shares


def _parts(
    net: Network, image: Tensor, down: Sequence[str], depth: int, shares: Tensor, gradient: Tensor
) -> list[list[Any]]:
    order = shares.abs().argsort(descending=True, stable=True)[:_SHOWN].tolist()
    found = []
    for rank, unit in enumerate(order):
        amount = float(shares[unit])
        below: list[list[Any]] = []
        if rank < _WIDTH[depth] and depth + 1 < len(down) and amount != 0:
            below = _below(net, image, down, depth, unit, gradient)
        found.append([down[depth], unit, amount, amount - sum(part[2] for part in below), below])
    return found


def _below(
    net: Network, image: Tensor, down: Sequence[str], depth: int, unit: int, gradient: Tensor
) -> list[list[Any]]:
    """What one unit's share is made of in the layer below."""
    alone = torch.zeros_like(gradient)
    place = (slice(None), slice(None), unit) if gradient.dim() == 3 else (slice(None), unit)
    alone[place] = gradient[place]
    record = net.run(image, output_layer=down[depth], grad_output=alone, record=down[depth + 1], gradient=True)
    pulled = record.gradient[down[depth + 1]]
    return _parts(net, image, down, depth + 1, amounts(record.value[down[depth + 1]], pulled), pulled)
