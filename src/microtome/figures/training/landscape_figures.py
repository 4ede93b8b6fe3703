"""Figures of loss surfaces: contours, three dimensions, a line with its error band."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.limits import note

if TYPE_CHECKING:
    from microtome.training import LossLine, LossSurface

_BLUE, _GRAY, _RED = "#4477aa", "#bbbbbb", "#cc6677"
_LEVELS = 16
_MAP = "viridis"
_WORDS = {"norms": "normalisation layers"}
_VIEWS = ("both", "contours", "3d", "convexity")


def surface(result: LossSurface, *, view: str = "both", low: float | None = None, high: float | None = None) -> Figure:
    """Contours of the loss and its surface, both with a logarithmic scale; crosses where the loss is not finite.

    Parameters
    ----------
    result : LossSurface
        What to draw.
    view : str
        ``"both"``, ``"contours"``, ``"3d"``, or ``"convexity"``, the map of |lambda_min / lambda_max|.
    low, high : float, optional
        Ends of the scale, so that several surfaces can be drawn on one; higher losses are cut there.
    """
    if view not in _VIEWS:
        raise InputError(f'view must be one of {", ".join(_VIEWS)}; got "{view}".')
    flat, deep = view in ("both", "contours", "convexity"), view in ("both", "3d")
    figure = Figure(figsize=(9.2 if flat and deep else 5.0, 4.4), layout="constrained")
    scale = _scale(result, low, high)
    if view == "convexity":
        _convexity(figure, figure.subplots(), result)
    elif flat:
        _contours(figure, figure.add_subplot(1, 1 + deep, 1), result, scale)
    if deep:
        _solid(figure.add_subplot(1, 1 + flat, 1 + flat, projection="3d"), result, scale)
    figure.suptitle(_heading(result), fontsize=8)
    note(figure, *_treated(result.treatment), size=7)
    return figure


def line(result: LossLine) -> Figure:
    """Loss with its 95 % interval, and accuracy; training and test images where both are there.

    Parameters
    ----------
    result : LossLine
        What to draw.
    """
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    other = axes.twinx()
    parts = [("", result)] if result.test is None else [("training ", result), ("test ", result.test)]
    for (name, part), color in zip(parts, (_BLUE, _RED), strict=False):
        alpha, loss, (low, high) = part.alpha.numpy(), part.loss.numpy(), part.band.numpy().T
        floor = np.nanmin(np.where(loss > 0, loss, np.nan)) / 10 if (loss > 0).any() else 1e-12
        axes.fill_between(alpha, np.maximum(low, floor), high, color=color, alpha=0.25, lw=0)
        axes.plot(alpha, loss, color=color, label=f"{name}loss")
        lost = alpha[~np.isfinite(loss)]
        if len(lost):  # without points they would take room below the figure
            axes.plot(lost, 0 * lost, "x", color=color, transform=axes.get_xaxis_transform(), clip_on=False)
        if bool(part.accuracy.isfinite().any()):
            other.plot(alpha, 100 * part.accuracy.numpy(), color=color, linestyle=":", label=f"{name}accuracy")
    if bool((result.loss[result.loss.isfinite()] > 0).all()):
        axes.set_yscale("log")
    between = result.treatment.get("directions", "").startswith("from the first network")
    ends = "0: the first network, 1: the second" if between else "steps along the direction; 0: the network itself"
    axes.set_xlabel(f"alpha ({ends})", fontsize=8)
    axes.set_ylabel("mean loss (band: 95 % interval)", fontsize=8)
    other.set_ylabel("accuracy (%), dotted", fontsize=8)
    other.set_ylim(0, 105)
    handles = [*axes.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, fontsize=7, frameon=False, ncols=len(handles), loc="lower center",
                bbox_to_anchor=(0.5, 1))  # fmt: skip
    for one in (axes, other):
        one.tick_params(labelsize=7)
        one.spines["top"].set_visible(False)
    note(figure, *_treated(result.treatment), size=7)
    return figure


def _scale(result: LossSurface, low: float | None, high: float | None) -> Normalize:
    """A logarithmic scale if all losses are positive."""
    known = result.loss[result.loss.isfinite()]
    if not len(known):
        raise InputError("no point of the surface has a finite loss, so there is no figure.")
    bottom, top = float(known.min()) if low is None else low, float(known.max()) if high is None else high
    if bottom >= top:
        bottom, top = bottom - 0.5 * abs(bottom) - 1e-12, top + 0.5 * abs(top) + 1e-12
    return LogNorm(bottom, top, clip=True) if bottom > 0 else Normalize(bottom, top, clip=True)


def _levels(scale: Normalize) -> Any:
    low, high = float(scale.vmin or 0), float(scale.vmax or 0)
    return np.geomspace(low, high, _LEVELS) if isinstance(scale, LogNorm) else np.linspace(low, high, _LEVELS)


def _contours(figure: Figure, axes: Any, result: LossSurface, scale: Normalize) -> None:
    alpha, beta, loss = result.alpha.numpy(), result.beta.numpy(), result.loss.numpy()
    cut = np.where(np.isfinite(loss), np.clip(loss, scale.vmin, scale.vmax), np.nan)
    levels = _levels(scale)
    axes.contourf(alpha, beta, np.ma.masked_invalid(cut.T), levels=levels, norm=scale, cmap=_MAP)
    axes.contour(alpha, beta, np.ma.masked_invalid(cut.T), levels=levels, colors="white", linewidths=0.4)
    lost = np.argwhere(~np.isfinite(loss))
    if len(lost):
        axes.plot(alpha[lost[:, 0]], beta[lost[:, 1]], "x", color=_RED, markersize=4, label="not finite")
        axes.legend(fontsize=7, loc="upper right")
    axes.plot(0, 0, "+", color="white", markersize=9)
    if result.path is not None:
        path = result.path.numpy()
        axes.plot(path[:, 0], path[:, 1], "o-", color="white", markersize=2.5, linewidth=1)
        if result.epochs is not None:
            for place in {0, len(path) - 1}:
                axes.annotate(f"epoch {int(result.epochs[place])}", path[place], color="white", fontsize=7,
                              xytext=(4, 4), textcoords="offset points")  # fmt: skip
    _axes_names(axes, result)
    bar = figure.colorbar(ScalarMappable(scale, _MAP), ax=axes, fraction=0.05)
    bar.set_label("mean loss", fontsize=8)
    bar.ax.tick_params(labelsize=7, which="both")


def _convexity(figure: Figure, axes: Any, result: LossSurface) -> None:
    drawn = axes.pcolormesh(result.alpha[1:-1], result.beta[1:-1], result.convexity.T, vmin=0, vmax=1, cmap="magma_r")
    _axes_names(axes, result)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.05)
    bar.set_label("|smaller / larger curvature| where one is negative", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _solid(axes: Any, result: LossSurface, scale: Normalize) -> None:
    loss = np.where(np.isfinite(result.loss.numpy()), np.clip(result.loss.numpy(), scale.vmin, scale.vmax), np.nan)
    logarithmic = isinstance(scale, LogNorm)
    height = np.log10(loss) if logarithmic else loss
    beta, alpha = np.meshgrid(result.beta.numpy(), result.alpha.numpy())
    colors = ScalarMappable(scale, _MAP).to_rgba(np.ma.masked_invalid(loss))
    axes.plot_surface(alpha, beta, height, facecolors=colors, rstride=1, cstride=1, linewidth=0, shade=False)
    axes.view_init(elev=35, azim=-60)
    axes.set_xlabel("alpha", fontsize=8)
    axes.set_ylabel("beta", fontsize=8)
    axes.set_zlabel("mean loss, log10" if logarithmic else "mean loss", fontsize=8)
    axes.tick_params(labelsize=6)
    axes.set_box_aspect(None, zoom=0.85)  # otherwise the label of the height lies outside the figure


def _axes_names(axes: Any, result: LossSurface) -> None:
    shares = (
        ("", "") if result.explained is None else (f" ({100 * float(v):.0f} % of the path)" for v in result.explained)
    )
    for put, name, share in zip((axes.set_xlabel, axes.set_ylabel), ("alpha", "beta"), shares, strict=True):
        put(name + share, fontsize=8)
    axes.tick_params(labelsize=7)


def _heading(result: LossSurface) -> str:
    few, many = int(result.images.min()), int(result.images.max())
    on = f"{many:,} images" if few == many else f"{few:,} to {many:,} images a point"
    text = (
        f"{on}; largest standard error {float((result.error / result.loss.abs()).nan_to_num().max()):.1%} of the loss"
    )
    if min(result.loss.shape) >= 3:
        text += f"; negative curvature at {100 * result.negative_curvature:.0f} % of the points"
    if result.off_plane is not None:
        text += f"\n{100 * result.off_plane:.0f} % of the path's length lies off this plane"
    return text


def _treated(treatment: dict[str, str]) -> list[str]:
    return [f"{_WORDS.get(name, name)}: {what}" for name, what in treatment.items()]
