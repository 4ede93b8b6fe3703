"""Figures of synthetic images: grids of superstimuli with their peak activation, and inversions with their error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.limits import left_out, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.synthesis.inversion import Inversion
    from microtome.synthesis.superstimuli import Superstimuli


def superstimuli(result: Superstimuli, *, channel: int | None = None, columns: int = 8, limit: int = 64) -> Figure:
    """A grid of superstimuli, each with its unit and its peak activation.

    Parameters
    ----------
    result : Superstimuli
        The superstimuli.
    channel : int, optional
        Only this unit, with larger images and the curve of its ascent.
    columns : int
        Number of pictures per row.
    limit : int
        Largest number of pictures.
    """
    if channel is not None:
        return _one_unit(result, channel)
    count = within(limit, len(result.images))
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(0.95 * columns, 1.15 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for place, axis in enumerate(axes):
        if place >= count:
            axis.set_axis_off()
        else:
            picture(axis, result.images[place])
            axis.set_title(f"{_short(result, place)}  {float(result.peak[place]):.3g}", fontsize=7)
            _mark(axis, result, place)
    word = "largest" if result.sign > 0 else "smallest"
    figure.supxlabel(_caption(result, word, count), fontsize=8)
    return figure


def inversion(result: Inversion, *, image: int = 0) -> Figure:
    """A reference image and the images with the same representation, one per start; below, the error at each step.

    Parameters
    ----------
    result : Inversion
        The inversion.
    image : int
        Index of the reference image.
    """
    if not 0 <= image < len(result.reference):
        raise InputError(f"image must be 0 to {len(result.reference) - 1}, got {image}.")
    mine = (result.source == image).nonzero().flatten().tolist()
    figure = Figure(figsize=(1.5 * (len(mine) + 1), 3.4), layout="constrained")
    grid = figure.add_gridspec(2, len(mine) + 1, height_ratios=(3, 2))
    first = figure.add_subplot(grid[0, 0])
    picture(first, result.reference[image])
    first.set_title("reference", fontsize=8)
    for place, index in enumerate(mine):
        axis = figure.add_subplot(grid[0, place + 1])
        picture(axis, result.images[index])
        axis.set_title(f"start {int(result.start[index])}: {float(result.error[index]):.2%}", fontsize=8)
    below = figure.add_subplot(grid[1, :])
    below.plot(result.history[:, mine].cpu().numpy(), linewidth=0.8)
    below.set_yscale("log")
    below.set_xlabel("step", fontsize=8)
    below.set_ylabel("relative error", fontsize=8)
    below.tick_params(labelsize=7)
    figure.supxlabel(
        f"Images with similar representation at {result.layer};\nerror: squared distance / squared norm", fontsize=8
    )
    return figure


def picture(axis: Axes, image: Tensor) -> None:
    """One image with its own values, 0 black and 1 white, and a gray border. Small images have square pixels."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("0.8")
    pixels = image.detach().cpu().clamp(0, 1)
    smooth = "antialiased" if min(pixels.shape[1:]) > 64 else "nearest"
    if pixels.shape[0] == 3:
        axis.imshow(pixels.permute(1, 2, 0).numpy(), interpolation=smooth)
    else:
        axis.imshow(pixels.mean(0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation=smooth)


def _one_unit(result: Superstimuli, channel: int) -> Figure:
    images = result.of(channel)
    mine = (result.channel == channel).nonzero().flatten()
    figure = Figure(figsize=(1.9 * len(images) + 2.6, 2.5), layout="constrained")
    axes = figure.subplots(1, len(images) + 1, squeeze=False)[0]
    for axis, image, index in zip(axes, images, mine.tolist(), strict=False):
        picture(axis, image)
        axis.set_title(f"peak {float(result.peak[index]):.3g}", fontsize=8)
        _mark(axis, result, index)
        if result.trusted is not None:
            axis.set_xlabel(_credentials(result, index), fontsize=6.5)
    steps = torch.arange(1, len(result.history) + 1, device="cpu")
    axes[-1].plot(steps.numpy(), result.history[:, mine].cpu().numpy(), linewidth=0.9, color="black")
    axes[-1].set_xlabel("step", fontsize=8)
    axes[-1].set_ylabel("objective", fontsize=8)
    axes[-1].tick_params(labelsize=7)
    word = "largest" if result.sign > 0 else "smallest"
    figure.supxlabel(f"{result.names[int(mine[0])]}: {_caption(result, word, len(result.images))}", fontsize=8)
    return figure


def _mark(axis: Axes, result: Superstimuli, index: int) -> None:
    """A dashed red frame and a cross in the corner for an image that is not trusted."""
    if result.trusted is None or bool(result.trusted[index]):
        return
    for spine in axis.spines.values():
        spine.set(color="tab:red", linestyle=(0, (3, 2)), linewidth=1.6)
    axis.text(
        0.97, 0.95, "×", color="white", fontsize=8, ha="right", va="top", transform=axis.transAxes,
        bbox={"facecolor": "tab:red", "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip


def _credentials(result: Superstimuli, index: int) -> str:
    """The measurements of one image, one per line, without NaN."""
    lines = []
    for name, text in (
        ("percentile", "percentile {:.1f}"), ("agreement", "agreement {:.2f}"),
        ("path_similarity", "path similarity {:.2f}"), ("second", "second network {:.0f}"),
    ):  # fmt: skip
        value = float(getattr(result, name)[index])
        lines += [] if math.isnan(value) else [text.format(value)]
    origin = result.origin[index] if result.origin else ""
    return "\n".join([*lines, f"from {origin}"])


def _short(result: Superstimuli, place: int) -> str:
    name = result.names[place]
    return name.rpartition(":")[2] if name.startswith(f"{result.layer}:") else name


def _caption(result: Superstimuli, word: str, count: int) -> str:
    height, width = result.images.shape[2:]
    what = "class: score" if result.layer == "logits" else f"unit of {result.layer}: {word} value"
    words = f"{what}. {height} x {width} pixels in their own values, 0 black to 1 white"
    if result.trusted is not None:
        wrong = int((~result.trusted).sum())
        words += f"\nred cross: {wrong} of {len(result.images)} may not show what drives the unit in the data"
    return "; ".join(filter(None, (words, left_out(count, len(result.images), "images"))))
