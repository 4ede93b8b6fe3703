"""Figure of a conversion to CAM: test accuracy before and after, and the training loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from microtome.surgery import CamConversion

_WORDS = {"before": "as it was", "replaced": "new head,\nuntrained", "tuned": "fine-tuned"}


def cam_conversion(result: CamConversion) -> Figure:
    """Test accuracy before, after replacing the head and after tuning; the training loss of each epoch.

    Parameters
    ----------
    result : CamConversion
        What to draw.
    """
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    rows = result.table()
    heights = [float(row["accuracy"]) for row in rows]
    drawn = left.bar(
        [_WORDS[str(row["state"])] for row in rows],
        heights,
        yerr=[2 * float(row["error"]) for row in rows],
        color=["#bbbbbb", "#dddddd", "#4477aa"],
        capsize=3,
    )
    left.bar_label(drawn, [f"{height:.2f} %" for height in heights], fontsize=8, padding=2)
    left.set_ylim(0, 112)
    left.set_ylabel(f"accuracy on {result.images:,} test images (%)", fontsize=8)
    right.plot(range(1, len(result.loss) + 1), result.loss, marker="o", color="#4477aa")
    right.set_ylim(bottom=0)
    right.set_xticks(range(1, len(result.loss) + 1))
    right.set_xlabel("epoch of fine-tuning", fontsize=8)
    right.set_ylabel("mean training loss (nats)", fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
