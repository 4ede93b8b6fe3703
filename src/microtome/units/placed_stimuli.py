"""Stimuli that vary pattern and position independently: each small pattern at each position of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.results import Provenance, Result, keep_on_processor, versions
from microtome.units.stimulus_tuning import stimuli, stimulus_shapes

__all__ = ["PlacedStimuli", "placed"]

_LEAST = 5  # smallest side of a pattern in pixels


@dataclass(frozen=True, eq=False, kw_only=True)
class PlacedStimuli(Result, drawing="units.what_where_figures:placed_stimuli"):
    """Every pattern at every position.

    Attributes
    ----------
    images : Tensor
        (P * L, C, H, W) in [0, 1]: all positions of the first pattern, then of the second, and so on.
    names : list of str
        (P,) descriptions of the patterns.
    places : Tensor
        (L, 2) row and column of the middle of each position, in pixels.
    """

    images: Tensor
    names: list[str]
    places: Tensor

    def __post_init__(self) -> None:
        keep_on_processor(self)


def placed(
    size: int | tuple[int, int], *, channels: int = 1, side: int | None = None, grid: int = 5,
    patterns: Tensor | None = None, names: Sequence[str] | None = None,
) -> PlacedStimuli:  # fmt: skip
    """Lines, edges, corners, curves, blobs and gratings within a disc, each at each position of a grid, on black.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the images.
    channels : int
        Number of channels, all equal.
    side : int, optional
        Side of a pattern in pixels; default a third of the image, odd. It lies inside the image at every position.
    grid : int
        Number of positions along each side.
    patterns : Tensor, optional
        (P, side, side) the user's own patterns in [0, 1].
    names : sequence of str, optional
        Their names.

    Raises
    ------
    InputError
        The patterns do not fit the image, there are fewer than two patterns or positions, or names do not fit.

    Examples
    --------
    >>> stimuli = placed(28)
    >>> stimuli.images.shape, len(stimuli.names), stimuli.places[0].tolist()
    (torch.Size([850, 1, 28, 28]), 34, [4, 4])
    """
    height, width = (size, size) if isinstance(size, int) else size
    if patterns is None:
        side = max(_LEAST, min(height, width) // 3) | 1 if side is None else side
        patterns, names = _usual(side)
    side = patterns.shape[-1]
    names = [f"pattern {place}" for place in range(len(patterns))] if names is None else list(names)
    if patterns.dim() != 3 or patterns.shape[1] != side or side > min(height, width) or len(patterns) < 2 or grid < 2:
        raise InputError(
            "at least two square patterns (P, side, side) that fit the image and a grid of at least 2 were expected, "
            f"got {tuple(patterns.shape)} for {height} x {width} and grid {grid}."
        )
    if len(names) != len(patterns):
        raise InputError(f"{len(patterns)} names were expected, got {len(names)}.")
    rows, columns = (
        torch.linspace(0, length - side, grid, dtype=torch.float32, device="cpu").round().long()
        for length in (height, width)
    )
    images = torch.zeros(len(patterns), grid * grid, height, width, dtype=torch.float32, device="cpu")
    for place in range(grid * grid):
        row, column = int(rows[place // grid]), int(columns[place % grid])
        images[:, place, row : row + side, column : column + side] = patterns.to("cpu", images.dtype)
    middle = torch.cartesian_prod(rows, columns) + side // 2
    return PlacedStimuli(
        provenance=Provenance("placed", {"size": [height, width], "side": side, "grid": grid}, versions=versions()),
        images=images.flatten(0, 1)[:, None].expand(-1, channels, -1, -1).contiguous(),
        names=names,
        places=middle,
    )


def _usual(side: int) -> tuple[Tensor, list[str]]:
    """Patterns of every family, within a disc, so that no border of a square is seen."""
    wide = max(1.5, side / 5)
    families = (
        stimuli.bars(side, angles=8, widths=[wide], offsets=[0.0], polarities=[1]),
        stimuli.edges(side, angles=4, offsets=[0.0]),
        stimuli.corners(side, directions=4, polarities=[1]),
        stimuli.curves(side, directions=4, radii=[side / 4], widths=[wide], polarities=[1]),
        stimuli.gratings(side, angles=4, periods=[side / 2.5], phases=(0, 180)),
        stimuli.blobs(side, widths=[side / 4, side / 1.6], polarities=[1]),
    )
    x, y = stimulus_shapes.plane(side, side)
    window = stimulus_shapes.disc(x, y, side / 2).float()
    drawn = torch.cat([family.images[:, 0] for family in families]) * window
    return drawn, [family.describe(place) for family in families for place in range(len(family))]
