"""Figures of reconstructions: patches and the parts that drive a unit, in rows, or as in Zeiler and Fergus."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from microtome.errors import InputError
from microtome.figures.attribution.attribution_figures import bare, picture
from microtome.figures.limits import left_out, note, within
from microtome.figures.strongest_signal import strongest_signal

if TYPE_CHECKING:
    from microtome.units import Reconstructions

_CELL = 0.74  # inches of a patch in a row
_BLOCK = 1.25  # inches of a block of patches
_PAIRS = 3  # units side by side
_PIXELS = 80  # largest side of a drawn reconstruction
_BELOW = 0.98  # share of the pixels within the scale: the few others may be far outside


def reconstructions(
    result: Reconstructions, *, view: str = "rows", channel: int | None = None, limit: int = 8
) -> Figure:
    """Patches with their reconstructions.

    Each reconstruction has its own symmetric scale: zero is mid-gray, and the strongest 2 % of its pixels are black,
    white or of full colour. Patches of more than 80 pixels are drawn by the strongest pixel of each block.

    Parameters
    ----------
    result : Reconstructions
        The reconstructions.
    view : str
        ``"rows"``: patches side by side with the reconstructions below. ``"blocks"``: for each unit a square block of
        reconstructions and a block of the same patches beside it, as in Zeiler and Fergus, figure 2.
    channel : int, optional
        Only this unit.
    limit : int
        Largest number of units.
    """
    if view not in ("rows", "blocks"):
        raise InputError(f'view must be "rows" or "blocks"; got "{view}".')
    rows = list(range(within(limit, len(result.units)))) if channel is None else [result.row(channel)]
    figure = _rows(result, rows) if view == "rows" else _blocks(result, rows)
    subset = left_out(len(rows), len(result.units), "units") if channel is None else ""
    what = "patches and their reconstructions" if view == "rows" else "reconstructions left, their patches right"
    note(figure, f"{result.layer}: {what}, each on its own scale", subset)
    return figure


def _rows(result: Reconstructions, rows: list[int]) -> Figure:
    ranks = result.values.shape[1]
    figure = Figure(figsize=(_CELL * ranks + 0.5, 2 * _CELL * 1.08 * len(rows) + 0.4), layout="constrained")
    cells = figure.subplots(2 * len(rows), ranks, squeeze=False)
    for cell in cells.flat:
        bare(cell)
    for place, row in enumerate(rows):
        for rank in range(ranks):
            picture(cells[2 * place, rank], result.crops[row, rank])
            picture(cells[2 * place + 1, rank], _about_gray(result.values[row, rank]))
            cells[2 * place, rank].set_title(f"{float(result.activation[row, rank]):.3g}", fontsize=6, pad=1)
        cells[2 * place, 0].set_ylabel(f"unit {result.units[row]}", fontsize=7)
        cells[2 * place + 1, 0].set_ylabel(str(result.provenance.parameters.get("rule", "")), fontsize=7)
    return figure


def _blocks(result: Reconstructions, rows: list[int]) -> Figure:
    side = math.ceil(result.values.shape[1] ** 0.5)
    across = min(_PAIRS, len(rows))
    down = math.ceil(len(rows) / across)
    figure = Figure(figsize=(2 * _BLOCK * across + 0.2, (_BLOCK + 0.18) * down + 0.3), layout="constrained")
    cells = figure.subplots(down, 2 * across, squeeze=False)
    for cell in cells.flat:
        bare(cell)
        cell.set_frame_on(False)
    for place, row in enumerate(rows):
        left, right = cells[place // across, 2 * (place % across) : 2 * (place % across) + 2]
        picture(left, _mosaic(torch.stack([_about_gray(signal) for signal in result.values[row]]), side))
        picture(right, _mosaic(result.crops[row], side))
        left.set_title(f"unit {result.units[row]}", fontsize=7, pad=2, loc="left")
    return figure


def _mosaic(pictures: Tensor, side: int) -> Tensor:
    """Pictures (n, C, h, w) as a square of ``side`` x ``side``, with a white line of a pixel or more between them."""
    n, channels, height, width = pictures.shape
    gap = max(1, round(max(height, width) / 40))
    sheet = pictures.new_ones(channels, side * (height + gap) - gap, side * (width + gap) - gap)
    for place in range(n):
        top, left = (place // side) * (height + gap), (place % side) * (width + gap)
        sheet[:, top : top + height, left : left + width] = pictures[place]
    return sheet


def _about_gray(signal: Tensor) -> Tensor:
    """A signed signal (C, h, w) as a picture: zero is mid-gray, a share ``_BELOW`` of the pixels keeps its shade."""
    signal = strongest_signal(signal[None], _PIXELS)[0]
    size = signal.abs().amax(0).flatten()
    largest = torch.quantile(size[size > 0], _BELOW) if bool((size > 0).any()) else size.new_ones(())
    return (0.5 + 0.5 * signal / largest).clamp(0, 1)
