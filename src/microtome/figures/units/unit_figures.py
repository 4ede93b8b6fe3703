"""Figures of units: grids of maps and patches, patches with reconstructions, histograms by class, connections."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from microtome.errors import InputError
from microtome.figures.attribution.attribution_figures import bare, picture
from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from microtome.units import (
        Ablation,
        ActivationMaps,
        Connections,
        EffectiveField,
        LayerPatches,
        Similarity,
        Specialised,
        TopImages,
        TopPatches,
    )

MOST = 64  # largest number of units in one figure
CELL = 0.62  # inches
COLUMNS = 24  # largest number of patches per unit: each patch is an axes, and thousands of axes take hours


def activation_maps(result: ActivationMaps, *, layer: str | None = None, image: int = 0, limit: int = MOST) -> Figure:
    """A grid of one layer's maps for one image, with the unit above each map and one symmetric scale.

    Parameters
    ----------
    result : ActivationMaps
        The maps.
    layer : str, optional
        Name of the layer; default the first layer with height and width.
    image : int
        Index of the image.
    limit : int
        Largest number of units: the units with the highest activation, in order of units.
    """
    name = layer if layer is not None else next((key for key, one in result.maps.items() if one.dim() == 4), None)
    if name is None or result[name].dim() != 4:
        raise InputError("these layers have no height and width, so there is no map to draw.")
    maps = result[name][image].float()
    units = sorted(unit for unit, _ in result.strongest(name, image, within(limit, len(maps))))
    columns = min(8, len(units))
    rows = math.ceil(len(units) / columns)
    figure = Figure(figsize=(CELL * 1.25 * (columns + 2), CELL * 1.35 * rows + 0.5), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2, columns))
    left, right = parts
    axes = left.subplots()
    picture(axes, result.images[image])
    axes.set_xlabel(f"{name}, {len(units)} of {len(maps)} units", fontsize=8)
    top = float(maps.abs().max()) or 1.0
    cells = right.subplots(rows, columns, squeeze=False)
    low = -top if float(maps.min()) < 0 else 0.0
    drawing: Any = None
    for cell, unit in zip(cells.flat, units, strict=False):
        drawing = cell.imshow(maps[unit].numpy(), cmap="RdBu_r" if low < 0 else "magma", vmin=low, vmax=top)
        cell.set_title(str(unit), fontsize=6, pad=1)
    for cell in cells.flat:
        bare(cell)
    bar = right.colorbar(drawing, ax=list(cells.flat), fraction=0.03, pad=0.01)
    bar.set_label("activation, one scale for all", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def top_patches(
    result: TopPatches,
    *,
    layer: str | None = None,
    channel: int | None = None,
    limit: int = 16,
    columns: int = COLUMNS,
) -> Figure:
    """The patches of one layer; see ``layer_patches``."""
    name = next(iter(result)) if layer is None else layer
    return layer_patches(result[name], channel=channel, limit=limit, columns=columns)


def layer_patches(
    result: LayerPatches, *, channel: int | None = None, limit: int = 16, columns: int = COLUMNS
) -> Figure:
    """The strongest patches, one row per unit; or all patches and the histogram of one unit.

    Parameters
    ----------
    result : LayerPatches
        One layer's table.
    channel : int, optional
        One unit: strongest, binned and weakest patches, and the histogram by class.
    limit : int
        Largest number of units.
    columns : int
        Largest number of patches per unit.
    """
    if channel is not None:
        return _one_unit(result, channel, columns)
    units, ranks = range(within(limit, result.units)), within(columns, result.count())
    figure, cells = _cells(len(units), ranks)
    for row, unit in enumerate(units):
        for rank in range(ranks):
            picture(cells[row, rank], result.crop(unit, rank))
        cells[row, 0].set_ylabel(f"unit {unit}", fontsize=7)
    patches = left_out(ranks, result.count(), "strongest patches") or "strongest patches"
    subset = left_out(len(units), result.units, "units")
    note(figure, f"{result.layer}: {patches}, strongest on the left", subset)
    return figure


def _one_unit(result: LayerPatches, unit: int, limit: int) -> Figure:
    names = {"top": "strongest", "binned": "by quantile", "low": "weakest"}
    most = max(result.count(selection) for selection in names)
    columns = within(limit, most)
    figure = Figure(figsize=(CELL * 1.2 * columns + 0.8, CELL * 1.45 * 3 + 2.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(CELL * 1.45 * 3, 2.0))
    above, below = parts
    cells = above.subplots(3, columns, squeeze=False)
    for row, (selection, name) in enumerate(names.items()):
        for rank in range(columns):
            if rank < result.count(selection):
                picture(cells[row, rank], result.crop(unit, rank, selection))
                cells[row, rank].set_title(f"{result.entry(unit, rank, selection)[2]:.3g}", fontsize=6, pad=1)
            bare(cells[row, rank])
        cells[row, 0].set_ylabel(name, fontsize=7)
    note(above, left_out(columns, most, "patches of each kind"))
    _histogram(below.subplots(), result, unit)
    return figure


def _histogram(axes: Axes, result: LayerPatches, unit: int) -> None:
    """Histogram of the per-image maximum, stacked by class, with the classes of the highest means at the bottom."""
    edges, counts = result.edges[unit].numpy(), result.histogram[unit]
    groups = result.groups[unit].tolist()
    floor = torch.zeros(counts.shape[1], dtype=torch.float32, device="cpu")
    shades = colormaps["viridis"].resampled(max(2, len(groups)))
    for column, group in enumerate(groups):
        if not int(counts[column].sum()):
            continue
        label = (
            "others" if group < 0 and len(groups) > 1 else "all images" if group < 0 else _class(result.classes, group)
        )
        colour = "0.8" if group < 0 else shades(column)
        axes.bar(edges[:-1], counts[column].numpy(), edges[1:] - edges[:-1], bottom=floor.numpy(), align="edge",
                 color=colour, label=legend_name(label))  # fmt: skip
        floor = floor + counts[column]
    axes.set_xlabel(f"highest activation of unit {unit} of {result.layer} in an image", fontsize=8)
    axes.set_ylabel(f"images (of {result.sampled})", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6, frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _class(classes: list[str] | None, index: int) -> str:
    return str(index) if classes is None else classes[index]


def top_images(result: TopImages, *, columns: int = 16) -> Figure:
    """The neuron's crops, strongest first, row by row."""
    count = len(result.image)
    rows = math.ceil(count / columns)
    figure, cells = _cells(rows, min(columns, count))
    for rank, cell in enumerate(cells.flat):
        bare(cell)
        if rank < count:
            picture(cell, result.crop(rank))
        else:
            cell.set_visible(False)
    at = f"({result.position[0]}, {result.position[1]}, {result.channel})"
    figure.supxlabel(f"{result.layer} {at}: images 1 to {count} of {result.images}", fontsize=8)
    return figure


def effective_field(result: EffectiveField) -> Figure:
    """The share of the gradient at each pixel, with the effective receptive field, one picture per patch."""
    figure, cells = _cells(1, len(result.weight), size=1.3)
    for rank, cell in enumerate(cells.flat):
        cell.imshow(result.weight[rank].numpy(), cmap="magma")
        top, left, bottom, right = result.box(rank)
        cell.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color="w", lw=0.8))
        bare(cell)
    figure.supxlabel(
        f"{result.layer}, unit {result.unit}: boxes contain {result.share:.0%} of the gradient along each axis",
        fontsize=8,
    )
    return figure


def specialised(result: Specialised, *, layer: str | None = None, limit: int = 10) -> Figure:
    """Rarity against locality of every unit, with the names of the most specialised.

    Parameters
    ----------
    result : Specialised
        The scores.
    layer : str, optional
        Only this layer.
    limit : int
        Largest number of units with a name.
    """
    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.subplots()
    names = list(result.score) if layer is None else [layer]
    for name in names:
        axes.scatter(result.locality[name], result.rarity[name], s=8, alpha=0.6, label=legend_name(name))
    count = sum(len(result.score[name]) for name in names)
    named = within(limit, count)
    for name, unit, _ in result.units(named, layer):
        axes.annotate(f"{name}:{unit}", (result.locality[name][unit], result.rarity[name][unit]), fontsize=6)
    axes.set_xlabel("locality: sparseness over positions (0 to 1)", fontsize=8)
    axes.set_ylabel(f"rarity: sparseness over {result.images} images (0 to 1)", fontsize=8)
    axes.tick_params(labelsize=7)
    if len(names) <= 8:
        axes.legend(fontsize=6, frameon=False)
    subset = left_out(named, count, "units")
    note(figure, f"{subset} named, the most specialised" if subset else "", size=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def similarity(result: Similarity) -> Figure:
    """The matrix of correlations."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    drawing = axes.imshow(result.correlation.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xlabel(f"unit of {result.layer}", fontsize=8)
    axes.set_ylabel(f"unit of {result.layer}", fontsize=8)
    axes.tick_params(labelsize=7)
    bar = figure.colorbar(drawing)
    bar.set_label(f"correlation over {result.images} images", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def ablation(result: Ablation, *, limit: int = 40) -> Figure:
    """Loss of accuracy without each unit, by class, largest first; for regression the mean change of the values.

    Parameters
    ----------
    result : Ablation
        The ablation.
    limit : int
        Largest number of removals.
    """
    if not result.labels:
        return _changes(result, limit)
    order = result.drop.argsort(dim=0, descending=True, stable=True)[: within(limit, len(result.drop))]
    figure = Figure(figsize=(max(4.0, 0.16 * len(order) + 1.4), 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1, 1.4), sharex=True)
    above.bar(range(len(order)), 100 * result.drop[order].numpy(), color="0.35")
    above.set_ylabel("loss of accuracy (points)", fontsize=7)
    loss = 100 * result.class_drop[order].T
    top = float(loss.abs().max()) or 1.0
    drawing = below.imshow(loss.numpy(), cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    below.set_xticks(range(len(order)), ["+".join(map(str, result.units[int(row)])) for row in order], rotation=90)
    if len(result.labels) <= 20:
        below.set_yticks(range(len(result.labels)), [_class(result.classes, label) for label in result.labels])
    below.set_xlabel(_ablated(result, len(order)), fontsize=8)
    for axes in (above, below):
        axes.tick_params(labelsize=6)
    bar = figure.colorbar(drawing, ax=below)
    bar.set_label("loss by class (points)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def _ablated(result: Ablation, count: int) -> str:
    subset = left_out(count, len(result.units), "removals, the largest effects")
    return "; ".join(filter(None, (f"ablated unit of {result.layer}", subset)))


def _changes(result: Ablation, limit: int) -> Figure:
    """The mean change of each value of the output without each unit, the largest change first."""
    change = result.logit_change.abs().amax(1)
    order = change.argsort(descending=True, stable=True)[: within(limit, len(change))]
    figure = Figure(figsize=(max(4.0, 0.16 * len(order) + 1.4), 3), layout="constrained")
    axes = figure.subplots()
    count = result.logit_change.shape[1]
    for value in range(count):
        at = [place + 0.8 * ((value + 0.5) / count - 0.5) for place in range(len(order))]
        axes.bar(at, result.logit_change[order, value].numpy(), width=0.8 / count, label=_class(result.classes, value))
    axes.set_xticks(range(len(order)), ["+".join(map(str, result.units[int(row)])) for row in order], rotation=90)
    axes.axhline(0, color="0.5", linewidth=0.7)
    axes.set_ylabel("mean change of the value", fontsize=7)
    axes.set_xlabel(_ablated(result, len(order)), fontsize=8)
    axes.tick_params(labelsize=6)
    if count > 1:
        axes.legend(fontsize=6, frameon=False)
    return figure


def connections(result: Connections, *, limit: int = 6, links: int = 8) -> Figure:
    """The strongest connections into each unit (left) and out of it (right): norms and sums of their kernels.

    Parameters
    ----------
    result : Connections
        The connections.
    limit : int
        Largest number of units.
    links : int
        Largest number of inputs and of outputs per unit.
    """
    units = result.units[: within(limit, len(result.units))]
    most = within(links, links)
    figure = Figure(figsize=(6.4, 0.7 + (0.5 + 0.16 * most) * len(units)), layout="constrained")
    for pair, unit in zip(figure.subplots(len(units), 2, squeeze=False), units, strict=True):
        directions = ("in", result.inputs(unit, most)), ("out", result.outputs(unit, most))
        for axes, (direction, drawn) in zip(pair, directions, strict=True):
            colours = ["#b2182b" if link.weight > 0 else "#2166ac" for link in drawn]
            axes.barh(range(len(drawn)), [link.norm for link in drawn], color="0.85")
            axes.barh(range(len(drawn)), [link.weight for link in drawn], height=0.5, color=colours)
            axes.set_yticks(range(len(drawn)), [f"{link.layer}:{link.unit}" for link in drawn], fontsize=6)
            axes.set_ylim(most - 0.5, -0.5)
            axes.axvline(0, color="0.6", linewidth=0.8)
            axes.tick_params(axis="x", labelsize=6)
            axes.set_title(f"{direction}: {result.layer}:{unit}", fontsize=7)
    caption = ["gray: norm of the kernel, coloured: its sum", f"at most {most} strongest connections of each"]
    note(figure, *caption, left_out(len(units), len(result.units), "units"), result.unknown, size=7)
    return figure


def _cells(rows: int, columns: int, size: float = CELL * 1.2) -> tuple[Figure, Any]:
    """A figure of square cells without ticks."""
    figure = Figure(figsize=(size * columns + 0.5, size * 1.08 * rows + 0.4), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False)
    for cell in cells.flat:
        bare(cell)
    return figure, cells
