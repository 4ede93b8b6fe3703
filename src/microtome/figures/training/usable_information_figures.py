"""Figure of usable information: bits for a linear classifier by layer, and the share of the image that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from microtome.training.information import UsableInformation

_BLUE, _GRAY, _GREEN = "#4477aa", "#bbbbbb", "#228833"


def usable_information(result: UsableInformation) -> Figure:
    """Bits about the class with two standard errors, the dashed line H(Y); below, the share of the image that is kept.

    Parameters
    ----------
    result : UsableInformation
        What to draw.
    """
    known = bool(result.kept.isfinite().any())
    places = range(len(result.layers))
    figure = Figure(figsize=(max(4.5, 1.6 + 0.5 * len(places)), 5.4 if known else 3.6), layout="constrained")
    plots = figure.subplots(2 if known else 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + known])[:, 0]
    bits = plots[0]
    bits.errorbar(places, result.values.numpy(), 2 * result.error.numpy(), fmt="o-", color=_BLUE, ms=4, lw=1, capsize=3)
    bits.axhline(result.label_entropy, color=_GRAY, linestyle="--", linewidth=1)
    bits.annotate("H(Y)", (1, result.label_entropy), xycoords=("axes fraction", "data"), fontsize=7, ha="right",
                  va="bottom")  # fmt: skip
    bits.axhline(0, color=_GRAY, linewidth=0.8)
    bits.set_ylabel("usable information (bits)", fontsize=8)
    bits.set_title(f"linear classifiers, {len(result.images):,} images; bars: two standard errors", fontsize=8)
    if known:
        kept = plots[1]
        share, error = 100 * result.kept.numpy(), 100 * result.kept_error.numpy()
        kept.errorbar(places, share, error, fmt="s-", color=_GREEN, ms=4, lw=1, capsize=3)
        kept.set_ylim(-3, 103)
        kept.set_ylabel("energy of the image\nthat is kept (%)", fontsize=8)
    plots[-1].set_xticks(places, result.layers, rotation=45, ha="right", fontsize=7)
    for axes in plots:
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
