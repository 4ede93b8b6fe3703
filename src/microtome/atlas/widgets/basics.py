"""Parts of every page: links, pictures, numbers, sections, and how a figure was made.

All are plain frozen data without drawing. Topics fill them from stored results, ``atlas.site`` writes them as HTML.

- ``None`` means "not computed": the page names the command that makes the part.
- ``Absent`` means "cannot exist here": the page gives the reason.
- A caption says what to look for, not what the figure is called.
- Files are named relative to the folder of the site.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Colours = Literal["natural", "diverging", "sequential", "classes"]


class Widget:
    """Base of everything that a page can show.

    ``macro`` names the Jinja macro that draws it: ``"charts.bars"`` is the macro ``bars(view, widget)`` in
    ``site/templates/charts.html``.
    """

    macro: ClassVar[str] = ""


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
    """One picture file that holds many cells of equal size.

    Cells are laid out row by row without gaps. Keep a file below 8192 pixels a side; split a larger
    set into several sprites. Every picture names its own sprite.

    Attributes
    ----------
    file : str
        The picture file, relative to the folder of the site: ``"sprites/conv2-top.png"``.
    cell : (int, int)
        Height and width of one cell in pixels of the file. Small networks are stored at their own
        size; the page enlarges them.
    columns, count : int
        Cells in a row, and in all.
    colours : str
        ``"natural"`` for pictures; ``"diverging"`` for signed amounts drawn blue, white, red with
        white as zero; ``"sequential"`` for magnitudes; ``"classes"`` for maps whose colours name classes.
    limits : (float, float) or None
        What the two ends of the colour scale mean when all cells share one scale.
    quantity : str
        The quantity that the limits measure: ``"activation"``, ``"logit per pixel"``.
    pixelated : bool
        Whether pixels stay square when enlarged: true for small networks, false for photos.
    own : str or None
        A second file of the same layout in which each cell has its own scale; a click switches.
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
        The sprite, and the number of the cell.
    alt : str
        The content in words, for screen readers: ``"unit 5 of conv1, line at 45°"``.
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
    """How a figure was made: enough to make it again.

    Attributes
    ----------
    method : str
        The registered name of the method.
    parameters : dict
        Every option with the value used.
    command : str
        The command line that makes it again; empty if there is none.
    seed : int or None
        The random seed, if random numbers are drawn.
    seconds : float or None
        The time it took; leave it out if pages must be byte-identical from run to run.
    paper : str
        The reference as text: ``"Selvaraju et al. 2020, Grad-CAM"``.
    notes : tuple of str
        Notes of the method; always visible.
    """

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    seed: int | None = None
    seconds: float | None = None
    paper: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Absent:
    """A part that cannot exist for this layer, unit or image.

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
        The quantity: ``"test accuracy"``, ``"conservation"``.
    value : float, int or str
        Numbers are shown with three significant digits, integers in full, text as it is.
    unit : str
        ``"%"`` (the value is already in percent), ``"px"``, ``"logit"``; empty for a pure number.
    tolerance : str
        The allowed range in words: ``"within 1 % of 1"``. With it the number is a certificate.
    ok : bool
        Whether the value is within its tolerance; the page marks a value outside.
    explain : str
        One sentence of explanation.
    """

    name: str
    value: float | int | str
    unit: str = ""
    tolerance: str = ""
    ok: bool = True
    explain: str = ""


@dataclass(frozen=True)
class Part:
    """One figure of a section, or the reason for its absence.

    Attributes
    ----------
    content : Widget, Absent or None
        The figure; the reason why it cannot exist; None if it was not computed.
    name : str
        The name of the figure, for the empty state: ``"tuning curves"``. A part without a name that was not
        computed is left out.
    use : str
        One sentence on what the figure would show, for the empty state.
    heading : str
        A heading above the figure.
    """

    content: Widget | Absent | None
    name: str = ""
    use: str = ""
    heading: str = ""


@dataclass(frozen=True)
class Section:
    """One section of a page. Sections of the same title, from several topics, are joined in the order of topics.

    Attributes
    ----------
    title : str
        Its heading.
    parts : tuple of Part
        Its figures in order.
    half : bool
        Whether it takes half of the width; two successive half sections are placed side by side.
    beside : bool
        Whether its parts are placed side by side.
    """

    title: str
    parts: tuple[Part, ...]
    half: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Facts(Widget):
    """A row of numbers."""

    numbers: tuple[Number, ...]
    macro: ClassVar[str] = "basics.numbers"


@dataclass(frozen=True)
class Statement(Widget):
    """Findings in a few sentences, with their numbers on demand.

    ``numbers`` are rows of a table with the names of ``columns``.
    """

    text: str
    columns: tuple[str, ...] = ()
    numbers: tuple[tuple[str | float, ...], ...] = ()
    made: Made | None = None
    macro: ClassVar[str] = "basics.statement"


@dataclass(frozen=True)
class Start:
    """A starting point: a sentence, its picture, and the page it leads to."""

    text: str
    link: Link
    picture: Picture | None = None
