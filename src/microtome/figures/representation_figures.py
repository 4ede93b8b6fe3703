"""Figures of maps of images, alone or aligned, and of the similarity of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from microtome.errors import InputError
from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.representation import AlignedMaps, Features, ImageMap, KernelAlignment

_MOST = 400  # thumbnails in one figure; more would hide each other
_CELLS = 20  # with more layers than this, the cells of a matrix show no numbers


def features(result: Features) -> Figure:
    """Mean and spread of each feature over the images, features in the order of their means."""
    figure = Figure(figsize=(4.6, 3), layout="constrained")
    axes = figure.subplots()
    values = result.values.double()
    mean, spread = values.mean(0), values.std(0, correction=0)
    order = mean.argsort(descending=True, stable=True)
    place = np.arange(len(order))
    low, high = (mean - spread)[order].numpy(), (mean + spread)[order].numpy()
    axes.fill_between(place, low, high, color="#4477aa", alpha=0.3, linewidth=0, label="± one standard deviation")
    axes.plot(place, mean[order].numpy(), color="#4477aa", linewidth=1.5, label="mean over the images")
    axes.set_xlabel("feature, by its mean")
    axes.set_ylabel(f"{result.layer} ({result.reduce})")
    axes.legend(fontsize=7, frameon=False)
    return figure


def image_map(
    result: ImageMap, *, images: Tensor | None = None, classes: list[str] | None = None, limit: int = _MOST
) -> Figure:
    """Images as points, coloured by class; an image is fainter if it keeps fewer of its neighbours.

    Parameters
    ----------
    result : ImageMap
        A map.
    images : Tensor, optional
        (N, C, H, W) in [0, 1], drawn as thumbnails in place of points.
    classes : list of str, optional
        Names for the legend.
    limit : int
        Maximum number of thumbnails, evenly over the images.
    """
    figure = Figure(figsize=(6.2, 5.6), layout="constrained")
    axes = figure.subplots()
    _points(axes, result, classes, faint=images is not None)
    axes.set_aspect("equal", adjustable="datalim")
    if images is not None:
        shown = _thumbnails(axes, result, images, limit)
        note(figure, left_out(shown, len(images), "images"))
    axes.set_title(f"{result.layer}: {_numbers(result)}", fontsize=8)
    axes.set_xlabel(f"opacity: share of the {result.k} nearest images in the layer that stay nearest here", fontsize=8)
    return figure


def aligned_maps(result: AlignedMaps, *, classes: list[str] | None = None) -> Figure:
    """The maps side by side on one scale, as ``image_map`` draws each."""
    count = len(result.maps)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    for place, one in enumerate(result.maps):
        axes = panels.flat[place]
        _points(axes, one, classes, legend=place == count - 1)
        axes.set_aspect("equal", adjustable="box")
        axes.set_title(f"{one.layer}\nmean trust {float(one.trust.mean()):.2f}", fontsize=8)
    figure.supxlabel(f"turned to agree; {result.disparity:.0%} of their size is not common to the maps", fontsize=8)
    return figure


def kernel_alignment(result: KernelAlignment) -> Figure:
    """The matrix of CKA; each cell with its 95 % interval; hatched where a layer is dead, * where p is above 0.05."""
    rows, columns = len(result.layers), len(result.other_layers)
    written = max(rows, columns) <= _CELLS
    width = 0.62 if written else 0.2
    figure = Figure(figsize=(max(3.4, width * columns + 2.2), max(2.8, width * rows + 1.4)), layout="constrained")
    axes = figure.subplots()
    defined = result.defined.numpy()
    shown = np.ma.array(result.values.numpy(), mask=~defined)
    drawn = axes.imshow(shown, vmin=0, vmax=1, cmap="magma")
    axes.set_facecolor("0.85")
    for a in range(rows):
        for b in range(columns):
            if written:
                text, colour = _cell(result, a, b)
                axes.text(b, a, text, ha="center", va="center", fontsize=5.5, color=colour)
    axes.set_xticks(range(columns), result.other_layers, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(rows), result.layers, fontsize=7)
    figure.colorbar(drawn, ax=axes, fraction=0.04).set_label("linear CKA", fontsize=8)
    note = "95 % intervals; * no more alike than images in random order (p > 0.05)" if written else "linear CKA"
    axes.set_title(f"{result.images} images; {note}", fontsize=7)
    return figure


def _cell(result: KernelAlignment, a: int, b: int) -> tuple[str, str]:
    if not bool(result.defined[a, b]):
        return "dead", "0.3"
    value = float(result.values[a, b])
    star = "*" if float(result.p[a, b]) > 0.05 else ""
    interval = f"{float(result.low[a, b]):.2f} to {float(result.high[a, b]):.2f}"
    return f"{value:.2f}{star}\n{interval}", "black" if value > 0.6 else "white"


def _numbers(result: ImageMap) -> str:
    from microtome.representation.principal_components import PrincipalMap
    from microtome.representation.t_sne import NeighbourMap

    parts = []
    if isinstance(result, NeighbourMap):
        parts.append(f"perplexity {result.perplexity:g}, KL {result.kl:.3g}")
    if isinstance(result, PrincipalMap):
        parts.append(f"{float(result.explained.sum()):.0%} of the variance")
    parts.append(f"trustworthiness {result.trustworthiness:.3f}")
    if result.layer_accuracy is not None and result.map_accuracy is not None:
        accuracies = f"{result.layer_accuracy:.1%} in the layer, {result.map_accuracy:.1%} here"
        parts.append(f"\nclass by {result.k} nearest neighbours: {accuracies}")
    return ", ".join(parts).replace(", \n", "\n")


def _points(
    axes: Axes, result: ImageMap, classes: list[str] | None, *, legend: bool = True, faint: bool = False
) -> None:
    points = result.points.numpy()
    labels = _labels_of(result)
    opacity = (0.08 + 0.92 * result.trust).numpy() * (0.3 if faint else 1)
    size = float(np.clip(6000 / max(len(points), 1), 2, 24))
    kinds = sorted(set(labels.tolist()))
    if classes is not None and kinds[-1] >= len(classes):
        raise InputError(f"the map has a class {kinds[-1]}, and classes names only {len(classes)} from 0; name all.")
    for label in kinds:
        chosen = (labels == label).numpy()
        colour = _class_colour(result, int(chosen.argmax()))
        colours = np.concatenate([np.tile(colour, (int(chosen.sum()), 1)), opacity[chosen, None]], 1)
        axes.scatter(points[chosen, 0], points[chosen, 1], s=size, c=colours, linewidths=0)
        if legend and len(kinds) <= 20 and label >= 0:
            name = str(label) if classes is None else classes[label]
            axes.scatter([], [], s=18, color=colour, label=legend_name(name))
    if legend and 1 < len(kinds) <= 20:
        axes.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xticks([])
    axes.set_yticks([])


def _labels_of(result: ImageMap) -> Tensor:
    return result.labels if result.labels is not None else torch.full((len(result.points),), -1, device="cpu")


def _class_colour(result: ImageMap, place: int) -> tuple[float, float, float]:
    """The colour of an image's class; gray without one."""
    labels = _labels_of(result)
    label, most = int(labels[place]), int(labels.max())
    if label < 0:
        return 0.35, 0.35, 0.35
    palette: Any = colormaps["tab10" if most < 10 else "turbo"]
    red, green, blue, _ = palette(label if most < 10 else label / most)
    return red, green, blue


def _thumbnails(axes: Axes, result: ImageMap, images: Tensor, limit: int) -> int:
    count = len(result.points)
    if images.dim() != 4 or len(images) != count:
        raise InputError(f"{count} images (N, C, H, W) were expected, one for each point; got {tuple(images.shape)}.")
    shown = range(0, count, -(-count // within(limit, count)))
    for place in shown:
        pixels = images[place].detach().cpu().float().clamp(0, 1)
        drawn = pixels[:3].movedim(0, 2).numpy() if len(pixels) >= 3 else pixels[0].numpy()
        box = OffsetImage(
            drawn, zoom=14 / max(drawn.shape[:2]), cmap="gray", alpha=0.15 + 0.85 * float(result.trust[place])
        )
        x, y = result.points[place].tolist()
        frame = {"facecolor": "none", "edgecolor": _class_colour(result, place), "linewidth": 0.8}
        axes.add_artist(AnnotationBbox(box, (x, y), pad=0, bboxprops=frame))
    return len(shown)
