"""How do small charts become SVG? Drawn from numbers, since thousands of unit pages each hold several."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from microtome.atlas.pages import Curve, Histogram
from microtome.atlas.site.numbers import count, number


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
    bins = len(histogram.edges) - 1
    left, width, row, top = 96, 448, 26, 4
    most = max((max(counts) for _, _, counts in histogram.rows), default=0) or 1
    low, high = histogram.edges[0], histogram.edges[-1]
    height = top + row * len(histogram.rows) + 34
    parts = [f'<svg class="chart ridges" viewBox="0 0 {left + width + 16} {height}" role="img" aria-label="{_heard(histogram)}">']
    for index, (name, _, counts) in enumerate(histogram.rows):
        base = top + row * (index + 1)
        step = width / bins
        path = "".join(
            f"M{left + step * at:.1f} {base}v{-(row - 4) * math.sqrt(many / most):.1f}h{step - 0.6:.1f}V{base}z"
            for at, many in enumerate(counts)
            if many
        )
        text = f'<text x="{left - 8}" y="{base - 5}" text-anchor="end">{escape(_short(name))}</text>'
        parts.append(f'<a href="{escape(hrefs[index])}">{text}</a>' if hrefs[index] else text)
        parts.append(f'<path class="rule" d="M{left} {base}h{width}"/><path class="fill" d="{path}"/>')
    base = top + row * len(histogram.rows)
    parts.extend(
        f'<path class="rule" d="M{left + width * (tick - low) / ((high - low) or 1):.1f} {base}v4"/>'
        f'<text x="{left + width * (tick - low) / ((high - low) or 1):.1f}" y="{base + 16}" text-anchor="middle">{number(tick)}</text>'
        for tick in ticks(low, high)
    )
    parts.append(f'<text x="{left + width / 2}" y="{base + 31}" text-anchor="middle">{escape(histogram.quantity)}</text></svg>')
    return Markup("".join(parts))  # noqa: S704 - names are escaped


def curve(drawn: Curve) -> Markup:
    """A tuning curve with its axes, zero line and preferred value."""
    left, top, width, height = 52, 12, 264, 128
    xs = [*drawn.x]
    ys = [*drawn.y]
    low, high = min(0.0, *ys), max(0.0, *ys)
    span = (high - low) or 1.0
    reach = (xs[-1] - xs[0]) or 1.0

    def across(value: float) -> float:
        return left + width * (value - xs[0]) / reach

    def down(value: float) -> float:
        return top + height * (high - value) / span

    line = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in zip(xs, ys, strict=True))
    best = max(range(len(ys)), key=ys.__getitem__)
    heard = f"response against {drawn.name}: from {number(float(min(ys)))} to {number(float(max(ys)))}, largest at {number(float(xs[best]))}{drawn.unit}"
    parts = [
        f'<svg class="chart curve" viewBox="0 0 {left + width + 20} {top + height + 38}" role="img" aria-label="{escape(heard)}">',
        f'<path class="rule" d="M{left} {down(0):.1f}h{width}"/>',
    ]
    if drawn.peak is not None:
        at = min(max(drawn.peak, xs[0]), xs[-1])
        parts.append(f'<path class="peak" d="M{across(at):.1f} {top}v{height}"/>')
    parts.append(f'<path class="line" d="M{line}"/>')
    if len(xs) <= 40:
        parts.extend(f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="2.2"/>' for x, y in zip(xs, ys, strict=True))
    shown = _quarters(xs[0], xs[-1]) if drawn.circular else ticks(xs[0], xs[-1])
    parts.extend(
        f'<text x="{across(tick):.1f}" y="{top + height + 16}" text-anchor="middle">{number(tick)}</text>' for tick in shown
    )
    parts.extend(
        f'<text x="{left - 6}" y="{down(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>' for tick in {low, high, 0.0}
        if tick in (low, high) or abs(tick - low) > 0.15 * span < abs(high - tick)
    )
    unit = f" ({escape(drawn.unit)})" if drawn.unit else ""
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 33}" text-anchor="middle">{escape(drawn.name)}{unit}</text></svg>'
    )
    return Markup("".join(parts))  # noqa: S704 - names are escaped


def ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two.

    Examples
    --------
    >>> ticks(0, 10), ticks(-0.3, 1.1)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 0.5, 1.0])
    """
    if not high > low:
        return [float(low)]
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.8)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def _quarters(low: float, high: float) -> list[float]:
    """Ticks every 45 degrees."""
    return [float(angle) for angle in range(math.ceil(low / 45) * 45, math.floor(high) + 1, 45)]


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _heard(histogram: Histogram) -> str:
    """What the histogram says, for those who cannot see it."""
    centres = [(low + high) / 2 for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)]
    means = []
    for name, _, counts in histogram.rows:
        many = sum(counts)
        if many:
            means.append((sum(c * x for c, x in zip(counts, centres, strict=True)) / many, name))
    strongest = ", ".join(f"{name} (mean {number(float(mean))})" for mean, name in sorted(means, reverse=True)[:3])
    return str(escape(f"{histogram.quantity} by {count(len(histogram.rows), 'class')}; strongest: {strongest}"))
