"""Evaluation of maps: the same measures for the maps of any methods on the same images and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.gradients.baselines import Fill
from microtome.attribution.own_method import Chosen, MethodLike, chosen_methods
from microtome.attribution.quality.curves import PixelCurve, deletion, insertion
from microtome.attribution.quality.infidelity import Infidelity, infidelity
from microtome.attribution.quality.localisation import energy_in_mask, pointing_game
from microtome.attribution.quality.maps import asked_classes, mask_of
from microtome.attribution.quality.sensitivity import max_sensitivity
from microtome.attribution.result import Attribution
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, keep_on_device, stated
from microtome.tables import Table

_NOTE = (
    "Means over the images. deletion and insertion: area under the curve of the class's probability, or of its "
    "score; lower is better for deletion, higher for insertion. infidelity (error of the map as a forecast of the "
    "score, in squared units of the score; scaled: of the best multiple of the map) and max-sensitivity (largest "
    "relative change of the map): lower is better. random is a map of noise."
)

RANDOM = "random"

# Methods as elsewhere, or finished attributions and maps by the caller's names.
Judged = MethodLike | Attribution | Tensor | Sequence[MethodLike] | Mapping[Any, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation(Result, drawing="attribution.quality_figures:evaluation"):
    """The quality of several maps of the same images.

    Attributes
    ----------
    measures : dict of str to Tensor
        By method and measure, ``"grad-cam: deletion (mean)"``; each (N,).
    curves : dict of str to PixelCurve
        Deletion and insertion by method and fill, under the same names.
    names : list of str
        The methods; the last is ``"random"``, a map of noise, for comparison.
    numbers : list of str
        The measures.
    target : Tensor
        (N,), the class of each image.
    """

    measures: dict[str, Tensor]
    curves: dict[str, PixelCurve]
    names: list[str]
    numbers: list[str]
    target: Tensor

    def __post_init__(self) -> None:
        keep_on_device(self, self.target.device)

    def table(self) -> Table:
        """One row per method: the mean of each measure over the images (those where it is defined)."""
        return Table.of(
            [
                {"method": name, **{number: self._mean(f"{name}: {number}") for number in self.numbers}}
                for name in self.names
            ],
            _NOTE,
        )

    def _mean(self, key: str) -> float:
        return float(self.measures[key].nanmean()) if key in self.measures else float("nan")


@register("evaluate", rows=("C12",), paper="petsiuk2018rise", needs="methods or maps", kind="quality")
def evaluate(
    net: Network,
    images: Any,
    attribution: Judged,
    target: Target = None,
    *,
    masks: Any = None,
    fills: Sequence[Fill] = ("mean", "blur"),
    steps: int = 28,
    samples: int = 16,
    tolerance: int = 0,
    seed: int = 0,
    batch: int | None = None,
) -> Evaluation:
    """Deletion, insertion, infidelity, max-sensitivity and, given masks, pointing game and energy inside.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    attribution : str, function, sequence of these, mapping, Attribution or Tensor
        Methods by name; functions (network, images, target) -> map (see ``own_method``); a mapping of methods to
        options, or of names to functions, attributions or maps (N, H, W) of any origin; or one attribution or one
        batch of maps.
    target : int, str, sequence, Tensor or None
        The class; None for the predicted one. Attributions must explain the same class.
    masks : Tensor or array, optional
        (N, H, W) or (H, W), of 0 and 1: where the map should point.
    fills : sequence
        The replacements of pixels, each in turn: see ``baseline``.
    steps : int
        Points of each curve after the first.
    samples : int
        Perturbations for infidelity; half as many for max-sensitivity.
    tolerance : int
        Tolerance of the pointing game, in pixels.
    seed : int
        Seed of the perturbations and of the random map.
    batch : int, optional
        Images in one pass.

    Returns
    -------
    Evaluation
        Measures by method, curves, a table and a figure. Max-sensitivity is measured only for names and
        functions, since a finished map cannot be recomputed.

    Raises
    ------
    InputError
        When methods, maps, masks or options do not fit.

    Notes
    -----
    Cost per method and image: about ``2 * len(fills) * steps + samples`` forward passes and
    ``samples / 2`` maps. No single number proves a map right: deletion favours maps that surprise the
    network, infidelity favours the gradient, sensitivity favours maps that ignore the network.

    Examples
    --------
    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), input_shape=(1, 3, 3))
    >>> found = evaluate(net, torch.ones(2, 1, 3, 3), ["gradient", "saliency"], 0, steps=3, samples=2)
    >>> [row["method"] for row in found.table()], sorted(found.numbers)[:2]
    (['gradient', 'saliency', 'random'], ['deletion (blur)', 'deletion (mean)'])
    """
    checked = net.images(images).detach()
    chosen = asked_classes(net, checked, _finished(attribution), target)
    if isinstance(fills, str | int | float) or not len(fills):
        raise InputError(f'fills must be a list of at least one fill, such as ("mean", "blur"), got {fills!r}.')
    if tolerance < 0:
        raise InputError(f"the tolerance of the pointing game must be at least 0 pixels, got {tolerance}.")
    mask = None if masks is None else mask_of(masks, checked)
    maps, methods = _judged(net, checked, chosen, attribution)
    maps[RANDOM] = _noise(checked, seed)
    measures: dict[str, Tensor] = {}
    curves: dict[str, PixelCurve] = {}
    for name, one in reported(maps.items(), lambda item: item[0]):
        for fill in fills:
            for trial in (deletion, insertion):
                key = f"{name}: {trial.__name__} ({_fill_name(fill)})"
                curves[key] = trial(net, checked, one, chosen, fill=fill, steps=steps, batch=batch)
                measures[key] = curves[key].area
        error: Infidelity = infidelity(net, checked, one, chosen, samples=samples, seed=seed, batch=batch)
        measures[f"{name}: infidelity"] = error.values
        measures[f"{name}: infidelity (scaled)"] = error.scaled
        if name in methods:
            draws, method = max(1, samples // 2), methods[name]
            measures[f"{name}: max-sensitivity"] = max_sensitivity(
                net, checked, method.method.function, chosen, options=method.options, samples=draws, seed=seed
            ).values
        if mask is not None:
            measures[f"{name}: pointing game"] = pointing_game(one, mask, tolerance=tolerance).to(checked.dtype)
            measures[f"{name}: energy in mask"] = energy_in_mask(one, mask)
    return Evaluation(
        provenance=stated(
            fills=list(fills),
            methods={name: methods[name].described if name in methods else {} for name in maps},
        ),
        measures=measures,
        curves=curves,
        names=list(maps),
        numbers=list(dict.fromkeys(key.partition(": ")[2] for key in measures)),
        target=chosen,
    )  # fmt: skip


def _judged(
    net: Network, images: Tensor, target: Tensor, attribution: Judged
) -> tuple[dict[str, Attribution | Tensor], dict[str, Chosen]]:
    """The maps by name, and the methods that are run, by name."""
    maps: dict[str, Attribution | Tensor] = {}
    methods: dict[str, Chosen] = {}
    for name, one in _listed(attribution):
        if name in maps or name == RANDOM:
            raise InputError(f'each method or map needs its own name, and "{RANDOM}" is reserved; got "{name}".')
        if isinstance(one, Chosen):
            methods[name] = one
            maps[name] = one.method.function(net, images, target, **one.options)
        else:
            _check_same_class(name, one, target)
            maps[name] = one
    if not maps:
        raise InputError("at least one method or map was expected; none was given.")
    return maps, methods


def _listed(attribution: Judged) -> list[tuple[str, Attribution | Tensor | Chosen]]:
    """The maps and methods to evaluate with their names, in the order given."""
    if isinstance(attribution, Attribution):
        return [(attribution.provenance.method, attribution)]
    if isinstance(attribution, Tensor):
        return [("map", attribution)]
    if not isinstance(attribution, Mapping):
        return list(chosen_methods(attribution).items())
    listed: list[tuple[str, Attribution | Tensor | Chosen]] = []
    for name, one in attribution.items():
        finished = isinstance(one, Attribution | Tensor)
        listed += [(name, one)] if finished else list(chosen_methods({name: one}).items())
    return listed


def _finished(attribution: Judged) -> Attribution | None:
    """The first finished attribution; its classes are the default target."""
    listed = list(attribution.values()) if isinstance(attribution, Mapping) else [attribution]
    return next((one for one in listed if isinstance(one, Attribution)), None)


def _check_same_class(name: str, output: Attribution | Tensor, target: Tensor) -> None:
    if isinstance(output, Attribution) and not torch.equal(output.target.to(target.device), target):
        raise InputError(
            f'the maps of "{name}" explain classes {output.target.tolist()[:8]}; {target.tolist()[:8]} are given; '
            "make them for the same target."
        )


def _noise(images: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(images), *images.shape[-2:])
    return torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu").to(images)


def _fill_name(fill: Fill) -> str:
    return fill if isinstance(fill, str) else "picture" if isinstance(fill, Tensor) and fill.dim() > 1 else str(fill)
