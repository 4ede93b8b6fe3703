"""Localisation: the energy of a map inside a mask, and the pointing game."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome.attribution.quality.maps import mask_of
from microtome.attribution.result import Attribution
from microtome.errors import InputError


def energy_in_mask(attribution: Attribution | Tensor, masks: Any) -> Tensor:
    r"""The share of a map's positive part that lies in a mask.

    .. math:: E = \frac{\sum_{p \in \text{mask}} \max(M_p, 0)}{\sum_p \max(M_p, 0)}

    Parameters
    ----------
    attribution : Attribution or Tensor
        The result of any method, or maps (N, H, W).
    masks : Tensor or array
        (N, H, W), (N, 1, H, W) or one (H, W), of 0 and 1.

    Returns
    -------
    Tensor
        (N,), from 0 to 1; NaN if a map has no positive part. The mask's share of the picture is
        what a flat map would have.

    Raises
    ------
    InputError
        When masks and maps do not fit.

    References
    ----------
    .. [1] Wang et al., Score-CAM: score-weighted visual explanations for convolutional neural
       networks, CVPR workshops 2020.

    Examples
    --------
    >>> energy_in_mask(torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]]), [[1, 0], [1, 0]])
    tensor([0.7500])
    """
    maps = _maps(attribution)
    mask = mask_of(masks, maps[:, None])
    positive = maps.clamp(min=0)
    return (positive * mask).flatten(1).sum(1) / positive.flatten(1).sum(1)


def pointing_game(attribution: Attribution | Tensor, masks: Any, *, tolerance: int = 0) -> Tensor:
    """Whether a map's highest point lies in the mask, or not more than some pixels beside it [1]_.

    Parameters
    ----------
    attribution : Attribution or Tensor
        The result of any method, or maps (N, H, W).
    masks : Tensor or array
        (N, H, W), (N, 1, H, W) or one (H, W), of 0 and 1.
    tolerance : int
        Pixels (Euclidean) that the point may lie beside the mask; the paper allows 15 of photos.

    Returns
    -------
    Tensor
        (N,), bool. Where several pixels share the maximum, the first of them counts; a map that is
        the same everywhere points nowhere and misses.

    Raises
    ------
    InputError
        When masks and maps do not fit, or the tolerance is negative.

    References
    ----------
    .. [1] Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018.

    Examples
    --------
    >>> maps = torch.tensor([[[0.0, 1.0, 0.0]]])
    >>> pointing_game(maps, [[0, 0, 1]]), pointing_game(maps, [[0, 0, 1]], tolerance=1)
    (tensor([False]), tensor([True]))
    """
    _check_tolerance(tolerance)
    maps = _maps(attribution)
    mask = _grown(mask_of(masks, maps[:, None]), tolerance)
    flat = maps.flatten(1)
    hit = mask.flatten(1).gather(1, flat.argmax(1, keepdim=True))[:, 0]
    return hit & (flat.amax(1) > flat.amin(1))


def _check_tolerance(tolerance: Any) -> None:
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or tolerance < 0:
        raise InputError(f"a tolerance is a number of pixels, 0 or more, got {tolerance!r}.")


def _maps(attribution: Any) -> Tensor:
    maps = attribution.map if isinstance(attribution, Attribution) else attribution
    if not isinstance(maps, Tensor) or maps.dim() != 3:
        raise InputError("an Attribution or maps (N, H, W) are expected.")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("the maps hold NaN or infinity; finite numbers are expected.")
    return maps.detach()


def _grown(mask: Tensor, radius: int) -> Tensor:
    """Every pixel that is not farther than the radius from the mask."""
    if radius == 0:
        return mask
    at = torch.arange(-radius, radius + 1, device=mask.device)
    disc = (at[:, None] ** 2 + at**2 <= radius**2).to(torch.float32)
    return functional.conv2d(mask[:, None].float(), disc[None, None], padding=radius)[:, 0] > 0.5
