"""Which channels one round of pruning removes, and how many of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.surgery.channels import removal
from microtome.surgery.channels.removal import Prunable
from microtome.surgery.compression.compress import compressed, survey
from microtome.surgery.pruning import saliency_scores

Criterion = str | Callable[[Network, Dataset, str], Tensor]

CRITERIA = ("absorption", *saliency_scores.SCORES)


def targets_by_family(found: Prunable, channels: Mapping[str, int] | None) -> dict[str, int] | None:
    """The number of channels that each family keeps at the end; None if the multiply-adds decide.

    Raises
    ------
    InputError
        When a layer would be emptied or has fewer channels.
    LayerError
        When no channel of the network can be removed.
    """
    if not found.families:
        why = next((f'; of layer "{name}": {reason}' for name, reason in found.refused.items()), "")
        raise LayerError(f"no channel of the network can be removed{why}.")
    if channels is None:
        return None
    targets: dict[str, int] = {}
    for layer, count in channels.items():
        family = found.family(layer)
        if not 1 <= count <= len(family.channels):
            raise InputError(
                f'layer "{layer}" has {len(family.channels)} channels and must keep between 1 and all, got {count}; '
                "surgery.without removes a whole layer."
            )
        targets[family.name] = count
    return targets


def cut(
    found: Prunable,
    data: Dataset,
    criterion: Criterion,
    share: float,
    targets: dict[str, int] | None,
    budget: float,
    start: Prunable,
    batch: int,
    seed: int,
) -> tuple[Network, list[int]]:
    """Cut the network for one round: the smaller network and the removed channels.

    Raises
    ------
    InputError
        When the multiply-adds cannot be reached, or there is no such criterion.
    """
    sizes = {name: len(family.channels) for name, family in start.families.items()}
    keep: dict[str, int] | None = None
    if targets is not None:
        keep = {name: round(sizes[name] * (count / sizes[name]) ** share) for name, count in targets.items()}
    if criterion == "absorption":
        known = survey(found.net, data, batch=batch, seed=seed)
        now = found.channels.multiply_adds()
        return compressed(known, data, min(1.0, budget / now), keep=keep, fit=False, batch=batch)
    if keep is None:
        keep = _uniform(found, sizes, budget)
    gone: list[int] = []
    for name, count in keep.items():
        family = found.families.get(name)
        lost = 0 if family is None else len(family.channels) - max(1, count)
        if family is not None and lost > 0:
            scores = saliency_scores.scores(found, family, data, criterion, batch=batch, seed=seed)
            gone += [family.channels[place] for place in scores.argsort(stable=True)[:lost].tolist()]
    return removal.without(found.net, found.channels, gone), gone


def _uniform(found: Prunable, sizes: Mapping[str, int], budget: float) -> dict[str, int]:
    """The largest common share of every layer's channels that meets the budget."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        gone = [
            channel
            for name, family in found.families.items()
            for channel in family.channels[max(1, round(middle * sizes[name])) :]
        ]
        low, high = (low, middle) if found.channels.multiply_adds(gone) > budget else (middle, high)
    least = found.channels.multiply_adds([c for f in found.families.values() for c in f.channels[1:]])
    if least > budget:
        raise InputError("the requested multiply-adds cannot be reached without emptying a layer; use a larger share.")
    return {name: max(1, round(low * count)) for name, count in sizes.items() if name in found.families}
