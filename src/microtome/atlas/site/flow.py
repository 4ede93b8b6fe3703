"""How is a network drawn left to right? Blocks in execution order, arcs where a value skips ahead."""

from __future__ import annotations

import math
from collections.abc import Callable

from markupsafe import Markup, escape

from microtome.atlas.pages import Block
from microtome.atlas.site.numbers import count, number, percent

STEP, BOX, MIDDLE = 136, 96, 84  # a block's pitch, the room for its solid, the solids' middle line


def flow(blocks: tuple[Block, ...], href: Callable[[str], str | None]) -> Markup:
    """Draw the network.

    A solid's height follows the map's height and its width the number of units, both on a square
    root scale; the bar below it is the layer's share of all parameters. Values that skip layers run
    in an arc above, the higher the farther.

    Parameters
    ----------
    blocks : tuple of Block
        The layers.
    href : callable
        A layer's name to its page, or None.
    """
    place = {block.name: index for index, block in enumerate(blocks)}
    skips = [(place[name], at) for at, block in enumerate(blocks) for name in block.inputs if name in place and at - place[name] > 1]
    lift = 12 + 10 * _tallest(skips)
    total = sum(block.parameters for block in blocks) or 1
    sides = [_side(block.shape) for block in blocks]
    widest = max((block.units for block in blocks), default=1)
    width, height = STEP * len(blocks) + 8, lift + 248
    parts = [f'<svg class="flow" width="{width}" height="{height}" viewBox="0 0 {width} {height}">']
    parts.extend(_arc(start, end, lift) for start, end in skips)
    for index, block in enumerate(blocks):
        tall = 10 + 82 * math.sqrt(sides[index] / (max(sides) or 1))
        wide = 8 + 56 * math.sqrt(block.units / widest)
        parts.append(_block(block, index, tall, wide, lift, block.parameters / total, href(block.name)))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - names are escaped


def _block(block: Block, index: int, tall: float, wide: float, lift: int, share: float, href: str | None) -> str:
    left = 8 + STEP * index
    middle = lift + MIDDLE - 32
    centre = left + BOX / 2 + 8
    lines = [_shape(block.shape), block.field and f"sees {block.field}", _parameters(block, share)]
    warnings = [f"{count(many, 'unit')} {what}" for many, what in ((block.dead, "dead"), (block.saturated, "always on")) if many]
    if block.condition_number is not None:
        lines.append(f"condition {number(float(block.condition_number))}")
    texts = [line for line in lines if line]
    below = lift + 122
    body = [
        f'<rect class="hit" x="{left}" y="{lift - 4}" width="{STEP - 16}" height="{244}" rx="4"/>',
        f'<rect class="solid k-{_family(block.kind)}" x="{centre - wide / 2:.1f}" y="{middle + 2 - tall / 2:.1f}" '
        f'width="{wide:.1f}" height="{tall:.1f}" rx="2"/>',
        f'<text class="name" x="{centre}" y="{below}" text-anchor="middle">{escape(_short(block.name))}</text>',
        f'<text x="{centre}" y="{below + 17}" text-anchor="middle">{escape(_short(block.kind))}</text>',
    ]
    body += [
        f'<text x="{centre}" y="{below + 34 + 16 * row}" text-anchor="middle">{escape(text)}</text>' for row, text in enumerate(texts)
    ]
    body += [
        f'<text class="warn" x="{centre}" y="{below + 34 + 16 * (len(texts) + row)}" text-anchor="middle">{escape(text)}</text>'
        for row, text in enumerate(warnings)
    ]
    if block.parameters:
        body.append(f'<rect class="track" x="{left + 8}" y="{lift + 102}" width="{BOX}" height="4"/>')
        body.append(f'<rect class="share" x="{left + 8}" y="{lift + 102}" width="{max(1.0, BOX * share):.1f}" height="4"/>')
    arrow = f'<path class="wire" d="M{centre + wide / 2 + 4:.1f} {middle + 2}H{left + STEP + 2}"/>'
    heard = escape(", ".join([block.name, block.kind, *texts, *warnings]))
    inside = f"<title>{heard}</title>{''.join(body)}"
    linked = f'<a href="{escape(href)}" aria-label="{heard}">{inside}</a>' if href else f"<g>{inside}</g>"
    return linked + arrow


def _arc(start: int, end: int, lift: int) -> str:
    left, right = 8 + STEP * start + STEP - 28, 8 + STEP * end + 24
    top = lift - 4 - 10 * min(6, math.log2(end - start))
    middle = lift + 4
    return f'<path class="wire skip" d="M{left} {middle}C{left} {top:.0f} {right} {top:.0f} {right} {middle}"/>'


def _tallest(skips: list[tuple[int, int]]) -> int:
    return max((math.ceil(min(6, math.log2(end - start))) for start, end in skips), default=0)


def _side(shape: tuple[int, ...]) -> float:
    return math.sqrt(shape[-1] * shape[-2]) if len(shape) == 3 else 1.0


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _parameters(block: Block, share: float) -> str:
    return f"{_compact(block.parameters)} weights, {percent(share)}" if block.parameters else ""


def _compact(value: int) -> str:
    """A large number in the room of a block."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= 10 * size:
            return f"{value / size:.0f} {letter}"
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)


def _short(name: str) -> str:
    return name if len(name) <= 18 else "…" + name[-17:]


def _family(kind: str) -> str:
    """Which colour a layer's solid has: weights, shape or function."""
    lowered = kind.lower()
    if "conv" in lowered:
        return "conv"
    if "linear" in lowered or "attention" in lowered:
        return "linear"
    return "pool" if "pool" in lowered or "mean" in lowered else "other"
