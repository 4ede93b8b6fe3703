"""Figures of the loss's curvature: eigenvalues by layer, their density, their course in training, and convexity."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.legend_names import legend_name

if TYPE_CHECKING:
    from microtome.training.curvature import ConvexityMap, CurvatureHistory, HessianEigenvalues, SpectralDensity

_BLUE, _GRAY, _RED = "#4477aa", "#bbbbbb", "#cc6677"
_POINTS = 600
_LINES = 12  # up to this many layers, each has a line with its name


def eigenvalues(result: HessianEigenvalues) -> Figure:
    """The largest and smallest eigenvalue of the whole Hessian and of each layer's block.

    Parameters
    ----------
    result : HessianEigenvalues
        What to draw.
    """
    rows = result.table().rows
    figure = Figure(figsize=(6.0, 1.3 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh(places, [row[1] for row in rows], color=_BLUE, label="largest")
    axes.barh(places, [row[2] for row in rows], color=_RED, label="smallest")
    axes.axvline(0, color=_GRAY, linewidth=1)
    axes.set_yticks(places, ["all weights", *(row[0] for row in rows[1:])], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"eigenvalue of the loss's Hessian, {result.images:,} images", fontsize=8)
    axes.legend(fontsize=7, frameon=False)
    _plain(axes)
    return figure


def spectral_density(result: SpectralDensity, *, width: float | None = None) -> Figure:
    """The density of eigenvalues on a logarithmic scale, with a band of two standard errors; ticks are the nodes.

    Parameters
    ----------
    result : SpectralDensity
        What to draw.
    width : float, optional
        Standard deviation of the Gaussian that smooths it; by default a hundredth of the range.
    """
    there = result.nodes[result.weights > 0]
    low, high = float(there.min()), float(there.max())
    smooth = width if width is not None else max((high - low) / 100, 1e-12)
    at = torch.linspace(low - 4 * smooth, high + 4 * smooth, _POINTS, dtype=torch.float64, device="cpu")
    density, error = result.density(at, smooth)
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    floor = 0.1 / (result.size * smooth)  # a tenth of the share of one eigenvalue
    if bool(error.isfinite().all()):
        band = (np.maximum((density - 2 * error).numpy(), floor), np.maximum((density + 2 * error).numpy(), floor))
        axes.fill_between(at.numpy(), *band, color=_BLUE, alpha=0.25, lw=0)
    axes.plot(at.numpy(), np.maximum(density.numpy(), floor), color=_BLUE)
    axes.plot(
        there.numpy(), np.zeros(len(there)), "|", color=_GRAY, transform=axes.get_xaxis_transform(), clip_on=False
    )
    axes.axvline(0, color=_GRAY, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("eigenvalue of the loss's Hessian", fontsize=8)
    axes.set_ylabel("density (band: two standard errors)", fontsize=8)
    whose = f"layer {result.layer}" if result.layer else "all weights"
    trace, its_error = result.trace
    axes.set_title(
        f"{result.size:,} eigenvalues, {whose}; {len(result.nodes)} random vectors, {result.images:,} images; "
        f"trace {trace:.4g} ± {its_error:.2g}",
        fontsize=8,
    )
    _plain(axes)
    return figure


def along_training(result: CurvatureHistory) -> Figure:
    """The largest and smallest eigenvalues by epoch, of all weights and of each layer.

    Parameters
    ----------
    result : CurvatureHistory
        What to draw.
    """
    epochs = result.epochs.numpy()
    figure = Figure(figsize=(9.2 if result.layers else 5.2, 3.4), layout="constrained")
    plots = figure.subplots(1, 2 if result.layers else 1, squeeze=False)[0]
    for values, color, name in ((result.values, _BLUE, "largest"), (result.smallest, _RED, "smallest")):
        for place, column in enumerate(values.T.numpy()):
            plots[0].plot(epochs, column, "o-", ms=2.5, lw=1, color=color, alpha=1 / (1 + 0.5 * place),
                          label=name if not place else None)  # fmt: skip
    plots[0].set_title(f"all weights, {result.images:,} images", fontsize=8)
    for place, (name, values) in enumerate(result.layers.items()):
        shown = name if len(result.layers) <= _LINES else None
        plots[1].plot(
            epochs,
            values[:, 0].numpy(),
            "o-",
            ms=2.5,
            lw=1,
            color=f"C{place % 10}",
            label=None if shown is None else legend_name(shown),
        )
    if result.layers:
        plots[1].set_title("largest of each layer's own block", fontsize=8)
    for axes in plots:
        axes.axhline(0, color=_GRAY, linewidth=0.8)
        axes.set_xlabel("epoch", fontsize=8)
        axes.set_ylabel("eigenvalue of the loss's Hessian", fontsize=8)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False)
        _plain(axes)
    return figure


def convexity_map(result: ConvexityMap) -> Figure:
    """The map of |lambda_min / lambda_max|: 0 where no eigenvalue is negative.

    Parameters
    ----------
    result : ConvexityMap
        What to draw.
    """
    figure = Figure(figsize=(5.0, 4.4), layout="constrained")
    axes = figure.subplots()
    ratio = result.ratio.numpy()
    if not np.isfinite(ratio).any():
        raise InputError("no point of the plane has finite eigenvalues, so there is no figure.")
    places, top = (result.alpha.numpy(), result.beta.numpy()), max(1.0, float(np.nanmax(ratio)))
    drawn = axes.pcolormesh(*places, ratio.T, vmin=0, vmax=top, cmap="magma_r", shading="nearest")
    axes.plot(0, 0, "+", color="black", markersize=9)
    axes.set_xlabel("alpha", fontsize=8)
    axes.set_ylabel("beta", fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.05)
    bar.set_label("|smallest / largest eigenvalue| where one is negative", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes.set_title(f"{result.images:,} images, {result.steps:,} Hessian-vector products", fontsize=8)
    axes.tick_params(labelsize=7)
    words = "; ".join(f"{name}: {what}" for name, what in result.treatment.items())
    figure.supxlabel("\n".join(textwrap.wrap(words, 80)), fontsize=7)
    return figure


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
