"""Figures of signal spaces: weights, signal vectors, residuals, spectra, kept and lost parts of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from microtome.spaces.singular.spectra import Spectra
    from microtome.spaces.singular.triplets import SingularTriplets
    from microtome.spaces.split.class_residuals import ClassResiduals
    from microtome.spaces.split.rejection import KeptAndLost, Rejected
    from microtome.spaces.split.subspaces import Subspaces
    from microtome.spaces.split.weight_vectors import WeightVectors

SIGNED = "RdBu_r"


def class_residuals(result: ClassResiduals, *, limit: int = 10) -> Figure:
    """Three rows: weights, signal vectors by falling singular value, residuals of the class averages.

    Parameters
    ----------
    result : ClassResiduals
        What to draw.
    limit : int
        Maximum number of columns drawn.
    """
    parts = {"weights": result.weights, "signal vectors": result.signal, "residuals": result.residual}
    rows = tuple(part[: within(limit, len(part))] for part in parts.values())
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.05 * columns + 0.4, 4.0), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    values = result.singular_values
    names = (
        [f"$w_{{{i}}}$" for i in range(len(rows[0]))],
        [f"$v_{{{i + 1}}}$  s={values[i]:.3g}" for i in range(len(rows[1]))],
        [f"{name}: {removed:.0%}" for name, removed in zip(result.classes, result.removed.tolist(), strict=True)],
    )
    shapes = (result.input_shape, result.input_shape, result.residual_shape)
    for line, row, labels, shape in zip(axes, rows, names, shapes, strict=True):
        top = float(row.abs().max()) or 1.0  # one scale for the row
        if row is rows[2]:  # values near zero look like zero
            top = max(top, 0.1 * float(result.averages.abs().max()))
        for place, axis in enumerate(line):
            axis.set_axis_off()
            if place < len(row):
                picture(axis, row[place].reshape(shape), top)
                axis.set_title(labels[place], fontsize=8)
    own = "its own unit" if result.against == "unit" else "the layer"
    note(
        figure,
        f"Weights; signal vectors (condition number {result.condition_number:.2f}); "
        f"average of each class less its projection on {own} (share of energy removed)",
        *(left_out(len(row), len(part), name) for row, (name, part) in zip(rows, parts.items(), strict=True)),
    )
    return figure


def subspaces(result: Subspaces, *, limit: int = 16) -> Figure:
    """Signal vectors as pictures by falling singular value, and the spectrum beside them.

    Parameters
    ----------
    result : Subspaces
        What to draw.
    limit : int
        Maximum number of vectors drawn.
    """
    shown = within(limit, max(result.rank, 1)) if result.rank else 0
    columns = max(1, math.ceil(math.sqrt(max(shown, 1))))
    rows = max(1, math.ceil(shown / columns))
    figure = Figure(figsize=(1.1 * columns + 3.2, max(2.4, 1.25 * rows)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.1 * columns, 3.2], squeeze=False)[0]
    for place, axis in enumerate(left.subplots(rows, columns, squeeze=False).flat):
        axis.set_axis_off()
        if place < shown:
            vector = result.signal[:, place].reshape(result.input_shape)
            picture(axis, vector, float(vector.abs().max()))
            axis.set_title(f"$v_{{{place + 1}}}$  {result.singular_values[place]:.3g}", fontsize=8)
    axis = right.subplots()
    spectrum(axis, result.singular_values, result.tolerance)
    axis.set_title(f"rank {result.rank}, condition number {result.condition_number:.3g}", fontsize=8)
    note(figure, left_out(shown, result.rank, "signal vectors"))
    return figure


def spectra(result: Spectra) -> Figure:
    """The spectrum of every layer, relative to its largest value, and the condition numbers."""
    names = list(result.singular_values)
    figure = Figure(figsize=(8, max(2.6, 0.22 * len(names) + 1)), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    colours: list[str] = []
    for name in names:
        values = result.singular_values[name]
        (line,) = curves.plot(
            np.linspace(0, 1, len(values)),
            _positive(values / values[0].clamp(min=1e-300)),
            lw=1,
            label=legend_name(name),
        )
        colours.append(to_hex(line.get_color()))
    curves.set(yscale="log", xlabel="place in the spectrum", ylabel="singular value by the largest")
    if len(names) <= 8:
        curves.legend(fontsize=7, frameon=False)
    numbers = [result.condition_number[name] for name in names]
    bars.barh(range(len(names)), [value if math.isfinite(value) else 0 for value in numbers], color=colours)
    bars.set_yticks(range(len(names)), [f"{name} ({result.view[name]})" for name in names], fontsize=7)
    bars.invert_yaxis()
    bars.set(xscale="log", xlabel="condition number")
    _plain(bars.xaxis)
    return figure


def triplets(result: SingularTriplets, *, limit: int = 8) -> Figure:
    """Each singular vector's strongest input and output map.

    Parameters
    ----------
    result : SingularTriplets
        What to draw.
    limit : int
        Maximum number of triplets drawn.
    """
    shown = within(limit, len(result.values))
    figure = Figure(figsize=(1.2 * shown + 0.4, 3.0), layout="constrained")
    axes = figure.subplots(2, shown, squeeze=False)
    for place in range(shown):
        for axis, stack in zip(axes[:, place], (result.right[place], result.left[place]), strict=True):
            axis.set_axis_off()
            vector = _strongest(stack)
            picture(axis, vector, float(vector.abs().max()))
        axes[0, place].set_title(f"s={result.values[place]:.3g}", fontsize=8)
    note(
        figure,
        "Input (above) and output (below) of each singular triplet: the channel of most energy",
        left_out(shown, len(result.values), "triplets"),
    )
    return figure


def weight_vectors(result: WeightVectors) -> Figure:
    """The share of each image's energy along each unit's weight vector."""
    share = (result.kept / result.energy.clamp(min=1e-300)).clamp(0, 1)
    figure = Figure(figsize=(6, max(2.6, 0.12 * len(share) + 1)), layout="constrained")
    axis = figure.subplots()
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(integer=True))
    drawn = axis.imshow(share.numpy(), aspect="auto", cmap="magma", vmin=0)
    axis.set(xlabel=f"unit of {result.layer}", ylabel="image")
    figure.colorbar(drawn, label="share of energy\nalong the weight vector")
    return figure


def rejected(result: Rejected) -> Figure:
    """The share of energy that each layer rejects: mean over images, and a dot for each image."""
    figure = Figure(figsize=(6, max(2.0, 0.24 * len(result.layers) + 1)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(result.layers))
    axis.barh(places, result.mean.nan_to_num().numpy(), color="0.75")
    axis.plot(result.share.numpy(), np.broadcast_to(places[:, None], result.share.shape), ".", color="0.3", ms=2)
    for place in places[~result.defined.any(1).numpy()]:
        axis.text(0.01, place, "not defined: the energy is zero", va="center", fontsize=6)
    axis.set_yticks(places, result.layers, fontsize=7)
    axis.invert_yaxis()
    axis.set(
        xlim=(0, 1),
        xlabel="share of the energy read whose removal changes\n"
        f"the layer's output by less than {result.threshold:.0%} (a dot for each image)",
    )
    return figure


def kept_and_lost(result: KeptAndLost, *, image: int = 0) -> Figure:
    """One image, and for each layer the part that it keeps and the part that it loses.

    Parameters
    ----------
    result : KeptAndLost
        What to draw.
    image : int
        Which image.
    """
    columns = len(result.layers) + 1
    figure = Figure(figsize=(1.3 * columns + 0.4, 3.2), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    original = result.images[image]
    limit = float(original.abs().max()) or 1.0
    photo(axes[0, 0], original)
    axes[0, 0].set_title("image", fontsize=8)
    for place, name in enumerate(result.layers):
        photo(axes[0, place + 1], result.kept[place, image])
        picture(axes[1, place + 1], result.lost[place, image], limit)
        axes[0, place + 1].set_title(name, fontsize=8)
        sure = bool(result.known[place, image])
        share = float(result.share[place, image])
        lost = "energy zero" if math.isnan(share) else f"lost {'' if sure else 'at most '}{share:.1%}"
        axes[1, place + 1].set_title(lost, fontsize=8)
    figure.supxlabel(
        f"Above: the smallest part of the image that gives each layer's output to within {result.threshold:.0%}. "
        "Below: the rest, which the layer loses, and its share of the energy.",
        fontsize=8,
    )
    return figure


def spectrum(axis: Axes, values: Tensor, tolerance: float) -> None:
    """Singular values by rank, with the tolerance if it is within the axes."""
    axis.plot(range(1, len(values) + 1), _positive(values), ".-", color="0.25", lw=0.8, ms=4)
    if tolerance > 0 and float(values[-1]) < 10 * tolerance:
        axis.axhline(tolerance, color="C3", lw=0.8)
    axis.set(yscale="log", xlabel="number of the singular value, the largest first", ylabel="singular value")
    _plain(axis.yaxis)


def _plain(side: Axis) -> None:
    """A few plain numbers on a logarithmic axis that spans less than two decades."""
    low, high = side.get_view_interval()
    if low > 0 and high / low < 100:
        side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        side.set_major_formatter(StrMethodFormatter("{x:g}"))
        side.set_minor_locator(NullLocator())


def picture(axis: Axes, vector: Tensor, limit: float) -> None:
    """A signed vector as a picture: zero neutral, symmetric range; RGB as colours about gray."""
    flat = _plane(vector)
    if flat.dim() == 3:
        axis.imshow((0.5 + 0.5 * flat / (limit or 1.0)).clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        axis.imshow(flat.numpy(), cmap=SIGNED, vmin=-(limit or 1.0), vmax=limit or 1.0, interpolation="nearest")


def photo(axis: Axes, image: Tensor) -> None:
    """An image in pixel space, clipped to [0, 1]."""
    shown = image.detach().clamp(0, 1)
    if len(shown) == 3:
        axis.imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        axis.imshow(shown[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def grid(axes: Sequence[Axes], images: Tensor) -> None:
    """Images side by side."""
    for axis, image in zip(axes, images, strict=False):
        photo(axis, image)


def _plane(vector: Tensor) -> Tensor:
    """A vector as (h, w) or (3, h, w), whatever its shape."""
    vector = vector.detach()
    while vector.dim() > 2 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.dim() == 3 and vector.shape[0] == 3:
        return vector
    if vector.dim() >= 3:
        return _tiled(vector.flatten(0, -3))
    if vector.dim() == 2:
        return vector
    side = math.isqrt(vector.numel())
    return vector.reshape(side, side) if side * side == vector.numel() > 1 else vector.reshape(1, -1)


def _tiled(planes: Tensor) -> Tensor:
    """Planes (C, h, w) side by side in a square, with an empty line between them."""
    count, height, width = planes.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    whole = planes.new_full((rows * columns, height + 1, width + 1), math.nan)
    whole[:count, :height, :width] = planes
    tiles = whole.reshape(rows, columns, height + 1, width + 1).transpose(1, 2)
    return tiles.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]


def _strongest(stack: Tensor) -> Tensor:
    """The channel of most energy."""
    return stack[int(stack.flatten(1).square().sum(1).argmax())] if stack.dim() > 1 else stack


def _positive(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Values for a logarithmic axis: zeros become the smallest number shown."""
    shown: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = values.double().clamp(min=1e-18).numpy()
    return shown
