"""Antialiased shapes: the covered area of each pixel for lines, half planes, wedges, arcs and discs."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def plane(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixel centres: x to the right, y upwards, (0, 0) in the middle of the image.

    Examples
    --------
    >>> x, y = plane(3, 3)
    >>> x[0].tolist(), y[:, 0].tolist()
    ([-1.0, 0.0, 1.0], [1.0, 0.0, -1.0])
    """
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64, device="cpu")
    x = torch.arange(width, dtype=torch.float64, device="cpu") - (width - 1) / 2
    return x.expand(height, width), y[:, None].expand(height, width)


def along(x: Tensor, y: Tensor, angle: float) -> Tensor:
    """Coordinate in the direction ``angle``, in degrees counterclockwise from the right."""
    radians = math.radians(angle)
    return x * math.cos(radians) + y * math.sin(radians)


def across(x: Tensor, y: Tensor, angle: float) -> Tensor:
    """Signed distance from the line through the middle at ``angle``; positive to the left of its direction."""
    return along(x, y, angle + 90)


def band(distance: Tensor, width: float) -> Tensor:
    """Coverage by a band of ``width`` pixels: the overlap of the band with the pixel across the band."""
    low = torch.clamp(distance - 0.5, min=-width / 2)
    high = torch.clamp(distance + 0.5, max=width / 2)
    return torch.clamp(high - low, 0, 1)


def inside(distance: Tensor) -> Tensor:
    """Coverage by a region with this signed distance, which is negative inside."""
    return torch.clamp(0.5 - distance, 0, 1)


def wedge(x: Tensor, y: Tensor, tip: float, opening: float) -> Tensor:
    """Coverage by a filled corner in the middle: its tip points to ``tip``, its opening is ``opening`` degrees."""
    sides = (tip - 90 + opening / 2, tip + 90 - opening / 2)  # the outward normals of its two sides
    return inside(torch.maximum(along(x, y, sides[0]), along(x, y, sides[1])))


def arc(x: Tensor, y: Tensor, bulge: float, radius: float, width: float, extent: float = 180.0) -> Tensor:
    """Coverage by a stroke along an arc of a circle through the middle, convex towards ``bulge``."""
    radians = math.radians(bulge)
    from_x, from_y = x + radius * math.cos(radians), y + radius * math.sin(radians)
    distance = torch.hypot(from_x, from_y)
    angle = torch.atan2(across(from_x, from_y, bulge), along(from_x, from_y, bulge)).abs()
    beyond = (angle - math.radians(extent / 2)) * radius
    return band(distance - radius, width) * inside(beyond)


def disc(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Coverage by a disc in the middle."""
    return inside(torch.hypot(x, y) - radius)


def wave(distance: Tensor, period: float, phase: float) -> Tensor:
    """A sinusoid between 0 and 1 across a grating; ``phase`` is in degrees, and 0 puts a crest in the middle."""
    return 0.5 + 0.5 * torch.cos(2 * math.pi * distance / period + math.radians(phase))
