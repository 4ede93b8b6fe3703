"""Figure of the hand-set network: every detector, every pattern at its place, and the table of votes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from microtome.figures.attribution.attribution_figures import SIGNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.reproduce.dissecting.hand_set_digits import HandSet
    from microtome.zoo.hand_set import HandNet

_PER_COLUMN = 13  # patterns in a column of the figure
_WIDTH, _ROW = 4.6, 0.62  # inches


def hand_set(result: HandSet, *, trained: bool = True) -> Figure:
    """Draw the whole network: detectors with words, patterns as lines at their places, votes by digit.

    Parameters
    ----------
    result : HandSet
        What to draw.
    trained : bool
        Whether the trained votes are drawn below the votes set by hand.
    """
    model = _model(result, after=False)
    changed = _model(result, after=True)
    names = model.patterns.names
    columns = math.ceil(len(names) / _PER_COLUMN)
    rows = min(len(names), _PER_COLUMN)
    top = 2.5
    width, height = columns * _WIDTH, top + (rows + 1) * _ROW
    figure = Figure(figsize=(width, height))
    _detectors(figure, model, changed, width, height)
    for place, name in enumerate(names):
        column, row = divmod(place, _PER_COLUMN)
        left, low = column * _WIDTH + 0.1, height - top - (row + 1.55) * _ROW
        box = figure.add_axes((left / width, low / height, 0.54 / width, 0.54 / height))
        _pattern(box, model, place)
        votes = figure.add_axes(((left + 0.66) / width, low / height, 3.6 / width, 0.32 / height))
        shares = [model.votes.share[:, place].detach()] + ([changed.votes.share[:, place].detach()] if trained else [])
        _votes(votes, torch.stack(shares), digits=row == 0)
        figure.text(
            (left + 0.66) / width, (low + 0.36 + (0.14 if row == 0 else 0)) / height, name, fontsize=8, va="bottom"
        )
    kinds = "upper row by hand, lower row trained" if trained else "by hand"
    figure.text(
        0.5, 0.1 / height,
        f"Votes: share of a digit's images that show the pattern, 0 (white) to 1 (black), {kinds}. "
        "Patterns: red lines must be there, blue ones must be absent; ellipses show the tolerance of the place.",
        ha="center", fontsize=8,
    )  # fmt: skip
    return figure


def _model(result: HandSet, *, after: bool) -> HandNet:
    from microtome.reproduce.dissecting.hand_set_digits import STATES

    return cast("HandNet", result.network(STATES[1 if after else 0]).model)


def _detectors(figure: Figure, model: HandNet, changed: HandNet, width: float, height: float) -> None:
    """Kernels set by hand above, trained kernels below, each with its description."""
    count = len(model.lines.angle)
    step = width / count
    for row, (one, word) in enumerate(((model, "by hand"), (changed, "trained"))):
        kernels = one.lines.weight.detach()[:, 0]
        limit = float(kernels.abs().max())
        for place in range(count):
            left, low = place * step + 0.25, height - 0.4 - (row + 1) * 1.0
            axes = figure.add_axes((left / width, low / height, 0.7 / width, 0.7 / height))
            axes.imshow(kernels[place].cpu().numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
            _bare(axes)
            text = one.lines.describe()[place].split(", seen")[0].replace(", ", "\n", 1)
            axes.set_xlabel(text, fontsize=5.5, labelpad=2)
        figure.text(0.06 / width, (height - 0.75 - row * 1.0) / height, word, fontsize=7, rotation=90, va="center")
    figure.text(0.5, (height - 0.16) / height, "Line detectors: red bright, blue dark", ha="center", fontsize=9)


def _pattern(axes: Axes, model: HandNet, place: int) -> None:
    axes.set_xlim(0, 28)
    axes.set_ylim(28, 0)
    axes.set_facecolor("#f4f4f4")
    _bare(axes)
    patterns = model.patterns
    for term in (patterns.owner == place).nonzero()[:, 0].tolist():
        values = (patterns.strength, patterns.angle, patterns.x, patterns.y)
        strength, angle, x, y = (float(one[term].detach()) for one in values)
        wide, high = patterns.spread[term].tolist()
        colour = "#b2182b" if strength > 0 else "#2166ac"
        turn, reach = math.radians(angle), 4.0
        dx, dy = reach * math.cos(turn), -reach * math.sin(turn)
        axes.plot([x - dx, x + dx], [y - dy, y + dy], color=colour, linewidth=1.6, solid_capstyle="round")
        axes.add_patch(Ellipse((x, y), 2 * wide, 2 * high, fill=False, color=colour, linewidth=0.5, alpha=0.7))


def _votes(axes: Axes, shares: Tensor, *, digits: bool) -> None:
    axes.imshow(shares.cpu().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for line in range(1, shares.shape[1]):
        axes.axvline(line - 0.5, color="white", linewidth=1)
    if digits:
        axes.xaxis.set_ticks_position("top")
        axes.set_xticks(range(shares.shape[1]), [str(digit) for digit in range(shares.shape[1])], fontsize=7)
        axes.tick_params(length=0, pad=1)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
