"""Classification of units by their tuning curves: family of stimuli, preferred angle, bandwidth, label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.units.stimulus_tuning import circular, labels

ORIENTED = 0.2  # a curve has a direction if its resultant length is at least this; two peaks may cancel in it,
PRONOUNCED = 0.6  # so a modulation (max - min) / (max + min) above this is sufficient as well
ONE_SIDED = 0.3  # a unit is tuned to a side, not to a line, if (E - E') / (E + E') of opposite edges is at least this
ONE_POLARITY = 0.15  # lines of one polarity are preferred if (L - L') / (L + L') of both polarities is above this
COMPLEX = 1.15  # a complex pattern must have this many times the response to the line or edge inside it
SECOND = 0.6  # a secondary function has at least this share of the main response
APART = 35.0  # least difference in degrees between the orientations of a main and a secondary function
UNORIENTED = 0.5  # the sharpness of a family without angles
PERIODS = 2.0  # a grating has at least this many periods in the receptive field; fewer look like a line or an edge
BRIGHTNESS = 0.25  # label by brightness if the pattern response is below this share of the response to brightness


@dataclass(frozen=True)
class Curve:
    """Responses of every unit over the angles of one family: the maximum over all other parameters.

    Attributes
    ----------
    family : str
    polarity, width : float
        Parameters of the stimuli.
    angles : Tensor
        (A,) degrees: orientation, or direction for edges, corners and curves.
    period : float
        180 or 360.
    values : Tensor
        (U, A), with negative responses set to 0.
    columns : Tensor
        Indices of the stimuli.
    """

    family: str
    polarity: float
    width: float
    angles: Tensor
    period: float
    values: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Classification:
    """The tuning of one unit.

    Attributes
    ----------
    family : str
        A family of stimuli, ``"brightness"``, or ``""`` for a unit without selectivity.
    label : str
    strength : float
        Response to the best stimulus of the family.
    angle, direction, bandwidth : float
        Degrees; NaN if the family has none.
    sharpness : float
        Resultant length of the tuning curve in [0, 1], which is 1 minus its circular variance; ``UNORIENTED`` if the
        family has no angle.
    best : int
        Index of the best stimulus.
    """

    family: str
    label: str
    strength: float
    angle: float = math.nan
    direction: float = math.nan
    bandwidth: float = math.nan
    best: int = 0
    sharpness: float = UNORIENTED


def curves(response: Tensor, family: tuple[str, ...], parameters: dict[str, Tensor]) -> list[Curve]:
    """All angular tuning curves: one for every family, polarity and width of the stimuli."""
    result = []
    for name, period in (("line", 180.0), ("grating", 180.0), ("edge", 360.0), ("corner", 360.0), ("curve", 360.0)):
        axis = parameters["angle"] if period == 180.0 else parameters["side"]
        polarities, widths = parameters["polarity"], parameters["width"].nan_to_num(0)
        members = torch.tensor([entry == name for entry in family], device="cpu")
        groups = {(float(polarities[i]), float(widths[i])) for i in members.nonzero()[:, 0]}
        for polarity, width in sorted(groups):
            columns = (members & (polarities == polarity) & (widths == width)).nonzero()[:, 0]
            angles = axis[columns].unique()
            values = torch.stack([response[:, columns[axis[columns] == angle]].amax(1) for angle in angles], 1)
            result.append(Curve(name, polarity, width, angles, period, values.clamp(min=0), columns))
    return result


def classify(
    response: Tensor,
    brightness: Tensor,
    family: tuple[str, ...],
    parameters: dict[str, Tensor],
    field: float = math.inf,
) -> list[Classification]:
    """Classify every unit; ``units.tuning`` documents the rules. ``field`` is the receptive field in pixels."""
    all_curves = curves(response, family, parameters)
    all_curves = [one for one in all_curves if one.family != "grating" or one.width <= field / PERIODS]
    blobs = torch.tensor([name == "blob" for name in family], device="cpu")
    scale = float(response.abs().max()) if response.numel() else 0.0
    return [
        _classify_unit(unit, response[unit], float(brightness[unit]), all_curves, blobs, parameters, scale)
        for unit in range(len(response))
    ]


def _classify_unit(
    unit: int,
    row: Tensor,
    brightness: float,
    all_curves: list[Curve],
    blobs: Tensor,
    parameters: dict[str, Tensor],
    scale: float,
) -> Classification:
    strongest = int(row.argmax())
    if float(row[strongest]) < BRIGHTNESS * abs(brightness):
        name = "brightness" if brightness > 0 else "darkness"
        return Classification("brightness", name, abs(brightness), best=strongest)
    if float(row[strongest]) <= 1e-6 * scale or scale == 0:
        return Classification("", labels.NOT_SELECTIVE, 0.0)
    lines = [_line(unit, row, all_curves, sign) for sign in (1.0, -1.0)]
    simple = [one for one in (_edge(unit, row, all_curves), *lines) if one is not None]
    directed = (_directed(unit, row, all_curves, family) for family in ("corner", "curve"))
    candidates = [_grating(unit, row, all_curves), *directed, _blob(row, blobs, parameters)]
    primary = _primary(simple, [one for one in candidates if one is not None], float(row[strongest]))
    if primary is None:
        return Classification("", labels.NOT_SELECTIVE, float(row[strongest]), best=strongest)
    return primary


def _primary(simple: list[Classification], complex_patterns: list[Classification], top: float) -> Classification | None:
    """The line or edge, unless a complex pattern has a clearly larger response."""
    basic = next((one for one in simple if one.family == "edge"), None)
    basic = basic or max(simple, key=lambda one: one.strength, default=None)
    best = max(complex_patterns, key=lambda one: one.strength, default=None)
    if basic is None:
        return best if best is not None and best.strength * COMPLEX >= top else None
    return best if best is not None and best.strength > COMPLEX * basic.strength else basic


def _line(unit: int, row: Tensor, all_curves: list[Curve], polarity: float) -> Classification | None:
    """A line, by the width whose curve has the largest modulation."""
    candidates = [curve for curve in all_curves if curve.family == "line" and curve.polarity == polarity]
    oriented = _most_oriented(unit, candidates)
    if oriented is None:
        return None
    curve, angle, width, strength = oriented
    columns = torch.cat([curve.columns for curve in candidates])
    name = labels.line(angle, dark=polarity < 0)
    return Classification("line", name, strength, angle, math.nan, width, _best(row, columns), _sharp(unit, curve))


def _edge(unit: int, row: Tensor, all_curves: list[Curve]) -> Classification | None:
    """An edge, if opposite edges have unequal responses, unless a line of one polarity has a clearly larger one."""
    oriented = _most_oriented(unit, [curve for curve in all_curves if curve.family == "edge"])
    if oriented is None:
        return None
    curve, direction, width, strength = oriented
    values = curve.values[unit]
    opposite = float(values[(int(values.argmax()) + len(values) // 2) % len(values)])
    if strength - opposite < ONE_SIDED * (strength + opposite) or _is_line(unit, all_curves, strength):
        return None
    name = labels.edge(direction)
    best, sharp = _best(row, curve.columns), _sharp(unit, curve)
    return Classification("edge", name, strength, (direction + 90) % 180, direction, width, best, sharp)


def _is_line(unit: int, all_curves: list[Curve], edge: float) -> bool:
    """Whether a unit prefers lines to an edge: twice the response, or a larger one for one polarity only.

    A unit for edges has the same response to bright and to dark lines, which are edges on both sides.
    """
    best = [
        max(
            (float(one.values[unit].max()) for one in all_curves if one.family == "line" and one.polarity == sign),
            default=0.0,
        )
        for sign in (1.0, -1.0)
    ]
    high, low = max(best), min(best)
    return edge < high / 2 or (edge < high and high - low > ONE_POLARITY * (high + low))


def _grating(unit: int, row: Tensor, all_curves: list[Curve]) -> Classification | None:
    oriented = _most_oriented(unit, [curve for curve in all_curves if curve.family == "grating"])
    if oriented is None:
        return None
    curve, angle, width, strength = oriented
    name = labels.grating(angle, curve.width)
    best, sharp = _best(row, curve.columns), _sharp(unit, curve)
    return Classification("grating", name, strength, angle, math.nan, width, best, sharp)


def _directed(unit: int, row: Tensor, all_curves: list[Curve], family: str) -> Classification | None:
    """A corner or curve, by its direction."""
    oriented = _most_oriented(unit, [curve for curve in all_curves if curve.family == family])
    if oriented is None:
        return None
    curve, direction, width, strength = oriented
    name = labels.pointing(family, direction, dark=curve.polarity < 0)
    best, sharp = _best(row, curve.columns), _sharp(unit, curve)
    return Classification(family, name, strength, math.nan, direction, width, best, sharp)


def _blob(row: Tensor, blobs: Tensor, parameters: dict[str, Tensor]) -> Classification | None:
    if not bool(blobs.any()):
        return None
    best = _best(row, blobs.nonzero()[:, 0])
    if float(row[best]) <= 0:
        return None
    name = labels.blob(float(parameters["width"][best]), dark=float(parameters["polarity"][best]) < 0)
    return Classification("blob", name, float(row[best]), best=best)


def _most_oriented(unit: int, candidates: list[Curve]) -> tuple[Curve, float, float, float] | None:
    """The curve with the largest modulation, its preferred angle, bandwidth and peak; None if none has a direction."""
    best: tuple[Curve, float] | None = None
    for curve in candidates:
        values = curve.values[unit]
        low, high = float(values.min()), float(values.max())
        _, length = circular.mean_direction(values, curve.angles, curve.period)
        oriented = float(length) >= ORIENTED or high - low > PRONOUNCED * (high + low)
        modulation = high - low
        if oriented and high > 0 and (best is None or modulation > best[1]):
            best = (curve, modulation)
    if best is None:
        return None
    curve, values = best[0], best[0].values[unit]
    angle = circular.peak(values, curve.angles, curve.period)
    return curve, angle, float(circular.bandwidth(values, curve.period)), float(values.max())


def _sharp(unit: int, curve: Curve) -> float:
    return float(circular.mean_direction(curve.values[unit], curve.angles, curve.period)[1])


def _best(row: Tensor, columns: Tensor) -> int:
    return int(columns[row[columns].argmax()])


def secondary(
    primary: list[Classification], response: Tensor, family: tuple[str, ...], parameters: dict[str, Tensor]
) -> tuple[str, ...]:
    """The secondary function of each unit: another high peak of its line or edge curves at another orientation."""
    straight = [curve for curve in curves(response, family, parameters) if curve.family in ("line", "edge")]
    return tuple(_second(unit, one, straight) for unit, one in enumerate(primary))


def _second(unit: int, primary: Classification, straight: list[Curve]) -> str:
    if math.isnan(primary.angle):
        return ""
    peaks: list[tuple[float, str]] = []
    for curve in straight:
        values = curve.values[unit].tolist()
        for index, value in enumerate(values):
            neighbours = (values[index - 1], values[(index + 1) % len(values)])
            orientation = (float(curve.angles[index]) + (90 if curve.period == 360 else 0)) % 180
            apart = abs((orientation - primary.angle + 90) % 180 - 90)
            if value < SECOND * primary.strength or value < max(neighbours) or apart < APART:
                continue
            near = circular.angular_difference(curve.angles, curve.angles[index], curve.period) < APART
            top = circular.peak(curve.values[unit] * near, curve.angles, curve.period)
            peaks.append((value, _label(curve, top)))
    return max(peaks)[1] if peaks else ""


def _label(curve: Curve, angle: float) -> str:
    return labels.edge(angle) if curve.family == "edge" else labels.line(angle, dark=curve.polarity < 0)
