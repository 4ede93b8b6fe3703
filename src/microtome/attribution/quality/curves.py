"""Deletion and insertion: the probability of a class as pixels are removed or added in the order of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.gradients.baselines import Fill, baseline
from microtome.attribution.quality.maps import asked_classes, map_of
from microtome.attribution.result import Attribution, wide
from microtome.batch_sizes import check_count, in_passes
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelCurve(Result, drawing="attribution.quality_figures:pixel_curve"):
    """The probability of a class while pixels are replaced in the order of a map.

    Attributes
    ----------
    fraction : Tensor
        (steps + 1,), share of the pixels exchanged so far, from 0 to 1.
    probability : Tensor
        (N, steps + 1), probability of the class, as the network's output means it; of a network with
        ``output="value"`` the value.
    area : Tensor
        (N,), area under the curve (trapezoids); from 0 to 1 for probabilities.
    target : Tensor
        (N,), the class.
    quantity : str
        ``"probability"``, or ``"value"`` where the output is a value.
    """

    fraction: Tensor
    probability: Tensor
    area: Tensor
    target: Tensor
    quantity: str = "probability"


@register("deletion", rows=("C12",), paper="petsiuk2018rise", needs="maps of the images", kind="quality")
def deletion(
    net: Network,
    images: Any,
    attribution: Attribution | Tensor,
    target: Target = None,
    *,
    fill: Fill = "mean",
    steps: int = 28,
    batch: int | None = None,
) -> PixelCurve:
    r"""Remove pixels, the most important first, and record the probability of the class.

    .. math:: A = \int_0^1 p_c\big(x \odot [\mathrm{rank} \ge qP] + b \odot [\mathrm{rank} < qP]\big)\, dq

    A small area means that the map finds what the network needs [1]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    attribution : Attribution or Tensor
        The result of any method for these images, or maps (N, H, W). Pixels go in the order of the
        signed map; equal ones row by row.
    target : int, str, sequence, Tensor or None
        The class; None for that of the attribution, or for the predicted one where maps are given.
    fill : float, sequence of float, str or Tensor
        The replacement of a pixel: see ``baseline``; ``"mean"`` and ``"blur"`` are common.
    steps : int
        Points of the curve after the first.
    batch : int, optional
        Images in one pass.

    Returns
    -------
    PixelCurve
        Probabilities and the area below them.

    Raises
    ------
    InputError
        When maps, targets or options do not fit the images.

    Notes
    -----
    Cost: ``steps + 1`` forward passes per image. Images with pixels removed are unlike those of the
    training, so a part of each fall has nothing to do with the map: compare with a random map and
    between fills.

    References
    ----------
    .. [1] Petsiuk, Das and Saenko, RISE: randomized input sampling for explanation, BMVC 2018.

    Examples
    --------
    A network that reads the first pixel only: its probability falls at the first step.

    >>> from torch import nn
    >>> line = nn.Linear(2, 2, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[20.0, 0.0], [0.0, 0.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> curve = deletion(net, torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]]), 0, fill=0.0, steps=2)
    >>> curve.probability, curve.area
    (tensor([[1.0000, 0.5000, 0.5000]]), tensor([0.6250]))
    """
    return _curve(net, images, attribution, target, fill, steps, batch, insert=False)


@register("insertion", rows=("C12",), paper="petsiuk2018rise", needs="maps of the images", kind="quality")
def insertion(
    net: Network,
    images: Any,
    attribution: Attribution | Tensor,
    target: Target = None,
    *,
    fill: Fill = "blur",
    steps: int = 28,
    batch: int | None = None,
) -> PixelCurve:
    """Add the pixels of the image to one without information, the most important first.

    A large area means that the map finds what is enough for the network [1]_. Parameters, result,
    errors and cost are those of ``deletion``.

    References
    ----------
    .. [1] Petsiuk, Das and Saenko, RISE: randomized input sampling for explanation, BMVC 2018.

    Examples
    --------
    >>> from torch import nn
    >>> line = nn.Linear(2, 2, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[20.0, 0.0], [0.0, 0.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> insertion(net, torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]]), 0, fill=0.0, steps=2).probability
    tensor([[0.5000, 1.0000, 1.0000]])
    """
    return _curve(net, images, attribution, target, fill, steps, batch, insert=True)


def _curve(
    net: Network,
    images: Any,
    attribution: Attribution | Tensor,
    target: Target,
    fill: Fill,
    steps: int,
    batch: int | None,
    *,
    insert: bool,
) -> PixelCurve:
    checked = net.images(images).detach()
    steps = check_count(steps, "steps")
    chosen = asked_classes(net, checked, attribution, target)
    rank = _ranks(map_of(attribution, checked))
    bare = baseline(net, checked, fill)
    start, end = (bare, checked) if insert else (checked, bare)
    fraction = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")
    pixels = checked.shape[-2] * checked.shape[-1]
    count = (fraction * pixels).round().long().to(checked.device)
    # Pairs of image and step share batches, so that a few images fill a batch, too.
    which = torch.arange(len(checked) * (steps + 1), device=checked.device)
    quick = net.quick(checked, ["logits"], len(which), backwards=False)

    def part(first: int, last: int) -> Tensor:
        pairs = which[first:last]
        image, step = pairs // (steps + 1), pairs % (steps + 1)
        gone = (rank[image] < count[step][:, None]).reshape(-1, 1, *checked.shape[-2:])
        covered = torch.where(gone, end[image], start[image])
        logits = wide(quick.logits(covered, batch=len(covered), check=False))
        return net.head.readout(logits).gather(1, chosen[image][:, None])[:, 0]

    curve = torch.cat(in_passes(net, len(which), part, batch)).reshape(len(checked), steps + 1)
    return PixelCurve(
        provenance=provenance(net, "insertion" if insert else "deletion", target=target, fill=fill, steps=steps),
        fraction=fraction.to(curve.device),
        probability=curve,
        area=torch.trapezoid(curve, fraction.to(curve), dim=1),
        target=chosen,
        quantity=net.head.quantity,
    )


def _ranks(maps: Tensor) -> Tensor:
    """Place of each pixel in the order of importance, 0 for the first; (N, pixels)."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)
