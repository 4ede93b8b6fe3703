"""Labels of tuned units: "line at 45°", "right side of a vertical line"."""

from __future__ import annotations

import math

NOT_SELECTIVE = "not selective"
NEARLY = 11.25  # a line is called horizontal or vertical within this many degrees

_SIDES = ("right", "upper right", "upper", "upper left", "left", "lower left", "lower", "lower right")


def line(angle: float, *, dark: bool = False) -> str:
    """Label of a line: its angle, rounded to 5 degrees.

    Examples
    --------
    >>> line(44), line(91), line(178), line(30, dark=True)
    ('line at 45°', 'line at 90° (vertical)', 'line at 0° (horizontal)', 'dark line at 30°')
    """
    rounded = _rounded(angle, 180)
    special = {0: " (horizontal)", 90: " (vertical)"}.get(rounded, "")
    return f"{'dark ' if dark else ''}line at {rounded}°{special}"


def side(direction: float) -> str:
    """Name of the nearest of eight directions.

    Examples
    --------
    >>> side(2), side(92), side(181), side(-90), side(135)
    ('right', 'upper', 'left', 'lower', 'upper left')
    """
    return _SIDES[round(direction / 45) % 8]


def edge(direction: float) -> str:
    """Label of an edge: the side of a bright region; ``direction`` points from bright to dark.

    Examples
    --------
    >>> edge(0), edge(268)
    ('right side of a vertical line', 'lower side of a horizontal line')
    >>> edge(135)
    'upper left side of a line at 45°'
    """
    orientation = (direction + 90) % 180
    if min(orientation, 180 - orientation) <= NEARLY:
        return f"{'upper' if math.sin(math.radians(direction)) > 0 else 'lower'} side of a horizontal line"
    if abs(orientation - 90) <= NEARLY:
        return f"{'right' if math.cos(math.radians(direction)) > 0 else 'left'} side of a vertical line"
    return f"{side(direction)} side of a line at {_rounded(orientation, 180)}°"


def grating(angle: float, period: float) -> str:
    """Label of a grating: the angle of its stripes, and its period."""
    return f"grating at {_rounded(angle, 180)}°, period {period:.3g} px"


def pointing(what: str, direction: float, *, dark: bool = False) -> str:
    """Label of a corner or curve: its direction.

    Examples
    --------
    >>> pointing("corner", 45), pointing("curve", 180, dark=True)
    ('corner pointing upper right', 'dark curve pointing left')
    """
    way = {"upper": "up", "lower": "down"}.get(side(direction), side(direction))
    return f"{'dark ' if dark else ''}{what} pointing {way}"


def blob(width: float, *, dark: bool = False) -> str:
    """Label of a blob: its diameter."""
    return f"{'dark ' if dark else ''}blob, {width:.3g} px"


def _rounded(angle: float, period: int) -> int:
    return int(5 * round(angle / 5)) % period
