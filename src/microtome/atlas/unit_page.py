"""What does the page of a unit show?

Re-exported by ``microtome.atlas.pages``, where the conventions stand.
"""

from __future__ import annotations

from dataclasses import dataclass

from microtome.atlas.dissection import Sheet
from microtome.atlas.parts import Absent, Amounts, Curve, Histogram, Made, Number, Picture


@dataclass(frozen=True)
class Stimulus:
    """An image made to drive a unit.

    ``role`` is ``"positive"``, ``"negative"`` or ``"diverse"``; ``percentile`` says where the activation
    reached lies in the distribution over the data, 100 being the strongest patch.
    """

    picture: Picture
    role: str
    activation: float
    percentile: float | None = None


@dataclass(frozen=True)
class Stimuli:
    """The superstimuli of a unit, with what they have in common."""

    items: tuple[Stimulus, ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class Patch:
    """A crop of the data and what in it drove the unit.

    Attributes
    ----------
    crop : Picture
        The receptive field's exact crop, gray outside the picture; its link is the image's page,
        where there is one.
    reconstruction : Picture or None
        The same crop, reconstructed from this one activation.
    activation : float
        What the unit answered.
    source : str
        Which image, and its class: ``"0042, a 7"``.
    position : (int, int)
        Row and column in the layer's map.
    """

    crop: Picture
    activation: float
    source: str
    position: tuple[int, int]
    reconstruction: Picture | None = None


@dataclass(frozen=True)
class Examples:
    """Patches in order: the strongest or the lowest."""

    patches: tuple[Patch, ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class Bin:
    """Patches drawn from one range of the unit's activation; ``share`` of all patches lie there, in [0, 1]."""

    low: float
    high: float
    share: float
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class Tuning:
    """The tuning curves of a unit over synthetic stimuli, and the label read from them."""

    curves: tuple[Curve, ...]
    caption: str
    made: Made | None = None


@dataclass(frozen=True)
class UnitPage:
    """A unit: what it looks for, what drives it, how it is made, what it is good for.

    Attributes
    ----------
    layer, unit
        Which.
    label, confidence
        What it is for in words, with the confidence in [0, 1]; ``second`` is the secondary function.
    facts : tuple of Number
        Field, selectivity, sparsity, variation, ...
    filter : Picture, Absent or None
        The unit's own weights where they are an image: first layers.
    top, lowest, bins
        Patches; ``bins_caption`` and ``bins_made`` serve all bins.
    sheet : Sheet, Absent or None
        Its dissected activation on one image.
    inputs, outputs : Amounts
        The units it reads most and those that read it most, by weight.
    nearest : Amounts
        Units that answer alike, by correlation.
    ablation : Amounts
        Change of each class's accuracy in percentage points when the unit is set to zero.
    """

    layer: str
    unit: int
    label: str = ""
    confidence: float | None = None
    second: str = ""
    state: str = ""
    facts: tuple[Number, ...] = ()
    filter: Picture | Absent | None = None
    filter_made: Made | None = None
    stimuli: Stimuli | Absent | None = None
    top: Examples | Absent | None = None
    lowest: Examples | Absent | None = None
    bins: tuple[Bin, ...] | Absent | None = None
    bins_caption: str = ""
    bins_made: Made | None = None
    histogram: Histogram | Absent | None = None
    tuning: Tuning | Absent | None = None
    sheet: Sheet | Absent | None = None
    inputs: Amounts | Absent | None = None
    outputs: Amounts | Absent | None = None
    nearest: Amounts | Absent | None = None
    ablation: Amounts | Absent | None = None
