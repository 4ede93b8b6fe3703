"""What and where: how much of a unit's response depends on the pattern, and how much on its position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.trace.graph import Layer
from microtome.units.placed_stimuli import PlacedStimuli, placed
from microtome.units.stimulus_tuning.stimulus_responses import scaled, with_channels
from microtome.units.streaming.layer_statistics import rounding
from microtome.units.streaming.streaming_pass import selected_layers

__all__ = ["WhatWhere", "what_where"]

_NOTE = (
    "Shares of the variance of a unit's response, from 0 to 1, due to the pattern, its place, or only both "
    "together; ± is one standard error. Angles in degrees; offset, width, row and column in pixels."
)

_LEAST = 1e-12  # the variance of a constant is rounding
REDUCTIONS = ("max", "mean", "centre")


@dataclass(frozen=True, eq=False, kw_only=True)
class WhatWhere(Result, drawing="units.what_where_figures:what_where"):
    """Shares of variance of the responses of one layer's units.

    Attributes
    ----------
    layer : str
    reduce : str
        How a unit's map was reduced to one number.
    pattern, place, interaction : Tensor
        (units,) shares of the variance of the response; they add up to 1. NaN for a unit that responds equally to
        all stimuli.
    error : Tensor
        (units, 3) standard errors of the shares by a jackknife over patterns and over places.
    response : Tensor
        (units, patterns, places)
    names : list of str
        The patterns in words.
    places : Tensor
        (places, 2) row and column of the places, in pixels.
    """

    layer: str
    reduce: str
    pattern: Tensor
    place: Tensor
    interaction: Tensor
    error: Tensor
    response: Tensor
    names: list[str]
    places: Tensor

    def dual(self, least: float = 0.1) -> Tensor:
        """Mask (units,) of units for which pattern and position each explain at least a share."""
        return (self.pattern >= least) & (self.place >= least)

    def table(self) -> Table:
        """One row for each unit: shares with errors, the best pattern, the best place."""
        rows = []
        for unit in range(len(self.pattern)):
            by_pattern, by_place = self.response[unit].mean(1), self.response[unit].mean(0)
            best = ("", "")
            if not bool(self.pattern[unit].isnan()):
                row, column = self.places[int(by_place.argmax())].tolist()
                best = (self.names[int(by_pattern.argmax())], f"row {row}, column {column}")
            shares = (self.pattern, self.place, self.interaction)
            rows.append((unit, *(float(one[unit]) for one in shares), *self.error[unit, :2].tolist(), *best))
        head = ("unit", "pattern", "place", "interaction", "pattern ±", "place ±", "best pattern", "best place")
        return Table(head, tuple(rows), _NOTE)


@overload
def what_where(  # type: ignore[overload-overlap]  # str is an Iterable[str]
    net: Network, layers: str, *, stimuli: PlacedStimuli | None = None, reduce: str = "max", batch: int = 64
) -> WhatWhere: ...
@overload
def what_where(
    net: Network, layers: Iterable[str], *, stimuli: PlacedStimuli | None = None, reduce: str = "max", batch: int = 64
) -> dict[str, WhatWhere]: ...
@register("what-where", rows=("B8",), paper="dissecting", needs="any layer with units", kind="units")
def what_where(
    net: Network,
    layers: str | Iterable[str],
    *,
    stimuli: PlacedStimuli | None = None,
    reduce: str = "max",
    batch: int = 64,
) -> WhatWhere | dict[str, WhatWhere]:
    r"""Split the variance of each unit's response by pattern and by position [1]_.

    Every pattern i is shown at every position j. With the response :math:`y_{ij}` and dots for means, the two-way
    analysis of variance is exact,

    .. math:: \sum_{ij} (y_{ij} - y_{\cdot\cdot})^2 = \sum_{ij} (y_{i\cdot} - y_{\cdot\cdot})^2
              + \sum_{ij} (y_{\cdot j} - y_{\cdot\cdot})^2
              + \sum_{ij} (y_{ij} - y_{i\cdot} - y_{\cdot j} + y_{\cdot\cdot})^2 .

    The three sums, divided by the total, are the shares of the pattern, of the position, and of their interaction: a
    unit that responds to one pattern at one position only has all three.

    Parameters
    ----------
    net : Network
    layers : str or iterable of str
        One layer, or several in one pass over the stimuli.
    stimuli : PlacedStimuli, optional
        Default ``units.placed`` at the network's input size: 34 patterns at 5 x 5 places.
    reduce : str
        How a unit's map is reduced to one number: ``"max"`` (does the channel detect the pattern anywhere),
        ``"mean"`` over all positions, ``"centre"`` (the neuron in the middle).
    batch : int
        Number of images per pass.

    Returns
    -------
    WhatWhere or dict of str to WhatWhere
        Of one layer; by layer if ``layers`` is an iterable.

    Raises
    ------
    LayerError
        When the layer does not exist or has no units.
    InputError
        When ``reduce`` is unknown, or the stimuli are not a full grid of patterns and positions.

    Notes
    -----
    Cost: one forward pass over the stimuli. A convolution detects positions only by its padding: with ``"max"``
    its position share is 0 except for borders and the grid of its stride. The shares depend on the set of patterns and
    positions. What it does not show: responses to several patterns at once.

    References
    ----------
    .. [1] "Dissecting a ConvNet": blocks detect patterns, and where they are.

    Examples
    --------
    A unit that reads the whole image with equal weights responds only to the pattern.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 1, bias=False))
    >>> _ = model[1].weight.data.fill_(1.0)
    >>> round(float(what_where(Network(model, (1, 12, 12)), "1").pattern), 6)
    1.0
    """
    if reduce not in REDUCTIONS:
        raise InputError(f'reduce must be one of {", ".join(REDUCTIONS)}, got "{reduce}".')
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    shown = placed((net.input_shape[1], net.input_shape[2])) if stimuli is None else stimuli
    patterns, places = len(shown.names), len(shown.places)
    if len(shown.images) != patterns * places or min(patterns, places) < 2:
        raise InputError(
            f"every pattern at every position was expected, {patterns} x {places} images, got {len(shown.images)}."
        )
    rows = _responses(net, names, shown, reduce, batch)
    found = {}
    for name in names:
        response = rows[name].reshape(-1, patterns, places)
        least = rounding(net.dtype)
        shares = variance_shares(response, least)
        found[name] = WhatWhere(
            provenance=stated(layers=name, stimuli=len(shown.images)),
            layer=name,
            reduce=reduce,
            pattern=shares[:, 0],
            place=shares[:, 1],
            interaction=shares[:, 2],
            error=_errors(response, least),
            response=response.float(),
            names=shown.names,
            places=shown.places,
        )
    return found[layers] if isinstance(layers, str) else found


def variance_shares(response: Tensor, least: float = 0.0) -> Tensor:
    """Shares (units, 3) of pattern, place and interaction in the variance of (units, patterns, places).

    NaN if the deviation, relative to the root mean square response, does not exceed ``least``.
    """
    mean = response.mean((1, 2), keepdim=True)
    pattern = response.mean(2, keepdim=True) - mean
    place = response.mean(1, keepdim=True) - mean
    rest = response - mean - pattern - place
    parts = torch.stack([part.expand_as(response).square().sum((1, 2)) for part in (pattern, place, rest)], 1)
    whole = parts.sum(1, keepdim=True)
    level = max(least, _LEAST) ** 2 * response.square().sum((1, 2))[:, None]
    return torch.where(whole > level, parts / whole, torch.nan)


def _responses(net: Network, names: list[str], shown: PlacedStimuli, reduce: str, batch: int) -> dict[str, Tensor]:
    selected_layers(net, names)  # each exists and has units
    info = {name: net.layer(name) for name in names}
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    quick = net.quick(scaled(net, with_channels(net, shown.images[:1])), names, len(shown.images), backwards=False)
    for images in reported(shown.images.split(batch), "stimuli"):
        values = quick.activations(scaled(net, with_channels(net, images)), names, batch=batch)
        for name in names:
            rows[name].append(_reduced(info[name], values[name], len(images), reduce).double().cpu())
    return {name: torch.cat(parts).T for name, parts in rows.items()}


def _reduced(layer: Layer, value: Tensor, count: int, reduce: str) -> Tensor:
    maps = layer.axes.maps(value, count)
    if reduce == "centre":
        return maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
    return maps.amax((2, 3)) if reduce == "max" else maps.mean((2, 3))


def _errors(response: Tensor, least: float) -> Tensor:
    r"""Standard errors :math:`\sqrt{\frac{g-1}{g} \sum (t_k - \bar t)^2}`, of patterns and places together."""
    total = torch.zeros(len(response), 3, dtype=response.dtype, device=response.device)
    for axis in (1, 2):
        count = response.shape[axis]
        if count < 3:
            continue
        kept = [[other for other in range(count) if other != left] for left in range(count)]
        index = (torch.tensor(one, device=response.device) for one in kept)
        each = torch.stack([variance_shares(response.index_select(axis, one), least) for one in index])
        total += (each - each.mean(0)).square().sum(0) * (count - 1) / count
    return total.sqrt()
