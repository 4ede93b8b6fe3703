"""Figure of the lectures' findings: covered regions photo by photo, curves and similarity method by method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.figures.legend_names import legend_name
from microtome.reproduce.lectures import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.reproduce.lectures import Lectures

COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#222222", "#999933"]


def lectures(result: Lectures) -> Figure:
    """Four panels: covering, counterfactuals, curves, randomised weights."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    _covering(axes[0, 0], result)
    _counterfactual(axes[0, 1], result)
    _curves(axes[1, 0], result)
    _lost(axes[1, 1], result)
    return figure


def _covering(axes: Axes, result: Lectures) -> None:
    for colour, (name, one) in zip(COLOURS, result.covering.items(), strict=False):
        axes.scatter(
            one.background.cpu(),
            one.object.cpu(),
            s=14,
            color=colour,
            label=legend_name(f"{name}: {one.share:.0%} above the line"),
        )
    _diagonal(axes)
    axes.set_xlabel("mean drop of the probability, windows on the background")
    axes.set_ylabel("windows on the object")
    axes.set_title("(a) covering the object costs more", fontsize=10)
    axes.set_ylim(axes.get_ylim()[0], axes.get_ylim()[1] * 1.35)
    axes.legend(fontsize=7, frameon=False, title="object found by", title_fontsize=7, loc="upper left")


def _counterfactual(axes: Axes, result: Lectures) -> None:
    found = result.counterfactual
    axes.scatter(found.counterfactual_covered.cpu(), found.evidence_covered.cpu(), s=14, color=COLOURS[0])
    _diagonal(axes)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("change of the logit, counterfactual covered")
    axes.set_ylabel("evidence covered")
    share = float(found.evidence_on_object.nanmean()), float(found.counterfactual_on_object.nanmean())
    axes.set_title("(b) covering evidence and counterfactual", fontsize=10)
    axes.text(
        0.03, 0.97, f"energy on the object: {share[0]:.2f} and {share[1]:.2f}", transform=axes.transAxes, va="top",
        fontsize=7,
    )  # fmt: skip


def _curves(axes: Axes, result: Lectures) -> None:
    gain = {name: result.insertion[name] - result.deletion[name] for name in result.deletion}
    order = sorted(gain, key=lambda name: float(gain[name].mean()))
    axes.barh(
        order,
        [float(gain[name].mean()) for name in order],
        xerr=[_error(gain[name]) for name in order],
        color=["0.7" if name in CONTROLS else COLOURS[0] for name in order],
        error_kw={"linewidth": 1},
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("area under insertion minus area under deletion, ± standard error")
    axes.set_title("(c) do maps order the pixels by what the network needs?", fontsize=10)


def _lost(axes: Axes, result: Lectures) -> None:
    places = range(1, len(result.stages) + 1)
    for colour, (name, values) in zip(COLOURS, result.structure.items(), strict=False):
        axes.plot(places, values.mean(1).cpu(), color=colour, marker="o", markersize=3, label=legend_name(name))
        axes.plot(places, result.likeness[name].mean(1).cpu(), color=colour, linestyle="--", linewidth=1)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks(places)
    axes.set_xlabel("sixths of the layers randomised, from the output down")
    axes.set_ylabel("similarity to the trained network's map")
    axes.set_title("(d) solid: structural similarity, dashed: rank correlation", fontsize=10)
    axes.set_ylim(-0.3, 1.3)
    axes.legend(fontsize=7, frameon=False, ncol=3, loc="upper center")


def _diagonal(axes: Axes) -> None:
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color="0.5", linewidth=0.8, zorder=0)


def _error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)
