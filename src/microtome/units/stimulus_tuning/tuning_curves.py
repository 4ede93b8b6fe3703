"""Tuning of units: responses to lines, edges, corners, curves, gratings and blobs, tuning curves, and a label."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from microtome.batch_sizes import read_at_once
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.tables import Table
from microtome.units.stimulus_tuning import colour_tuning, noise_floor, template_match, texture_tuning
from microtome.units.stimulus_tuning import labels as label_texts
from microtome.units.stimulus_tuning.classify import Classification, Curve, classify, curves, secondary
from microtome.units.stimulus_tuning.colour_tuning import ColourTuning
from microtome.units.stimulus_tuning.stimuli import Stimuli, standard
from microtome.units.stimulus_tuning.stimulus_responses import StimulusResponses, responses
from microtome.units.stimulus_tuning.texture_tuning import TextureTuning

_NOTE = (
    "angle, width of tuning: in degrees. confidence: share of random units that are less selective, 0.985 for a label; "
    "of brightness, the uniform share of the gradient. also: a second function. repeats: units of equal tuning."
)

SUFFICIENT_MATCH = 0.8  # a match above this is significant even if noise reaches it in a small receptive field
SIGNIFICANT = 0.985  # a label is given if at least this share of random units is less selective


@dataclass(frozen=True, eq=False, kw_only=True)
class Tuning(Result, drawing="units.tuning_figures:tuning"):
    """Tuning of all units of one layer.

    Attributes
    ----------
    layer : str
    response : Tensor
        (U, S) largest response over positions to each stimulus, minus the response to a blank of equal level.
    centre : Tensor
        (U, S) response at the middle position, minus the response to a blank.
    labels : tuple of str
        Labels such as ``"line at 45°"``; ``"not selective"`` if random units are as selective.
    secondary : tuple of str
        Label of the secondary function, or ``""``.
    kind : tuple of str
        Family of the label's stimuli: ``"line"``, ``"edge"``, ..., ``"colour"``, ``"texture"``, ``"brightness"`` or
        ``""``.
    angle : Tensor
        (U,) preferred orientation in [0, 180); NaN if there is none.
    direction : Tensor
        (U,) direction in [0, 360): from bright to dark for an edge, of the tip of a corner, of the convex
        side of a curve; otherwise NaN.
    side : tuple of str
        Name of ``direction`` for edges (``"right"``, ``"upper left"``); otherwise ``""``.
    width : Tensor
        (U,) bandwidth: full width at half height of the angular tuning curve, degrees.
    confidence : Tensor
        (U,) in [0, 1]: the share of random units that are less selective: of units of random networks by
        ``selectivity``, or of noise filters with this receptive field by ``match``, whichever is larger. For
        brightness the share of the gradient's energy in its mean.
    selectivity : Tensor
        (U,) the response to the best stimulus in units of the noise floor, times the resultant length of the tuning
        curve over angles (1 - circular variance; 0.5 for families without angles).
    noise_floor : Tensor
        (U,) the response that 2 % of the shuffled stimuli exceed.
    match : Tensor
        (U,) cosine between the unit's gradient and its best stimulus.
    chance : float
        The match that 98.5 % of the noise filters with this receptive field do not reach.
    brightness : Tensor
        (U,) response to white minus response to black.
    hue : Tensor
        (U,) preferred hue in degrees (0 red, 120 green, 240 blue) for labels by colour; otherwise NaN.
    by_hue : Tensor or None
        (U, 12) response to uniform colours of each hue, minus the response to gray. None unless the network takes
        colour images and the standard stimuli were used.
    by_texture : Tensor or None
        (U, 7) response to each of ``units.TEXTURES``, median over places, minus the response to gray. None for layers
        of one place, or where the standard stimuli were not used.
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
    selectivity: Tensor
    noise_floor: Tensor
    match: Tensor
    chance: float
    brightness: Tensor
    hue: Tensor
    by_hue: Tensor | None
    by_texture: Tensor | None
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
        """The response of one unit by a parameter: the parameter's values, and the largest response at each value.

        Parameters
        ----------
        parameter : str
            ``"angle"``, ``"side"``, ``"offset"`` (position), ``"width"``, ``"phase"`` or ``"polarity"``.
        family : str, optional
            Family of the stimuli; default the family of the unit's label, or lines.
        centre : bool
            Use the response at the middle position. The largest response over positions, the default, does
            not depend on the stimulus' position or phase.

        Raises
        ------
        InputError
            When there are no stimuli of the family, or the family has no such parameter.
        """
        row = (self.centre if centre else self.response)[self._unit(unit)]
        name = family or (self.kind[unit] if self.kind[unit] in self.family else self.family[0])
        if parameter not in self.shown:
            raise InputError(f'stimuli have no "{parameter}"; choose among {", ".join(self.shown)}.')
        values = self.shown[parameter]
        members = torch.tensor([entry == name for entry in self.family], device="cpu") & ~values.isnan()
        if not bool(members.any()):
            raise InputError(
                f'no stimulus of "{name}" has a {parameter}; families: {", ".join(sorted(set(self.family)))}.'
            )
        axis = values[members].unique()
        return axis, torch.stack([row[members & (values == value)].max() for value in axis])

    @property
    def similarity(self) -> Tensor:
        """Correlation of the units' responses over all stimuli, (U, U)."""
        centred = self.response.double() - self.response.double().mean(1, keepdim=True)
        unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-300)
        correlation: Tensor = unit @ unit.T
        return correlation.float()

    def repeats(self, threshold: float = 0.9) -> list[tuple[int, ...]]:
        """Groups of redundant units: the same kind of label, and a correlation of responses above a threshold."""
        correlation = self.similarity
        groups: list[list[int]] = []
        for unit in range(len(self.labels)):
            if not self.kind[unit]:
                continue
            same = (g for g in groups if self.kind[g[0]] == self.kind[unit] and correlation[g[0], unit] >= threshold)
            group = next(same, None)
            if group is None:
                groups.append([unit])
            else:
                group.append(unit)
        return [tuple(group) for group in groups if len(group) > 1]

    def table(self) -> Table:
        """Unit, label, angle, bandwidth, confidence, secondary function and redundant units."""
        redundant = {unit: [other for other in group if other != unit] for group in self.repeats() for unit in group}
        rows = tuple(
            (
                unit,
                self.labels[unit],
                float(self.angle[unit]),
                float(self.width[unit]),
                float(self.confidence[unit]),
                self.secondary[unit],
                ", ".join(map(str, redundant.get(unit, []))),
            )
            for unit in range(len(self.labels))
        )
        return Table(("unit", "label", "angle", "width of tuning", "confidence", "also", "repeats"), rows, _NOTE)

    def _unit(self, unit: int) -> int:
        if not 0 <= unit < len(self.labels):
            raise InputError(f'layer "{self.layer}" has units 0 to {len(self.labels) - 1}, not {unit}.')
        return unit


@overload
def tuning(net: Network, layers: str, *, stimuli: Stimuli | None = None, batch: int | None = None) -> Tuning: ...  # type: ignore[overload-overlap]  # str is an Iterable[str]
@overload
def tuning(
    net: Network, layers: Iterable[str], *, stimuli: Stimuli | None = None, batch: int | None = None
) -> dict[str, Tuning]: ...
@register("tuning", rows=("B4",), paper="dissecting", needs="any layer with units", kind="units")
def tuning(
    net: Network, layers: str | Iterable[str], *, stimuli: Stimuli | None = None, batch: int | None = None
) -> Tuning | dict[str, Tuning]:
    r"""Measure responses to stimuli and label each unit of one or several layers.

    The response of unit u to stimulus s is the largest difference over positions between the
    activations for the stimulus and for a blank:

    .. math:: r_u(s) = \max_p \big( a_u(s, p) - b_u(m_p(s), p) \big),

    b is the activation for a blank whose level m is the stimulus's mean within the receptive field of p.
    For a convolution on the image, r is the response of the kernel without its mean, before any ReLU.

    Rules of the labels:

    - *line at θ*: the curve over angles with the largest modulation among all stroke widths. Its
      resultant length on doubled angles is at least 0.2, or (max - min) / (max + min) is above 0.6.
      The line is *dark* if dark lines on bright have the larger response.
    - *side of a line*: an edge has a response, and the opposite edge has less than about half of it.
      The side is the end of a bright region: the **right side of a vertical line** is bright on the
      left and dark on the right, the **lower side of a horizontal line** is bright above and dark below.
    - *grating, corner, curve, blob*: the response is more than 1.15 times the response to the best line
      or edge, which is part of these patterns. A grating has at least two periods in the receptive field.
    - *colour red*, *colour red against cyan*, *stripes of red and cyan*: for networks that take colour images, the
      response to a uniform colour, or to stripes of two opposite hues of equal brightness, is more than 1.15 times that
      to the best gray stimulus, and sharper by hue than in 98.5 % of the units of random networks. *Against*: the
      opposite hue lowers the unit.
    - *texture: honeycomb, 8 px*: the median response to a texture over all positions is more than 1.15
      times that to the best other stimulus at its best position, and sharper by texture than in 98.5 % of the units of
      random networks. Textures are checkerboards, dots, plaids, honeycombs, noise of one scale, and noise with the
      spectrum of photographs.
    - *brightness*, *darkness*: the response to patterns is small compared to the response to a blank.
    - *not selective*: there is no direction, or the unit is not more selective than random ones. Two comparisons are
      made, and one is sufficient. (1) The tuning itself: the response to the best stimulus divided by the noise floor
      (the response that 2 % of shuffled stimuli exceed: the same pixels, in blocks of 1 to 8 pixels in random order),
      times the resultant length of the curve over angles, against units of random networks. It holds for layers of any
      depth. (2) The match of the unit's gradient with the stimulus, against filters of white noise of this size. It
      is for first layers, whose fields are so small that shuffled stimuli contain every pattern. A label needs 98.5 %
      of the random units below it, or a match of 0.8.

    Parameters
    ----------
    net : Network
    layers : str or iterable of str
        One layer, or several in one pass over the stimuli. Any layer with units: convolution, ReLU, fully
        connected.
    stimuli : Stimuli, optional
        Default ``units.stimuli.standard`` at the network's input size, in gray.
    batch : int, optional
        Number of images per pass.

    Returns
    -------
    Tuning or dict of str to Tuning
        The tuning of one layer; by layer if ``layers`` is an iterable.

    Raises
    ------
    LayerError
        When the layer does not exist.
    InputError
        When the stimuli do not fit the network's input.

    Notes
    -----
    Cost: one forward pass over the stimuli (about 600), 240 shuffled ones and 40 to 100 textures, and one forward and
    backward pass per unit, all up to the layer. What it does not show: responses to natural images. A label names the
    best of these stimuli; other images may have larger responses.

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
    names = [layers] if isinstance(layers, str) else list(layers)
    usual = stimuli is None
    stimuli = standard((net.input_shape[1], net.input_shape[2])) if stimuli is None else stimuli
    size = read_at_once(net, batch, 32)
    measured = responses(net, names, stimuli, size)
    sizes = {name: template_match.noise_size(net.layer(name), stimuli) for name in names}
    noise = {one: template_match.noise_matches(one, stimuli, net.input_shape[0]) for one in set(sizes.values())}
    floors = noise_floor.noise_floors(net, names, stimuli, size)
    colours = colour_tuning.colour_tunings(net, names, size) if usual and net.input_shape[0] == 3 else {}
    several = [name for name in names if max(net.layer(name).axes.grid) > 1]
    textured = texture_tuning.texture_tunings(net, several, size) if usual and several else {}
    tunings = {
        name: _tuning(
            net, name, stimuli, measured[name], floors[name], noise[sizes[name]], colours.get(name), textured.get(name),
            size,
        )
        for name in names
    }  # fmt: skip
    return tunings[layers] if isinstance(layers, str) else tunings


def _tuning(
    net: Network,
    layer: str,
    stimuli: Stimuli,
    measured: StimulusResponses,
    floor: Tensor,
    noise: Tensor,
    colours: ColourTuning | None,
    textures: TextureTuning | None,
    batch: int,
) -> Tuning:
    field = net.layer(layer).field
    extent = math.inf if field is None or not net.layer(layer).spatial else float(min(field.size))
    classes = classify(measured.peak, measured.brightness, stimuli.family, stimuli.parameters, extent)
    best = torch.tensor([one.best for one in classes], device="cpu")
    place = measured.place.gather(1, best[:, None])[:, 0]
    match, level = template_match.match(net, layer, stimuli, best, place, batch)
    sharpness = torch.tensor([one.sharpness for one in classes], dtype=torch.float32, device="cpu")
    strength = torch.tensor([one.strength for one in classes], dtype=torch.float32, device="cpu")
    floor = floor.clamp(min=1e-6 * float(strength.abs().max().clamp(min=1e-30)))
    selectivity = sharpness * strength / floor
    bright = torch.tensor([one.family == "brightness" for one in classes], device="cpu")
    named = torch.tensor([one.family != "" for one in classes], device="cpu")
    one_place = max(net.layer(layer).axes.grid) == 1
    table = noise_floor.RANDOM_NEURONS if one_place else noise_floor.RANDOM_UNITS
    beyond = torch.maximum(noise_floor.share_of_random_units(selectivity, table), _share_below(noise, match))
    confidence = torch.where(bright, level, torch.where(named, beyond, 0.0)).clamp(max=1)
    accepted = bright | (beyond >= SIGNIFICANT) | (match >= SUFFICIENT_MATCH)
    classes = [one if bool(accepted[unit]) else _unselective(one) for unit, one in enumerate(classes)]
    hue = torch.full_like(selectivity, torch.nan)
    if colours is not None:
        by_hue, share = colours.selectivity(floor), colours.share(floor)
        coloured = (colours.strength > colour_tuning.COLOURED * strength) & (share >= SIGNIFICANT)
        classes = [colours.classification(unit) if bool(coloured[unit]) else one for unit, one in enumerate(classes)]
        confidence, selectivity = torch.where(coloured, share, confidence), torch.where(coloured, by_hue, selectivity)
        hue = torch.where(coloured, colours.hue, hue)
        strength = torch.maximum(strength, colours.strength)
    if textures is not None:
        by_texture, share = textures.selectivity(floor), textures.share(floor)
        other = torch.maximum(strength, measured.peak.amax(1))
        woven = (textures.strength > texture_tuning.TEXTURED * other) & (share >= SIGNIFICANT)
        classes = [textures.classification(unit) if bool(woven[unit]) else one for unit, one in enumerate(classes)]
        confidence, selectivity = torch.where(woven, share, confidence), torch.where(woven, by_texture, selectivity)
        hue = torch.where(woven, torch.nan, hue)
    second = secondary(classes, measured.peak, stimuli.family, stimuli.parameters)
    return Tuning(
        provenance=provenance(net, "tuning", layers=layer, stimuli=len(stimuli), batch=batch),
        layer=layer,
        response=measured.peak,
        centre=measured.centre,
        labels=tuple(one.label for one in classes),
        secondary=second,
        kind=tuple(one.family for one in classes),
        angle=torch.tensor([one.angle for one in classes], dtype=torch.float32, device="cpu"),
        direction=torch.tensor([one.direction for one in classes], dtype=torch.float32, device="cpu"),
        side=tuple(label_texts.side(one.direction) if one.family == "edge" else "" for one in classes),
        width=torch.tensor([one.bandwidth for one in classes], dtype=torch.float32, device="cpu"),
        confidence=confidence,
        selectivity=selectivity,
        noise_floor=floor,
        match=match,
        chance=float(noise.quantile(SIGNIFICANT)),
        brightness=measured.brightness,
        hue=hue,
        by_hue=None if colours is None else colours.uniform,
        by_texture=None if textures is None else textures.response,
        best=best,
        family=stimuli.family,
        shown=stimuli.parameters,
    )


def _share_below(noise: Tensor, values: Tensor) -> Tensor:
    """The share of the noise filters whose match is below each value."""
    return (noise[None] < values[:, None].to(noise)).float().mean(1)


def _unselective(one: Classification) -> Classification:
    """The classification of a unit that is no more selective than random ones."""
    return Classification("", label_texts.NOT_SELECTIVE, one.strength, best=one.best)
