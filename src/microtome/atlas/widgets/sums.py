"""Sums that add up: one activation by input channels, and a class score by units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from microtome.atlas.widgets.basics import Link, Made, Number, Picture, Widget


@dataclass(frozen=True)
class DissectionRow:
    """One input channel of a dissected activation.

    Attributes
    ----------
    channel : int
        j, counted from 0 as in the network.
    x, w, a : Picture
        The input x_j, the weights w_j, and a_j = x_j * w_j.
    c, c_ranked : Picture
        The running sum after this row: in the order of the channels, and in the order of falling contribution.
    amount : float
        a_j at the position of the table: these amounts and the bias add up to y there.
    label, link
        What the unit below is tuned to, and its page.
    weak : bool
        Whether the row is folded away at first.
    picture : Picture or None
        The superstimulus of the input unit, or its kernel.
    """

    channel: int
    x: Picture
    w: Picture
    a: Picture
    c: Picture
    amount: float
    c_ranked: Picture | None = None
    label: str = ""
    link: Link | None = None
    weak: bool = False
    picture: Picture | None = None


@dataclass(frozen=True)
class DissectionTable(Widget):
    """A dissected activation: x_j, label, j, w_j, a_j, c_j, y for one unit on one image.

    Attributes
    ----------
    unit : Link
        The dissected unit.
    image : Picture
        The image; its link leads to the page of the image.
    rows : tuple of DissectionRow
        In the order of the channels.
    bias : float
        The bias of the unit.
    y : Picture
        The output of the unit: bias and all rows.
    value : float
        y at ``position``.
    position : (int, int)
        Row and column of the output at which ``amount`` is read, usually where y is largest.
    size : (int, int)
        Height and width of the output; its picture may have fewer pixels.
    check : Number
        The certificate: the largest difference between sum plus bias and the network's own value.
    caption, made
        The caption, and how the figure was made.
    rest : float
        The sum, at the position, of the channels without a row.
    """

    unit: Link
    image: Picture
    rows: tuple[DissectionRow, ...]
    bias: float
    y: Picture
    value: float
    position: tuple[int, int]
    size: tuple[int, int]
    check: Number
    caption: str
    made: Made | None = None
    rest: float = 0.0
    macro: ClassVar[str] = "dissection.table"


@dataclass(frozen=True)
class Step:
    """An amount, and the amounts that add up to it.

    ``amount`` equals the sum over ``parts`` plus ``rest`` plus ``bias``; a step without parts is a leaf.
    """

    name: str
    amount: float
    link: Link | None = None
    picture: Picture | None = None
    label: str = ""
    parts: tuple[Step, ...] = ()
    rest: float = 0.0
    bias: float = 0.0


@dataclass(frozen=True)
class Decomposition(Widget):
    """A class score as a sum over units, each of them a sum over the units below."""

    root: Step
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "decomposition.tree"
