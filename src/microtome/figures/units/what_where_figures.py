"""Figure of what and where: the shares of variance of every unit of a layer, and the responses of three units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from microtome.figures.attribution.attribution_figures import SIGNED
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from microtome.units.what_where import WhatWhere

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
    low = torch.zeros(len(order), device="cpu")
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
