"""The last step of every figure: one size of letters, plain numbers on short logarithmic axes, free legends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import LogFormatterSciNotation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.transforms import Bbox

_POINTS = 7.0  # largest font size of the numbers at ticks
_LABEL = 8.0  # of the labels of axes
_PLAIN = (1e-3, 1e5)  # an axis inside this range has 0.02 in place of 2 x 10^-2
_GAP = 0.1  # inches between axes and a legend that moves beside them


class PlainLogFormatter(LogFormatterSciNotation):
    """The ticks that matplotlib labels on a logarithmic axis, as plain numbers."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The number, or nothing where a tick has no label."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def readable(figure: Figure) -> None:
    """Make labels and numbers at ticks small and plain, and move legends that cover the data beside their axes."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _small(axis)
            _plain(axis)
    _free_legends(figure)


def _small(axis: Axis) -> None:
    labels = axis.get_ticklabels()
    if any(float(label.get_fontsize()) > _POINTS for label in labels):
        axis.set_tick_params(which="major", labelsize=_POINTS)
    axis.set_tick_params(which="minor", labelsize=_POINTS)
    axis.label.set_fontsize(min(float(axis.label.get_fontsize()), _LABEL))


def _plain(axis: Axis) -> None:
    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() != "log" or low < _PLAIN[0] or high > _PLAIN[1]:
        return
    for formatter, put in (
        (axis.get_major_formatter(), axis.set_major_formatter),
        (axis.get_minor_formatter(), axis.set_minor_formatter),
    ):
        if isinstance(formatter, LogFormatterSciNotation):
            put(PlainLogFormatter(base=10, minor_thresholds=formatter.minor_thresholds))


def _free_legends(figure: Figure) -> None:
    """Move each legend that covers data to the right of its axes, and widen the figure by what it takes."""
    inside = [(axes, legend) for axes in figure.axes if (legend := _legend_inside(axes)) is not None]
    if not inside:
        return
    figure.draw_without_rendering()  # only then the places are known
    wider = 0.0
    for axes, legend in inside:
        box = legend.get_window_extent()
        if covers(axes, box):
            legend.set_loc("upper left")
            legend.set_bbox_to_anchor((1, 1), axes.transAxes)
            place = axes.get_subplotspec()
            columns = 1 if place is None else place.get_gridspec().ncols
            wider = max(wider, columns * (box.width / figure.dpi + _GAP))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + wider, height)


def _legend_inside(axes: Axes) -> Legend | None:
    """The legend that is placed inside the axes, if there is one."""
    legend = axes.get_legend()
    inside = legend is not None and legend.get_bbox_to_anchor() is axes.bbox and axes.name == "rectilinear"
    return legend if inside else None


def covers(axes: Axes, box: Bbox) -> bool:
    """Whether a box, in pixels of the figure, lies on lines, bars, areas, points or pictures of the axes."""
    if axes.images:
        return True
    lines = (line.get_path().transformed(line.get_transform()) for line in axes.lines)
    bars = (bar.get_path().transformed(bar.get_transform()) for bar in axes.patches)
    if any(path.intersects_bbox(box, filled=False) for path in lines):
        return True
    if any(path.intersects_bbox(box, filled=True) for path in bars):
        return True
    for collection in axes.collections:
        points = collection.get_offset_transform().transform(collection.get_offsets())
        if len(points) > 1 and any(box.contains(*point) for point in points):
            return True
        areas = () if len(points) > 1 else collection.get_paths()
        if any(area.transformed(collection.get_transform()).intersects_bbox(box, filled=True) for area in areas):
            return True
    return False
