"""What does each page of the atlas show?

One frozen dataclass a page. The back end fills them from results; ``atlas.site.render`` writes them.
``None`` means "not computed": the page then teaches which command makes the part. ``Absent`` means
"cannot exist here". Empty tuples mean "computed, and there is nothing".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from microtome.atlas.dissection import Sheet, SheetRow, Step
from microtome.atlas.image_page import ActivationRow, ImagePage, KeptRow, MapRow, Maps, MethodMap, Occlusion, Winner
from microtome.atlas.parts import (
    Absent,
    Amount,
    Amounts,
    Colours,
    Curve,
    Gallery,
    Histogram,
    Link,
    Made,
    Number,
    Picture,
    Spectrum,
    Sprite,
    to_class,
    to_image,
    to_layer,
    to_unit,
)
from microtome.atlas.unit_page import Bin, Examples, Patch, Stimuli, Stimulus, Tuning, UnitPage

__all__ = [
    "Absent",
    "ActivationRow",
    "Amount",
    "Amounts",
    "Atlas",
    "Bin",
    "Block",
    "ClassPage",
    "Colours",
    "Confusion",
    "Curve",
    "Examples",
    "Gallery",
    "Histogram",
    "ImagePage",
    "KeptRow",
    "LayerPage",
    "Link",
    "Made",
    "MapRow",
    "Maps",
    "MethodMap",
    "Number",
    "Occlusion",
    "OverviewPage",
    "Patch",
    "Picture",
    "Sheet",
    "SheetRow",
    "Spectrum",
    "Sprite",
    "Step",
    "Stimuli",
    "Stimulus",
    "Tuning",
    "UnitCard",
    "UnitPage",
    "WeightSheet",
    "Winner",
    "to_class",
    "to_image",
    "to_layer",
    "to_unit",
]


# -- overview ---------------------------------------------------------------------------------------------------------


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
        The layers it reads; ``"input"`` is the image. Only those also drawn make a line.
    units, parameters : int
        How many.
    field : str
        The receptive field in words: ``"14 px"``, ``"23 x 31 px"``, ``"whole image"``; empty if unknown.
    dead, saturated : int or None
        Units that never fire, and that always do, over the images; None if not measured.
    condition_number : float or None
        s1/sr of the layer's weights.
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


@dataclass(frozen=True)
class Confusion:
    """Which classes are taken for which.

    Attributes
    ----------
    counts : tuple of tuple of int, or None
        Images by true class (rows) and said class (columns); None above about forty classes.
    pairs : tuple of (int, int, int)
        The most frequent confusions: true class, said class, how often.
    caption, made
        As everywhere.
    """

    counts: tuple[tuple[int, ...], ...] | None
    pairs: tuple[tuple[int, int, int], ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class OverviewPage:
    """The first page: what the network is, how good it is, where to go.

    Attributes
    ----------
    card : tuple of Number
        Input shape, classes, parameters, accuracy with its sample count, fingerprint.
    blocks : tuple of Block
        The network in execution order.
    confusion, mistakes, examples
        Mistakes worst first; examples are the images that have pages, linked to them.
    rejected : Amounts, Absent or None
        The share of what each linear layer reads that it rejects, in percent.
    """

    card: tuple[Number, ...]
    blocks: tuple[Block, ...]
    confusion: Confusion | Absent | None = None
    mistakes: Gallery | Absent | None = None
    examples: Gallery | Absent | None = None
    rejected: Amounts | Absent | None = None


# -- layer ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitCard:
    """A unit as its layer's page shows it.

    Attributes
    ----------
    unit : int
        Its index.
    picture : Picture or None
        Its superstimulus, or its strongest patch; None draws an empty frame.
    label : str
        What it is for, in words; empty if not known.
    confidence : float or None
        Of the label, in [0, 1].
    selectivity, sparsity : float or None
        As the units' table defines them; the page sorts by them.
    strongest : int or None
        The class on which it fires most.
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


@dataclass(frozen=True)
class WeightSheet:
    """All kernels of a layer: a sprite whose rows are outputs and whose columns are inputs.

    ``inputs`` is the layer whose units the columns are, or None for the image's channels.
    """

    sprite: Sprite
    caption: str
    made: Made | None = None
    inputs: str | None = None


@dataclass(frozen=True)
class LayerPage:
    """A layer: its units side by side, its weights as a map between signal spaces.

    Attributes
    ----------
    name : str
        As the network names it.
    facts : tuple of Number
        Output shape, kernel, field, parameters, condition number, rank.
    cards : tuple of UnitCard
        One for each unit, in order; units without a page are still shown.
    cards_caption : str
        What to see in the grid, and what the pictures are.
    spectrum : Spectrum, Absent or None
        The singular values of its weights, or of each linear layer that it holds.
    signal : Gallery, Absent or None
        Its signal vectors, strongest first.
    averages, residuals : Gallery, Absent or None
        Average images of classes, and what of them the layer does not hear; None for all but a first layer.
    similarity : Picture, Absent or None
        Units x units, diverging; rows and columns in the order of ``similarity_order``.
    repeats : tuple of (int, int, float)
        Pairs of units that do the same, with their correlation.
    weights : WeightSheet, Absent or None
        In x out.
    """

    name: str
    facts: tuple[Number, ...]
    cards: tuple[UnitCard, ...]
    cards_caption: str = ""
    cards_made: Made | None = None
    spectrum: Spectrum | Absent | None = None
    signal: Gallery | Absent | None = None
    averages: Gallery | None = None
    residuals: Gallery | Absent | None = None
    similarity: Picture | Absent | None = None
    similarity_made: Made | None = None
    repeats: tuple[tuple[int, int, float], ...] = ()
    weights: WeightSheet | Absent | None = None


# -- class ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassPage:
    """A class: what the network takes for it.

    ``stimuli`` are images made for its score, ``units`` those that tell it apart, ``images`` its examples
    and ``mistakes`` those taken for another class or falsely for this one.
    """

    index: int
    facts: tuple[Number, ...] = ()
    stimuli: Stimuli | Absent | None = None
    units: Amounts | Absent | None = None
    images: Gallery | Absent | None = None
    mistakes: Gallery | Absent | None = None


# -- all of it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Atlas:
    """Everything the site is made of.

    Attributes
    ----------
    title : str
        The network's name.
    command : str
        The command that made this atlas; empty states and the footer repeat it.
    classes : tuple of str
        Class names by index; empty if the network has none.
    overview, layers, units, images, class_pages
        The pages. ``units`` may be a generator, so that thousands need not lie in memory; all others
        are read more than once. Units of one layer come in order, and a unit has a page only if its
        layer has. ``class_pages`` may be empty: class names are then plain text.
    all_layers : tuple of str
        Every layer of the network in order: addresses derive from it, so that they stay the same when
        other layers are chosen. Defaults to the layers that have pages.
    hints : tuple of (str, str)
        Which command makes a part that is None, by the part's field name (``"stimuli"``, ``"tuning"``);
        ``"*"`` serves all others. Without it the pages name ``command``.
    note : str
        One line for the footer, such as versions.
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
