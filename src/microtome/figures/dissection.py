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
from microtome.figures.attribution import MAGNITUDE, SIGNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from microtome.units.dissect import Dissection

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
    figure = Figure(figsize=(CELL * sum(WIDTHS) * 1.12, CELL * (len(lines) + 1) + 1.0), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr]  # set just above
    heights = [*([1.0] * (len(lines) + 1)), 0.12]
    grid = figure.subplots(len(lines) + 2, 7, squeeze=False, width_ratios=WIDTHS, height_ratios=heights)
    for axes in grid.flat:
        _bare(axes)
    scales = _scales(result, lines)
    for index, line in enumerate(lines):
        _draw_line(grid[index], line, scales)
    _draw_sum(grid[len(lines)], result, scales)
    for column, name in enumerate(COLUMNS):
        grid[0, column].set_title(_HEADS[name], fontsize=9)
    _draw_scales(figure, grid[-1], scales)
    figure.suptitle(_caption(result, order, int(one_based)), fontsize=8)
    return figure


_HEADS = {
    "x": "$x_j$\ninput",
    "label": "\nwhat it detects",
    "j": "$j$",
    "w": "$w_j$\nweights",
    "a": "$a_j = x_j * w_j$",
    "c": "$c_j = \\sum_{k \\leq j} a_k$",
    "y": "$y$\noutput",
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


def _draw_line(axes: list[Axes], line: _Row, scales: dict[str, Normalize]) -> None:
    if line.inputs is not None:
        _map(axes[0], line.inputs, scales["x"])
    _text(axes[1], line.label)
    _text(axes[2], line.name)
    if line.weights is not None:
        _map(axes[3], line.weights, scales["w"])
    _map(axes[4], line.contribution, scales["a"])
    _map(axes[5], line.running, scales["c"])


def _draw_sum(axes: list[Axes], result: Dissection, scales: dict[str, Normalize]) -> None:
    """The last line: bias, the whole sum and the network's own output."""
    _text(axes[1], "sum and bias")
    _text(axes[3], f"bias\n{result.bias:.3g}")
    _map(axes[5], result.cumulative[-1] + result.bias, scales["c"])
    _map(axes[6], result.output, scales["y"])
    axes[6].set_title(_HEADS["y"], fontsize=9)


def _map(axes: Axes, values: Tensor, scale: Normalize) -> AxesImage:
    """A map in colour; a single number is also written."""
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.75")
        spine.set_linewidth(0.5)
    shown = axes.imshow(values.cpu().numpy(), cmap=_palette(scale), norm=scale, interpolation="nearest")
    if values.numel() == 1:
        dark = abs(float(scale(float(values))) - (0.5 if _palette(scale) == SIGNED else 1.0)) > 0.3
        axes.text(
            0, 0, f"{float(values):.3g}", ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )
    return shown


def _palette(scale: Normalize) -> str:
    return SIGNED if scale.vmin is not None and scale.vmin < 0 else MAGNITUDE


def _text(axes: Axes, text: str) -> None:
    wrapped = textwrap.fill(text, 18) if "\n" not in text else text
    axes.text(0.5, 0.5, wrapped, ha="center", va="center", fontsize=8, transform=axes.transAxes)


def _bare(axes: Axes) -> None:
    axes.set_axis_off()


def _draw_scales(figure: Figure, axes: list[Axes], scales: dict[str, Normalize]) -> None:
    from matplotlib.cm import ScalarMappable

    for column, name in enumerate(COLUMNS):
        if name not in scales:
            continue
        axes[column].set_axis_on()
        scale = scales[name]
        bar = figure.colorbar(ScalarMappable(scale, _palette(scale)), cax=axes[column], orientation="horizontal")
        bar.set_ticks([float(scale.vmin or 0), float(scale.vmax or 0)])
        bar.ax.set_xticklabels([f"{scale.vmin:.2g}", f"{scale.vmax:.2g}"], fontsize=6)
        bar.ax.tick_params(length=2, pad=1)
