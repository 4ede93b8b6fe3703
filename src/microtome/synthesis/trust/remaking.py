"""Superstimuli recomputed with the same options: from another start, or from patches of the data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.network import Network
from microtome.synthesis.maximal import maximize, maximize_class
from microtome.synthesis.optimisation.priors import Prior
from microtome.synthesis.placement import mean_colour
from microtome.synthesis.superstimuli import Superstimuli
from microtome.units.streaming.crops import cut
from microtome.units.streaming.patch_tables import LayerPatches


def remade(net: Network, stimuli: Superstimuli, units: Sequence[int], seed: int, begin: Tensor | None = None) -> Tensor:
    """Images (units, C, h, w) of some units, computed with the same options and another seed.

    Parameters
    ----------
    begin : Tensor, optional
        (units, C, h, w) the images to start from.
    """
    options = stimuli.provenance.parameters
    prior = Prior(**options["prior"])
    if stimuli.layer == "logits":
        again = maximize_class(
            net, list(units), prior=prior, sign=stimuli.sign, steps=options["steps"], seed=seed, begin=begin
        )
        return again.images
    at = options["reduction"]
    again = maximize(
        net,
        stimuli.layer,
        channels=list(units),
        reduction=at if isinstance(at, str) else None,
        position=None if isinstance(at, str) else tuple(at),
        sign=stimuli.sign,
        steps=options["steps"],
        size=(int(stimuli.images.shape[2]), int(stimuli.images.shape[3])),
        prior=prior,
        seed=seed,
        begin=begin,
    )
    return again.images


def patch_starts(net: Network, stimuli: Superstimuli, patches: LayerPatches, unit: int, k: int) -> Tensor:
    """The surroundings of a unit's top patches at the size of the canvas, (k, C, h, w), the patch in the middle."""
    selection = "top" if stimuli.sign > 0 else "low"
    height, width = stimuli.images.shape[2:]
    fill = mean_colour(net, stimuli.images)
    starts = []
    for rank in range(k):
        image, position, _ = patches.entry(unit, rank, selection)
        pictures, _ = patches.pictures.fetch(torch.tensor([image], device="cpu"))
        top, left, bottom, right = patches.box_at(position)
        y, x = (top + bottom - height) // 2, (left + right - width) // 2
        box = (y, x, y + height, x + width)
        inside = cut(torch.ones_like(pictures[0]), box, 0.0).to(fill) > 0
        starts.append(torch.where(inside, cut(pictures[0], box, 0.0).to(fill), fill))
    return torch.stack(starts)
