"""How is a dissected activation drawn? The sheet x_j | label | j | w_j | a_j | c_j | y, one row per input channel."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from microtome.errors import InputError
from microtome.figures.attribution_figures import MAGNITUDE, SIGNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from microtome.units.wiring.dissect import Dissection

CELL = 0.82  # inches
COLUMNS = ("x", "label", "j", "w", "a", "c", "y")
WIDTHS = (1.0, 1.5, 0.35, 0.8, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class _Row:
    """One line of the sheet."""

    name: str
    label: str
    inputs: Tensor | None
    weights: Tensor | None
    contribution: Tensor
    running: Tensor


def dissection(result: Dissection, *, order: str = "channel", rows: int = 16, one_based: bool = False) -> Figure:
    """Draw the sheet of one output channel.

    Every column has one colour scale for all its rows, written under it; c and y share theirs. Zero
    is white wherever a column has both signs.

    Parameters
    ----------
    result : Dissection
        What to draw.
    order : str
        ``"channel"`` or ``"contribution"`` (the strongest first; the running sum follows the order).
    rows : int
        How many input channels are drawn; the weakest of the others are folded into one row with
        their sum, so that the running sum still ends in y.
    one_based : bool
        Count channels from 1, as the article does.
    """
    if order not in ("channel", "contribution"):
        raise InputError(f'the order is "channel" or "contribution", not "{order}".')
    if rows < 1:
        raise InputError(f"at least one row is drawn, got {rows}.")
    lines = _lines(result, order, rows, int(one_based))
    sheet = _Sheet(len(lines) + 1)
    scales = _scales(result, lines)
    for index, line in enumerate(lines):
        _draw_line(sheet, index, line, scales)
    _draw_sum(sheet, len(lines), result, scales)
    for column, name in enumerate(COLUMNS[:-1]):
        if name != "label" or any(result.labels):  # no words over a column that has none
            sheet.head(column, _HEADS[name])
    _draw_scales(sheet, scales)
    sheet.figure.text(0.5, 1 - 0.12 / sheet.height, _caption(result, order, int(one_based)), ha="center", fontsize=8)
    return sheet.figure


class _Sheet:
    """A page of cells with places in inches: nothing has to be measured, so that a hundred cells are quick."""

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
        """Axes of the colour scale under a column."""
        return self._axes(self.left[column], self.bottom - 0.14, CELL * WIDTHS[column], 0.08)

    def text(self, row: int, column: int, text: str) -> None:
        """Words in a cell."""
        wrapped = textwrap.fill(text, 18) if "\n" not in text else text
        self._words(column, self.height - self.top - (row + 0.5) * self.step, wrapped, 8, "center")

    def head(self, column: int, text: str) -> None:
        """Words over a column."""
        self._words(column, self.height - self.top + 0.04, text, 9, "bottom")

    def _words(self, column: int, y: float, text: str, size: float, align: str) -> None:
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
        f"largest distance of sum and bias from y: {result.gap:.1e}"
    )


def _lines(result: Dissection, order: str, rows: int, base: int) -> list[_Row]:
    """The rows to draw, the weakest folded into one."""
    strongest = result.order.tolist()
    kept = strongest[:rows]
    folded = strongest[rows:]
    if order == "channel":
        kept = sorted(kept)
    running = torch.zeros_like(result.output)
    repeated = len(set(result.channels.tolist())) < len(result.channels)
    lines = []
    for j in kept:
        running = running + result.contributions[j]
        name = f"{int(result.channels[j]) + base}" + (f"\n[{j + base}]" if repeated else "")
        label = result.labels[j]
        lines.append(_Row(name, label, result.inputs[j], result.weights[j], result.contributions[j], running))
    if folded:
        rest = result.contributions[folded].sum(0)
        lines.append(_Row("", f"{len(folded)} weaker channels, their sum", None, None, rest, running + rest))
    return lines


def _scales(result: Dissection, lines: list[_Row]) -> dict[str, Normalize]:
    """One scale a column: symmetric about zero where there are two signs."""
    drawn = {
        "x": [line.inputs for line in lines if line.inputs is not None],
        "w": [line.weights for line in lines if line.weights is not None],
        "a": [line.contribution for line in lines],
        "c": [*(line.running for line in lines), result.output],
    }
    scales = {}
    for name, values in drawn.items():
        top = max(float(value.abs().max()) for value in values) or 1.0
        one_sign = name == "x" and min(float(value.min()) for value in values) >= 0
        scales[name] = Normalize(0.0 if one_sign else -top, top)
    scales["y"] = scales["c"]
    return scales


def _draw_line(sheet: _Sheet, row: int, line: _Row, scales: dict[str, Normalize]) -> None:
    if line.inputs is not None:
        _map(sheet.cell(row, 0), line.inputs, scales["x"])
    sheet.text(row, 1, line.label)
    sheet.text(row, 2, line.name)
    if line.weights is not None:
        _map(sheet.cell(row, 3), line.weights, scales["w"])
    _map(sheet.cell(row, 4), line.contribution, scales["a"])
    _map(sheet.cell(row, 5), line.running, scales["c"])


def _draw_sum(sheet: _Sheet, row: int, result: Dissection, scales: dict[str, Normalize]) -> None:
    """The last line: bias, the whole sum and the network's own output."""
    sheet.text(row, 1, "sum and bias")
    sheet.text(row, 3, f"bias\n{result.bias:.3g}")
    _map(sheet.cell(row, 5), result.cumulative[-1] + result.bias, scales["c"])
    output = sheet.cell(row, 6)
    _map(output, result.output, scales["y"])
    output.set_title(_HEADS["y"], fontsize=9, pad=3)


def _map(axes: Axes, values: Tensor, scale: Normalize) -> None:
    """A map in colour; a single number is also written."""
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


def _draw_scales(sheet: _Sheet, scales: dict[str, Normalize]) -> None:
    from matplotlib.cm import ScalarMappable

    for column, name in enumerate(COLUMNS):
        if name not in scales:
            continue
        scale = scales[name]
        shown = ScalarMappable(scale, _palette(scale))
        bar = sheet.figure.colorbar(shown, cax=sheet.scale(column), orientation="horizontal")
        bar.set_ticks([float(scale.vmin or 0), float(scale.vmax or 0)])
        low, high = bar.ax.set_xticklabels([f"{scale.vmin:.2g}", f"{scale.vmax:.2g}"], fontsize=6)
        low.set_horizontalalignment("left")
        high.set_horizontalalignment("right")
        bar.ax.tick_params(length=2, pad=1)
