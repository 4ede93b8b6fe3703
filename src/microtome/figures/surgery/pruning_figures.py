"""Figures of pruning: accuracy by round, remaining channels, cuts with their reasons, criteria, a removed layer."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from microtome.surgery import Compression, Latency, Lossless, Pruning, PruningRound, Without
    from microtome.units import Criteria

_BLUE, _GRAY, _RED = "#4477aa", "#bbbbbb", "#cc6677"


def pruning(result: Pruning, *, limit: int = 8) -> Figure:
    """Accuracy before pruning, and pruned and retrained for each round, beside the remaining channels of each layer.

    Parameters
    ----------
    result : Pruning
        What to draw.
    limit : int
        Maximum number of layers whose channels are drawn: the widest.
    """
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    rounds = [one.number for one in result.rounds]
    left.axhline(100 * result.accuracy, color=_GRAY, linewidth=1, label="as it was")
    left.plot(rounds, [100 * one.pruned for one in result.rounds], "v", color=_RED, label="pruned")
    left.errorbar(
        rounds,
        [100 * one.retrained for one in result.rounds],
        [2 * 100 * (one.retrained * (1 - one.retrained) / one.images) ** 0.5 for one in result.rounds],
        fmt="o-", color=_BLUE, capsize=3, label="retrained",
    )  # fmt: skip
    for one in result.rounds:
        if not one.kept:
            left.annotate("not kept", (one.number, 100 * one.retrained), fontsize=7, ha="right", va="top")
    left.set_xticks(rounds)
    left.set_xlabel("round", fontsize=8)
    images = result.rounds[0].images if result.rounds else 0
    left.set_ylabel(f"accuracy on {images:,} test images (%)", fontsize=8)
    left.legend(fontsize=7, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    shown = _widest(result.widths, limit)
    for layer, first in shown.items():
        right.plot([0, *rounds], [first, *(one.channels.get(layer, 0) for one in result.rounds)], marker="o",
                   markersize=3, label=legend_name(layer))  # fmt: skip
    right.set_yscale("log", base=2)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set_xticks([0, *rounds])
    right.set_xlabel("round", fontsize=8)
    right.set_ylabel("channels", fontsize=8)
    right.legend(fontsize=7, frameon=False)
    speed = ""
    if result.latency:
        _, _, ratio, low, high = result.latency
        word = "faster" if result.faster else "not faster beyond the noise"
        speed = f"time of a pass: {ratio:.2f} of that before (quartiles {low:.2f} to {high:.2f}): {word}"
    note(figure, speed, left_out(len(shown), len(result.widths), "layers, the widest"))
    _tidy(left, right)
    return figure


def widths(result: Compression | PruningRound) -> Figure:
    """Channels of each layer before and after.

    Parameters
    ----------
    result : Compression or PruningRound
        What to draw.
    """
    layers = list(result.widths)
    figure = Figure(figsize=(6.4, 1.0 + 0.22 * max(len(layers), 1)), layout="constrained")
    axes = figure.subplots()
    places = range(len(layers))
    before, after = ([result.widths[layer][side] for layer in layers] for side in (0, 1))
    axes.barh(places, before, color="#dddddd", label="before")
    axes.barh(places, after, color=_BLUE, label="now")
    axes.set_yticks(places, layers, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("channels", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    axes.set_title(
        f"{100 * result.share:.1f} % of {result.multiply_adds[0]:,.0f} multiply-adds, "
        f"{result.parameters[1]:,} of {result.parameters[0]:,} weights", fontsize=8,
    )  # fmt: skip
    _tidy(axes)
    return figure


def lossless(result: Lossless, *, limit: int = 24) -> Figure:
    """One row for each cut: layer, units, reason, and the largest change of any logit.

    Parameters
    ----------
    result : Lossless
        What to draw.
    limit : int
        Maximum number of cuts drawn.
    """
    cuts = result.cuts[: within(limit, len(result.cuts))]
    figure = Figure(figsize=(9.6, 1.0 + 0.36 * max(len(cuts), 1)), layout="constrained")
    axes = figure.subplots()
    floor = 1e-9
    places = range(len(cuts))
    axes.barh(places, [max(cut.change, floor) for cut in cuts], left=floor / 10, height=0.6,
              color=[_GRAY if cut.bound is None else _BLUE for cut in cuts])  # fmt: skip
    for place, cut in enumerate(cuts):
        many = f"{len(cut.units)} units" if len(cut.units) > 1 else f"unit {cut.units[0]}"
        reason = "\n".join(textwrap.wrap(cut.reason, 90))
        axes.text(1.02, place, f"{many}: {reason}", transform=axes.get_yaxis_transform(), fontsize=7, va="center")
    axes.set_yticks(places, [cut.layer for cut in cuts], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(floor / 10, max(10 * result.logits, 1.0))
    axes.axvline(result.logits, color=_RED, linewidth=1, linestyle=":")
    axes.set_xlabel("largest change of any logit (dotted: the largest logit)", fontsize=8)
    shown = left_out(len(cuts), len(result.cuts), "cuts")
    more = f"; {shown} shown" if shown else ""
    figure.suptitle(
        f"{result.parameters[1]:,} of {result.parameters[0]:,} weights left; all cuts together change no logit of "
        f"{result.images:,} images by more than {result.largest_change:.2g}{more}\n"
        "blue: holds for every image of the pixel range, gray: on these images", fontsize=8,
    )  # fmt: skip
    _tidy(axes)
    return figure


def without(result: Without) -> Figure:
    """Test accuracy of the whole network, without the layer, and after retraining.

    Parameters
    ----------
    result : Without
        What to draw.
    """
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    rows = result.table()
    words = {"before": "as it was", "without": f"without {result.layer}", "retrained": "retrained"}
    heights = [float(row["accuracy"]) for row in rows]
    drawn = axes.bar(
        [words[str(row["state"])] for row in rows], heights, yerr=[2 * float(row["error"]) for row in rows],
        color=[_GRAY, _RED, _BLUE], capsize=3,
    )  # fmt: skip
    axes.bar_label(drawn, [f"{height:.2f} %" for height in heights], fontsize=8, padding=2)
    axes.set_ylim(0, 112)
    axes.set_ylabel(f"accuracy on {result.images:,} test images (%)", fontsize=8)
    given = (
        f"which gives {100 * result.explained:.1f} % of its variance" if result.explained > 0 else "which is unlike it"
    )
    axes.set_title(f"in its place: {result.adapter},\n{given}", fontsize=7)
    _tidy(axes)
    return figure


def latency(result: Latency) -> Figure:
    """Time of a pass before and after.

    Parameters
    ----------
    result : Latency
        What to draw.
    """
    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(["before", "after"], [1000 * result.before, 1000 * result.after], color=[_GRAY, _BLUE])
    axes.set_ylabel(f"milliseconds for {result.images} images", fontsize=8)
    word = "a gain" if result.gain else "no gain beyond the noise"
    axes.set_title(f"ratio {result.ratio:.2f} ({result.low:.2f} to {result.high:.2f}): {word}", fontsize=8)
    _tidy(axes)
    return figure


def criteria(result: Criteria, layer: str | None = None) -> Figure:
    """Each criterion of one layer's units, sorted, with its standard error.

    Parameters
    ----------
    result : Criteria
        What to draw.
    layer : str, optional
        Which layer; default the first of those with the most criteria.
    """
    chosen = layer or max(result.layers, key=lambda name: int((~result.value[name].isnan()).any(0).sum()))
    shown = [name for name in result.columns if bool((~result.column(name, chosen).isnan()).any())]
    figure = Figure(figsize=(2.4 * max(len(shown), 1), 2.8), layout="constrained")
    panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=False):
        value = result.column(name, chosen)
        place = result.columns.index(name)
        order = value.nan_to_num(nan=-float("inf")).argsort(descending=True)
        order = order[~value[order].isnan()]
        axes.errorbar(range(len(order)), value[order], result.error[chosen][order, place].nan_to_num(), fmt=".",
                      markersize=4, color=_BLUE, ecolor=_GRAY, linewidth=1)  # fmt: skip
        if len(order) <= 16:
            axes.set_xticks(range(len(order)), [str(int(unit)) for unit in order], rotation=90)
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.set_xlabel("unit" if len(order) <= 16 else "unit, by rank", fontsize=8)
    figure.suptitle(f"which units of {chosen} matter, {result.images:,} images", fontsize=8)
    _tidy(*panels)
    return figure


def _widest(widths: dict[str, int], limit: int) -> dict[str, int]:
    """The widest layers, in the order in which they run."""
    widest = sorted(widths, key=lambda name: -widths[name])[: within(limit, len(widths))]
    return {name: count for name, count in widths.items() if name in widest}


def _tidy(*panels: Any) -> None:
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
