"""What is each unit tuned to? Its answers to lines, edges, corners, curves, gratings, blobs; a label in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.tables import Table
from microtome.units.stimulus_tuning import labels as words
from microtome.units.stimulus_tuning import template_match as matching
from microtome.units.stimulus_tuning.classify import Curve, Finding, classify, curves, secondary
from microtome.units.stimulus_tuning.stimuli import Stimuli, standard
from microtome.units.stimulus_tuning.stimulus_responses import Responses, responses

LIKE_A_STIMULUS = 0.8  # a match of this much is a label's even in fields so small that noise reaches it


@dataclass(frozen=True, eq=False, kw_only=True)
class Tuning(Result):
    """Tuning of all units of one layer.

    Attributes
    ----------
    layer : str
    response : Tensor
        (U, S) largest response over positions to each stimulus, less that to a blank of equal level.
    centre : Tensor
        (U, S) the same at the middle position.
    labels : tuple of str
        In words; ``"not selective"`` where the answers are no better than chance.
    secondary : tuple of str
        The second function, or ``""``.
    kind : tuple of str
        Family of the label's stimuli: ``"line"``, ``"edge"``, ..., ``"brightness"`` or ``""``.
    angle : Tensor
        (U,) preferred orientation in [0, 180); NaN where there is none.
    direction : Tensor
        (U,) from bright to dark for an edge, where a corner or curve points, in [0, 360); else NaN.
    side : tuple of str
        ``direction`` in words for edges (``"right"``, ``"upper left"``), else ``""``.
    width : Tensor
        (U,) bandwidth: full width at half height of the angular tuning curve, degrees.
    confidence : Tensor
        (U,) in [0, 1]: the share of the variance of the unit's pixel weights within its field that the
        label's best stimulus explains (``match`` squared); for brightness the share of its mean.
    match : Tensor
        (U,) cosine between the unit's pixel weights and its best stimulus.
    chance : float
        The match that 95 of 100 noise filters of this field do not reach.
    brightness : Tensor
        (U,) response to white less that to black.
    best : Tensor
        (U,) index of the label's best stimulus.
    family : tuple of str
        Family of each stimulus.
    shown : dict of str to Tensor
        Parameters of each stimulus, (S,) each.
    """

    layer: str
    response: Tensor
    centre: Tensor
    labels: tuple[str, ...]
    secondary: tuple[str, ...]
    kind: tuple[str, ...]
    angle: Tensor
    direction: Tensor
    side: tuple[str, ...]
    width: Tensor
    confidence: Tensor
    match: Tensor
    chance: float
    brightness: Tensor
    best: Tensor
    family: tuple[str, ...]
    shown: dict[str, Tensor]

    def label(self, unit: int) -> str:
        """The label of one unit.

        Raises
        ------
        InputError
            When there is no such unit.
        """
        return self.labels[self._unit(unit)]

    def curves(self, unit: int) -> list[Curve]:
        """Angular tuning curves of one unit: one for every family, polarity and width of the stimuli."""
        return curves(self.response[self._unit(unit)][None], self.family, self.shown)

    def along(
        self, unit: int, parameter: str, family: str | None = None, *, centre: bool = False
    ) -> tuple[Tensor, Tensor]:
        """How one unit's response changes with a parameter: its values, and the largest response at each.

        Parameters
        ----------
        parameter : str
            ``"angle"``, ``"side"``, ``"offset"`` (position), ``"width"``, ``"phase"`` or ``"polarity"``.
        family : str, optional
            Whose stimuli; default the family of the unit's label, or lines.
        centre : bool
            The response at the middle position in place of the largest over positions, which knows
            no position or phase.

        Raises
        ------
        InputError
            When the family was not shown or has no such parameter.
        """
        row = (self.centre if centre else self.response)[self._unit(unit)]
        name = family or (self.kind[unit] if self.kind[unit] in self.family else self.family[0])
        if parameter not in self.shown:
            raise InputError(f'stimuli have no "{parameter}"; choose among {", ".join(self.shown)}.')
        values = self.shown[parameter]
        mine = torch.tensor([entry == name for entry in self.family]) & ~values.isnan()
        if not bool(mine.any()):
            raise InputError(
                f'"{name}" was not shown with a {parameter}; shown: {", ".join(sorted(set(self.family)))}.'
            )
        axis = values[mine].unique()
        return axis, torch.stack([row[mine & (values == value)].max() for value in axis])

    @property
    def similarity(self) -> Tensor:
        """Correlation of the units' responses over all stimuli, (U, U)."""
        centred = self.response.double() - self.response.double().mean(1, keepdim=True)
        unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
        alike: Tensor = unit @ unit.T
        return alike.float()

    def repeats(self, threshold: float = 0.9) -> list[tuple[int, ...]]:
        """Groups of units that repeat each other: the same kind of label and responses that correlate so much."""
        alike = self.similarity
        groups: list[list[int]] = []
        for unit in range(len(self.labels)):
            if not self.kind[unit]:
                continue
            home = next(
                (g for g in groups if self.kind[g[0]] == self.kind[unit] and alike[g[0], unit] >= threshold), None
            )
            if home is None:
                groups.append([unit])
            else:
                home.append(unit)
        return [tuple(group) for group in groups if len(group) > 1]

    def table(self) -> Table:
        """Unit, label, angle, bandwidth, confidence, second function and the units it repeats."""
        twins = {unit: [other for other in group if other != unit] for group in self.repeats() for unit in group}
        rows = tuple(
            (
                unit,
                self.labels[unit],
                float(self.angle[unit]),
                float(self.width[unit]),
                float(self.confidence[unit]),
                self.secondary[unit],
                ", ".join(map(str, twins.get(unit, []))),
            )
            for unit in range(len(self.labels))
        )
        return Table(("unit", "label", "angle", "width of tuning", "confidence", "also", "repeats"), rows)

    def _unit(self, unit: int) -> int:
        if not 0 <= unit < len(self.labels):
            raise InputError(f'layer "{self.layer}" has units 0 to {len(self.labels) - 1}, not {unit}.')
        return unit


@register("tuning", rows=("B4",), paper="dissecting", needs="any layer with units", kind="units")
def tuning(net: Network, layer: str, *, stimuli: Stimuli | None = None, batch: int = 32) -> Tuning:
    r"""Show stimuli to a network and say in words what each unit of a layer is tuned to.

    The response of unit u to stimulus s is the largest over positions of what the pattern adds to
    the brightness,

    .. math:: r_u(s) = \max_p \big( a_u(s, p) - b_u(m_p(s), p) \big),

    with b the activation for a blank whose level m is the stimulus's mean within the field of p.
    On a convolution that reads the image this is the kernel without its mean, before any relu.

    How the label comes about:

    - *line at θ*: among the stroke widths the one whose curve over angles swings most; its resultant
      length on doubled angles must reach 0.2, or its swing 0.6 of the sum of peak and floor.
      *Dark* where dark lines on bright drive the unit more.
    - *side of a line*: an edge drives the unit, and the opposite edge less than about half as much.
      The side is where a bright line ends: the **right side of a vertical line** is bright on the
      left and dark on the right, the **lower side of a horizontal line** bright above and dark below.
    - *grating, corner, curve, blob*: when they drive the unit 1.15 times as much as the best line or
      edge, which is part of them.
    - *brightness*, *darkness*: when the pattern adds little to what a blank does.
    - *not selective*: no direction, or the unit's pixel weights look no more like the stimulus than
      noise would (95 of 100 noise filters of that size).

    Parameters
    ----------
    net : Network
    layer : str
        Any layer with units: convolution, after its relu, fully connected.
    stimuli : Stimuli, optional
        Default ``units.stimuli.standard`` at the network's input size, in gray.
    batch : int
        Images at a time.

    Returns
    -------
    Tuning

    Raises
    ------
    LayerError
        When the layer does not exist.
    InputError
        When the stimuli do not fit the network's input.

    Notes
    -----
    Cost: one forward pass over the stimuli (about 600) and one forward and backward pass per unit,
    both ending at the layer. It does not show what the unit does on natural images: a label tells
    which of these pictures it answers, not that it answers nothing else.

    References
    ----------
    .. [1] "Dissecting a ConvNet": lines, sides and angles as the labels of a first convolution.

    Examples
    --------
    >>> from torch import nn
    >>> conv = nn.Conv2d(1, 1, 5, bias=False)
    >>> _ = conv.weight.data.copy_(torch.tensor([1.0, 1.0, 0.0, -1.0, -1.0]).expand(5, 5))
    >>> net = Network(nn.Sequential(conv, nn.Flatten()), input_shape=(1, 16, 16))
    >>> tuning(net, "0").label(0)
    'right side of a vertical line'
    """
    return tunings(net, [layer], stimuli=stimuli, batch=batch)[layer]


def tunings(
    net: Network, layers: Iterable[str], *, stimuli: Stimuli | None = None, batch: int = 32
) -> dict[str, Tuning]:
    """Tuning of several layers with one pass over the stimuli; see ``tuning``."""
    names = list(layers)
    shown = standard((net.input_shape[1], net.input_shape[2])) if stimuli is None else stimuli
    answered = responses(net, names, shown, batch)
    sizes = {matching.compared(net.layer(name), shown) for name in names}
    chances = {size: matching.chance(size, shown, net.input_shape[0]) for size in sizes}
    return {name: _tuning(net, name, shown, answered[name], chances, batch) for name in names}


def _tuning(
    net: Network, layer: str, stimuli: Stimuli, answers: Responses, chances: dict[tuple[int, int], float], batch: int
) -> Tuning:
    findings = classify(answers.peak, answers.brightness, stimuli.family, stimuli.parameters)
    best = torch.tensor([finding.best for finding in findings])
    place = answers.place.gather(1, best[:, None])[:, 0]
    match, level = matching.match(net, layer, stimuli, best, place, batch)
    chance = chances[matching.compared(net.layer(layer), stimuli)]
    threshold = min(chance, LIKE_A_STIMULUS)
    kept = [_gated(finding, float(match[unit]), threshold) for unit, finding in enumerate(findings)]
    second = secondary(kept, answers.peak, stimuli.family, stimuli.parameters)
    bright = torch.tensor([finding.family == "brightness" for finding in kept])
    return Tuning(
        provenance=provenance(net, "tuning", layer=layer, stimuli=len(stimuli), batch=batch),
        layer=layer,
        response=answers.peak,
        centre=answers.centre,
        labels=tuple(finding.label for finding in kept),
        secondary=second,
        kind=tuple(finding.family for finding in kept),
        angle=torch.tensor([finding.angle for finding in kept]),
        direction=torch.tensor([finding.direction for finding in kept]),
        side=tuple(words.side(finding.direction) if finding.family == "edge" else "" for finding in kept),
        width=torch.tensor([finding.bandwidth for finding in kept]),
        confidence=torch.where(bright, level, match.clamp(min=0).square()).clamp(max=1),
        match=match,
        chance=chance,
        brightness=answers.brightness,
        best=best,
        family=stimuli.family,
        shown=stimuli.parameters,
    )


def _gated(finding: Finding, match: float, threshold: float) -> Finding:
    """The finding, or nothing where the match is no better than chance."""
    if finding.family in ("", "brightness") or match > threshold:
        return finding
    return Finding("", words.NOT_SELECTIVE, finding.strength, math.nan, math.nan, math.nan, finding.best)
