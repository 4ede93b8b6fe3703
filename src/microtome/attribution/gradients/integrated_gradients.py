"""Integrated gradients: the gradient averaged on the straight line from a baseline image, times the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.attribution.batching import rows_of_each, scored, scored_beside
from microtome.attribution.gradients import baselines
from microtome.attribution.gradients.affine_prefix import entrance, holds_for, sent_back
from microtome.attribution.gradients.baselines import Fill
from microtome.attribution.result import Attribution, wide
from microtome.batch_sizes import check_count, fitting, in_passes
from microtome.errors import InputError, ModelError
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register

RULES = ("gauss-legendre", "midpoint", "cosine")
_NESTED = frozenset(("midpoint", "cosine"))  # three times as many points include the former points
# Maximum number of points: Gauss-Legendre takes a matrix of steps ** 2.
_MOST = {"gauss-legendre": 5_000, "midpoint": 10_000_000, "cosine": 10_000_000}
_FINER = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class PathAttribution(Attribution):
    """A map made by integrating along a path from a baseline.

    Attributes
    ----------
    completeness_gap : Tensor
        (N,), sum of ``values`` minus the rise of the score: the error of the numerical integral, in
        logits. Zero when the path is integrated exactly.
    baseline_score : Tensor
        (N,), the logit of the class for the baseline.
    steps : Tensor
        (N,), the number of points on the path of each image.
    """

    completeness_gap: Tensor
    baseline_score: Tensor
    steps: Tensor


@register("integrated-gradients", rows=("C11",), paper="sundararajan2017axiomatic", cost=120.0)
def integrated_gradients(
    net: Network,
    images: Any,
    target: Target = None,
    *,
    baseline: Fill = "black",
    steps: int = 50,
    rule: str = "gauss-legendre",
    within: float | None = None,
    max_steps: int = 450,
    seed: int = 0,
    batch: int | None = None,
) -> PathAttribution:
    r"""The gradient averaged on the straight line from a baseline, times the difference from the baseline.

    .. math:: M_i = (x_i - x'_i)\int_0^1 \frac{\partial S_c\big(x' + a(x - x')\big)}{\partial x_i}\,da,
              \qquad \sum_i M_i = S_c(x) - S_c(x')

    The integral is computed by Gauss-Legendre quadrature, by the midpoint rule, or by the midpoint rule in the angle t
    of :math:`a = (1 - \cos t)/2`, which has more points near both ends, with ``steps`` points [1]_. Without a target
    the class is the one predicted for the image itself.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    baseline : float, sequence of float, str or Tensor
        Where the path begins: a value, a picture, or ``"black"``, ``"gray"``, ``"white"``, ``"mean"``
        (the network's), ``"image-mean"``, ``"blur"``, ``"noise"``.
    steps : int
        Number of nodes of the quadrature.
    rule : str
        ``"gauss-legendre"``, ``"midpoint"`` or ``"cosine"``.
    within : float, optional
        Largest completeness gap, as a share of the rise of the score. Images with a larger gap get three times as many
        points, again and again. The midpoint and the cosine rule use the former points again.
    max_steps : int
        Largest number of points that ``within`` may lead to.
    seed : int
        For the noise baseline.
    batch : int, optional
        Points of the paths in one pass, which bounds the memory; default 2 to 10 of 224 x 224 pixels, by
        the network, up to 64 small ones.

    Returns
    -------
    PathAttribution
        ``values`` (N, C, H, W) signed, in logits; ``completeness_gap`` and ``steps`` (N,).

    Raises
    ------
    InputError
        When images, targets, baseline, steps, rule or ``within`` do not fit.
    ModelError
        When the model raises, or a gradient is not finite.

    Notes
    -----
    Cost: ``steps`` forward and backward passes per image, no weight gradients, and the backward pass through the
    affine layers next to the pixels once for all of them; memory that of ``batch`` images. Batch norms are folded in a
    private copy, see ``Network.quick``. A pixel that equals the baseline gets nothing, so that the map depends on the
    baseline: it is named in the result's provenance.

    References
    ----------
    .. [1] Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017.

    Examples
    --------
    The score is the square of the only pixel: the map is all of it.

    >>> from torch import nn
    >>> class Square(nn.Module):
    ...     def forward(self, x):
    ...         return x.flatten(1) ** 2
    >>> result = integrated_gradients(Network(Square(), input_shape=(1, 1, 1)), torch.full((1, 1, 1, 1), 0.5), steps=4)
    >>> round(result.map.item(), 6), abs(result.completeness_gap.item()) < 1e-6
    (0.25, True)
    """
    quadrature(rule, check_count(steps, "steps"))
    check_count(max_steps, "max_steps")
    if within is not None and not within > 0:
        raise InputError(f"within is the largest gap as a share of the rise of the score, above 0, got {within}.")
    checked = net.images(images).detach()
    start = baselines.baseline(net, checked, baseline, seed=seed)
    try:
        scores, ends = scored_beside(net, checked, start, target, batch)
    except ModelError as error:
        scored(net, checked, target, batch)  # the images may be at fault
        raise InputError(
            f'the network has no score for the baseline: {error} Choose another, such as baseline="blur" or "noise".'
        ) from error
    floor = wide(ends.gather(1, scores.target[:, None])[:, 0])
    rise = scores.score - floor
    quick = net.quick(checked, scores.logits, len(checked) * steps)
    values, points = torch.zeros_like(checked), torch.full((len(checked),), steps, device=checked.device)
    rows, count = torch.arange(len(checked), device=checked.device), steps
    slopes: Tensor | None = None
    while len(rows):
        slopes = _mean_slopes(quick, checked[rows], start[rows], scores.target[rows], rule, count, slopes, batch)
        values[rows], points[rows] = (checked[rows] - start[rows]) * slopes, count
        if within is None or _FINER * count > max_steps:
            break
        short = (values[rows].flatten(1).sum(1) - rise[rows]).abs() > within * rise[rows].abs()
        rows, slopes, count = rows[short], slopes[short], _FINER * count
    return PathAttribution(
        values=values,
        target=scores.target,
        score=scores.score,
        images=checked,
        classes=net.classes,
        completeness_gap=values.flatten(1).sum(1) - rise,
        baseline_score=floor,
        steps=points,
    )


def _mean_slopes(
    net: Network, images: Tensor, start: Tensor, target: Tensor, rule: str, count: int, before: Tensor | None,
    batch: int | None,
) -> Tensor:  # fmt: skip
    """The mean gradients with ``count`` points, from those with a third of the points if the rule is nested."""
    nodes, weights = quadrature(rule, count)
    if before is None or rule not in _NESTED:
        return _mean_slope(net, images, start, target, nodes, weights, batch)
    new = torch.arange(count, device="cpu") % _FINER != _FINER // 2
    old = float(weights[_FINER // 2] / quadrature(rule, count // _FINER)[1][0])
    return old * before + _mean_slope(net, images, start, target, nodes[new], weights[new], batch)


def quadrature(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Points in [0, 1] and weights that sum to one.

    Raises
    ------
    InputError
        When the rule is unknown, or ``steps`` is too large for it.

    Examples
    --------
    >>> quadrature("midpoint", 2)
    (tensor([0.2500, 0.7500], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    if steps > _MOST.get(rule, steps):
        raise InputError(f'at most {_MOST[rule]:,} points were expected for the rule "{rule}", got {steps:,}.')
    if rule == "midpoint":
        nodes = (torch.arange(steps, dtype=torch.float64, device="cpu") + 0.5) / steps
        return nodes, torch.full((steps,), 1 / steps, dtype=torch.float64, device="cpu")
    if rule == "cosine":
        angle = (torch.arange(steps, dtype=torch.float64, device="cpu") + 0.5) * (math.pi / steps)
        return (1 - angle.cos()) / 2, angle.sin() / angle.sin().sum()
    if rule == "gauss-legendre":
        at, weights = _gauss_legendre(steps)
        return torch.from_numpy((at + 1) / 2), torch.from_numpy(weights / 2)
    raise InputError(f'a rule of integration is one of {", ".join(RULES)}, got "{rule}".')


_gauss_legendre = lru_cache(maxsize=8)(np.polynomial.legendre.leggauss)  # eigenvalues: 1 ms for 50 points, 11 for 300


def _mean_slope(
    net: Network, images: Tensor, start: Tensor, target: Tensor, nodes: Tensor, weights: Tensor, batch: int | None
) -> Tensor:
    """The weighted mean of the gradients at the nodes of each image's path, several points at a time.

    If the points take more than one pass, the sum is taken after the affine prefix of the network and sent back to
    the pixels once.
    """
    count = len(images) * len(nodes)
    at = entrance(net) if count > fitting(net, batch, backwards=True) else "input"
    proved = at == "input"

    def part(first: int, last: int) -> list[tuple[int, Tensor]]:
        """The weighted sum of the gradients of each image that has points in this pass."""
        nonlocal at, proved
        points = torch.arange(first, last, device="cpu")
        image, node = points // len(nodes), points % len(nodes)
        which = image.to(images.device)
        along = nodes[node].to(images)[:, None, None, None]
        x = start[which] + along * (images[which] - start[which])
        record = net.run(x, target[which], record=at if proved else ("input", at), gradient=True, check=False)
        if not proved and not holds_for(net, images[which], at, record.gradient[at], record.gradient["input"]):
            at = "input"
        proved = True
        slope, share = record.gradient[at], weights[node]
        return [(index, _weighted_sum(slope[rows], share[rows])) for index, rows in rows_of_each(image)]

    total: dict[int, Tensor] = {}
    for sums in in_passes(net, count, part, batch, backwards=True):
        for index, one in sums:
            total[index] = total[index].add_(one) if index in total else one
    if not total:
        return torch.zeros_like(images)
    summed = torch.stack([total[index] for index in range(len(images))])

    def back(first: int, last: int) -> Tensor:
        return sent_back(net, images[first:last], at, summed[first:last])

    return torch.cat(in_passes(net, len(images), back, batch, backwards=True))


def _weighted_sum(slopes: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of gradients (n, ...), in the layout of one: mixed layouts cost ten times as much."""
    if slopes.device.type != "cpu":  # one call for all, since there each call costs more than its work
        scaled: Tensor = slopes * weights.to(slopes).reshape(-1, *(1,) * (slopes.dim() - 1))
        summed: Tensor = scaled.sum(0)
        return summed
    first, *others = zip(slopes, weights.tolist(), strict=True)
    total: Tensor = first[0] * first[1]
    for slope, weight in others:
        total.add_(slope, alpha=weight)
    return total
