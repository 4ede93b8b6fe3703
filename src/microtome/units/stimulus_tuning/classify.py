"""Which kind of pattern is a unit tuned to? From its tuning curves to a family, an angle and a bandwidth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.units.stimulus_tuning import circular, labels

ORIENTED = 0.2  # resultant length from which a curve counts as having a direction; two functions may cancel in it,
PRONOUNCED = 0.6  # so that a peak this far above its floor, (max - min) / (max + min), counts as well
ONE_SIDED = 0.3  # (E - E') / (E + E') of opposite edges from which a unit answers to a side and not to a line
RICHER = 1.15  # how much stronger a richer pattern must drive a unit than the line or edge that is part of it
SECOND = 0.6  # share of the main response from which another pattern is a secondary function
APART = 35.0  # degrees between the orientations of a main and a secondary function
BRIGHTNESS = 0.25  # pattern response below this share of the response to brightness: brightness alone counts


@dataclass(frozen=True)
class Curve:
    """Responses of every unit over the angles of one family, the largest over everything else that varies.

    Attributes
    ----------
    family : str
    polarity, width : float
        Of the stimuli behind the curve.
    angles : Tensor
        (A,) degrees: orientation, or direction for edges, corners and curves.
    period : float
        180 or 360.
    values : Tensor
        (U, A), negative responses as 0.
    columns : Tensor
        Which stimuli are behind the curve.
    """

    family: str
    polarity: float
    width: float
    angles: Tensor
    period: float
    values: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Finding:
    """What one unit is tuned to.

    Attributes
    ----------
    family : str
        A family of stimuli, ``"brightness"``, or ``""`` for nothing.
    label : str
    strength : float
        Response to the best stimulus of the kind.
    angle, direction, bandwidth : float
        Degrees, NaN where they have no meaning.
    best : int
        Column of the best stimulus.
    """

    family: str
    label: str
    strength: float
    angle: float = math.nan
    direction: float = math.nan
    bandwidth: float = math.nan
    best: int = 0


def curves(response: Tensor, family: tuple[str, ...], shown: dict[str, Tensor]) -> list[Curve]:
    """All angular tuning curves: one for every family, polarity and width, as the stimuli have them."""
    found = []
    for name, period in (("line", 180.0), ("grating", 180.0), ("edge", 360.0), ("corner", 360.0), ("curve", 360.0)):
        axis = shown["angle"] if period == 180.0 else shown["side"]
        mine = torch.tensor([entry == name for entry in family])
        groups = {(float(shown["polarity"][i]), float(shown["width"][i].nan_to_num(0))) for i in mine.nonzero()[:, 0]}
        for polarity, width in sorted(groups):
            columns = (mine & (shown["polarity"] == polarity) & (shown["width"].nan_to_num(0) == width)).nonzero()[:, 0]
            angles = axis[columns].unique()
            values = torch.stack([response[:, columns[axis[columns] == angle]].amax(1) for angle in angles], 1)
            found.append(Curve(name, polarity, width, angles, period, values.clamp(min=0), columns))
    return found


def classify(response: Tensor, brightness: Tensor, family: tuple[str, ...], shown: dict[str, Tensor]) -> list[Finding]:
    """Decide for every unit; see ``units.tuning`` for the rules in words."""
    every = curves(response, family, shown)
    blobs = torch.tensor([name == "blob" for name in family])
    scale = float(response.abs().max()) if response.numel() else 0.0
    return [
        _finding(unit, response[unit], float(brightness[unit]), every, blobs, shown, scale)
        for unit in range(len(response))
    ]


def _finding(
    unit: int, row: Tensor, brightness: float, every: list[Curve], blobs: Tensor, shown: dict[str, Tensor], scale: float
) -> Finding:
    strongest = int(row.argmax())
    if float(row[strongest]) < BRIGHTNESS * abs(brightness):
        name = "brightness" if brightness > 0 else "darkness"
        return Finding("brightness", name, abs(brightness), best=strongest)
    if float(row[strongest]) <= 1e-6 * scale or scale == 0:
        return Finding("", labels.NOT_SELECTIVE, 0.0)
    simple = [_line(unit, row, every, sign) for sign in (1.0, -1.0)]
    straight = [finding for finding in (_edge(unit, row, every), *simple) if finding is not None]
    richer = [_grating(unit, row, every), *(_pointing(unit, row, every, kind) for kind in ("corner", "curve"))]
    richer.append(_blob(row, blobs, shown))
    primary = _strongest(straight, [finding for finding in richer if finding is not None], float(row[strongest]))
    if primary is None:
        return Finding("", labels.NOT_SELECTIVE, float(row[strongest]), best=strongest)
    return primary


def _strongest(straight: list[Finding], richer: list[Finding], top: float) -> Finding | None:
    """The line or edge, unless a richer pattern drives the unit clearly more."""
    plain = next((finding for finding in straight if finding.family == "edge"), None)
    plain = plain or max(straight, key=lambda finding: finding.strength, default=None)
    rich = max(richer, key=lambda finding: finding.strength, default=None)
    if plain is None:
        return rich if rich is not None and rich.strength * RICHER >= top else None
    return rich if rich is not None and rich.strength > RICHER * plain.strength else plain


def _line(unit: int, row: Tensor, every: list[Curve], polarity: float) -> Finding | None:
    """A line: the width whose curve swings most with the angle."""
    mine = [curve for curve in every if curve.family == "line" and curve.polarity == polarity]
    chosen = _most_oriented(unit, mine)
    if chosen is None:
        return None
    _, angle, width, strength = chosen
    columns = torch.cat([entry.columns for entry in mine])
    name = labels.line(angle, dark=polarity < 0)
    return Finding("line", name, strength, angle, math.nan, width, _best(row, columns))


def _edge(unit: int, row: Tensor, every: list[Curve]) -> Finding | None:
    """An edge: opposite edges drive the unit unequally, and an edge drives it nearly as much as a line does."""
    mine = [curve for curve in every if curve.family == "edge"]
    chosen = _most_oriented(unit, mine)
    if chosen is None:
        return None
    curve, direction, width, strength = chosen
    values = curve.values[unit]
    opposite = float(values[(int(values.argmax()) + len(values) // 2) % len(values)])
    lines = max((float(entry.values[unit].max()) for entry in every if entry.family == "line"), default=0.0)
    if strength - opposite < ONE_SIDED * (strength + opposite) or strength < lines / 2:
        return None
    name = labels.edge(direction)
    return Finding("edge", name, strength, (direction + 90) % 180, direction, width, _best(row, curve.columns))


def _grating(unit: int, row: Tensor, every: list[Curve]) -> Finding | None:
    mine = [curve for curve in every if curve.family == "grating"]
    chosen = _most_oriented(unit, mine)
    if chosen is None:
        return None
    curve, angle, width, strength = chosen
    name = labels.grating(angle, curve.width)
    return Finding("grating", name, strength, angle, math.nan, width, _best(row, curve.columns))


def _pointing(unit: int, row: Tensor, every: list[Curve], kind: str) -> Finding | None:
    """A corner or curve by its direction."""
    chosen = _most_oriented(unit, [curve for curve in every if curve.family == kind])
    if chosen is None:
        return None
    curve, direction, width, strength = chosen
    name = labels.pointing(kind, direction, dark=curve.polarity < 0)
    return Finding(kind, name, strength, math.nan, direction, width, _best(row, curve.columns))


def _blob(row: Tensor, blobs: Tensor, shown: dict[str, Tensor]) -> Finding | None:
    if not bool(blobs.any()):
        return None
    best = _best(row, blobs.nonzero()[:, 0])
    if float(row[best]) <= 0:
        return None
    name = labels.blob(float(shown["width"][best]), dark=float(shown["polarity"][best]) < 0)
    return Finding("blob", name, float(row[best]), best=best)


def _most_oriented(unit: int, mine: list[Curve]) -> tuple[Curve, float, float, float] | None:
    """The curve that swings most, its preferred angle, bandwidth and peak; None where none has a direction."""
    best: tuple[Curve, float] | None = None
    for curve in mine:
        values = curve.values[unit]
        low, high = float(values.min()), float(values.max())
        _, length = circular.mean_direction(values, curve.angles, curve.period)
        oriented = float(length) >= ORIENTED or high - low > PRONOUNCED * (high + low)
        swing = high - low
        if oriented and high > 0 and (best is None or swing > best[1]):
            best = (curve, swing)
    if best is None:
        return None
    curve, values = best[0], best[0].values[unit]
    angle = circular.peak(values, curve.angles, curve.period)
    return curve, angle, float(circular.bandwidth(values, curve.period)), float(values.max())


def _best(row: Tensor, columns: Tensor) -> int:
    return int(columns[row[columns].argmax()])


def secondary(
    findings: list[Finding], response: Tensor, family: tuple[str, ...], shown: dict[str, Tensor]
) -> tuple[str, ...]:
    """The second function of each unit: another peak of its line or edge curves, elsewhere and nearly as high."""
    every = [curve for curve in curves(response, family, shown) if curve.family in ("line", "edge")]
    return tuple(_second(unit, finding, every) for unit, finding in enumerate(findings))


def _second(unit: int, finding: Finding, every: list[Curve]) -> str:
    if math.isnan(finding.angle):
        return ""
    rivals: list[tuple[float, str]] = []
    for curve in every:
        values = curve.values[unit].tolist()
        for index, value in enumerate(values):
            neighbours = (values[index - 1], values[(index + 1) % len(values)])
            orientation = (float(curve.angles[index]) + (90 if curve.period == 360 else 0)) % 180
            apart = abs((orientation - finding.angle + 90) % 180 - 90)
            if value < SECOND * finding.strength or value < max(neighbours) or apart < APART:
                continue
            near = circular.angular_difference(curve.angles, curve.angles[index], curve.period) < APART
            top = circular.peak(curve.values[unit] * near, curve.angles, curve.period)
            rivals.append((value, _named(curve, top)))
    return max(rivals)[1] if rivals else ""


def _named(curve: Curve, angle: float) -> str:
    return labels.edge(angle) if curve.family == "edge" else labels.line(angle, dark=curve.polarity < 0)
