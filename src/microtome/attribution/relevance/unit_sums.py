"""A class score as a sum over units, and each unit as a sum over the units that feed it, down to the image."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.relevance.composites import chooser
from microtome.errors import OpaqueError
from microtome.network import Network
from microtome.results import Result, provenance
from microtome.trace.lrp.relevance import Relevance
from microtome.trace.lrp.rules import Epsilon
from microtome.trace.passes import RecordedPass

__all__ = ["ScoreDecomposition", "decompose"]

_FOLLOWED = (4, 2, 2)  # number of followed units, by depth
_NAMED = 0.95  # share of a sum in named units
_MOST = (200, 50)  # units named in the sum of the score, and in the sums below
_EPSILON = 1e-15  # keeps denominators from zero; its effect is below rounding


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoreDecomposition(Result, drawing="attribution.decomposition_figures:score_decomposition"):
    """A class score as a sum over units, and their amounts as sums over earlier units.

    Attributes
    ----------
    target : int
        The class.
    score, bias, rest : float
        The score equals the amounts of ``steps`` plus ``bias`` plus ``rest``: the part of biases and constants,
        and the sum of the units that are not named.
    steps : list
        Entries ``[layer, unit, amount, bias, rest, steps]``, largest first, with steps of the same form. The amount
        equals the sum over its steps plus bias plus rest. The image is the entry of layer ``"input"``, unit -1. An
        entry that was not followed has no steps.
    held : bool
        Whether gates, attention weights and deviations of norms were treated as constants. False if an
        operation has no relevance rule: then amounts are gradient times value, and ``rest`` is the remainder.
    """

    target: int
    score: float
    bias: float
    rest: float
    steps: list[Any]
    held: bool


def decompose(net: Network, image: Tensor, target: int, layers: Sequence[str]) -> ScoreDecomposition:
    r"""Write a class score as a sum over units of the layers that feed it, and so on down to the image.

    All chosen layers are cut: their values are inputs of later layers. The layers that feed the score are those that
    it reads without another chosen layer between them, so that a residual sum has several. Layer-wise relevance
    propagation with the epsilon rule [1]_, :math:`\epsilon \to 0`, from the score to these cuts gives the amounts,

    .. math:: S = \sum_{l,u} A_{lu} + B, \qquad A_{lu} = \sum_p R_{lu}(p),

    with B the part of biases and constants. On networks of linear maps, rectifiers and max-pooling :math:`R =
    f\,\partial S / \partial f`. In a product the signal gets all relevance, and the gate is a constant. Propagation
    from one unit's relevance to the cuts below gives the parts of its amount.

    Parameters
    ----------
    net : Network
    image : Tensor
        (1, C, H, W).
    target : int
        The class.
    layers : sequence of str
        The layers whose units are named.

    Notes
    -----
    Cost: one forward and backward pass for each unit that is followed (4, then 2 of each, then 2 of each). Units are
    named, largest first, until at most 5 % of the sum remains, by absolute amounts and by their sum; at most 200 for
    the score and 50 for a unit.

    References
    ----------
    .. [1] Bach et al., On pixel-wise explanations for non-linear classifier decisions by layer-wise
       relevance propagation, PLoS ONE 2015.
    """
    try:
        return _decompose(_Sums(net, image, layers, held=True), target)
    except OpaqueError:  # an operation without a relevance rule
        return _decompose(_Sums(net, image, layers, held=False), target)


@dataclass
class _Sum:
    """An amount as a sum over the units that feed it, with the signal (units, positions) that arrives at each layer."""

    signal: dict[str, Tensor]
    terms: list[tuple[str, int, float]]


class _Sums:
    """Decomposes amounts with all chosen layers cut."""

    def __init__(self, net: Network, image: Tensor, layers: Sequence[str], *, held: bool) -> None:
        self.net, self.image, self.held = net, image, held
        self.layers = sorted(dict.fromkeys(layers), key=lambda name: net.layers[name].step)
        self.batch = 4 if max(net.input_shape[1:]) > 64 else 16

    def of_score(self, target: int) -> tuple[float, _Sum]:
        """The score of a class, and its sum."""
        record = self.net.run(
            self.image, [target], record=["input", *self.layers], gradient=True, rules=self._rules(),
            replace=self._cuts(""),
        )  # fmt: skip
        (found,) = self._read(record, self.layers)
        return float(record.score[0]), found

    def of_units(self, layer: str, entries: Sequence[tuple[int, Tensor]]) -> list[_Sum]:
        """The sums of units of a layer, each with the signal (units, positions) that arrives at the layer."""
        step = self.net.layers[layer].step
        below = [name for name in self.layers if self.net.layers[name].step < step]
        found: list[_Sum] = []
        for start in range(0, len(entries), self.batch):
            part = range(start, min(start + self.batch, len(entries)))
            record = self.net.run(
                self.image.expand(len(part), -1, -1, -1), record=["input", *below], gradient=True, rules=self._rules(),
                replace=self._cuts(layer), output_layer=layer,
                grad_output=functools.partial(self._alone, layer, [entries[place] for place in part]),
            )  # fmt: skip
            found += self._read(record, below)
        return found

    def _alone(self, layer: str, entries: Sequence[tuple[int, Tensor]], value: Tensor) -> Tensor:
        """The signal of one unit for each image, zero elsewhere, arranged like the value of the layer."""
        arriving = torch.stack([torch.zeros_like(signal) for _, signal in entries])
        for place, (unit, signal) in enumerate(entries):
            arriving[place, unit] = signal[unit]
        return self.net.layers[layer].axes.from_units(arriving, tuple(value.shape))

    def _rules(self) -> Relevance | None:
        return Relevance(chooser(self.net, Epsilon(_EPSILON))) if self.held else None

    def _cuts(self, but: str) -> dict[str, Any]:
        """Every chosen layer as an input of later layers: gradients start there."""
        return {name: Tensor.detach for name in self.layers if name != but}

    def _read(self, record: RecordedPass, layers: Sequence[str]) -> list[_Sum]:
        count = len(record.value["input"])
        pixels = record.gradient["input"] if self.held else record.gradient["input"] * record.value["input"]
        whole = {("input", -1): pixels.double().flatten(1).sum(1)}
        signal = {name: self._by_unit(name, record.gradient[name], count) for name in layers}
        for name, arriving in signal.items():
            values = arriving if self.held else arriving * self._by_unit(name, record.value[name], count)
            amounts = values.double().sum(2)
            whole |= {(name, unit): amounts[:, unit] for unit in amounts.any(0).nonzero()[:, 0].tolist()}
        found = []
        for place in range(count):
            terms = [(*key, float(amount[place])) for key, amount in whole.items() if float(amount[place])]
            arrived = {name: arriving[place] for name, arriving in signal.items()}
            found.append(_Sum(arrived, sorted(terms, key=lambda term: -abs(term[2]))))
        return found

    def _by_unit(self, layer: str, value: Tensor, count: int) -> Tensor:
        return self.net.layers[layer].axes.per_unit(value, count)


def _decompose(sums: _Sums, target: int) -> ScoreDecomposition:
    score, top = sums.of_score(target)
    steps, bias, rest = _named(sums, score, top, _MOST[0])
    level = [(steps, top)]
    for count in _FOLLOWED[: len(sums.layers)]:
        level = _followed(sums, level, count)
    return ScoreDecomposition(
        provenance=provenance(sums.net, "lrp" if sums.held else "gradient-x-activation",
                              layers=list(sums.layers), target=target),
        target=target,
        score=score,
        bias=bias,
        rest=rest,
        steps=steps,
        held=sums.held,
    )  # fmt: skip


def _named(sums: _Sums, amount: float, found: _Sum, most_terms: int) -> tuple[list[list[Any]], float, float]:
    """The largest terms as steps, until little remains; the part of biases; and the remainder."""
    left = sum(abs(value) for *_, value in found.terms)
    most, signed = (1 - _NAMED) * left, sum(value for *_, value in found.terms)
    bias = amount - signed if sums.held else 0.0  # relevance that reached no cut remains at biases and constants
    steps: list[list[Any]] = []
    for layer, unit, value in found.terms[:most_terms]:
        if left <= most and abs(signed) <= (1 - _NAMED) * abs(amount):
            break
        steps.append([layer, unit, value, 0.0, 0.0, []])
        left, signed = left - abs(value), signed - value
    return steps, bias, amount - bias - sum(step[2] for step in steps)


def _followed(
    sums: _Sums, level: Sequence[tuple[list[list[Any]], _Sum]], count: int
) -> list[tuple[list[list[Any]], _Sum]]:
    """Follow the largest units of each sum: their entries get steps. Units of one layer share passes."""
    followed: dict[str, list[tuple[list[Any], Tensor]]] = {}
    for steps, found in level:
        for step in [step for step in steps if step[0] != "input"][:count]:
            followed.setdefault(step[0], []).append((step, found.signal[step[0]]))
    below = []
    for layer, entries in followed.items():
        parts = sums.of_units(layer, [(step[1], signal) for step, signal in entries])
        for (step, _), found in zip(entries, parts, strict=True):
            step[5], step[3], step[4] = _named(sums, step[2], found, _MOST[1])
            below.append((step[5], found))
    return below
