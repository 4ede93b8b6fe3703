"""The result of an attribution method: values per pixel, class, score and images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import InputError
from microtome.results import UNSTATED, Result

if TYPE_CHECKING:
    from microtome.network import Network
    from microtome.results import Provenance

REDUCTIONS = ("sum", "max")


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribution(Result, drawing="attribution.attribution_figures:attribution"):
    """Values of the pixels of each image for or against a class.

    Attributes
    ----------
    values : Tensor
        (N, C, H, W), one number per pixel and channel, or (N, 1, h, w) at the size of the layer
        the method reads.
    target : Tensor
        (N,), the class that is explained.
    score : Tensor
        (N,), the logit of that class for the untouched image.
    images : Tensor
        (N, C, H, W), the images in the user's pixel space.
    classes : list of str or None
        Names of the network's classes.
    reduction : str
        How ``map`` reduces the channels: ``"sum"``, or ``"max"`` for saliency.
    unrecognised : list of str
        Operations of unknown kind, by name, and what the method uses instead of its rule.
    """

    values: Tensor
    target: Tensor
    score: Tensor
    images: Tensor
    classes: list[str] | None = None
    reduction: str = "sum"
    unrecognised: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Notes for the reader of the map."""
        found = [*super().notes, *self.unrecognised]
        flat = ~self.values.flatten(1).any(1)
        if bool(flat.any()):
            found.append(
                f"The map is zero everywhere for {int(flat.sum())} of {len(self)} images: no small change of a pixel "
                "changes the score (because of rounding, a step function, or units that are all inactive)."
            )
        return found

    @property
    def map(self) -> Tensor:
        """One signed number per pixel, (N, H, W), at the size of the image.

        A map per pixel is the sum (for saliency the maximum) over channels. A map of a layer is
        enlarged bilinearly to the image, corners not aligned, as if the grid of the layer divided
        the image evenly. Where padding shifts that grid, the map is shifted by as much.
        """
        flat = self.values.amax(1) if self.reduction == "max" else self.values.sum(1)
        return enlarged(flat, (self.images.shape[-2], self.images.shape[-1]))

    def name_of(self, index: int) -> str:
        """The name of a class, or its number where the network has no names."""
        return self.classes[index] if self.classes is not None else str(index)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerAttribution(Attribution):
    """A map at the size of one layer.

    Attributes
    ----------
    layer : str
        The layer that was read.
    """

    layer: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Signal:
    """The signal at the pixels after a backward pass from the class scores."""

    values: Tensor
    target: Tensor
    score: Tensor
    images: Tensor
    unrecognised: list[str] = field(default_factory=list)

    def attribution(
        self, net: Network, made: Provenance = UNSTATED, *, values: Tensor | None = None, reduction: str = "sum"
    ) -> Attribution:
        """The attribution with these values, or with given ones."""
        if reduction not in REDUCTIONS:
            raise InputError(f'a reduction is one of {", ".join(REDUCTIONS)}, got "{reduction}".')
        return Attribution(
            provenance=made,
            values=self.values if values is None else values,
            target=self.target,
            score=self.score,
            images=self.images,
            classes=net.classes,
            reduction=reduction,
            unrecognised=self.unrecognised,
        )


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) bilinearly at another size, corners not aligned; unchanged where the size is theirs.

    Examples
    --------
    >>> enlarged(torch.tensor([[[0.0, 1.0]]]), (1, 4))
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    if tuple(maps.shape[1:]) == size:
        return maps
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def wide(value: Tensor) -> Tensor:
    """The value in float32 or better: half precisions hold too few digits for sums over a map."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
