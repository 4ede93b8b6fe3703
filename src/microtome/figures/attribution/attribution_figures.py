"""Figures of attribution maps: the image, the map, and the map over the image; zero is always white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within
from microtome.registry import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from microtome.attribution import Attribution, Comparison, Occlusion

CELL = 1.7  # inches

SIGNED, MAGNITUDE = "RdBu_r", "magma"


def attribution(result: Attribution, *, limit: int = 8, shared: bool = False) -> Figure:
    """One row per image: the image, the map, the map over the gray image.

    Parameters
    ----------
    result : Attribution
        Any attribution.
    limit : int
        Maximum number of images drawn.
    shared : bool
        One colour scale for all images in place of one for each.
    """
    maps, rows = result.map, range(within(limit, len(result)))
    figure, axes = _grid(len(rows), 3, result.images)
    top = float(maps.abs().max()) if shared else None
    for row, index in enumerate(rows):
        one = maps[index]
        picture(axes[row, 0], result.images[index])
        axes[row, 0].set_ylabel(_score(result, index), fontsize=8)
        drawn = heat(axes[row, 1], one, top, smooth=_is_photo(result.images))
        overlay(axes[row, 2], result.images[index], one, top)
        bar = figure.colorbar(drawn, ax=list(axes[row]), fraction=0.025, pad=0.01)
        bar.ax.tick_params(labelsize=6)
        bar.set_label(quantity(result.provenance.method), fontsize=7)
    _heads(axes, ["image", result.provenance.method, "over the image"])
    note(figure, left_out(len(rows), len(result), "images"))
    return figure


def occlusion(result: Occlusion, *, limit: int = 8) -> Figure:
    """One row per image: the image, the probability and the winning class at each window, and both over the image.

    Parameters
    ----------
    result : Occlusion
        The result of occlusion.
    limit : int
        Maximum number of images drawn.
    """
    rows = range(within(limit, len(result)))
    figure, axes = _grid(len(rows), 4, result.images)
    height, width = result.images.shape[-2:]
    extent = (0.0, float(width), float(height), 0.0)
    for row, index in enumerate(rows):
        picture(axes[row, 0], result.images[index])
        axes[row, 0].set_ylabel(_score(result, index), fontsize=8)
        probability = _array(result.probability[index])
        low, high = (0.0, 1.0) if result.quantity == "probability" else _limits(probability, result, index)
        drawn = axes[row, 1].imshow(
            probability, cmap="viridis", vmin=low, vmax=high, extent=extent, interpolation="nearest"
        )
        bare(axes[row, 1])
        bar = figure.colorbar(drawn, ax=axes[row, 1], fraction=0.046, pad=0.03)
        bar.ax.axhline(float(result.unoccluded[index]), color="red", linewidth=1)
        bar.ax.tick_params(labelsize=6)
        _winners(axes[row, 2], result, index, extent)
        overlay(axes[row, 3], result.images[index], result.map[index], None)
    window = f"window {result.window[0]} x {result.window[1]} px, stride {result.stride[0]} x {result.stride[1]}"
    _heads(
        axes,
        ["image", f"{result.quantity} of the class\n(red line: uncovered)", "class that wins", "drop, over the image"],
    )
    note(figure, f"position of the covered {window}", left_out(len(rows), len(result), "images"))
    return figure


def _limits(values: Any, result: Occlusion, index: int) -> tuple[float, float]:
    """The range of an image's values, including the value without a window."""
    alone = float(result.unoccluded[index])
    return min(float(values.min()), alone), max(float(values.max()), alone)


def comparison(result: Comparison, *, limit: int = 8) -> Figure:
    """One row per image, one column per method, each map on its own symmetric scale.

    Parameters
    ----------
    result : Comparison
        The result of compare.
    limit : int
        Maximum number of images drawn.
    """
    methods = list(result.results.values())
    first, rows = methods[0], range(within(limit, len(methods[0])))
    figure, axes = _grid(len(rows), len(methods) + 1, first.images)
    maps = [method.map for method in methods]
    for row, index in enumerate(rows):
        picture(axes[row, 0], first.images[index])
        axes[row, 0].set_ylabel(_score(first, index), fontsize=8)
        for column, one in enumerate(maps, start=1):
            heat(axes[row, column], one[index], None, smooth=_is_photo(first.images))
    _heads(axes, ["image", *result.results])
    note(figure, left_out(len(rows), len(first), "images"))
    return figure


# -- parts that other figures use ------------------------------------------------------------------------------------


def picture(axes: Axes, image: Tensor) -> None:
    """Draw an image (C, H, W): gray for one channel, RGB for three, else the mean over channels."""
    array = np.clip(_array(image), 0, 1)
    smooth = "antialiased" if _is_photo(image[None]) else "nearest"
    if len(array) == 3:
        axes.imshow(array.transpose(1, 2, 0), interpolation=smooth)
    else:
        axes.imshow(array.mean(0), cmap="gray", vmin=0, vmax=1, interpolation=smooth)
    bare(axes)


def heat(axes: Axes, one: Tensor, top: float | None = None, *, smooth: bool = False, signed: bool | None = None) -> Any:
    """Draw a map (H, W): blue-white-red about zero if it has two signs, or ``signed`` says so, magma otherwise."""
    array = _array(one)
    signed = bool((one < 0).any()) if signed is None else signed
    limit = _limit(array) if top is None else top
    low = -limit if signed else 0.0
    drawn = axes.imshow(
        array,
        cmap=SIGNED if signed else MAGNITUDE,
        vmin=low,
        vmax=limit,
        interpolation="antialiased" if smooth else "nearest",
    )
    if not array.any():
        axes.text(0.5, 0.5, "zero everywhere", transform=axes.transAxes, ha="center", color="white", fontsize=7)
    bare(axes)
    return drawn


def overlay(axes: Axes, image: Tensor, one: Tensor, top: float | None = None) -> None:
    """Draw a map over the gray image, the more opaque the larger it is."""
    array, signed = _array(one), bool((one < 0).any())
    limit = _limit(array) if top is None else top
    gray = np.clip(_array(image).mean(0), 0, 1)
    axes.imshow(0.35 + 0.65 * gray, cmap="gray", vmin=0, vmax=1)
    strength = np.clip(np.abs(array) / limit, 0, 1) ** 0.7
    low = -limit if signed else -0.3 * limit  # the darkest magma would hide the picture
    axes.imshow(array, cmap=SIGNED if signed else MAGNITUDE, vmin=low, vmax=limit, alpha=0.85 * strength)
    bare(axes)


def bare(axes: Axes) -> None:
    """No ticks, no frame: a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _winners(axes: Axes, result: Occlusion, index: int, extent: tuple[float, float, float, float]) -> None:
    """The winning class at each window, with a legend of the most frequent ones."""
    appear = result.classes_that_appear[index]
    named = appear[:7]
    own = int(result.target[index])
    palette = ["#bbbbbb", "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#222222"]
    order = [own, *(label for label in named if label != own)]
    colour = {label: place for place, label in enumerate(order[:8])}
    grid = result.winner[index].cpu()
    codes = np.array([[colour.get(int(label), len(palette) - 1) for label in row] for row in grid])
    axes.imshow(codes, cmap=ListedColormap(palette), vmin=-0.5, vmax=len(palette) - 0.5, extent=extent,
                interpolation="nearest")  # fmt: skip
    shown = [label for label in order[:7] if label in appear]
    handles = [Patch(color=palette[colour[label]], label=legend_name(result.name_of(label)[:24])) for label in shown]
    if len(appear) > len(shown):
        handles.append(Patch(color=palette[-1], label=f"{len(appear) - len(shown)} others"))
    axes.legend(handles=handles, fontsize=5, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncol=2, frameon=False)
    bare(axes)


def _grid(rows: int, columns: int, images: Tensor) -> tuple[Figure, Any]:
    height, width = images.shape[-2:]
    cell = CELL * min(max(height / width, 0.4), 2.5)
    figure = Figure(figsize=(columns * CELL + 0.9, rows * (cell + 0.15) + 0.5), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _heads(axes: Any, names: list[str]) -> None:
    for column, name in enumerate(names):
        axes[0, column].set_title(name, fontsize=8)


def _score(result: Attribution, index: int) -> str:
    score = "value" if getattr(result, "quantity", "") == "value" else "logit"
    return f"{result.name_of(int(result.target[index]))[:22]}\n{score} {float(result.score[index]):.2f}"


def _limit(array: np.ndarray[Any, Any]) -> float:
    """End of a colour scale: the 99.5th percentile of the absolute values, so that one pixel does not darken a map."""
    top = float(np.percentile(np.abs(array), 99.5)) if array.size >= 1000 else 0.0
    return top or float(np.abs(array).max()) or 1.0


def _is_photo(images: Tensor) -> bool:
    return min(images.shape[-2:]) >= 64


def _array(value: Tensor) -> np.ndarray[Any, Any]:
    return value.detach().to(torch.float32).cpu().numpy()
