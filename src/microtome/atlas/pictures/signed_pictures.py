"""Signed arrays as pictures: gray or diverging colours around zero, colour images around gray."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled, downscaled_signal
from microtome.atlas.widgets import Picture

__all__ = ["SIDE", "signed_pictures"]

SIDE = 160  # pixels a side of a picture


def signed_pictures(
    album: Album, file: str, values: Tensor, limit: float | None = None, quantity: str = "weight"
) -> tuple[list[Picture], str]:
    """Signed arrays (n, h, w) or (n, C, h, w) as pictures, and a sentence on their colours.

    Three channels are colours around gray; of more channels the one with the most energy is drawn.
    """
    about = ""
    if values.dim() == 4 and values.shape[1] == 3:
        size = values.flatten(1).abs().amax(1) if limit is None else values.new_full((len(values),), limit)
        shown = 0.5 + 0.5 * values / size.clamp(min=1e-12)[:, None, None, None]
        sprite, about = album.sprites.natural(file, downscaled(shown.clamp(0, 1), SIDE)), " Gray is zero."
    else:
        if values.dim() == 4 and values.shape[1] > 1:
            strongest = values.square().flatten(2).sum(2).argmax(1)
            values = values[torch.arange(len(values), device=values.device), strongest]
            about = " The channel with the most energy is drawn."
        maps = downscaled_signal(values.flatten(0, 1) if values.dim() == 4 else values, SIDE)
        limits = None if limit is None else (-limit, limit)
        sprite = album.sprites.scaled(file, maps, "diverging", quantity, limits=limits, own=limit is None, square=True)
    return [Picture(sprite, index, file) for index in range(len(values))], about
