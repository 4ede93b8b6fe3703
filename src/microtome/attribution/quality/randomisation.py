"""Randomisation test: similarity of the maps as the weights are replaced by noise from the output down."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome.attribution.own_method import MethodLike, resolve
from microtome.attribution.quality.likeness import rank_correlation, structural_similarity
from microtome.attribution.quality.norm_estimates import estimate_anew
from microtome.attribution.result import Attribution
from microtome.batch_sizes import check_count
from microtome.errors import ModelError
from microtome.inputs import Target, copied
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated

_TO = " to "  # between the first and the last layer of a step


@dataclass(frozen=True, eq=False, kw_only=True)
class Randomisation(Result, drawing="attribution.quality_figures:randomisation"):
    """The similarity of the map to the first one as more of the network is random.

    Attributes
    ----------
    judged : str
        The method.
    layers : list of str
        The layers whose weights are randomised at each step, from the output to the input; earlier ones stay random.
    correlation : Tensor
        (layers, N), Spearman's rank correlation of the signed maps with those of the whole network.
    absolute : Tensor
        (layers, N), the same of their absolute values.
    similarity : Tensor
        (layers, N), structural similarity of the signed maps.
    maps : Tensor
        (layers + 1, N, H, W), the first ones those of the network as it is.
    target : Tensor
        (N,), the target class of all maps.
    """

    judged: str
    layers: list[str]
    correlation: Tensor
    absolute: Tensor
    similarity: Tensor
    maps: Tensor
    target: Tensor

    @property
    def reached(self) -> list[str]:
        """The last layer that is random at each step; all layers between it and the output are, too."""
        return [name.rpartition(_TO)[2] for name in self.layers]


@register("randomisation", rows=("C12",), paper="adebayo2018sanity", needs="a method", kind="quality")
def randomisation(
    net: Network,
    images: Any,
    method: MethodLike,
    target: Target = None,
    *,
    options: Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Randomisation:
    """Randomise the weights layer by layer from the output down, and compare the maps (cascading) [1]_.

    Every weight is drawn from a normal distribution with the mean and deviation of the tensor that it
    replaces, so that signals keep their size and only what was learned is lost. Statistics of batch
    norm stay; torch's spectral norms get the norms of the new weights. All is done on a private copy.

    Parameters
    ----------
    net : Network
        The network; it is not touched.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    method : str or function
        A registered attribution method, or a function (network, images, target) -> map that reads the network given
        to it: see ``own_method``.
    target : int, str, sequence, Tensor or None
        The class; None for the one predicted by the whole network.
    options : mapping, optional
        The method's options.
    steps : int, optional
        Number of groups of layers; default one for each layer with weights.
    seed : int
        Seed of the new weights.

    Returns
    -------
    Randomisation
        Likeness by step, and the maps.

    Raises
    ------
    InputError
        When method, images, targets or options do not fit.
    ModelError
        When the model has no weights or cannot be copied.

    Notes
    -----
    Cost: ``steps + 1`` times that of the method, and one more copy of the weights. A map that stays
    alike does not explain the network; guided backpropagation is known to stay so, for it shows the
    edges that rectified layers let through whatever their weights.

    References
    ----------
    .. [1] Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018.

    Examples
    --------
    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), input_shape=(1, 8, 8))
    >>> result = randomisation(net, torch.ones(1, 1, 8, 8), "gradient", 0)
    >>> result.layers, bool(result.correlation.abs() < 0.5)
    (['1'], True)
    """
    judged, chosen_options = resolve(method), dict(options or {})
    explain = judged.function
    first: Attribution = explain(net, images, target, **chosen_options)
    private = _copy(net)
    groups = _gathered(parts_from_the_top(net), steps)
    generator = torch.Generator().manual_seed(seed)
    own = dict(private.model.named_parameters())
    maps = [first.map]
    for group in reported(groups, lambda group: _named(list(group))):
        drawn = [own[name] for part in group.values() for name in part]
        for parameter in drawn:
            draw_anew(parameter, generator)
        estimate_anew(private.model, drawn)
        again: Attribution = explain(private, first.images, first.target, **chosen_options)
        maps.append(again.map)
    return Randomisation(
        provenance=stated(judged=judged.name, options=chosen_options),
        judged=judged.name,
        layers=[_named(list(group)) for group in groups],
        correlation=torch.stack([rank_correlation(maps[0], one) for one in maps[1:]]),
        absolute=torch.stack([rank_correlation(maps[0].abs(), one.abs()) for one in maps[1:]]),
        similarity=torch.stack([structural_similarity(maps[0], one) for one in maps[1:]]),
        maps=torch.stack(maps),
        target=first.target,
    )


def parts_from_the_top(net: Network) -> dict[str, list[str]]:
    """Names of parameters by the layer that they belong to, the last to run first.

    That is the module that holds them, or the one around it that runs: the attention around its output projection,
    the convolution whose weight is parametrised. Parameters outside of all layers (of the model itself) are parts by
    themselves, the last to be registered first, below all layers.
    """
    order = {name: place for place, name in enumerate(net.layers)}
    layers: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name, _ in net.model.named_parameters():  # a shared one has one name
        holder = _layer_of(name, order)
        if holder:
            layers.setdefault(holder, []).append(name)
        else:
            others[name] = [name]
    if not layers and not others:
        raise ModelError("the model has no weights, so there is nothing to randomise.")
    last = sorted(layers, key=lambda holder: order[holder], reverse=True)
    return {holder: layers[holder] for holder in last} | {name: others[name] for name in reversed(others)}


def _layer_of(parameter: str, layers: Mapping[str, int]) -> str:
    """The innermost layer around a parameter, itself no part of a parametrisation; empty if there is none."""
    path = f".{parameter}".partition(".parametrizations.")[0].removeprefix(".")
    while path and (path == parameter or path not in layers):
        path = path.rpartition(".")[0]
    return path


def draw_anew(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Overwrite a parameter by normal numbers of its own mean and deviation."""
    with torch.no_grad():
        value = parameter.detach().double()
        spread = value.std(unbiased=False)
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64, device="cpu").to(value.device)
        parameter.copy_(value.mean() + spread * noise)


def _copy(net: Network) -> Network:
    try:
        model = copied(net.model)
    except Exception as error:  # any error of a user's module that cannot be copied
        raise ModelError(
            f"the model cannot be copied ({type(error).__name__}: {error}); randomisation works on a copy, "
            "so it needs a model that copy.deepcopy accepts."
        ) from error
    return net.around(model)


def _gathered(parts: dict[str, list[str]], steps: int | None) -> list[dict[str, list[str]]]:
    """The parts in at most ``steps`` groups of about equal size."""
    count = len(parts) if steps is None else min(check_count(steps, "steps"), len(parts))
    names = list(parts)
    edges = [round(place * len(names) / count) for place in range(count + 1)]
    return [{name: parts[name] for name in names[low:high]} for low, high in itertools.pairwise(edges)]


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}{_TO}{names[-1]}"
