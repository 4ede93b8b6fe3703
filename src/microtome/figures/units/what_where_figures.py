"""Figures of what and where: the shares of variance of every unit of a layer, and the stimuli behind them."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure

from microtome.figures.attribution.attribution_figures import SIGNED, picture
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

    from microtome.units.placed_stimuli import PlacedStimuli
    from microtome.units.what_where import WhatWhere

_COLUMNS, _CELL, _WORDS = 9, 0.82, 0.34  # patterns in a row; inches of a picture, and of its name
_COLOURS = {"pattern": "#4477aa", "place": "#ee8866", "interaction": "#bbbbbb"}


def what_where(result: WhatWhere, *, limit: int = 64) -> Figure:
    """Shares of variance by unit, sorted by the pattern's, beside the responses of the units that stand out.

    Parameters
    ----------
    result : WhatWhere
        What to draw.
    limit : int
        Maximum number of units with bars.
    """
    live = [unit for unit in range(len(result.pattern)) if not bool(result.pattern[unit].isnan())]
    order = sorted(live, key=lambda unit: -float(result.pattern[unit]))[: within(limit, max(len(live), 1))]
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, *maps = figure.subplots(1, 4, width_ratios=(3.2, 1, 1, 1))
    low = torch.zeros(len(order), dtype=torch.float32, device="cpu")
    for name, colour in _COLOURS.items():
        values = getattr(result, name)[order].float()
        left.bar(range(len(order)), values.tolist(), bottom=low.tolist(), width=1.0, color=colour, label=name)
        low = low + values
    left.set_xlabel(f"units of {result.layer}, by the pattern's share", fontsize=8)
    left.set_ylabel("share of the variance of the response", fontsize=8)
    left.set_xlim(-0.5, max(len(order), 1) - 0.5)
    left.set_ylim(0, 1)
    left.set_xticks([])
    left.tick_params(labelsize=7)
    left.legend(fontsize=7, ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    side = round(len(result.places) ** 0.5)
    for axes, name in zip(maps, _COLOURS, strict=True):
        if not live or side * side != len(result.places):
            axes.set_axis_off()
            continue
        shares = getattr(result, name).nan_to_num(-1.0)
        unit = int(shares.argmax())
        response = result.response[unit] - result.response[unit].mean()
        top = max(float(response.abs().max()), 1e-12)
        axes.imshow(response.numpy(), cmap=SIGNED, vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
        share = 100 * float(getattr(result, name)[unit])
        axes.set_title(f"unit {unit}: {share:.0f} % {name}", fontsize=8)
        axes.set_xlabel(f"{len(result.places)} places", fontsize=7)
        axes.set_ylabel(f"{len(result.names)} patterns", fontsize=7)
        axes.set_xticks([])
        axes.set_yticks([])
    dead = len(result.pattern) - len(live)
    note(
        figure,
        "right: response less its mean, red above, blue below",
        left_out(len(order), len(live), "units"),
        f"{dead} units that respond to no stimulus" if dead else "",
    )
    return figure


def placed_stimuli(result: PlacedStimuli, *, limit: int = 36) -> Figure:
    """Each pattern at the middle place, and the first pattern at every place.

    Parameters
    ----------
    result : PlacedStimuli
        What to draw.
    limit : int
        Maximum number of patterns drawn.
    """
    count, places = len(result.names), len(result.places)
    images = result.images.unflatten(0, (count, places))
    shown = within(limit, count)
    columns = min(_COLUMNS, shown)
    rows, down, across = math.ceil(shown / columns), *(len(result.places[:, axis].unique()) for axis in (0, 1))
    tall = max(rows * (_CELL + _WORDS), down * _CELL) + 0.5
    figure = Figure(figsize=(columns * _CELL + across * _CELL + 0.8, tall), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(columns, across), wspace=0.02)
    left, right = parts
    middle = int((result.places - result.places.double().mean(0)).square().sum(1).argmin())
    _patterns(left, images[:shown, middle], _short(result.names), rows, columns)
    note(left, "each pattern at the middle place", left_out(shown, count, "patterns"))
    grid = right.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    where = [result.places[:, axis].unique(return_inverse=True)[1].tolist() for axis in (0, 1)]
    for place, (row, column) in enumerate(zip(*where, strict=True)):
        grid[row, column].set_axis_on()
        picture(grid[row, column], images[0, place])
    note(right, f"{result.names[0]} at each of {places} places")
    return figure


def _patterns(figure: SubFigure, images: torch.Tensor, names: list[str], rows: int, columns: int) -> None:
    """Pictures of patterns with their names below."""
    for axes, number in zip(figure.subplots(rows, columns, squeeze=False).flat, range(rows * columns), strict=True):
        if number >= len(images):
            axes.set_axis_off()
            continue
        picture(axes, images[number])
        axes.set_xlabel("\n".join(textwrap.wrap(names[number], 16)[:2]), fontsize=5.5, labelpad=1)


def _short(names: list[str]) -> list[str]:
    """Names without the parameters that all patterns of their family share.

    Examples
    --------
    >>> _short(["line, angle 0, width 2", "line, angle 45, width 2", "blob, width 3", "mine"])
    ['line, angle 0', 'line, angle 45', 'blob', 'mine']
    """
    parts = [name.split(", ") for name in names]
    shared = {family: set.intersection(*(set(one) for one in parts if one[0] == family)) for family, *_ in parts}
    return [", ".join([first, *(part for part in rest if part not in shared[first])]) for first, *rest in parts]
