"""Maps over one image: attribution, occlusion, activation maps, and the kept and lost part at some layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from microtome.atlas.widgets.basics import Made, Number, Picture, Widget


@dataclass(frozen=True)
class MethodMap:
    """The map of one method for one image and class.

    Attributes
    ----------
    method : str
        Its name in words: ``"Grad-CAM"``; ``layer`` where the method reads one.
    picture : Picture
        The map at the size of the image.
    numbers : tuple of Number
        Its certificates.
    meaning : str
        The meaning of the map, in one clause.
    shown : str
        ``"large"``: over the image; ``"folded"``: small, on demand; ``"refused"``: folded, because a certificate fails.
    """

    method: str
    picture: Picture
    layer: str = ""
    numbers: tuple[Number, ...] = ()
    made: Made | None = None
    meaning: str = ""
    shown: Literal["large", "folded", "refused"] = "large"


@dataclass(frozen=True)
class MapRow:
    """All methods for one question: a class, or one class against another.

    ``question`` is a sentence: ``"What speaks for 7?"``, ``"What speaks for 7 rather than 2?"``.
    """

    question: str
    maps: tuple[MethodMap, ...]
    score: float | None = None


@dataclass(frozen=True)
class Maps(Widget):
    """Rows of maps: the same methods in the same order in each row, so that columns can be compared.

    Large maps are drawn over ``image``.
    """

    rows: tuple[MapRow, ...]
    caption: str
    image: Picture | None = None
    macro: ClassVar[str] = "maps.grid"


@dataclass(frozen=True)
class Winner:
    """A class that wins for some position of the window: its colour (``"#rrggbb"``) and share of positions."""

    index: int
    colour: str
    share: float


@dataclass(frozen=True)
class CoveredBy:
    """The effect of covering one position after another by a window of one size.

    Attributes
    ----------
    window, stride : int
        Side of the window, and its stride, in pixels.
    probability : Picture or None
        The probability of the class by position of the window; None if it hardly changes.
    winner : Picture or None
        The predicted class by position, in the colours of ``winners``; None if it never changes.
    winners : tuple of Winner
        The legend, most frequent first.
    finding : str
        The finding in one sentence.
    """

    window: int
    stride: int
    probability: Picture | None
    winner: Picture | None
    winners: tuple[Winner, ...]
    finding: str


@dataclass(frozen=True)
class Occlusion(Widget):
    """The effect of covering a part of the image, with windows of some sizes; ``image`` lies below the maps."""

    sizes: tuple[CoveredBy, ...]
    image: Picture
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "maps.occlusion"


@dataclass(frozen=True)
class ActivationRow:
    """The activation maps of one layer, the strongest units first; ``units`` is the number of all its units."""

    layer: str
    pictures: tuple[Picture, ...]
    units: int


@dataclass(frozen=True)
class ActivationMaps(Widget):
    """A row of activation maps for each layer."""

    rows: tuple[ActivationRow, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "maps.activations"


@dataclass(frozen=True)
class KeptRow:
    """One layer: the part of the image that reaches it, the lost part, and the share of the lost part."""

    layer: str
    kept: Picture
    lost: Picture
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class KeptParts(Widget):
    """The kept and the lost part of the image at some layers."""

    rows: tuple[KeptRow, ...]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "maps.kept"
