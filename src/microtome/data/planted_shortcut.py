"""Data set with a planted shortcut: a small bright tag that reveals the class, and its mask."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from microtome.data.images import Images
from microtome.errors import InputError
from microtome.option_types import checks_types

__all__ = ["TELLING", "Shortcut", "with_shortcut"]

TELLING = ("pattern", "place")
_CELLS, _LIT = 3, 4  # a pattern is four bright cells of three by three: 126 of them


@dataclass(frozen=True, eq=False, repr=False)
class Shortcut:
    """Images with a tag planted in each, a map-style data set.

    Attributes
    ----------
    images : Images
        The pictures with their tags; labels are the true ones.
    masks : Tensor
        (N, H, W), bool: the pixels of each picture's tag.
    tags : Tensor
        (N,), the class whose tag each image has.
    agreement : float
        The probability with which that is the picture's own class.
    """

    images: Images
    masks: Tensor
    tags: Tensor
    agreement: float

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.images)

    def __repr__(self) -> str:
        return f"Shortcut({self.images!r}, agreement {self.agreement:.3g})"

    def __getitem__(self, index: int) -> tuple[Tensor, int] | Tensor:
        """A picture and its label."""
        return self.images[index]

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Some pictures as floats in [0, 1], and their labels."""
        return self.images.fetch(indices)


@checks_types
def with_shortcut(
    images: Images,
    *,
    agreement: float,
    tell: str = "pattern",
    size: int | None = None,
    value: float | Sequence[float] = 1.0,
    seed: int = 0,
) -> Shortcut:
    """Plant a small square tag on the edge of every image; its pattern, or its place, encodes a class.

    With probability ``agreement`` an image has the tag of its own class, otherwise that of another class, all
    equally likely: 1 reveals the class, 1 / classes carries no information, 0 is always wrong. Images with
    uninformative tags look the same as those with informative ones, so that two networks can be trained that
    differ in nothing else.

    Parameters
    ----------
    images : Images
        Labelled pictures of at least two classes.
    agreement : float
        From 0 to 1.
    tell : str
        ``"pattern"``: all tags lie in the upper left corner, and which four of their three by three cells are
        bright gives the class. ``"place"``: all tags are bright squares, and their place gives the class: the
        first half of the classes along the upper edge, the rest along the lower.
    size : int, optional
        Side of the tag in pixels, for patterns a multiple of three; default 6 and 4 pixels for 28.
    value : float or one a channel
        The tag's gray value or colour, in [0, 1].
    seed : int
        Seed of the draws.

    Raises
    ------
    InputError
        When the pictures have no labels, the tags do not fit beside each other, or an option is out of range.

    Examples
    --------
    >>> two = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), classes=["a", "b"])
    >>> planted = with_shortcut(two, agreement=1.0, tell="place", size=1)
    >>> planted.masks.nonzero().tolist()
    [[0, 0, 0], [1, 3, 0]]
    """
    labels = images.labels
    if labels is None or not len(images) or int(labels.min()) < 0:
        raise InputError("a shortcut needs pictures with a label each, and there are some without.")
    classes = len(images.classes) if images.classes is not None else int(labels.max()) + 1
    if not 0 <= agreement <= 1 or classes < 2:
        raise InputError(f"agreement is a probability and needs two classes, got {agreement} and {classes} classes.")
    if tell not in TELLING:
        raise InputError(f'the class is given by {" or ".join(TELLING)}, got "{tell}".')
    bright, tagged_area = (_patterns if tell == "pattern" else _places)(classes, images.shape, size)
    tags = _drawn(labels, classes, agreement, seed)
    colour = _colour(value, images.shape[0])
    pixels = torch.where(bright[tags][:, None], colour, images.pixels)
    masks = tagged_area[tags]
    tagged = replace(
        images, pixels=pixels, source=f"{images.source}, {tell} of a tag agrees {agreement:.3g}".lstrip(", ")
    )
    return Shortcut(tagged, masks, tags, float(agreement))


def _places(classes: int, shape: tuple[int, int, int], size: int | None) -> tuple[Tensor, Tensor]:
    """The bright pixels of each class's tag, and all its pixels, which are the same: (classes, H, W)."""
    _, height, width = shape
    side = max(1, min(height, width) // 7) if size is None else size
    above = (classes + 1) // 2
    if side < 1 or 2 * side > height or above * side > width:
        raise InputError(
            f"tags of {side} pixels for {classes} classes do not fit along the edges of {height} x {width} pixels; "
            "give a smaller size."
        )
    places = torch.zeros(classes, height, width, dtype=torch.bool, device="cpu")
    for label in range(classes):
        row, place = (0, label) if label < above else (height - side, label - above)
        column = round(place * (width - side) / max(above - 1, 1))
        places[label, row : row + side, column : column + side] = True
    return places, places


def _patterns(classes: int, shape: tuple[int, int, int], size: int | None) -> tuple[Tensor, Tensor]:
    """The bright pixels of each class's tag, and all its pixels, bright or not: (classes, H, W)."""
    _, height, width = shape
    side = _CELLS * max(1, round(min(height, width) / 14)) if size is None else size
    chosen = list(itertools.combinations(range(_CELLS * _CELLS), _LIT))
    if side < _CELLS or side % _CELLS or side > min(height, width) or classes > len(chosen):
        raise InputError(
            f"patterns of {side} pixels for {classes} classes do not fit {height} x {width} pixels; expected a side "
            f"that is a multiple of {_CELLS} and at most {len(chosen)} classes."
        )
    bright = torch.zeros(classes, height, width, dtype=torch.bool, device="cpu")
    for label in range(classes):
        cells = torch.zeros(_CELLS * _CELLS, dtype=torch.bool, device="cpu")
        cells[list(chosen[label * len(chosen) // classes])] = True  # spread over all, so that they differ much
        grid = cells.reshape(_CELLS, _CELLS)
        bright[label, :side, :side] = torch.kron(
            grid, torch.ones(side // _CELLS, side // _CELLS, dtype=torch.bool, device="cpu")
        )
    whole = torch.zeros_like(bright)
    whole[:, :side, :side] = True
    return bright, whole


def _drawn(labels: Tensor, classes: int, agreement: float, seed: int) -> Tensor:
    """The class of each tag."""
    generator = torch.Generator().manual_seed(seed)
    other = (labels + torch.randint(1, classes, (len(labels),), generator=generator, device="cpu")) % classes
    return torch.where(
        torch.rand(len(labels), generator=generator, dtype=torch.float64, device="cpu") < agreement, labels, other
    )


def _colour(value: float | Sequence[float], channels: int) -> Tensor:
    numbers = torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten()
    if len(numbers) not in (1, channels) or not bool(((numbers >= 0) & (numbers <= 1)).all()):
        raise InputError(f"a tag's value is one number or one for each of {channels} channels, in [0, 1]; got {value}.")
    return (numbers * 255).round().to(torch.uint8).expand(channels)[:, None, None]
