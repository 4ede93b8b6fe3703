"""Figures of repeats: similarity of each layer to the one before, and accuracy without a layer, by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from microtome.representation.layer_repeats import LayerRepeats
    from microtome.reproduce.dissecting.omitted_layers import OmittedLayers

_BLUE, _ORANGE, _GRAY, _RED = "#4477aa", "#ee8866", "#bbbbbb", "#cc6677"


def repeats(result: LayerRepeats) -> Figure:
    """CKA with its interval and the best match of units with its chance level, for each pair of successive layers.

    Parameters
    ----------
    result : LayerRepeats
        What to draw.
    """
    count = len(result.layers) - 1
    figure = Figure(figsize=(max(4.6, 1.0 + 1.1 * count), 3.2), layout="constrained")
    axes = figure.subplots()
    places = range(count)
    error = [(result.cka - result.low).clamp(min=0).tolist(), (result.high - result.cka).clamp(min=0).tolist()]
    axes.errorbar([place - 0.1 for place in places], result.cka.tolist(), error, fmt="o", color=_BLUE, capsize=3,
                  label="CKA, 95 % interval")  # fmt: skip
    axes.plot([place + 0.1 for place in places], result.match.tolist(), "s", color=_ORANGE, label="best match of units")
    axes.plot([place + 0.1 for place in places], result.chance.tolist(), "_", color=_GRAY, markersize=14,
              label="match by chance")  # fmt: skip
    names = [f"{after}\nand {before}" for before, after in zip(result.layers, result.layers[1:], strict=False)]
    axes.set_xticks(places, names, fontsize=7)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(min(-0.05, float(result.chance.nan_to_num(0).min()) - 0.05), 1.02)
    axes.axhline(1, color=_GRAY, linewidth=0.6)
    axes.set_ylabel(f"similarity over {result.images:,} images (1: repeats)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def omitted_layers(result: OmittedLayers) -> Figure:
    """Test accuracy of the whole network, without each layer, and after retraining; one point for each seed.

    Parameters
    ----------
    result : OmittedLayers
        What to draw.
    """
    cases = list(result.without)
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, case in enumerate(cases):
        for shift, (values, colour, word) in enumerate(
            ((result.before, _GRAY, "as it was"), (result.without[case], _RED, "layer out"),
             (result.retrained[case], _BLUE, "retrained"))
        ):  # fmt: skip
            where = [place + 0.2 * (shift - 1)] * len(values)
            for axes in (left, right):
                axes.plot(where, (100 * values).tolist(), "o", color=colour, markersize=4,
                          label=word if place == 0 else None)  # fmt: skip
    low = 100 * float(min(result.before.min(), *(values.min() for values in result.retrained.values())))
    right.set_ylim(low - 0.3, 100)
    right.set_title("the same, enlarged", fontsize=8)
    for axes in (left, right):
        axes.set_xticks(range(len(cases)), [case.replace(": ", "\n") for case in cases], fontsize=7)
        axes.set_ylabel("test accuracy (%)", fontsize=8)
        axes.tick_params(labelsize=7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    left.legend(fontsize=7, frameon=False)
    return figure
