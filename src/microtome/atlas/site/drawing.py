"""Small charts as SVG: sparklines, histograms, tuning curves, spectra."""

from __future__ import annotations

import math
from collections.abc import Callable

from markupsafe import Markup

from microtome.atlas.site.numbers import count, number, tick_label
from microtome.atlas.site.svg import chart, linked, path, text
from microtome.atlas.widgets import Curve, Histogram, ImageMap, Spectrum
from microtome.atlas.widgets.charts import COLOURED
from microtome.atlas.widgets.tick_marks import ticks


def sparkline(values: tuple[float, ...]) -> Markup:
    """Bars for a unit's mean activation by class: the shape of its preference, without axes."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    zero = 20 * high / span
    bars = []
    for index, value in enumerate(values):
        length = 20 * abs(value) / span
        top = zero - length if value > 0 else zero
        bars.append(f"M{index * 4} {top:.1f}h3v{length:.1f}h-3z")
    return Markup(  # noqa: S704 - numbers only
        f'<svg class="spark" viewBox="0 0 {4 * len(values)} 20" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{"".join(bars)}"/></svg>'
    )


def ridges(histogram: Histogram, hrefs: list[str | None]) -> Markup:
    """A row of bars for each class on one scale; heights are square roots, so that rare answers show."""
    left, width, row, top = 120, 448, 26, 4
    most = max((max(counts, default=0) for _, _, counts in histogram.rows), default=0) or 1
    low, high = histogram.edges[0], histogram.edges[-1]
    step = width / max(1, len(histogram.edges) - 1)
    parts = []
    for index, (name, _, counts) in enumerate(histogram.rows):
        base = top + row * (index + 1)
        bars = "".join(
            f"M{left + step * at:.1f} {base}v{-(row - 4) * math.sqrt(many / most):.1f}h{step - 0.6:.1f}V{base}z"
            for at, many in enumerate(counts)
            if many
        )
        parts.append(linked(text(left - 8, base - 5, _short(name), "end"), hrefs[index]))
        parts.append(path(f"M{left} {base}h{width}", "rule") + path(bars, "fill"))
    base = top + row * len(histogram.rows)
    for tick in ticks(low, high):
        x = left + width * (tick - low) / ((high - low) or 1)
        parts.append(path(f"M{x:.1f} {base}v4", "rule") + text(x, base + 16, tick_label(tick)))
    parts.append(text(left + width / 2, base + 32, histogram.quantity))
    return Markup(chart("ridges", left + width + 16, base + 36, _in_words(histogram), parts))  # noqa: S704 - escaped


def curve(drawn: Curve) -> Markup:
    """A tuning curve with its axes, zero line and preferred value."""
    left, top, width, height = 52, 12, 264, 128
    xs, ys = drawn.x, drawn.y
    low, high = min(0.0, *ys), max(0.0, *ys)
    span, reach = (high - low) or 1.0, (xs[-1] - xs[0]) or 1.0
    points = [
        (left + width * (x - xs[0]) / reach, top + height * (high - y) / span) for x, y in zip(xs, ys, strict=True)
    ]
    zero = top + height * high / span
    parts = [path(f"M{left} {zero:.1f}h{width}", "rule")]
    if drawn.peak is not None:
        at = left + width * (min(max(drawn.peak, xs[0]), xs[-1]) - xs[0]) / reach
        parts.append(path(f"M{at:.1f} {top}v{height}", "peak"))
    parts.append(path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), "line"))
    if len(xs) <= 40:
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in points)
    shown = _quarters(xs[0], xs[-1]) if drawn.circular else ticks(xs[0], xs[-1])
    parts.extend(text(left + width * (tick - xs[0]) / reach, top + height + 16, tick_label(tick)) for tick in shown)
    ends = [value for value in (low, high) if abs(value) > 0.15 * span]
    parts.extend(
        text(left - 6, top + height * (high - value) / span + 4, number(value), "end") for value in [*ends, 0.0]
    )
    unit = f" ({drawn.unit})" if drawn.unit else ""
    parts.append(text(left + width / 2, top + height + 33, drawn.name + unit))
    best = max(range(len(ys)), key=ys.__getitem__)
    spoken = f"response against {drawn.name}: from {number(float(min(ys)))} to {number(float(max(ys)))}, "
    spoken += f"largest at {number(float(xs[best]))}{drawn.unit}"
    return Markup(chart("curve", left + width + 20, top + height + 38, spoken, parts))  # noqa: S704 - escaped


def image_map(drawn: ImageMap, label: Callable[[int], str]) -> Markup:
    """Images as dots on one scale in both directions, a colour for each of up to ten classes, with a legend."""
    width, highest, edge = 520, 400, 12
    xs, ys = [point.x for point in drawn.points], [point.y for point in drawn.points]
    middle = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    span = max((max(xs) - min(xs)) / (width - 2 * edge), (max(ys) - min(ys)) / (highest - 2 * edge)) or 1.0
    groups = sorted({point.group for point in drawn.points})
    coloured = len(groups) <= COLOURED
    height = max(round((max(ys) - min(ys)) / span) + 2 * edge, 16 + 20 * len(groups) if coloured else 0)
    parts = []
    for point in drawn.points:
        x, y = width / 2 + (point.x - middle[0]) / span, height / 2 - (point.y - middle[1]) / span
        kind = f"dot dot{groups.index(point.group)}" if coloured else "dot"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        if point.wrong:
            parts.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="7"/>')
    for at, group in enumerate(groups if coloured else []):
        y = 16 + 20 * at
        parts.append(f'<circle class="dot dot{at}" cx="{width + 16}" cy="{y}" r="5"/>')
        parts.append(text(width + 28, y + 5, _short(label(group)), "start"))
    spoken = f"{count(len(drawn.points), 'image')} of {count(len(groups), 'class')} as dots on a plane"
    return Markup(chart("image-map", width + (160 if coloured else 0), height, spoken, parts))  # noqa: S704 - escaped


_FLOOR = 4  # decades below the largest; smaller singular values are drawn on the axis


def spectrum(drawn: Spectrum) -> Markup:
    """Singular values by their place, a line for each matrix, on a logarithmic scale relative to the largest.

    The scale ends at the decade below the smallest value, at the latest at 1e-4.
    """
    left, top, width, height = 52, 12, 360, 160
    least = min((max(values[-1] / values[0], 10.0**-_FLOOR) for _, values in drawn.curves), default=1.0)
    decades = min(_FLOOR, max(1, math.ceil(-math.log10(least) - 1e-9)))
    parts = []
    marks = [10.0**-decade for decade in range(decades + 1)] + ([0.5, 0.2] if decades == 1 else [])
    for mark in marks:
        y = top - height * math.log10(mark) / decades
        parts.append(path(f"M{left} {y:.1f}h{width}", "rule") + text(left - 6, y + 4, f"{mark:g}", "end"))
    for at, (_, values) in enumerate(drawn.curves):
        step = width / max(1, len(values) - 1)
        heights = [
            top + height * min(decades, -math.log10(max(value / values[0], 10.0**-_FLOOR))) / decades
            for value in values
        ]
        points = [(left + step * place, y) for place, y in enumerate(heights)]
        if len(points) == 1:
            points.append((left + width, heights[0]))
        data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(path(data, f"line line{at % 6}"))
    parts.append(text(left + width / 2, top + height + 20, "direction, from the strongest to the weakest"))
    spoken = "; ".join(
        f"{name}: smallest {number(values[-1] / values[0])} of the largest" for name, values in drawn.curves
    )
    return Markup(chart("spectrum", left + width + 20, top + height + 26, f"singular values. {spoken}", parts))  # noqa: S704 - escaped


def _quarters(low: float, high: float) -> list[float]:
    """Ticks every 45 degrees."""
    return [float(angle) for angle in range(math.ceil(low / 45) * 45, math.floor(high) + 1, 45)]


def _short(name: str) -> str:
    return name if len(name) <= 15 else name[:14] + "…"


def _in_words(histogram: Histogram) -> str:
    """What the histogram says, for those who cannot see it."""
    edges = histogram.edges
    centres = [(edges[at] + edges[at + 1]) / 2 for at in range(len(edges) - 1)]
    means = []
    for name, _, counts in histogram.rows:
        many = sum(counts)
        if many:
            means.append((sum(n * x for n, x in zip(counts, centres, strict=True)) / many, name))
    strongest = ", ".join(f"{name} (mean {number(float(mean))})" for mean, name in sorted(means, reverse=True)[:3])
    return f"{histogram.quantity} by {count(len(histogram.rows), 'class')}; strongest: {strongest}"
