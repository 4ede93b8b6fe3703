"""Charts: bar lists, histograms, curves and spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from microtome.atlas.widgets.basics import Absent, Link, Made, Picture, Widget


@dataclass(frozen=True)
class Amount:
    """One bar of a bar list.

    Attributes
    ----------
    name : str
        ``"7"``, ``"conv1:5"``.
    value : float
        The length of the bar, in the unit of the list.
    link, picture
        Where it leads, and its picture.
    label : str
        The tuning label of the unit: ``"line at 45°"``.
    mark : str
        ``"true"``, ``"predicted"``, ``"true and predicted"`` or empty: shown as a badge.
    """

    name: str
    value: float
    link: Link | None = None
    picture: Picture | None = None
    label: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Amounts(Widget):
    """A bar list: amounts on one scale. All bars start at zero.

    ``signed`` amounts carry their sign, red above zero and blue below, even if only one sign occurs.
    """

    rows: tuple[Amount, ...]
    unit: str
    caption: str
    made: Made | None = None
    signed: bool = False
    macro: ClassVar[str] = "charts.bars"


@dataclass(frozen=True)
class Share:
    """One bar of shares: its name, where it leads, and parts that add up to 1."""

    name: str
    link: Link | None
    parts: tuple[float, ...]


@dataclass(frozen=True)
class Shares(Widget):
    """Bars of one length, each divided into at most three named parts; those of few rows lie, with their names."""

    names: tuple[str, ...]
    rows: tuple[Share, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "charts.shares"


@dataclass(frozen=True)
class Wiring(Widget):
    """Two bar lists on the two sides of a unit: its inputs and its outputs."""

    name: str
    inputs: Amounts | Absent | None
    outputs: Amounts | Absent | None
    macro: ClassVar[str] = "charts.wiring"


@dataclass(frozen=True)
class Spectrum(Widget):
    """Singular values of one matrix or of several, each divided by its largest.

    Attributes
    ----------
    curves : tuple of (str, tuple of float)
        Name and singular values, in falling order, of each matrix; a zero matrix has no curve.
    caption, made
        The caption, and how the figure was made.
    """

    curves: tuple[tuple[str, tuple[float, ...]], ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "charts.spectrum"


@dataclass(frozen=True)
class Histogram(Widget):
    """Counts of one unit's activation, a row for each class.

    Attributes
    ----------
    edges : tuple of float
        Edges of the bins, one more than bins.
    rows : tuple of (str, Link or None, tuple of int)
        Name, link and counts of each row; at most about twenty rows can be read well.
    caption, made
        The caption, and how the figure was made.
    quantity : str
        The quantity on the horizontal axis.
    """

    edges: tuple[float, ...]
    rows: tuple[tuple[str, Link | None, tuple[int, ...]], ...]
    caption: str
    made: Made | None = None
    quantity: str = "activation"
    macro: ClassVar[str] = "charts.histogram"


@dataclass(frozen=True)
class Curve:
    """One curve: a response against one property, or any quantity against another.

    Attributes
    ----------
    name, unit : str
        What varies: ``"angle"`` in ``"°"``, ``"position"`` in ``"px"``.
    x, y : tuple of float
        The property in rising order, and the response.
    peak : float or None
        The preferred value, marked on the curve.
    circular : bool
        Whether the curve closes, as for angles.
    """

    name: str
    unit: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    peak: float | None = None
    circular: bool = False


@dataclass(frozen=True)
class Curves(Widget):
    """Curves side by side, each on its own axes."""

    curves: tuple[Curve, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "charts.curves"


@dataclass(frozen=True)
class Confusion(Widget):
    """The confusion matrix.

    Attributes
    ----------
    counts : tuple of tuple of int, or None
        Images by true class (rows) and predicted class (columns); None above about forty classes.
    pairs : tuple of (int, int, int)
        The most frequent confusions: true class, predicted class, count.
    caption, made
        The caption, and how the figure was made.
    """

    counts: tuple[tuple[int, ...], ...] | None
    pairs: tuple[tuple[int, int, int], ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "charts.confusion"


COLOURED = 10  # with more classes than this, they have no separate colours


@dataclass(frozen=True)
class ImagePoint:
    """An image on a map: its position, its class, and whether the network misclassifies it."""

    x: float
    y: float
    group: int
    wrong: bool = False


@dataclass(frozen=True)
class ImageMap(Widget):
    """Images as dots on a plane."""

    points: tuple[ImagePoint, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "charts.image_map"


@dataclass(frozen=True)
class UnitTableRow:
    """Numbers of one unit by column, with standard errors and p-values; None if there is none."""

    unit: int
    link: Link
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...]
    p_values: tuple[float | None, ...]


@dataclass(frozen=True)
class UnitTable(Widget):
    """A table of units by criteria."""

    columns: tuple[str, ...]
    rows: tuple[UnitTableRow, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "charts.unit_table"
