"""Pictures in rows and grids: galleries, superstimuli, patches of the data, kernels, similarity matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from microtome.atlas.widgets.basics import Made, Picture, Sprite, Widget


@dataclass(frozen=True)
class Gallery(Widget):
    """Pictures with one caption and one scale.

    ``size`` is ``"s"``, ``"m"`` or ``"l"``; ``none`` is the sentence shown without pictures.
    """

    pictures: tuple[Picture, ...]
    caption: str
    made: Made | None = None
    size: Literal["s", "m", "l"] = "m"
    none: str = ""
    macro: ClassVar[str] = "pictures.gallery"


@dataclass(frozen=True)
class Filter(Widget):
    """The weights of one unit that reads the image, as a picture."""

    picture: Picture
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "pictures.filter"


@dataclass(frozen=True)
class Stimulus:
    """An image made to drive a unit.

    ``role`` is ``"positive"``, ``"negative"`` or ``"diverse"``; ``percentile`` is the position of its activation
    in the distribution over the data, 100 for above the strongest patch. ``trusted`` says whether the image shows what
    drives the unit in the data, None if that is not known; ``reason`` says why not, ``credentials`` what was
    measured.
    """

    picture: Picture
    role: str
    activation: float
    percentile: float | None = None
    trusted: bool | None = None
    reason: str = ""
    credentials: str = ""


@dataclass(frozen=True)
class Stimuli(Widget):
    """The superstimuli of a unit or a class."""

    items: tuple[Stimulus, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "pictures.stimuli"


@dataclass(frozen=True)
class Patch:
    """A crop of the data and what in it drove the unit.

    Attributes
    ----------
    crop : Picture
        The exact receptive field, gray outside the image; for a unit with a large field, dark where it is
        not active.
    reconstruction : Picture or None
        The same crop, reconstructed from this one activation.
    activation : float
        The activation of the unit.
    source : str
        The image and its class: ``"0042, a 7"``.
    position : (int, int)
        Row and column in the map of the layer.
    whole : Picture or None
        The whole image, which a click shows; its link is the page of the image, if there is one.
    box : tuple of float or None
        The receptive field in the whole image: left, top, width and height as shares of its sides.
    """

    crop: Picture
    activation: float
    source: str
    position: tuple[int, int]
    reconstruction: Picture | None = None
    whole: Picture | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Examples(Widget):
    """Patches in order, strongest or weakest first; ``heading`` says which."""

    patches: tuple[Patch, ...]
    caption: str
    made: Made | None = None
    heading: str = "strongest"
    macro: ClassVar[str] = "pictures.examples"


@dataclass(frozen=True)
class Bin:
    """Patches from one range of the unit's activation; ``share`` of all patches lie there, in [0, 1]."""

    low: float
    high: float
    share: float
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class Bins(Widget):
    """Patches from strong to weak, one range of the activation after the other."""

    bins: tuple[Bin, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "pictures.bins"


@dataclass(frozen=True)
class WeightSheet(Widget):
    """All kernels of a layer: a sprite whose rows are outputs and whose columns are inputs.

    ``inputs`` is the layer whose units the columns are, or None for the channels of the image.
    """

    layer: str
    sprite: Sprite
    caption: str
    made: Made | None = None
    inputs: str | None = None
    macro: ClassVar[str] = "pictures.weights"


@dataclass(frozen=True)
class SimilarityMatrix(Widget):
    """Units x units, and the pairs of units that respond most alike.

    Attributes
    ----------
    layer : str
        Whose units.
    picture : Picture
        The matrix, diverging; units that respond alike lie side by side.
    repeats : tuple of (int, int, float)
        Pairs of units with the largest correlation.
    finding : str
        Whether units respond almost equally, in one sentence.
    order : tuple of int
        The units as rows from top to bottom; empty if there are too many.
    """

    layer: str
    picture: Picture
    repeats: tuple[tuple[int, int, float], ...]
    caption: str
    made: Made | None = None
    order: tuple[int, ...] = ()
    finding: str = ""
    macro: ClassVar[str] = "pictures.similarity"


@dataclass(frozen=True)
class UnitCard:
    """A unit on the page of its layer.

    Attributes
    ----------
    unit : int
        Its index.
    picture : Picture or None
        Its superstimulus, or its strongest patch; None draws an empty frame.
    label : str
        What it is tuned to, in words; empty if not known.
    confidence : float or None
        Of the label, in [0, 1].
    selectivity, sparsity : float or None
        As the table of units defines them; the page sorts by them.
    strongest : int or None
        The class on which it responds most.
    profile : tuple of float
        Its mean activation by class, drawn as a small bar chart; at most about twenty values.
    similarity_order : int
        Its place in an order that puts similar units side by side.
    state : str
        ``"dead"``, ``"saturated"`` or empty.
    paged : bool
        Whether the unit has a page.
    """

    unit: int
    picture: Picture | None = None
    label: str = ""
    confidence: float | None = None
    selectivity: float | None = None
    sparsity: float | None = None
    strongest: int | None = None
    profile: tuple[float, ...] = ()
    similarity_order: int = 0
    state: str = ""
    paged: bool = True
