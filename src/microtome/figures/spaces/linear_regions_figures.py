"""Figures of linear regions, facets and paths between images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.limits import left_out, note, within
from microtome.figures.spaces.space_figures import photo, picture

if TYPE_CHECKING:
    from microtome.spaces.regions.exit_distance import ExitDistance
    from microtome.spaces.regions.facet_distance import FacetDistance
    from microtome.spaces.regions.facet_path import FacetPath
    from microtome.spaces.regions.linear_region import LinearRegion

_MARKS = 300  # facets along a path whose marks do not lie on each other
_FAINTEST = 0.02  # opacity of a mark


def linear_region(result: LinearRegion, *, image: int = 0, limit: int = 10) -> Figure:
    """One image: signal part, ignored part and step to the nearest facet above, weights of the classes below.

    Parameters
    ----------
    result : LinearRegion
        What to draw.
    image : int
        Which image.
    limit : int
        Maximum number of classes drawn.
    """
    if not 0 <= image < len(result.images):
        raise InputError(f"an image from 0 to {len(result.images) - 1} was expected, got {image}.")
    classes = result.classes[: within(limit, len(result.classes))]
    columns = max(4, len(classes))
    figure = Figure(figsize=(1.3 * columns + 0.4, 3.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    shown, top = result.images[image], float(result.images[image].abs().max()) or 1.0
    photo(axes[0, 0], shown)
    picture(axes[0, 1], result.signal[image], top)
    picture(axes[0, 2], result.ignored[image], top)
    normal = result.normal[image]
    picture(axes[0, 3], normal, float(normal.abs().max()) or 1.0)
    facet = result.facet[image]
    nearest = f"to {facet['layer']}: {float(result.distance[image]):.2g}" if facet else "no facet"
    names = ("image", "signal part", "null-space part", nearest)
    for axis, name in zip(axes[0], names, strict=False):
        axis.set_title(name, fontsize=8)
    weights = result.weight[image].reshape(-1, *shown.shape)[: len(classes)]
    scale = float(weights.abs().max()) or 1.0
    for axis, weight, label in zip(axes[1], weights, classes, strict=False):
        picture(axis, weight, scale)
        axis.set_title(f"class {label}", fontsize=8)
    note(
        figure,
        "Above: the image is the sum of its signal part, which makes these scores, and its null-space part. "
        "Below: the exact weights in this region",
        left_out(len(classes), len(result.classes), "classes"),
    )
    return figure


def facets_between(result: FacetPath) -> Figure:
    """Class scores along the path, linear between facets; the facets are marked below."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    at = [0.0, *result.position.tolist(), 1.0]
    for k, line in enumerate(result.logits.T):
        axis.plot(at, line.numpy(), lw=1, label=str(k))
    faint = min(1.0, max(_FAINTEST, _MARKS / max(result.crossed, 1)))  # dense marks become a band of grays
    axis.plot(result.position.numpy(), [axis.get_ylim()[0]] * result.crossed, "|", color="0.3", ms=8, alpha=faint)
    axis.set_xlabel(f"from the first image (0) to the second (1); {result.crossed:,} facets, marked below", fontsize=8)
    axis.set_ylabel("class score", fontsize=8)
    if result.logits.shape[1] <= 10:
        axis.legend(fontsize=7, title="class", title_fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def facet_distance(result: FacetDistance, *, limit: int = 8) -> Figure:
    """The step of each image onto its nearest facet; below, onto the nearest facet at which the scores bend.

    Parameters
    ----------
    result : FacetDistance
        What to draw.
    limit : int
        Maximum number of images drawn.
    """
    count = within(limit, len(result.distance))
    figure = Figure(figsize=(max(1.7 * count, 4.2), 4.0), layout="constrained")
    rows = (
        ("nearest", result.distance, result.facet, result.normal),
        ("scores bend", result.changing, result.changing_facet, result.changing_normal),
    )
    for line, (name, distance, facet, step) in zip(figure.subplots(2, count, squeeze=False), rows, strict=True):
        for place, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            top = float(step[place].abs().max())
            picture(axis, step[place], top if 0 < top < math.inf else 1.0)
            axis.set_title(f"{float(distance[place]):.2g}: {_owner(facet[place])}", fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    shown = left_out(count, len(result.distance), "images")
    note(figure, "L2 length of the step onto the facet, and the unit that switches there", shown)
    return figure


def exit_distance(result: ExitDistance, *, limit: int = 40) -> Figure:
    """How far each image can move within its region, and the unit that switches at the end.

    Parameters
    ----------
    result : ExitDistance
        What to draw.
    limit : int
        Maximum number of images drawn.
    """
    count = within(limit, len(result.step))
    figure = Figure(figsize=(5.2, 0.9 + 0.28 * count), layout="constrained")
    axis = figure.subplots()
    steps = result.step[:count].tolist()
    bars = axis.barh(range(count), [step if math.isfinite(step) else 0.0 for step in steps], color="#4477aa")
    labels = [f"{step:.3g}: {_owner(facet)}" for step, facet in zip(steps, result.facet, strict=False)]
    axis.bar_label(bars, labels, fontsize=7, padding=3)
    axis.margins(x=0.6)
    axis.set_xlim(left=0)
    axis.set_yticks(range(count), [f"image {place}" for place in range(count)], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("length of the step, in units of the direction", fontsize=8)
    note(figure, left_out(count, len(result.step), "images"))
    return figure


def _owner(facet: dict[str, Any]) -> str:
    """The unit of a facet in words."""
    if not facet:
        return "no facet"
    return f"{facet['layer']} {', '.join(map(str, facet['unit']))}"
