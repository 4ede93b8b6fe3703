"""Synthetic stimuli: lines, edges, corners, curves, gratings and blobs with known parameters.

Angles are in degrees, counterclockwise in the displayed image: 0 is horizontal, 45 rises from bottom left to
top right, 90 is vertical, 135 falls. Directions (of a corner, of the side of a line with an edge) cover the
full circle: 0 right, 90 up, 180 left, 270 down.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.results import Provenance, Result, keep_on_processor, versions
from microtome.units.stimulus_tuning import stimulus_shapes

Size = int | tuple[int, int]

FAMILIES = ("line", "edge", "corner", "curve", "grating", "blob")
PARAMETERS = ("angle", "side", "offset", "width", "phase", "polarity")
ANGLES = 16  # orientations in 180 degrees: steps of 11.25 degrees, which include the eight compass directions
NONE = math.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class Stimuli(Result, drawing="units.tuning_figures:stimuli"):
    """Pictures with known parameters. A parameter that a family does not have is NaN.

    Attributes
    ----------
    images : Tensor
        (S, C, H, W) in [0, 1].
    family : tuple of str
        (S) ``"line"``, ``"edge"``, ``"corner"``, ``"curve"``, ``"grating"`` or ``"blob"``.
    angle : Tensor
        (S,) orientation in [0, 180): of the line, of the edge's border, of a grating's stripes.
    side : Tensor
        (S,) direction in [0, 360): from bright to dark for an edge (0: the right side of a bright
        region); the direction of the tip of a corner; the convex side of a curve.
    offset : Tensor
        (S,) distance in pixels from the middle: across the line, positive to the left of its direction
        (up for a horizontal line); in the direction of ``side`` for edges.
    width : Tensor
        (S,) pixels: width of the stroke, period of a grating, diameter of a blob.
    phase : Tensor
        (S,) phase of a grating in degrees; radius of a curve in pixels; opening of a corner in degrees.
    polarity : Tensor
        (S,) 1 bright on dark, -1 dark on bright.
    """

    images: Tensor
    family: tuple[str, ...]
    angle: Tensor
    side: Tensor
    offset: Tensor
    width: Tensor
    phase: Tensor
    polarity: Tensor

    def __post_init__(self) -> None:
        keep_on_processor(self)

    def __len__(self) -> int:
        """Number of stimuli."""
        return self.images.shape[0]

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All parameters by name, each (S,)."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def mask(self, family: str) -> Tensor:
        """Mask (S,) of the stimuli of a family."""
        return torch.tensor([name == family for name in self.family], dtype=torch.bool, device="cpu")

    def describe(self, index: int) -> str:
        """One stimulus in words.

        Examples
        --------
        >>> bars(28).describe(0)
        'line, angle 0, offset 0, width 1.5, polarity 1'
        """
        pairs = [(name, float(values[index])) for name, values in self.parameters.items()]
        return ", ".join([self.family[index], *(f"{name} {value:g}" for name, value in pairs if not math.isnan(value))])


def bars(
    size: Size, *, angles: int = ANGLES, widths: Sequence[float] | None = None, offsets: Sequence[float] | None = None,
    polarities: Sequence[int] = (1, -1), channels: int = 1,
) -> Stimuli:  # fmt: skip
    """Straight lines across the whole image.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels.
    angles : int
        Number of orientations, equally spaced over 180 degrees, from 0.
    widths : sequence of float, optional
        Stroke widths in pixels; default 1.5, 3, 6, ... up to a sixth of the image.
    offsets : sequence of float, optional
        Distances from the middle; default 0, 2 pixels and a quarter of the image on both sides.
    polarities : sequence of int
        1 for bright on dark, -1 for dark on bright.
    channels : int
        Number of channels of the images; all channels are equal.

    Raises
    ------
    InputError
        When a size, width or number is not positive.

    Examples
    --------
    A horizontal line of 3 pixels fills 3 of 9 rows.

    >>> bars(9, angles=1, widths=[3], offsets=[0], polarities=[1]).images.sum().item()
    27.0
    """
    x, y = _plane(size, channels)
    widths, offsets = _widths(size, widths), _offsets(size, offsets)
    rows = []
    for sign in polarities:
        for width in widths:
            for angle in _turn(angles, 180):
                for offset in offsets:
                    cover = stimulus_shapes.band(stimulus_shapes.across(x, y, angle) - offset, width)
                    rows.append((cover, "line", angle, NONE, offset, width, NONE, sign))
    return _stimuli("bars", rows, channels, size=size, angles=angles, widths=widths, offsets=offsets)


def edges(
    size: Size, *, angles: int = ANGLES, offsets: Sequence[float] | None = None, channels: int = 1
) -> Stimuli:  # fmt: skip
    """Edges between a bright half and a dark half, in ``2 * angles`` directions of the full circle.

    ``side`` points from bright to dark: 0 is the right side of a vertical bright region (bright on the
    left, dark on the right), 90 is the upper side of a horizontal bright region.
    """
    x, y = _plane(size, channels)
    offsets = _offsets(size, offsets)
    rows = []
    for side in _turn(2 * angles, 360):
        for offset in offsets:
            cover = stimulus_shapes.inside(stimulus_shapes.along(x, y, side) - offset)
            rows.append((cover, "edge", (side + 90) % 180, side, offset, NONE, NONE, 1))
    return _stimuli("edges", rows, channels, size=size, angles=angles, offsets=offsets)


def corners(
    size: Size, *, directions: int = 16, openings: Sequence[float] = (90,), channels: int = 1,
    polarities: Sequence[int] = (1, -1),
) -> Stimuli:  # fmt: skip
    """Filled corners with the tip in the middle, in the direction ``side``; ``phase`` is the opening in degrees."""
    x, y = _plane(size, channels)
    rows = []
    for sign in polarities:
        for opening in openings:
            for side in _turn(directions, 360):
                cover = stimulus_shapes.wedge(x, y, side, opening)
                rows.append((cover, "corner", NONE, side, 0.0, NONE, opening, sign))
    return _stimuli("corners", rows, channels, size=size, directions=directions, openings=openings)


def curves(
    size: Size, *, directions: int = 16, radii: Sequence[float] | None = None, widths: Sequence[float] | None = None,
    channels: int = 1, polarities: Sequence[int] = (1, -1),
) -> Stimuli:  # fmt: skip
    """Half circles through the middle, convex towards ``side``; ``phase`` is the radius in pixels."""
    x, y = _plane(size, channels)
    short = min(_pair(size))
    radii = [short / 9, short / 5] if radii is None else radii
    widths = [max(1.5, short / 14)] if widths is None else widths
    rows = []
    for sign in polarities:
        for radius in radii:
            for width in widths:
                for side in _turn(directions, 360):
                    cover = stimulus_shapes.arc(x, y, side, radius, width)
                    rows.append((cover, "curve", NONE, side, 0.0, width, radius, sign))
    return _stimuli("curves", rows, channels, size=size, directions=directions, radii=radii, widths=widths)


def gratings(
    size: Size, *, angles: int = ANGLES, periods: Sequence[float] | None = None,
    phases: Sequence[float] = (0, 90, 180, 270), channels: int = 1,
) -> Stimuli:  # fmt: skip
    """Sinusoidal gratings: ``angle`` of the stripes, ``width`` the period in pixels, ``phase`` in degrees."""
    x, y = _plane(size, channels)
    periods = [3.0, *_doubling(4.0, min(_pair(size)) / 3)] if periods is None else periods
    rows = []
    for period in periods:
        for angle in _turn(angles, 180):
            for phase in phases:
                cover = stimulus_shapes.wave(stimulus_shapes.across(x, y, angle), period, phase)
                rows.append((cover, "grating", angle, NONE, NONE, period, phase, 1))
    return _stimuli("gratings", rows, channels, size=size, angles=angles, periods=periods, phases=phases)


def blobs(
    size: Size, *, widths: Sequence[float] | None = None, polarities: Sequence[int] = (1, -1), channels: int = 1
) -> Stimuli:
    """Discs in the middle; ``width`` is the diameter."""
    x, y = _plane(size, channels)
    widths = _doubling(1.5, min(_pair(size)) / 2) if widths is None else widths
    rows = []
    for sign in polarities:
        for width in widths:
            cover = stimulus_shapes.disc(x, y, width / 2)
            rows.append((cover, "blob", NONE, NONE, 0.0, width, NONE, sign))
    return _stimuli("blobs", rows, channels, size=size, widths=widths)


def standard(size: Size, channels: int = 1) -> Stimuli:
    """Stimuli of every family with default parameters, the default of ``units.tuning``."""
    families: list[Callable[..., Stimuli]] = [bars, edges, corners, curves, gratings, blobs]
    return joined([family(size, channels=channels) for family in families])


def joined(parts: Iterable[Stimuli]) -> Stimuli:
    """Concatenate several sets of stimuli.

    Raises
    ------
    InputError
        When there are none, or their images differ in shape.
    """
    parts = list(parts)
    sizes = {tuple(part.images.shape[1:]) for part in parts}
    if len(sizes) != 1:
        raise InputError(f"stimuli of one shape were expected, got {sorted(sizes)}; use one size for all.")
    values = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("images", *PARAMETERS)}
    parameters = {part.provenance.method: part.provenance.parameters for part in parts}
    note = dataclasses.replace(parts[0].provenance, method="joined", parameters=parameters)
    return Stimuli(provenance=note, family=tuple(name for part in parts for name in part.family), **values)


_Row = tuple[Tensor, str, float, float, float, float, float, int]


def _stimuli(method: str, rows: list[_Row], channels: int, **parameters: object) -> Stimuli:
    """Assemble the stimuli of one family."""
    if not rows:
        raise InputError(f"{method}: there is no stimulus; pass at least one angle, width, offset and polarity.")
    covers, family, angle, side, offset, width, phase, polarity = zip(*rows, strict=True)
    drawn = torch.stack([(c if sign > 0 else 1 - c).float() for c, sign in zip(covers, polarity, strict=True)])
    images = drawn[:, None].expand(-1, channels, -1, -1).contiguous()
    return Stimuli(
        provenance=Provenance(f"stimuli.{method}", {**parameters, "channels": channels}, versions=versions()),
        images=images,
        family=family,
        angle=torch.tensor(angle, dtype=torch.float32, device="cpu"),
        side=torch.tensor(side, dtype=torch.float32, device="cpu"),
        offset=torch.tensor(offset, dtype=torch.float32, device="cpu"),
        width=torch.tensor(width, dtype=torch.float32, device="cpu"),
        phase=torch.tensor(phase, dtype=torch.float32, device="cpu"),
        polarity=torch.tensor(polarity, dtype=torch.float32, device="cpu"),
    )


def _plane(size: Size, channels: int) -> tuple[Tensor, Tensor]:
    height, width = _pair(size)
    if channels < 1:
        raise InputError(f"channels must be at least 1, got {channels}.")
    return stimulus_shapes.plane(height, width)


def _pair(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 3:
        raise InputError(f"stimuli need at least 3 x 3 pixels, got {height} x {width}.")
    return int(height), int(width)


def _turn(count: int, turn: float) -> list[float]:
    if count < 1:
        raise InputError(f"at least one angle is needed, got {count}.")
    return [turn * index / count for index in range(count)]


def _doubling(first: float, last: float) -> list[float]:
    values = [first]
    while values[-1] * 2 <= last:
        values.append(values[-1] * 2)
    return values


def _widths(size: Size, widths: Sequence[float] | None) -> list[float]:
    values = _doubling(1.5, min(_pair(size)) / 6) if widths is None else [float(width) for width in widths]
    if any(not width > 0 for width in values):
        raise InputError(f"widths must be positive, got {values}.")
    return values


def _offsets(size: Size, offsets: Sequence[float] | None) -> list[float]:
    quarter = min(_pair(size)) / 4
    return [0.0, -2.0, 2.0, -quarter, quarter] if offsets is None else [float(offset) for offset in offsets]
