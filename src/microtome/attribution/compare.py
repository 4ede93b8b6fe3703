"""Comparison of attribution methods: their maps of the same images and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.own_method import MethodsLike, chosen_methods
from microtome.attribution.result import Attribution
from microtome.inputs import Target
from microtome.network import Network
from microtome.progress import reported
from microtome.results import Result, provenance
from microtome.tables import Table

_NOTE = (
    "Means over the images. positive: share of the absolute map that is for the class. half: share of the pixels "
    "that hold half of it (0.5 for a flat map). agreement: mean rank correlation with the other methods."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Result, drawing="attribution.attribution_figures:comparison"):
    """Maps of several methods on the same images for the same classes.

    Attributes
    ----------
    results : dict of str to Attribution
        By method.
    agreement : Tensor
        (methods, methods), Spearman's rank correlation of the maps' absolute values, averaged over
        the images; the order is that of ``results``.
    """

    results: dict[str, Attribution]
    agreement: Tensor

    def __getitem__(self, method: str) -> Attribution:
        """The result of one method."""
        return self.results[method]

    def table(self) -> Table:
        """One row per method, averaged over the images.

        ``positive``: share of the absolute map that is for the class. ``half``: share of the pixels
        that hold half of the absolute map, the strongest first (0.5 for a flat map). ``agreement``:
        mean rank correlation with the other methods.
        """
        rows: list[dict[str, float | str]] = []
        others = max(len(self.results) - 1, 1)
        for index, (name, result) in enumerate(self.results.items()):
            flat = result.map.flatten(1)
            size = flat.abs().sum(1).clamp(min=torch.finfo(flat.dtype).tiny)
            rows.append(
                {
                    "method": name,
                    "positive": float((flat.clamp(min=0).sum(1) / size).mean()),
                    "half": float(_half_area(flat.abs()).mean()),
                    "agreement": float((self.agreement[index].sum() - self.agreement[index, index]) / others),
                }
            )
        return Table.of(rows, _NOTE)


def compare(
    net: Network,
    images: Any,
    target: Target = None,
    *,
    methods: MethodsLike = (
        "saliency",
        "gradient_x_input",
        "guided_backprop",
        "integrated_gradients",
        "grad_cam",
    ),
) -> Comparison:
    """Run several methods on the same images and classes.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    methods : sequence of str or function, or mapping
        Registered methods by name, and functions (network, images, target) -> map (see ``own_method``). A mapping
        gives each method its options, or each function a name. Occlusion without options takes windows of a seventh
        of the image's shorter side at half that step.

    Returns
    -------
    Comparison
        The results by method, how far they agree, a table and a figure.

    Raises
    ------
    InputError
        When a method is unknown or given twice, a function returns no map, or images and targets do not fit.

    Notes
    -----
    Cost: the sum of the methods' costs. Agreement does not prove that maps are right: methods of one
    family agree with each other.

    Examples
    --------
    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 2, bias=False)), input_shape=(1, 3, 3))
    >>> both = compare(net, torch.ones(1, 1, 3, 3), methods=["gradient", "saliency"])
    >>> bool(both.agreement[0, 1] > 0.999), [row["method"] for row in both.table()]
    (True, ['gradient', 'saliency'])
    """
    found = chosen_methods(methods)
    results: dict[str, Attribution] = {}
    for name, one in reported(found.items(), lambda item: item[0]):
        options = _usual(name, net) if one.usual else one.options
        results[name] = one.method.function(net, images, target, **options)
    return Comparison(
        provenance=provenance(
            net, "compare", target=target, methods={name: one.described for name, one in found.items()}
        ),
        results=results,
        agreement=_agreement([result.map for result in results.values()]),
    )


def _usual(name: str, net: Network) -> dict[str, Any]:
    """Options that a method cannot do without."""
    if name != "occlusion":
        return {}
    window = max(2, min(net.input_shape[1:]) // 7)
    return {"window": min(window, *net.input_shape[1:]), "stride": max(1, window // 2)}


def _agreement(maps: list[Tensor]) -> Tensor:
    """Mean rank correlation between all pairs of maps."""
    ranks = torch.stack([_ranks(one.flatten(1).abs()) for one in maps]).double()  # (methods, N, pixels)
    centred = ranks - ranks.mean(2, keepdim=True)
    length = centred.norm(dim=2, keepdim=True).clamp(min=1e-12)
    unit = centred / length
    return torch.einsum("anp,bnp->abn", unit, unit).mean(2)


def _ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis; equal values share their mean rank."""
    rows = []
    for row in values:
        _, inverse, counts = row.unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0).double()
        rows.append((last - (counts.double() - 1) / 2)[inverse])
    return torch.stack(rows)


def _half_area(size: Tensor) -> Tensor:
    """Share of the pixels that hold half of the total, the strongest first."""
    ordered = size.sort(1, descending=True).values.cumsum(1)
    total = ordered[:, -1:]
    return ((ordered < total / 2).sum(1) + 1).double() / size.shape[1]
