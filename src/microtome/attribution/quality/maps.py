"""Maps in one form, whatever made them, with the class that they explain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import class_scores
from microtome.attribution.result import Attribution
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network


def map_of(attribution: Attribution | Tensor, images: Tensor) -> Tensor:
    """The signed map (N, H, W) of an attribution, or the maps themselves, checked against the images.

    Raises
    ------
    InputError
        When shapes do not fit or a map is not finite.
    """
    maps = attribution.map if isinstance(attribution, Attribution) else attribution
    if not isinstance(maps, Tensor):
        raise InputError(f"an Attribution or maps (N, H, W) are expected, got {type(maps).__name__}.")
    expected = (len(images), *images.shape[-2:])
    if tuple(maps.shape) != expected:
        raise InputError(f"maps of shape {expected} are expected, one per image, got {tuple(maps.shape)}.")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("the maps hold NaN or infinity; finite numbers are expected.")
    return maps.detach().to(images.device)


def per_pixel(attribution: Attribution | Tensor, images: Tensor) -> Tensor:
    """One number per pixel and channel, (N, C, H, W): its own, or its map divided evenly over channels."""
    if isinstance(attribution, Attribution) and attribution.values.shape == images.shape:
        return attribution.values.detach()
    maps = map_of(attribution, images)
    return (maps / images.shape[1])[:, None].expand_as(images)


def asked_classes(net: Network, images: Tensor, attribution: Attribution | Tensor | None, target: Target) -> Tensor:
    """The class of each image, (N,): from the target, else from the attribution, else the predicted one.

    The images are checked already.
    """
    if target is None and isinstance(attribution, Attribution):
        return attribution.target.to(images.device)
    return net.targets(target, class_scores(net, images, None))


def mask_of(masks: Any, images: Tensor) -> Tensor:
    """Masks as booleans (N, H, W); one mask serves all images.

    Raises
    ------
    InputError
        When the shape does not fit, or a mask holds other values than 0 and 1.
    """
    try:
        marks = torch.as_tensor(masks, device=images.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"masks must be a tensor or array of 0 and 1, one for each image, got {type(masks).__name__}."
        ) from error
    if marks.dim() == 4 and marks.shape[1] == 1:
        marks = marks[:, 0]
    size = tuple(images.shape[-2:])
    if marks.dim() not in (2, 3) or tuple(marks.shape[-2:]) != size or (marks.dim() == 3 and len(marks) != len(images)):
        raise InputError(f"masks of shape {size} or {(len(images), *size)} are expected, got {tuple(marks.shape)}.")
    if not bool(((marks == 0) | (marks == 1)).all()):
        raise InputError("a mask holds 0 and 1 (or False and True); compare yours with a threshold.")
    return marks.bool().to(images.device).expand(len(images), *size)
