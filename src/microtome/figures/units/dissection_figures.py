"""Figure of a dissected activation: a table x_j | label | j | w_j | a_j | c_j | y with one row per input channel."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from microtome.errors import InputError
from microtome.figures.attribution.attribution_figures import MAGNITUDE, SIGNED
from microtome.figures.limits import within

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from microtome.units.wiring.dissect import Dissection

CELL = 0.82  # inches
COLUMNS = ("x", "label", "j", "w", "a", "c", "y")
WIDTHS = (1.0, 1.5, 0.35, 0.8, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class _Row:
    """One row of the figure."""

    name: str
    label: str
    inputs: Tensor | None
    weights: Tensor | None
    contribution: Tensor
    running: Tensor


def dissection(result: Dissection, *, order: str = "channel", limit: int = 16, one_based: bool = False) -> Figure:
    """Draw the dissection of one output channel.

    Every column has one colour scale for all rows, which is below the column; c and y have the same scale.
    Zero is white in a column with both signs.

    Parameters
    ----------
    result : Dissection
        The dissection.
    order : str
        ``"channel"`` or ``"contribution"`` (strongest first). The cumulative sum follows this order.
    limit : int
        Largest number of input channels. One more row holds the sum of the weaker channels, so that the
        cumulative sum ends in y.
    one_based : bool
        Whether channels are counted from 1, as in the article.
    """
    if order not in ("channel", "contribution"):
        raise InputError(f'the order is "channel" or "contribution", not "{order}".')
    lines = _lines(result, order, within(limit, len(result.channels)), int(one_based))
    layout = _Layout(len(lines) + 1)
    scales = _scales(result, lines)
    for index, line in enumerate(lines):
        _draw_line(layout, index, line, scales)
    _draw_sum(layout, len(lines), result, scales)
    for column, name in enumerate(COLUMNS[:-1]):
        if name != "label" or any(result.labels):  # an empty column has no heading
            layout.head(column, _HEADS[name])
    _draw_scales(layout, scales)
    layout.figure.text(0.5, 1 - 0.12 / layout.height, _caption(result, order, int(one_based)), ha="center", fontsize=8)
    return layout.figure


class _Layout:
    """A table of cells with fixed positions in inches, which is faster than a layout engine for a hundred cells."""

    def __init__(self, rows: int) -> None:
        self.top, self.bottom, gap = 0.75, 0.45, 0.14
        steps = [CELL * width + gap for width in WIDTHS]
        self.left = [gap + sum(steps[:column]) for column in range(len(WIDTHS))]
        self.width = gap + sum(steps)
        self.rows, self.step = rows, CELL + 0.08
        self.height = self.top + rows * self.step + self.bottom
        self.figure = Figure(figsize=(self.width, self.height))

    def cell(self, row: int, column: int) -> Axes:
        """Axes of a picture."""
        size = CELL * min(WIDTHS[column], 1.0)
        low = self.height - self.top - (row + 1) * self.step + (self.step - size) / 2
        return self._axes(self.left[column], low, CELL * WIDTHS[column], size)

    def scale(self, column: int) -> Axes:
        """Axes of the colour scale below a column."""
        return self._axes(self.left[column], self.bottom - 0.14, CELL * WIDTHS[column], 0.08)

    def text(self, row: int, column: int, text: str) -> None:
        """Write text into a cell."""
        wrapped = textwrap.fill(text, 18) if "\n" not in text else text
        self._write(column, self.height - self.top - (row + 0.5) * self.step, wrapped, 8, "center")

    def head(self, column: int, text: str) -> None:
        """Write the heading of a column."""
        self._write(column, self.height - self.top + 0.04, text, 9, "bottom")

    def _write(self, column: int, y: float, text: str, size: float, align: str) -> None:
        x = (self.left[column] + CELL * WIDTHS[column] / 2) / self.width
        self.figure.text(x, y / self.height, text, ha="center", va=align, fontsize=size)

    def _axes(self, left: float, low: float, width: float, height: float) -> Axes:
        place = (left / self.width, low / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)


_HEADS = {
    "x": "$x_j$\ninput",
    "label": "\nwhat it detects",
    "j": "$j$",
    "w": "$w_j$\nweights",
    "a": "$a_j = x_j * w_j$",
    "c": "$c_j = \\sum_{k \\leq j} a_k$",
    "y": "$y$, output",
}


def _caption(result: Dissection, order: str, base: int) -> str:
    sorted_by = "strongest contribution first" if order == "contribution" else "in the order of the channels"
    return (
        f"{result.layer}, output channel {result.channel + base}, rows {sorted_by}; "
        f"largest difference of sum plus bias and y: {result.gap:.1e}"
    )


def _lines(result: Dissection, order: str, rows: int, base: int) -> list[_Row]:
    """The rows of the figure; the last row holds the sum of the weaker channels."""
    strongest = result.order.tolist()
    single = strongest[:rows]
    weaker = strongest[rows:]
    if order == "channel":
        single = sorted(single)
    running = torch.zeros_like(result.output)
    repeated = len(set(result.channels.tolist())) < len(result.channels)
    lines = []
    for j in single:
        running = running + result.contributions[j]
        name = f"{int(result.channels[j]) + base}" + (f"\n[{j + base}]" if repeated else "")
        label = result.labels[j]
        lines.append(_Row(name, label, result.inputs[j], result.weights[j], result.contributions[j], running))
    if weaker:
        rest = result.contributions[weaker].sum(0)
        lines.append(_Row("", f"sum of {len(weaker)} weaker channels", None, None, rest, running + rest))
    return lines


def _scales(result: Dissection, lines: list[_Row]) -> dict[str, Normalize]:
    """One scale per column, symmetric about zero if the column has both signs."""
    columns = {
        "x": [line.inputs for line in lines if line.inputs is not None],
        "w": [line.weights for line in lines if line.weights is not None],
        "a": [line.contribution for line in lines],
        "c": [*(line.running for line in lines), result.output],
    }
    scales = {}
    for name, values in columns.items():
        top = max(float(value.abs().max()) for value in values) or 1.0
        one_sign = name == "x" and min(float(value.min()) for value in values) >= 0
        scales[name] = Normalize(0.0 if one_sign else -top, top)
    scales["y"] = scales["c"]
    return scales


def _draw_line(layout: _Layout, row: int, line: _Row, scales: dict[str, Normalize]) -> None:
    if line.inputs is not None:
        _map(layout.cell(row, 0), line.inputs, scales["x"])
    layout.text(row, 1, line.label)
    layout.text(row, 2, line.name)
    if line.weights is not None:
        _map(layout.cell(row, 3), line.weights, scales["w"])
    _map(layout.cell(row, 4), line.contribution, scales["a"])
    _map(layout.cell(row, 5), line.running, scales["c"])


def _draw_sum(layout: _Layout, row: int, result: Dissection, scales: dict[str, Normalize]) -> None:
    """The last row: bias, sum plus bias, and the network's own output."""
    layout.text(row, 1, "sum and bias")
    layout.text(row, 3, f"bias\n{result.bias:.3g}")
    _map(layout.cell(row, 5), result.cumulative[-1] + result.bias, scales["c"])
    output = layout.cell(row, 6)
    _map(output, result.output, scales["y"])
    output.set_title(_HEADS["y"], fontsize=9, pad=3)


def _map(axes: Axes, values: Tensor, scale: Normalize) -> None:
    """A map in colour, with its value as text if it is a single number."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.75")
        spine.set_linewidth(0.5)
    axes.imshow(values.cpu().numpy(), cmap=_palette(scale), norm=scale, interpolation="nearest")
    if values.numel() == 1:
        place = float(scale(float(values)))
        dark = abs(place - 0.5) > 0.3 if _palette(scale) == SIGNED else place < 0.6
        axes.text(
            0, 0, f"{float(values):.3g}", ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )


def _palette(scale: Normalize) -> str:
    return SIGNED if scale.vmin is not None and scale.vmin < 0 else MAGNITUDE


def _draw_scales(layout: _Layout, scales: dict[str, Normalize]) -> None:
    from matplotlib.cm import ScalarMappable

    for column, name in enumerate(COLUMNS):
        if name not in scales:
            continue
        scale = scales[name]
        mappable = ScalarMappable(scale, _palette(scale))
        bar = layout.figure.colorbar(mappable, cax=layout.scale(column), orientation="horizontal")
        bar.set_ticks([float(scale.vmin or 0), float(scale.vmax or 0)])
        low, high = bar.ax.set_xticklabels([f"{scale.vmin:.2g}", f"{scale.vmax:.2g}"], fontsize=6)
        low.set_horizontalalignment("left")
        high.set_horizontalalignment("right")
        bar.ax.tick_params(length=2, pad=1)
