"""How is an activation or a class score taken apart on a page?

Re-exported by ``microtome.atlas.pages``, where the conventions stand.
"""

from __future__ import annotations

from dataclasses import dataclass

from microtome.atlas.parts import Link, Made, Number, Picture


@dataclass(frozen=True)
class SheetRow:
    """One input channel of a dissection.

    Attributes
    ----------
    channel : int
        j, counted from 0 as everywhere in the network.
    x, w, a : Picture
        The input x_j, the weights w_j and a_j = x_j * w_j.
    c, c_ranked : Picture
        The running sum after this row: in the channels' order, and with the rows ranked by contribution.
    amount : float
        a_j at the sheet's position: these amounts and the bias add up to y there.
    label, link
        What the channel's unit below is for, and its page.
    weak : bool
        Whether the row is folded away at first.
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


@dataclass(frozen=True)
class Sheet:
    """A dissected activation: x_j, label, j, w_j, a_j, c_j, y for one unit on one image.

    Attributes
    ----------
    unit : Link
        Which unit is dissected.
    image : Picture
        On which image; its link leads there.
    rows : tuple of SheetRow
        In the order of the channels.
    bias : float
        What is added to the sum.
    y : Picture
        The unit's output: bias and all rows.
    value : float
        y at ``position``.
    position : (int, int)
        Row and column of the output at which ``amount`` is read, usually where y is largest.
    check : Number
        The certificate: the largest difference between sum plus bias and the network's own value.
    caption, made
        As everywhere.
    rest : float
        The sum at the position of channels that have no row, for layers with very many channels.
    """

    unit: Link
    image: Picture
    rows: tuple[SheetRow, ...]
    bias: float
    y: Picture
    value: float
    position: tuple[int, int]
    check: Number
    caption: str
    made: Made | None = None
    rest: float = 0.0


@dataclass(frozen=True)
class Step:
    """A stage of the walk down: an amount and the amounts it is made of.

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
