"""Figures of the quality of maps: probability curves, errors by image, similarity as weights are randomised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.figures.attribution.attribution_figures import heat
from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from microtome.attribution.quality import Evaluation, Infidelity, PixelCurve, Randomisation, Sensitivity

_PANEL = 22  # letters above a map
_ENTRY = 0.17  # height of an entry of a legend in inches


def pixel_curve(result: PixelCurve) -> Figure:
    """The probability of each image's class (thin) and their mean (thick) by share of the pixels exchanged."""
    figure = Figure(figsize=(4.2, 3), layout="constrained")
    axes = figure.subplots()
    fraction = result.fraction.cpu().numpy()
    for one in result.probability.cpu().numpy():
        axes.plot(fraction, one, color="0.7", linewidth=0.7)
    axes.plot(fraction, result.probability.mean(0).cpu().numpy(), color="#4477aa", linewidth=2)
    axes.set_xlabel("share of the pixels exchanged")
    axes.set_ylabel(f"{result.quantity} of the class")
    axes.set_title(f"{result.provenance.method}, mean area {float(result.area.mean()):.3f}", fontsize=9)
    if result.quantity == "probability":
        axes.set_ylim(0, 1)
    return figure


def evaluation(result: Evaluation) -> Figure:
    """One panel per curve and fill, one line per method, averaged over the images; the random map dashed."""
    kinds = list(dict.fromkeys(key.partition(": ")[2] for key in result.curves))
    figure = Figure(figsize=(3.1 * len(kinds), 3.4 + _ENTRY * len(result.names)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for name in result.names:
            curve = result.curves[f"{name}: {kind}"]
            drawn = curve.probability.mean(0).cpu().numpy()
            label = f"{name} ({float(curve.area.mean()):.3f})"
            plain = name == "random"
            style = {"color": "0.4", "linestyle": "--"} if plain else {}
            axes.plot(curve.fraction.cpu().numpy(), drawn, label=legend_name(label), linewidth=1.4, **style)
        deletion = kind.startswith("deletion")
        axes.set_title(f"{kind}: {'lower' if deletion else 'higher'} is better", fontsize=9)
        what = "removed" if deletion else "added"
        axes.set_xlabel(f"share of the pixels {what}, the most important first", fontsize=7)
        axes.legend(fontsize=7, frameon=False, title="method (mean area under the curve)", title_fontsize=7,
                    loc="upper center", bbox_to_anchor=(0.5, -0.12))  # fmt: skip
        if curve.quantity == "probability":
            axes.set_ylim(0, 1)
    panels[0].set_ylabel(f"{curve.quantity} of the class", fontsize=8)
    return figure


def infidelity(result: Infidelity) -> Figure:
    """The error of each image's map beside that of a map of zeros; a map with no lower error predicts nothing."""
    count = len(result.values)
    figure = Figure(figsize=(max(4.2, 0.5 * count + 1.4), 3), layout="constrained")
    axes = figure.subplots()
    kinds = (("the map", result.values), ("the map, scaled best", result.scaled), ("a map of zeros", result.change))
    for place, ((name, values), colour) in enumerate(zip(kinds, ("#4477aa", "#66ccee", "0.7"), strict=True)):
        at = [image + 0.27 * (place - 1) for image in range(count)]
        axes.bar(at, values.cpu().numpy(), width=0.25, color=colour, label=legend_name(name))
    axes.set_xticks(range(count), [str(image) for image in range(count)], fontsize=7)
    axes.set_xlabel("image")
    axes.set_ylabel("mean squared error, logits²")
    axes.legend(fontsize=6, frameon=False)
    return figure


def sensitivity(result: Sensitivity) -> Figure:
    """The largest relative change of each image's map; no bar where the map is zero everywhere."""
    count = len(result.values)
    figure = Figure(figsize=(max(3.4, 0.3 * count + 1.4), 3), layout="constrained")
    axes = figure.subplots()
    values = result.values.cpu()
    axes.bar(range(count), values.nan_to_num(0.0).numpy(), color="#4477aa")
    names = [f"{image}\nno map" if empty else str(image) for image, empty in enumerate(values.isnan().tolist())]
    axes.set_xticks(range(count), names, fontsize=7)
    axes.set_xlabel("image")
    axes.set_ylabel("relative change of the map")
    return figure


def randomisation(result: Randomisation, *, image: int = 0, limit: int = 6) -> Figure:
    """Similarity to the first map by step, averaged over the images; below, the maps of one image.

    Parameters
    ----------
    result : Randomisation
        The result of randomisation.
    image : int
        The image whose maps are drawn.
    limit : int
        Maximum number of maps drawn, evenly over the steps.
    """
    count = len(result.layers)
    number = within(limit, count + 1)
    shown = sorted({round(place * count / max(number - 1, 1)) for place in range(number)})
    figure = Figure(figsize=(max(6.0, 1.5 * len(shown)), 4.6), layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(3, 2))
    upper, lower = parts[0, 0], parts[1, 0]
    axes = upper.subplots()
    for label, values in (
        ("rank correlation", result.correlation),
        ("rank correlation of sizes", result.absolute),
        ("structural similarity", result.similarity),
    ):
        axes.plot(range(1, count + 1), values.mean(1).cpu().numpy(), marker="o", markersize=3, label=legend_name(label))
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks(range(1, count + 1), result.reached, rotation=60, ha="right", fontsize=6)
    axes.set_xlabel("the layer down to which the weights are random, from the output", fontsize=8)
    axes.set_ylabel("similarity to the first map", fontsize=8)
    axes.set_title(f"{result.judged}: how alike its maps stay as weights become random", fontsize=9)
    axes.legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    signed = bool((result.maps[shown, image] < 0).any())  # one kind of colours for maps that are compared
    for panel, step in zip(lower.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        heat(panel, result.maps[step, image], signed=signed)
        panel.set_title("as it is" if step == 0 else _broken(result.reached[step - 1]), fontsize=6)
    note(lower, left_out(len(shown), count + 1, f"maps of image {image}"), size=7)
    return figure


def _broken(name: str) -> str:
    """A layer's name on two lines if it is longer than a panel."""
    before, dot, last = name.rpartition(".")
    return f"{before}{dot}\n{last}" if len(name) > _PANEL else name
