"""Would a network take the easy way? A data set in which a small bright tag gives the class away, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from microtome.data.images import Images
from microtome.errors import InputError

__all__ = ["Shortcut", "with_shortcut"]


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
        (N,), the class whose tag a picture bears.
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


def with_shortcut(
    images: Images,
    *,
    agreement: float,
    size: int | None = None,
    value: float | Sequence[float] = 1.0,
    seed: int = 0,
) -> Shortcut:
    """Plant a square tag on the edge of every picture; where it lies tells a class.

    The tags of the classes lie side by side, the first half of them along the upper edge and the rest along
    the lower. With probability ``agreement`` a picture bears the tag of its own class, otherwise that of
    another, all others being equally likely: 1 gives the class away, 1 / classes says nothing of it, 0 is
    always wrong. Pictures with tags that say nothing look the same as those with tags that do, so that two
    networks can be trained that differ in nothing else.

    Parameters
    ----------
    images : Images
        Labelled pictures of at least two classes.
    agreement : float
        From 0 to 1.
    size : int, optional
        Side of the tag in pixels; default a seventh of the shorter side, which is the empty margin of MNIST.
    value : float or one a channel
        The tag's gray value or colour, in [0, 1].
    seed : int
        Of the draws.

    Raises
    ------
    InputError
        When the pictures have no labels, the tags do not fit beside each other, or an option is out of range.

    Examples
    --------
    >>> two = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), classes=["a", "b"])
    >>> planted = with_shortcut(two, agreement=1.0, size=1)
    >>> planted.masks.nonzero().tolist()
    [[0, 0, 0], [1, 3, 0]]
    """
    labels = images.labels
    if labels is None or not len(images) or int(labels.min()) < 0:
        raise InputError("a shortcut needs pictures with a label each, and there are some without.")
    classes = len(images.classes) if images.classes is not None else int(labels.max()) + 1
    if not 0 <= agreement <= 1 or classes < 2:
        raise InputError(f"agreement is a probability and needs two classes, got {agreement} and {classes} classes.")
    places = _places(classes, images.shape, size)
    tags = _drawn(labels, classes, agreement, seed)
    masks = torch.stack(places)[tags]
    colour = _colour(value, images.shape[0])
    pixels = torch.where(masks[:, None], colour, images.pixels)
    tagged = replace(images, pixels=pixels, source=f"{images.source}, tags agree {agreement:.3g}".lstrip(", "))
    return Shortcut(tagged, masks, tags, float(agreement))


def _places(classes: int, shape: tuple[int, int, int], size: int | None) -> list[Tensor]:
    """The pixels of each class's tag."""
    _, height, width = shape
    side = max(1, min(height, width) // 7) if size is None else size
    above = (classes + 1) // 2
    if side < 1 or 2 * side > height or above * side > width:
        raise InputError(
            f"tags of {side} pixels for {classes} classes do not fit along the edges of {height} x {width} pixels; "
            "give a smaller size."
        )
    places = []
    for label in range(classes):
        row, place = (0, label) if label < above else (height - side, label - above)
        column = round(place * (width - side) / max(above - 1, 1))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[row : row + side, column : column + side] = True
        places.append(mask)
    return places


def _drawn(labels: Tensor, classes: int, agreement: float, seed: int) -> Tensor:
    """The class of each tag."""
    generator = torch.Generator().manual_seed(seed)
    other = (labels + torch.randint(1, classes, (len(labels),), generator=generator)) % classes
    return torch.where(torch.rand(len(labels), generator=generator, dtype=torch.float64) < agreement, labels, other)


def _colour(value: float | Sequence[float], channels: int) -> Tensor:
    given = torch.as_tensor(value, dtype=torch.float64).flatten()
    if len(given) not in (1, channels) or not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError(f"a tag's value is one number or one for each of {channels} channels, in [0, 1]; got {value}.")
    return (given * 255).round().to(torch.uint8).expand(channels)[:, None, None]
