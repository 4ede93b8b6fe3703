"""Figure of a score's path: each followed unit's map, its label and amount, and the inputs that make it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from microtome.figures.attribution.attribution_figures import MAGNITUDE, SIGNED
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.units.wiring.score_path import ScorePath

_INPUTS = 3  # number of inputs drawn for each unit
_ROW, _TOP, _FOOT, _INDENT = 1.0, 1.25, 0.3, 0.3  # inches


def score_path(result: ScorePath, *, limit: int = 12) -> Figure:
    """Draw the walk from the score down, one row for each unit that was followed, indented by depth.

    Parameters
    ----------
    result : ScorePath
        What to draw.
    limit : int
        Maximum number of units drawn, in the order of the path.
    """
    followed = list(_followed(result.sums.steps, 1))
    shown = followed[: within(limit, max(len(followed), 1))]
    width, height = 9.6, _TOP + _ROW * max(len(shown), 1) + _FOOT
    figure = Figure(figsize=(width, height))
    picture = _box(figure, 0.15, height - _TOP + 0.15, 0.95)
    image = result.image.permute(1, 2, 0).float().numpy()
    picture.imshow(image[:, :, 0] if image.shape[2] != 3 else image, cmap="gray", vmin=0, vmax=1)
    sums = result.sums
    head = (
        f"score of {result.class_name}: {sums.score:.3g}\n= {sum(step[2] for step in sums.steps):.3g} of "
        f"{len(sums.steps)} named units, {sums.rest:+.3g} of all others, {sums.bias:+.3g} of biases\n"
        f"largest gap of all sums: {result.gap:.1e}"
    )
    figure.text(1.3 / width, (height - 0.3) / height, head, fontsize=9, va="top")
    top = max((abs(step[2]) for _, step in followed), default=1.0) or 1.0
    for row, (depth, step) in enumerate(shown):
        _draw(figure, result, depth, step, height - _TOP - (row + 1) * _ROW + 0.1, top)
    subset = left_out(len(shown), len(followed), "followed units")
    note(
        figure,
        "left: the unit's map; right: the contributions of its strongest inputs to that map, and their shares",
        "red above zero, blue below",
        subset,
        size=7,
    )
    return figure


def _followed(steps: list[Any], depth: int) -> Any:
    for step in steps:
        if step[5]:
            yield depth, step
            yield from _followed(step[5], depth + 1)


def _draw(figure: Figure, result: ScorePath, depth: int, step: list[Any], low: float, top: float) -> None:
    layer, unit, amount = step[:3]
    key = f"{layer}:{unit}"
    width, height = figure.get_size_inches()
    left = 0.15 + (depth - 1) * _INDENT
    _show(_box(figure, left, low, 0.8), result.maps[key].float())
    text = "\n".join(textwrap.wrap(result.labels.get(key, ""), 26)[:2])
    figure.text((left + 0.92) / width, (low + 0.72) / height, f"{key}   {amount:+.3g}", fontsize=9, va="center")
    figure.text((left + 0.92) / width, (low + 0.42) / height, text, fontsize=7, va="center")
    bar = figure.add_axes(((left + 0.92) / width, (low + 0.06) / height, 1.5 / width, 0.1 / height))
    bar.barh([0], [amount / top], color="#b2182b" if amount > 0 else "#2166ac")
    bar.set_xlim(-1, 1)
    bar.axvline(0, color="0.6", linewidth=0.6)
    bar.set_axis_off()
    found = result.dissections.get(key)
    if found is None:
        return
    share = found.share
    strongest = share.abs().argsort(descending=True, stable=True).tolist()[:_INPUTS]
    limit = max(float(found.contributions[strongest].abs().max()), 1e-12)
    for place, row in enumerate(strongest):
        spot = 4.0 + place * 1.9
        axes = _box(figure, spot, low, 0.8)
        axes.imshow(found.contributions[row].numpy(), cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
        label = "\n".join(textwrap.wrap(found.labels[row], 16)[:3])
        words = f"input {int(found.channels[row])}\n{100 * float(share[row]):+.0f} %\n{label}"
        figure.text((spot + 0.86) / width, (low + 0.4) / height, words, fontsize=6.5, va="center")


def _box(figure: Figure, left: float, low: float, side: float) -> Axes:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, low / height, side / width, side / height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
    return axes


def _show(axes: Axes, values: Tensor) -> None:
    top = max(float(values.abs().max()), 1e-12)
    if float(values.min()) < 0:
        axes.imshow(values.numpy(), cmap=SIGNED, vmin=-top, vmax=top, interpolation="nearest")
    else:
        axes.imshow(values.numpy(), cmap=MAGNITUDE, vmin=0, vmax=top, interpolation="nearest")
