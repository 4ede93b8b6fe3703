"""What are the pieces that every page of the atlas is made of?

Plain frozen data, no drawing: the back end fills them from results, ``atlas.site`` turns them into
pages. Three conventions hold for all of them.

- A field that is ``None`` has not been computed: the page says what is missing and which command
  makes it. A field that holds an ``Absent`` cannot exist here, and the page says why.
- A caption tells what to see, not what the figure is called.
- Colours follow from ``Sprite.colours``; files are named relative to the site's folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Colours = Literal["natural", "diverging", "sequential", "classes"]


@dataclass(frozen=True)
class Link:
    """Another page of the atlas, by what it is about; drawn as a link only if that page exists.

    Make one with ``to_layer``, ``to_unit``, ``to_image`` or ``to_class``.
    """

    kind: Literal["layer", "unit", "image", "class"]
    name: str
    unit: int = -1


def to_layer(name: str) -> Link:
    """The page of a layer, by its name in the network."""
    return Link("layer", name)


def to_unit(layer: str, unit: int) -> Link:
    """The page of one unit of a layer."""
    return Link("unit", layer, unit)


def to_image(name: str) -> Link:
    """The page of an image, by its ``ImagePage.id``."""
    return Link("image", name)


def to_class(index: int) -> Link:
    """The page of a class, by its index."""
    return Link("class", str(index))


@dataclass(frozen=True)
class Sprite:
    """Equal cells side by side in one picture file.

    Cells are laid out row by row without gaps. Keep a file below 8192 pixels a side: split a larger
    set into several sprites, since every picture names its own.

    Attributes
    ----------
    file : str
        The picture file, relative to the site's folder: ``"sprites/conv2-top.png"``.
    cell : (int, int)
        Height and width of one cell in the file's pixels. Small networks are stored at their own
        size, one file pixel a pixel; the page enlarges them.
    columns, count : int
        Cells in a row, and in all.
    colours : str
        ``"natural"`` for pictures; ``"diverging"`` for signed amounts drawn blue, white, red with
        white as zero (the page makes the dark twin); ``"sequential"`` for magnitudes; ``"classes"``
        for maps whose colours name classes.
    limits : (float, float) or None
        What the two ends of the colour scale mean when all cells share one scale.
    quantity : str
        Of what the limits are numbers: ``"activation"``, ``"logit per pixel"``.
    pixelated : bool
        Whether pixels stay square when enlarged: true for small networks, false for photos.
    own : str or None
        A second file of the same layout in which each cell is stretched to its own range; a click
        switches between the two.
    """

    file: str
    cell: tuple[int, int]
    columns: int
    count: int
    colours: Colours = "natural"
    limits: tuple[float, float] | None = None
    quantity: str = ""
    pixelated: bool = True
    own: str | None = None


@dataclass(frozen=True)
class Picture:
    """One cell of a sprite.

    Attributes
    ----------
    sprite, index
        Where it lies.
    alt : str
        What it shows, for those who cannot see it: ``"unit 5 of conv1, line at 45°"``.
    link : Link or None
        Where a click leads.
    note : str
        One short line below the picture: ``"3.21"``, ``"true 7, says 2"``.
    """

    sprite: Sprite
    index: int
    alt: str
    link: Link | None = None
    note: str = ""


@dataclass(frozen=True)
class Made:
    """How a figure is made: enough to make it again.

    Attributes
    ----------
    method : str
        The method's registered name.
    parameters : dict
        Every option with the value used.
    command : str
        The command line that makes it again; empty if there is none.
    seed : int or None
        Where random numbers are drawn.
    seconds : float or None
        What it cost; leave it out where pages must be equal to the byte from run to run.
    paper : str
        The reference as text: ``"Selvaraju et al. 2020, Grad-CAM"``.
    """

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    seed: int | None = None
    seconds: float | None = None
    paper: str = ""


@dataclass(frozen=True)
class Absent:
    """A part that cannot exist for this layer, unit or image, and why.

    ``reason`` is a sentence: ``"Units of fc4 have no height and width, so there are no patches."``
    ``command`` may name what would make a near equivalent.
    """

    reason: str
    command: str = ""


@dataclass(frozen=True)
class Number:
    """A number with its name and unit; a certificate if it has a tolerance.

    Attributes
    ----------
    name : str
        Of what it is a number: ``"test accuracy"``, ``"conservation"``.
    value : float, int or str
        Numbers are shown with three significant digits, integers in full, text as it is.
    unit : str
        ``"%"`` (then the value is already in percent), ``"px"``, ``"logit"``; empty for a pure number.
    tolerance : str
        What is allowed, in words or signs: ``"within 1 % of 1"``. With it the number is a certificate.
    ok : bool
        Whether it is inside its tolerance; outside is marked, not hidden.
    explain : str
        One sentence for those who meet the number for the first time.
    """

    name: str
    value: float | int | str
    unit: str = ""
    tolerance: str = ""
    ok: bool = True
    explain: str = ""


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix or several, each by its largest.

    Attributes
    ----------
    curves : tuple of (str, tuple of float)
        Name and falling singular values of each matrix; a zero matrix has no curve.
    caption, made
        As everywhere.
    """

    curves: tuple[tuple[str, tuple[float, ...]], ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts of one unit's activation, a row for each class.

    Attributes
    ----------
    edges : tuple of float
        Bin edges, one more than bins.
    rows : tuple of (str, Link or None, tuple of int)
        Name, link and counts of each row; at most about twenty rows read well.
    caption, made
        As everywhere.
    quantity : str
        What the edges are numbers of.
    """

    edges: tuple[float, ...]
    rows: tuple[tuple[str, Link | None, tuple[int, ...]], ...]
    caption: str
    made: Made | None = None
    quantity: str = "activation"


@dataclass(frozen=True)
class Curve:
    """A tuning curve: a unit's response against one property of a stimulus.

    Attributes
    ----------
    name, unit : str
        What varies: ``"angle"`` in ``"°"``, ``"position"`` in ``"px"``.
    x, y : tuple of float
        The stimuli's property, rising, and the response.
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
class Gallery:
    """Pictures with one caption and one scale: ``made`` and the range are said once for all."""

    pictures: tuple[Picture, ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class Amount:
    """A row of a bar list: a name, a signed amount, where it leads.

    Attributes
    ----------
    name : str
        ``"7"``, ``"conv1:5"``.
    value : float
        The bar's length, in the list's unit.
    link, picture
        Where it leads and what it looks like.
    label : str
        What the thing is for, in words: ``"line at 45°"``.
    mark : str
        ``"true"``, ``"said"``, ``"true and said"`` or empty: shown as a badge.
    """

    name: str
    value: float
    link: Link | None = None
    picture: Picture | None = None
    label: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Amounts:
    """A bar list: amounts on one scale, their unit and the caption; zero is a line all bars start from.

    ``signed`` amounts carry their sign, red above zero and blue below, whether or not both occur.
    """

    rows: tuple[Amount, ...]
    unit: str
    caption: str
    made: Made | None = None
    signed: bool = False
