"""What does the page of an image show?

Re-exported by ``microtome.atlas.pages``, where the conventions stand.
"""

from __future__ import annotations

from dataclasses import dataclass

from microtome.atlas.dissection import Sheet, Step
from microtome.atlas.parts import Absent, Amounts, Made, Number, Picture


@dataclass(frozen=True)
class MethodMap:
    """One method's map for one image and class.

    Attributes
    ----------
    method : str
        As registered: ``"guided-backpropagation"``; ``layer`` where the method reads one.
    picture : Picture
        The map at image size.
    numbers : tuple of Number
        Its certificates.
    """

    method: str
    picture: Picture
    layer: str = ""
    numbers: tuple[Number, ...] = ()
    made: Made | None = None


@dataclass(frozen=True)
class MapRow:
    """All methods for one question: a class, or one class against another.

    ``question`` is a sentence: ``"What speaks for 7?"``, ``"What speaks for 7 rather than 2?"``.
    """

    question: str
    maps: tuple[MethodMap, ...]
    score: float | None = None


@dataclass(frozen=True)
class Maps:
    """Rows of maps: the same methods in the same order in each, so that columns compare."""

    rows: tuple[MapRow, ...]
    caption: str


@dataclass(frozen=True)
class Winner:
    """A class that wins somewhere when a window is covered: its colour (``"#rrggbb"``) and share of positions."""

    index: int
    colour: str
    share: float


@dataclass(frozen=True)
class Occlusion:
    """What happens when a window of the image is covered.

    Attributes
    ----------
    probability : Picture
        The class's probability by position of the window.
    winner : Picture
        The class that wins by position, in the colours of ``winners``.
    winners : tuple of Winner
        The legend, most frequent first.
    numbers : tuple of Number
        Window, stride, fill, probability of the untouched image, lowest probability.
    """

    probability: Picture
    winner: Picture
    winners: tuple[Winner, ...]
    numbers: tuple[Number, ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class ActivationRow:
    """One layer's activation maps on an image, the strongest units first; ``units`` is how many it has in all."""

    layer: str
    pictures: tuple[Picture, ...]
    units: int


@dataclass(frozen=True)
class KeptRow:
    """One layer: the part of the image that it can still tell, and the part that is lost, with its share."""

    layer: str
    kept: Picture
    lost: Picture
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class ImagePage:
    """An image: what the network says, and why.

    Attributes
    ----------
    id : str
        A short name that stays the same: ``"0042"``. It becomes the page's address.
    title : str
        What a person calls it: a file's name, or ``"test image 42"``.
    picture : Picture
        The image itself.
    truth, said : int or None
        The true class and the predicted one.
    probability : float or None
        Of the predicted class, in [0, 1].
    probabilities : Amounts, Absent or None
        The most probable classes, in percent.
    maps, differences : Maps, Absent or None
        Methods side by side for each class asked, and one class against another.
    activations : tuple of ActivationRow, Absent or None
        A row a layer.
    walk : Step, Absent or None
        The class score taken apart, with ``walk_caption`` and ``walk_made``.
    sheet : Sheet, Absent or None
        The dissection of the unit that matters most.
    kept : tuple of KeptRow, Absent or None
        What is left of the image at some layers, with ``kept_made``.
    """

    id: str
    title: str
    picture: Picture
    truth: int | None = None
    said: int | None = None
    probability: float | None = None
    probabilities: Amounts | Absent | None = None
    maps: Maps | Absent | None = None
    differences: Maps | Absent | None = None
    occlusion: Occlusion | Absent | None = None
    activations: tuple[ActivationRow, ...] | Absent | None = None
    activations_caption: str = ""
    activations_made: Made | None = None
    walk: Step | Absent | None = None
    walk_caption: str = ""
    walk_made: Made | None = None
    sheet: Sheet | Absent | None = None
    kept: tuple[KeptRow, ...] | Absent | None = None
    kept_made: Made | None = None
