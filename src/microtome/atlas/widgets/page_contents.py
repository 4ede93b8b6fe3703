"""The pages of the atlas: overview, layers, units, images, classes, and the atlas as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from microtome.atlas.widgets.basics import Made, Number, Picture, Section, Start
from microtome.atlas.widgets.charts import Amounts
from microtome.atlas.widgets.pictures import UnitCard


@dataclass(frozen=True)
class Block:
    """One layer in the drawing of the network.

    Attributes
    ----------
    name, kind : str
        As the network lists them.
    shape : tuple of int
        Output shape without the batch.
    inputs : tuple of str
        The layers it reads; ``"input"`` is the image. A line is drawn from those that are drawn, too.
    units, parameters : int
        Number of units and number of weights.
    field : str
        The receptive field in words: ``"14 px"``, ``"23 x 31 px"``, ``"whole image"``; empty if unknown.
    dead, saturated : int or None
        Units that are never and always active on the images; None if not measured.
    condition_number : float or None
        Largest divided by smallest nonzero singular value of the weights.
    pictures : tuple of Picture
        Superstimuli of some of its units.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    units: int
    parameters: int = 0
    field: str = ""
    dead: int | None = None
    saturated: int | None = None
    condition_number: float | None = None
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class OverviewPage:
    """The first page.

    Attributes
    ----------
    card : tuple of Number
        Input shape, classes, parameters, accuracy with its sample count, fingerprint.
    blocks : tuple of Block
        The network in execution order.
    sections : tuple of Section
        Sections about the network as a whole; the first comes before the starting points.
    summary : str
        The network in one line.
    starts : tuple of Start
        Places to begin.
    notes : tuple of str
        Notes for all results of this network.
    """

    card: tuple[Number, ...]
    blocks: tuple[Block, ...]
    sections: tuple[Section, ...] = ()
    summary: str = ""
    starts: tuple[Start, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerPage:
    """The page of a layer.

    Attributes
    ----------
    name : str
        As the network names it.
    facts : tuple of Number
        Output shape, kernel, receptive field, parameters, condition number, rank.
    cards : tuple of UnitCard
        One for each unit, in order; units without a page are shown, too.
    cards_caption, cards_made
        Caption of the grid, and how its pictures were made.
    sections : tuple of Section
        Sections of all topics about the layer.
    """

    name: str
    facts: tuple[Number, ...]
    cards: tuple[UnitCard, ...]
    cards_caption: str = ""
    cards_made: Made | None = None
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class UnitPage:
    """The page of a unit.

    Attributes
    ----------
    layer, unit
        Which.
    label, confidence
        What it is tuned to in words, with the confidence in [0, 1]; ``second`` is the secondary function.
    state : str
        ``"dead"``, ``"saturated"`` or empty.
    facts : tuple of Number
        Receptive field, selectivity, sparsity, variation.
    sections : tuple of Section
        Sections of all topics about the unit.
    """

    layer: str
    unit: int
    label: str = ""
    confidence: float | None = None
    second: str = ""
    state: str = ""
    facts: tuple[Number, ...] = ()
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class ImagePage:
    """The page of an image.

    Attributes
    ----------
    id : str
        A short name that stays the same: ``"0042"``. It becomes the address of the page.
    title : str
        The name of the file, or ``"test image 42"``.
    picture : Picture
        The image itself.
    truth, predicted : int or None
        The true class and the predicted one.
    probability : float or None
        Of the predicted class, in [0, 1].
    probabilities : Amounts or None
        The most probable classes, in percent.
    overlay : bool
        Whether sections hold maps that can be laid over the image.
    sections : tuple of Section
        Sections of all topics about the image.
    """

    id: str
    title: str
    picture: Picture
    truth: int | None = None
    predicted: int | None = None
    probability: float | None = None
    probabilities: Amounts | None = None
    overlay: bool = False
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class ClassPage:
    """The page of a class."""

    index: int
    facts: tuple[Number, ...] = ()
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Atlas:
    """Everything the site is made of.

    Attributes
    ----------
    title : str
        The name of the network.
    command : str
        The command that made this atlas; the footer repeats it.
    classes : tuple of str
        Class names by index; empty if the network has none.
    overview, layers, units, images, class_pages
        The pages. ``units`` may be a generator, so that thousands need not be in memory; all others
        are read more than once. Units of one layer come in order, and a unit has a page only if its
        layer has. ``class_pages`` may be empty: class names are then plain text.
    all_layers : tuple of str
        Every layer of the network in order. Addresses derive from it, so that they stay the same when
        other layers are chosen. Defaults to the layers that have pages.
    hints : tuple of (str, str)
        The command that makes a part which was not computed, by the name of the part (``"tuning curves"``);
        ``"*"`` serves all others. Without it the pages name ``command``.
    note : str
        One line for the footer, such as versions.
    larger : str
        The time of the commands of ``hints``: ``"about 40 minutes on one core"``; empty if unknown.
    """

    title: str
    command: str
    classes: tuple[str, ...]
    overview: OverviewPage
    layers: Sequence[LayerPage]
    units: Iterable[UnitPage]
    images: Sequence[ImagePage]
    class_pages: Sequence[ClassPage] = ()
    all_layers: tuple[str, ...] = ()
    hints: tuple[tuple[str, str], ...] = ()
    note: str = ""
    larger: str = ""
