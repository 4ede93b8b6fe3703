"""Figures of the loss surfaces of several networks on one scale, and of their shares of negative curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from microtome.reproduce.loss_surfaces import LossSurfaces

MOST = 1e3  # the scale ends at this loss: plain deep networks reach 1e5
MOST_COLUMNS = 5


def loss_surfaces(result: LossSurfaces) -> Figure:
    """Contours of each network on one logarithmic scale; below, the share of negative curvature of every pair."""
    names = list(result.surfaces)
    columns = min(len(names), MOST_COLUMNS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.6, 3.2 * rows + 2.6), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=(*(1.5 for _ in range(rows)), 1))
    values = np.concatenate([one.loss.numpy().ravel() for one in result.surfaces.values()])
    known = values[np.isfinite(values) & (values > 0)]
    low, high = float(known.min()), float(min(known.max(), MOST))
    scale = LogNorm(low, max(high, 1.01 * low), clip=True)
    upper = []
    for place, (name, one) in enumerate(result.surfaces.items()):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        upper.append(axes)
        loss = np.ma.masked_invalid(one.loss.numpy().T).clip(low, high)
        levels = np.geomspace(low, max(high, 1.01 * low), 16)
        axes.contourf(one.alpha, one.beta, loss, levels=levels, norm=scale, cmap="viridis")
        axes.contour(one.alpha, one.beta, loss, levels=levels, colors="white", linewidths=0.4)
        axes.plot(0, 0, "+", color="white", markersize=8)
        axes.set_aspect("equal")
        axes.set_title(f"{name}\naccuracy {float(result.accuracy[name][0]):.1%}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("alpha", fontsize=8)
    for axes in upper[::columns]:
        axes.set_ylabel("beta", fontsize=8)
    bar = figure.colorbar(ScalarMappable(scale, "viridis"), ax=upper, fraction=0.03)
    bar.set_label("mean loss" + (f", cut at {MOST:g}" if known.max() > MOST else ""), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes = figure.add_subplot(grid[rows, :])
    for seed in range(next(iter(result.negative.values())).shape[0]):
        for pair in range(next(iter(result.negative.values())).shape[1]):
            line = [100 * float(result.negative[name][seed, pair]) for name in names]
            axes.plot(
                [name.replace(", ", ",\n") for name in names],
                line,
                "o-",
                color=f"C{seed}",
                markersize=4,
                linewidth=0.8,
                alpha=0.8,
            )
    axes.set_ylabel("negative curvature,\n% of the points", fontsize=8)
    axes.set_ylim(0, None)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("one line for each pair of directions, one colour for each training seed", fontsize=8, loc="left")
    figure.supxlabel(result.source, fontsize=7)
    return figure
