"""The distance from an image to the nearest facet of a piecewise linear network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.spaces.operators.linear_layer import in_double
from microtome.spaces.regions.tangent_facets import Bends, bends, gradients, owner, reaches_scores, together, verify

_ROWS = 128  # images with a direction that run at a time
_ROUND = 8  # facets of one image whose gradients are computed before the bound is checked again
_DOUBT = 1e-9  # probability, for an image, that a nearer facet was passed over


@dataclass(frozen=True, eq=False, kw_only=True)
class FacetDistance(Result, drawing="spaces.linear_regions_figures:facet_distance"):
    """The nearest facet of the linear region around each image.

    Attributes
    ----------
    distance : Tensor
        (N,): L2 distance, in pixel space, to the nearest facet that the image does not lie on; infinite if there
        is none, as in a network without any activation.
    facet : list of dict
        Which one: ``layer``, ``kind``, ``unit`` (its channel and position) and ``which`` (the rival position
        of a pooling window, the upper or lower edge of a clamp); empty if there is none.
    normal : Tensor
        (N, C, H, W): the step that leads onto the facet; its length is ``distance``.
    ties : Tensor
        (N,): facets that the image lies on, to rounding, and at which the scores bend. Where there are any the image
        is on the edge of its region: plain backgrounds do this to max pooling.
    silent_ties : Tensor
        (N,): facets that the image lies on, of units that reach no score: the map is the same on both sides.
    changing : Tensor
        (N,): L2 distance to the nearest facet, not through the image, whose unit reaches a score, so that the map of
        the scores changes there; infinite if there is none. Never below ``distance``, inside which nothing
        switches at all. Units without effect may switch before it and activate others, which are nearer then.
    changing_facet : list of dict
        The facet; empty if there is none.
    changing_normal : Tensor
        (N, C, H, W): the step that leads onto it.
    checked : Tensor
        (N,): facets whose gradient was computed; all others are further by their estimated gradients.
    doubt : float
        Probability, for each image, that a nearer facet was passed over; 0 when all were computed.
    """

    distance: Tensor
    facet: list[dict[str, Any]]
    normal: Tensor
    ties: Tensor
    silent_ties: Tensor
    changing: Tensor
    changing_facet: list[dict[str, Any]]
    changing_normal: Tensor
    checked: Tensor
    doubt: float


@register(
    "facet-distance", rows=("A8",), paper="raghu2017expressive", needs="a piecewise linear network", kind="spaces"
)
def facet_distance(net: Network, images: Tensor, *, probes: int | None = 20, seed: int = 0) -> FacetDistance:
    r"""Distance from each image to the nearest facet of its linear region, over all units of the network.

    .. math:: d = \min_u \frac{|z_u(x)|}{\|\nabla_x z_u(x)\|}

    over ReLU, LeakyReLU, PReLU, abs (z the value read), ReLU6 and clamp (value less edge) and max pooling
    (largest value of a window less each other one).

    Parameters
    ----------
    net : Network
        A piecewise linear network.
    images : Tensor
        (N, C, H, W).
    probes : int, optional
        Random directions, by which the length of every unit's gradient is estimated at once; the estimate
        has a known (chi-squared) distribution, so that units which cannot be nearest are left out with a
        stated ``doubt`` of 1e-9 for each image. None computes every length exactly, from all pixels.
    seed : int
        Seed of the directions.

    Returns
    -------
    FacetDistance

    Raises
    ------
    OpaqueError
        When the network is not piecewise linear.
    InputError
        When probes is not positive.

    Notes
    -----
    Cost: ``probes`` forward passes with tangents and some tens of backward passes for each image, in float64.
    The pixel range is no facet: the nearest one may lie outside it. Facets through the image are counted as ties, not
    as distances: for an image with ties the distance holds on the image's own side of them.

    References
    ----------
    .. [1] M. Raghu, B. Poole, J. Kleinberg, S. Ganguli, J. Sohl-Dickstein. On the expressive power of deep
       neural networks. ICML 2017.

    Examples
    --------
    >>> fc = torch.nn.Linear(2, 1)
    >>> _ = fc.weight.data.copy_(torch.tensor([[3.0, 4.0]])), fc.bias.data.fill_(-1.0)
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), fc, torch.nn.ReLU()), (1, 1, 2))
    >>> round(facet_distance(net, torch.tensor([[[[0.5, 0.5]]]])).distance.item(), 12)
    0.5
    """
    if probes is not None and probes < 1:
        raise InputError(f"a number of probes from 1 on was expected, or None for all pixels; got {probes}.")
    exact = in_double(net)
    x = exact.images(net.images(images).double())
    verify(exact, x)
    pixels = math.prod(net.input_shape)
    every = probes is None or probes >= pixels
    base = _summary(exact, x)
    if base.value.shape[1] == 0:
        return _boundless(net, x, seed, probes)
    length = _lengths(exact, x, pixels if every or probes is None else probes, seed, every=every)
    spread = 1.0 if every else _spread(base.value.shape[1], probes or pixels)
    usable = (length > 0) & base.value.isfinite() & ~base.tied
    distance, chosen, normal, checked = _nearest(exact, x, base, length, spread, usable)
    effect = torch.cat([reaches_scores(exact, part) for part in x.split(_ROWS)])
    changing = [distance.clone(), chosen.clone(), normal.clone()]
    silent = ~effect.gather(1, chosen[:, None])[:, 0]
    if bool(silent.any()):  # search again among the units that reach the scores
        value = replace(base, value=base.value[silent])
        again = _nearest(exact, x[silent], value, length[silent], spread, (usable & effect)[silent])
        for whole, part in zip(changing, again, strict=False):
            whole[silent] = part
        checked[silent] += again[3]
    on = base.tied & (length > 0)
    return FacetDistance(
        distance=distance,
        facet=_owners(base, distance, chosen),
        normal=normal,
        ties=(on & effect).sum(1),
        silent_ties=(on & ~effect).sum(1),
        changing=changing[0],
        changing_facet=_owners(base, changing[0], changing[1]),
        changing_normal=changing[2],
        checked=checked,
        doubt=0.0 if every else _DOUBT,
    )


def _owners(base: Bends, distance: Tensor, chosen: Tensor) -> list[dict[str, Any]]:
    """The unit of the facet of each image; empty if there is none."""
    return [
        owner(base.facets, int(place)) if math.isfinite(away) else {}
        for away, place in zip(distance.tolist(), chosen, strict=True)
    ]


def _boundless(net: Network, x: Tensor, seed: int, probes: int | None) -> FacetDistance:
    """The answer for a network without any unit that bends: one map for all images."""
    none, never = x.new_zeros(len(x), dtype=torch.long), x.new_full((len(x),), math.inf)
    return FacetDistance(
        provenance=provenance(net, "facet-distance", seed=seed, probes=probes),
        distance=never,
        facet=[{} for _ in x],
        normal=torch.zeros_like(x),
        ties=none,
        silent_ties=none.clone(),
        changing=never.clone(),
        changing_facet=[{} for _ in x],
        changing_normal=torch.zeros_like(x),
        checked=none.clone(),
        doubt=0.0,
    )


def _summary(net: Network, x: Tensor) -> Bends:
    """Values of all facets; a random direction shows which facets depend on the image at all."""
    generator = torch.Generator().manual_seed(0)
    return together(
        [
            bends(net, part, torch.randn(part.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device))
            for part in x.split(_ROWS)
        ]
    )


def _lengths(net: Network, x: Tensor, count: int, seed: int, *, every: bool) -> Tensor:
    """(N, facets): length of every gradient, estimated from random directions or exact from all pixels."""
    generator = torch.Generator().manual_seed(seed)
    together = max(1, _ROWS // count)
    lengths = []
    for images in reported(x.split(together), "lengths of gradients"):
        total: Tensor | None = None
        for first in range(0, count, _ROWS):
            some = min(_ROWS, count - first)
            if every:
                unit = torch.eye(count, dtype=x.dtype, device=x.device)[first : first + some].reshape(
                    some, *x.shape[1:]
                )
                directions = unit.repeat(len(images), 1, 1, 1)
            else:
                shape = (some * len(images), *x.shape[1:])
                directions = torch.randn(shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device)
            found = bends(net, images.repeat_interleave(some, 0), directions).slope
            squares = found.square().reshape(len(images), some, -1).sum(1)
            total = squares if total is None else total + squares
        if total is not None:
            lengths.append((total if every else total / count).sqrt())
    return torch.cat(lengths)


def _spread(facets: int, probes: int) -> float:
    """By how much a gradient may be longer than its estimate, but for the stated doubt."""
    from scipy.stats import chi2

    return math.sqrt(probes / float(chi2.ppf(_DOUBT / facets, probes)))


def _nearest(
    net: Network, x: Tensor, base: Bends, length: Tensor, spread: float, usable: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take exact gradients in the order of the estimated distance until none that is left can be nearer."""
    value = base.value
    bound = torch.where(usable, value.abs() / torch.where(usable, length * spread, 1.0), math.inf)
    ordered = bound.sort(1)
    best, normal = x.new_full((len(x),), math.inf), torch.zeros_like(x)
    chosen, checked = x.new_zeros(len(x), dtype=torch.long), x.new_zeros(len(x), dtype=torch.long)
    width = ordered.values.shape[1]
    for start in reported(range(0, width, _ROUND), "facets in the order of their distance"):
        for offset in range(start, min(start + _ROUND, width)):
            open_ = (ordered.values[:, offset] < best).nonzero()[:, 0]
            for rows in open_.split(_ROWS) if len(open_) else ():
                facet = ordered.indices[rows, offset]
                slope = gradients(net, x[rows], facet)
                square = slope.flatten(1).square().sum(1)
                away = torch.where(square > 0, value[rows, facet].abs() / square.sqrt(), math.inf)
                nearer = away < best[rows]
                hit = rows[nearer]
                best[hit], chosen[hit] = away[nearer], facet[nearer]
                factor = -value[rows, facet] / torch.where(square > 0, square, 1.0)
                normal[hit] = (factor.reshape(-1, 1, 1, 1) * slope)[nearer]
                checked[rows] += 1
        if not bool((ordered.values[:, min(start + _ROUND, width - 1)] < best).any()):
            break
    return best, chosen, normal, checked
