"""How is a linear region drawn? What the map hears and ignores, the way to the edge, the class weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.spaces import photo, picture

if TYPE_CHECKING:
    from microtome.spaces.path import FacetPath
    from microtome.spaces.region import LinearRegion


def linear_region(result: LinearRegion, *, image: int = 0, most: int = 10) -> Figure:
    """One image: signal part, ignored part and step to the nearest facet above, weights of the classes below.

    Parameters
    ----------
    result : LinearRegion
        What to draw.
    image : int
        Which image.
    most : int
        At most so many classes.
    """
    if not 0 <= image < len(result.images):
        raise InputError(f"an image from 0 to {len(result.images) - 1} was expected, got {image}.")
    classes = result.classes[:most]
    columns = max(4, len(classes))
    figure = Figure(figsize=(1.3 * columns + 0.4, 3.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    shown, limit = result.images[image], float(result.images[image].abs().max()) or 1.0
    photo(axes[0, 0], shown)
    picture(axes[0, 1], result.signal[image], limit)
    picture(axes[0, 2], result.ignored[image], limit)
    normal = result.normal[image]
    picture(axes[0, 3], normal, float(normal.abs().max()) or 1.0)
    facet = result.facet[image]
    nearest = f"to {facet['layer']}: {float(result.distance[image]):.2g}" if facet else "no facet"
    names = ("image", "heard", "ignored", nearest)
    for axis, name in zip(axes[0], names, strict=False):
        axis.set_title(name, fontsize=8)
    weights = result.weight[image].reshape(-1, *shown.shape)[: len(classes)]
    scale = float(weights.abs().max()) or 1.0
    for axis, weight, label in zip(axes[1], weights, classes, strict=False):
        picture(axis, weight, scale)
        axis.set_title(f"class {label}", fontsize=8)
    figure.supxlabel(
        "Above: the image is the sum of what these scores hear and ignore. Below: the exact weights in this region.",
        fontsize=8,
    )
    return figure


def facets_between(result: FacetPath) -> Figure:
    """Class scores along the path, straight between facets, whose places are marked below."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    at = [0.0, *result.position.tolist(), 1.0]
    for k, line in enumerate(result.logits.T):
        axis.plot(at, line.numpy(), lw=1, label=str(k))
    axis.plot(result.position.numpy(), [axis.get_ylim()[0]] * result.crossed, "|", color="0.3", ms=8)
    axis.set(xlabel=f"from the first image to the second ({result.crossed} facets)", ylabel="class score")
    if result.logits.shape[1] <= 10:
        axis.legend(fontsize=6, ncols=2, frameon=False)
    return figure
