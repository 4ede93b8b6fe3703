"""Figures of features during training: a film strip by checkpoint, and the distance to the final features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.reproduce.dissecting.settling_layers import SettlingLayers
    from microtome.training.feature_history import FeatureHistory

_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
_CELL = 0.62  # inches
_ROWS = ("patches", "superstimuli", "filters")
_NAMES = {"patches": "top patch", "superstimuli": "superstimulus", "filters": "filter"}


def feature_history(result: FeatureHistory, *, view: str = "both", unit: int | None = None, limit: int = 10) -> Figure:
    """Film strips of one unit of each layer, above the distances of all units to their final features.

    Parameters
    ----------
    result : FeatureHistory
        What to draw.
    view : str
        ``"both"``, ``"strip"`` or ``"distance"``.
    unit : int
        The unit of the strips; one of the shown units, by default the first.
    limit : int
        Maximum number of checkpoints in a strip, evenly over the training.
    """
    if view not in ("both", "strip", "distance"):
        raise InputError(f'view must be "both", "strip" or "distance"; got "{view}".')
    if unit is not None and unit not in result.units:
        raise InputError(f"unit {unit} is not among those shown: {result.units}.")
    if unit is None and result.units:
        unit = result.units[0]
    if view == "distance":
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        _distances(figure.subplots(), result)
        return figure
    count = within(limit, len(result.epochs))
    chosen = sorted({round(step * (len(result.epochs) - 1) / max(count - 1, 1)) for step in range(count)})
    strips = [
        (layer, kind, getattr(result, kind)[layer][:, own.index(unit)])
        for layer, own in ((layer, _own(result, layer)) for layer in result.layers)
        for kind in _ROWS
        if layer in getattr(result, kind) and unit in own
    ]
    top = 3.0 if view == "both" else 0.0
    height = top + len(strips) * _CELL + 0.6
    figure = Figure(figsize=(max(6.4, 1.6 + len(chosen) * _CELL), height))
    width = float(figure.get_figwidth())
    if view == "both":
        axes = figure.add_axes(
            (0.7 / width, (height - top + 0.55) / height, (width - 1.0) / width, (top - 0.8) / height)
        )
        _distances(axes, result)
    for row, (layer, kind, pictures) in enumerate(strips):
        low = height - top - (row + 1) * _CELL - 0.2
        limits = _limits(pictures, kind)
        figure.text(0.08 / width, (low + 0.3) / height, f"{layer}:{unit}\n{_NAMES[kind]}", fontsize=7, va="center")
        for column, step in enumerate(chosen):
            box = (1.1 + column * _CELL) / width, low / height, 0.56 / width, 0.56 / height
            cell = figure.add_axes(box)
            _picture(cell, pictures[step], limits)
            if row == 0:
                cell.set_title(f"{result.epochs[step]:g}", fontsize=7, pad=2)
    text = "columns: epochs; filters on one scale for the strip"
    note(figure, text, left_out(len(chosen), len(result.epochs), "checkpoints"), size=7)
    return figure


def _own(result: FeatureHistory, layer: str) -> list[int]:
    """The shown units that a layer has, in the order of its pictures."""
    return [unit for unit in result.units if 0 <= unit < result.distance[layer].shape[1]]


def settling(result: SettlingLayers) -> Figure:
    """Distance to the final feature by layer and epoch: thin lines are seeds, bands the quartiles of units.

    Parameters
    ----------
    result : SettlingLayers
        What to draw.
    """
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, layer in enumerate(result.layers):
        colour = _COLOURS[place % len(_COLOURS)]
        for one in result.median[:, place]:
            axes.plot(result.epochs, one.tolist(), color=colour, linewidth=0.6, alpha=0.6)
        axes.plot(
            result.epochs,
            result.median[:, place].mean(0).tolist(),
            "o-",
            color=colour,
            markersize=3,
            label=legend_name(layer),
        )
        low, high = (one[:, place].mean(0).tolist() for one in (result.low, result.high))
        axes.fill_between(result.epochs, low, high, color=colour, alpha=0.12, linewidth=0)
    _label(axes)
    return figure


def _distances(axes: Axes, result: FeatureHistory) -> None:
    for place, layer in enumerate(result.layers):
        low, middle, high = result.distance[layer].quantile(result.distance[layer].new_tensor([0.25, 0.5, 0.75]), dim=1)
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(result.epochs, middle.tolist(), "o-", color=colour, markersize=3, label=legend_name(layer))
        axes.fill_between(result.epochs, low.tolist(), high.tolist(), color=colour, alpha=0.15, linewidth=0)
    _label(axes)


def _label(axes: Axes) -> None:
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel("distance to the final feature\n(median, quartiles of units)", fontsize=8)
    axes.set_ylim(-0.03, None)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False, ncols=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _limits(pictures: Tensor, kind: str) -> tuple[float, float]:
    if kind == "filters":
        top = max(float(pictures.abs().max()), 1e-12)
        return -top, top
    return 0.0, 1.0


def _picture(axes: Axes, value: Tensor, limits: tuple[float, float]) -> None:
    low, high = limits
    scaled = ((value - low) / (high - low)).clamp(0, 1)
    shown = scaled.permute(1, 2, 0) if len(scaled) == 3 else scaled.mean(0)
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.3)
