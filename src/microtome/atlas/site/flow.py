"""The drawing of a network from left to right: blocks in execution order, arcs for skip connections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from microtome.atlas.site.numbers import count
from microtome.atlas.site.svg import box, linked, path, text
from microtome.atlas.widgets import Block, Picture

MAJOR, MINOR = 128, 96  # width of a block with weights or a page, and of one without
SOLID = 96  # height of the room for solids
LINE = 17


@dataclass(frozen=True)
class _Placed:
    """A block with its place on the drawing."""

    block: Block
    left: float
    width: float
    tall: float
    wide: float
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    href: str | None

    @property
    def centre(self) -> float:
        return self.left + self.width / 2

    @property
    def room(self) -> int:
        """Letters that fit below the solid."""
        return 16 if self.width == MAJOR else 12


def flow(blocks: tuple[Block, ...], href: Callable[[str], str | None], picture: Callable[[Picture], Markup]) -> Markup:
    """Draw the network, and below each block the pictures of its units.

    A solid's height follows the map's height and its width the number of units, both on a square
    root scale; the bar below it is the layer's share of all parameters. Values that skip blocks run
    in an arc above, the higher the farther.

    Parameters
    ----------
    blocks : tuple of Block
        The layers.
    href : callable
        A layer's name to its page, or None.
    picture : callable
        A picture to its HTML.
    """
    place = {block.name: at for at, block in enumerate(blocks)}
    skips = [
        (place[name], at) for at, block in enumerate(blocks) for name in block.inputs if at - place.get(name, at) > 1
    ]
    lift = 8 + 14 * max((_rise(end - start) for start, end in skips), default=0)
    placed = _place(blocks, href)
    width = placed[-1].left + placed[-1].width + 8 if placed else 8
    height = lift + SOLID + 20 + LINE * max((1 + len(p.lines) + len(p.warnings) for p in placed), default=0) + 8
    parts = [f'<svg class="flow" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">']
    parts.extend(_arc(placed[start], placed[end], end - start, lift) for start, end in skips)
    parts.extend(_wire(before, after, lift + SOLID / 2) for before, after in pairwise(placed))
    total = sum(block.parameters for block in blocks) or 1
    parts.extend(_drawn(p, p.block.parameters / total, lift, height) for p in placed)
    parts.append("</svg>")
    if any(block.pictures for block in blocks):
        columns = (
            f'<div style="width:{p.width:g}px">{"".join(picture(one) for one in p.block.pictures)}</div>'
            for p in placed
        )
        parts.append(f'<div class="columns" style="width:{width:g}px">{"".join(columns)}</div>')
    return Markup("".join(parts))  # noqa: S704 - names are escaped


def _place(blocks: tuple[Block, ...], href: Callable[[str], str | None]) -> list[_Placed]:
    """Blocks side by side: those without weights or page are narrow and say little."""
    highest = max((_side(block.shape) for block in blocks), default=1)
    most = max((block.units for block in blocks), default=1) or 1
    total = sum(block.parameters for block in blocks) or 1
    placed, left = [], 4.0
    for block in blocks:
        link = href(block.name)
        major = bool(link or block.parameters)
        width = MAJOR if major else MINOR
        wide = (10 + 62 * math.sqrt(block.units / most)) * (1 if major else 0.6)
        tall = 8 + (SOLID - 12) * math.sqrt(_side(block.shape) / highest)
        lines = _lines(block, total) if major else ("×".join(map(str, block.shape)),)
        placed.append(_Placed(block, left, width, tall, wide, lines, _warnings(block), link))
        left += width
    return placed


def _lines(block: Block, total: int) -> tuple[str, ...]:
    lines = [" × ".join(map(str, block.shape)), block.field and f"sees {block.field}"]
    if block.parameters:
        lines.append(f"{_compact(block.parameters)} weights")
    return tuple(line for line in lines if line)


def _warnings(block: Block) -> tuple[str, ...]:
    return tuple(
        f"{count(n, 'unit')} {what}" for n, what in ((block.dead, "dead"), (block.saturated, "always on")) if n
    )


def _drawn(p: _Placed, share: float, lift: float, height: float) -> str:
    middle, below = lift + SOLID / 2, lift + SOLID + 27
    bar, base = p.width - 32, lift + SOLID + 4
    body = [
        box("hit", p.left + 2, lift - 4, p.width - 4, height - lift, 4),
        box(f"solid k-{_family(p.block.kind)}", p.centre - p.wide / 2, middle - p.tall / 2, p.wide, p.tall, 2),
    ]
    if p.block.parameters:
        body += [box("whole", p.left + 16, base, bar, 4), box("share", p.left + 16, base, max(1.0, bar * share), 4)]
    texts = [(_short(p.block.name, p.room), "name" if p.width == MAJOR else "")]
    texts += [(line, "") for line in p.lines] + [(line, "warn") for line in p.warnings]
    body += [text(p.centre, below + LINE * row, line, kind=kind) for row, (line, kind) in enumerate(texts)]
    spoken = ", ".join(dict.fromkeys([p.block.name, p.block.kind, *p.lines, *p.warnings]))
    return linked(f"<title>{escape(spoken)}</title>{''.join(body)}", p.href, spoken)


def _wire(before: _Placed, after: _Placed, middle: float) -> str:
    """From one block to the next, if the next reads it."""
    if before.block.name not in after.block.inputs:
        return ""
    start, end = before.centre + before.wide / 2 + 4, after.centre - after.wide / 2 - 4
    return path(f"M{start:.1f} {middle:g}H{end:.1f}m-4 -4 4 4 -4 4", "wire")


def _arc(start: _Placed, end: _Placed, distance: int, lift: float) -> str:
    """Over the blocks between; a cubic's middle lies at three quarters of its handles' height."""
    top, base = lift - 4 - 14 * _rise(distance) * 4 / 3, lift + 4
    at, to = start.centre + start.wide / 2, end.centre - end.wide / 2
    line = f"M{at:.1f} {base:g}C{at + 8:.1f} {top:.1f} {to - 8:.1f} {top:.1f} {to:.1f} {base:g}"
    return path(line + "m-4 -5 4 5 3 -6", "wire skip")


def _rise(distance: int) -> float:
    return min(5.0, math.log2(distance))


def _side(shape: tuple[int, ...]) -> float:
    return math.sqrt(shape[-1] * shape[-2]) if len(shape) == 3 else 1.0


def _compact(value: int) -> str:
    """A large number in the room of a block.

    Examples
    --------
    >>> _compact(416), _compact(2408), _compact(51264), _compact(4652008)
    ('416', '2.4 k', '51 k', '4.7 M')
    """
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f} {letter}"
    return str(value)


def _short(name: str, room: int) -> str:
    """A name's end, since names of layers differ there."""
    return name if len(name) <= room else "…" + name[1 - room :]


def _family(kind: str) -> str:
    """Which colour a layer's solid has: weights, shape or function."""
    lowered = kind.lower()
    if "conv" in lowered:
        return "conv"
    if "linear" in lowered or "attention" in lowered:
        return "linear"
    return "pool" if "pool" in lowered or "mean" in lowered else "other"
