"""SVG elements: escaped text, paths, rectangles, links."""

from __future__ import annotations

from markupsafe import escape


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "") -> str:
    """A line of text.

    Examples
    --------
    >>> text(1, 2.5, "a < b")
    '<text x="1" y="2.5" text-anchor="middle">a &lt; b</text>'
    """
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.5g}" y="{y:.5g}" text-anchor="{anchor}">{escape(content)}</text>'


def path(data: str, kind: str) -> str:
    """A path in one of the style's classes."""
    return f'<path class="{kind}" d="{data}"/>'


def box(kind: str, left: float, top: float, width: float, height: float, corner: int = 0) -> str:
    """A rectangle."""
    rounded = f' rx="{corner}"' if corner else ""
    return f'<rect class="{kind}" x="{left:.5g}" y="{top:.5g}" width="{width:.5g}" height="{height:.5g}"{rounded}/>'


def linked(content: str, href: str | None, spoken: str = "") -> str:
    """What leads to another page; as it is, if there is none."""
    label = f' aria-label="{escape(spoken)}"' if spoken else ""
    return f'<a href="{escape(href)}"{label}>{content}</a>' if href else f"<g>{content}</g>"


def chart(kind: str, width: float, height: float, spoken: str, parts: list[str]) -> str:
    """A complete drawing, with a description for screen readers; a drawing with links is a group of them."""
    role = "group" if any("<a " in part for part in parts) else "img"
    head = (
        f'<svg class="chart {kind}" viewBox="0 0 {width:.5g} {height:.5g}" role="{role}" aria-label="{escape(spoken)}">'
    )
    return "".join([head, *parts, "</svg>"])
