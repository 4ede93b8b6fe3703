"""Figure of a class score as a sum over units, and of their amounts as sums over the units before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from microtome.attribution.relevance.unit_sums import ScoreDecomposition

_INPUTS = 3  # units drawn below each unit that was followed
_ABOVE, _BELOW, _REST = "#b2182b", "#2166ac", "0.6"
_INDENT = "      "  # for each step towards the image

Row = tuple[int, str, float, str]


def score_decomposition(result: ScoreDecomposition, *, limit: int = 12) -> Figure:
    """One bar for each unit that feeds the score; below a unit that was followed, those that feed it, indented.

    Parameters
    ----------
    result : ScoreDecomposition
        What to draw.
    limit : int
        Maximum number of units of the score's own sum.
    """
    shown = within(limit, max(len(result.steps), 1))
    rows = [*_rows(result.steps[:shown], 0), *_rests(result.steps[shown:], result.rest, result.bias, 0)]
    figure = Figure(figsize=(6.4, 0.9 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(range(len(rows)), [row[2] for row in rows], color=[row[3] for row in rows], height=0.75)
    axes.bar_label(drawn, [f"{row[2]:+.3g}" for row in rows], fontsize=7, padding=2)
    axes.set_yticks(range(len(rows)), [_INDENT * depth + name for depth, name, _, _ in rows], fontsize=7, ha="left")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0, color="0.6", linewidth=0.6)
    axes.margins(x=0.15)
    axes.set_xlabel(f"amount of the score of class {result.target}, {result.score:.3g}", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    letters = max((len(_INDENT) * depth * 0.6 + len(name) for depth, name, _, _ in rows), default=0)
    axes.tick_params(axis="y", pad=3.6 * letters + 4)
    note(figure, "indented: what feeds the unit above, a part of its amount",
         left_out(shown, len(result.steps), "units"), size=7)  # fmt: skip
    return figure


def _rows(steps: list[Any], depth: int) -> Iterator[Row]:
    """The units of a sum, each followed by its own sum."""
    for layer, unit, amount, bias, rest, below in steps:
        name = layer if unit < 0 else f"{layer}:{unit}"
        yield depth, name, amount, _ABOVE if amount > 0 else _BELOW
        if below:
            yield from _rows(below[:_INPUTS], depth + 1)
            yield from _rests(below[_INPUTS:], rest, bias, depth + 1)


def _rests(steps: list[Any], rest: float, bias: float, depth: int) -> Iterator[Row]:
    """The sum of the units that are not drawn, and the part of biases and constants; none that is zero."""
    found = (("all others", rest + sum(step[2] for step in steps)), ("biases", bias))
    yield from ((depth, name, amount, _REST) for name, amount in found if amount)
