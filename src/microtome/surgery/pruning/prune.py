"""Iterative pruning: channels go in rounds, the network is trained again after each, and every round is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome.data import Dataset, adapt, fetch
from microtome.errors import InputError, LayerError, StoreError
from microtome.network import Network
from microtome.progress import Listener
from microtome.registry import register
from microtome.results import Provenance, Result, load, provenance, stated
from microtome.surgery.channels import removal
from microtome.surgery.channels.removal import Prunable
from microtome.surgery.compression.compress import compressed, survey
from microtome.surgery.held_out import sampled, split
from microtome.surgery.pruning import saliency_scores
from microtome.surgery.smaller import SmallerNetwork, described, latency
from microtome.tables import Table
from microtome.training.fit import Recipe, evaluate, fit

Criterion = str | Callable[[Network, Dataset, str], Tensor]

_COMPARED = 16  # first and last images by which an interrupted call knows its data again
CRITERIA = ("absorption", *saliency_scores.SCORES)


@dataclass(frozen=True, eq=False, kw_only=True)
class PruningRound(SmallerNetwork, drawing="surgery.pruning_figures:widths"):
    """One round; ``removed`` lists those of the rounds before, too. See ``SmallerNetwork``.

    Attributes
    ----------
    number : int
        From 1.
    before, pruned, retrained : float
        Accuracy before the round, right after the cut, and after retraining.
    channels : dict of str to int
        What each layer with removable channels makes now.
    masked_difference : float
        Largest difference of any logit between the cut network and the same one with these channels masked, on
        random images, before anything else changed.
    images : int
        How many images the accuracies were measured on.
    kept : bool
        False for a round that lost more accuracy than was admitted; it ends the pruning.
    """

    number: int
    before: float
    pruned: float
    retrained: float
    channels: dict[str, int]
    masked_difference: float
    images: int
    kept: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Pruning(Result, drawing="surgery.pruning_figures:pruning"):
    """A network pruned in rounds.

    Attributes
    ----------
    rounds : list of PruningRound
    accuracy : float
        Of the network as it was given.
    widths : dict of str to int
        Channels of each layer at the beginning.
    latency : list of float
        Median processor seconds of a pass of 8 images before and after, the median of their ratio, and its quartiles.
    """

    rounds: list[PruningRound]
    accuracy: float
    widths: dict[str, int]
    latency: list[float]

    @property
    def last(self) -> PruningRound | None:
        """The last round that was kept; None where the first one already lost too much."""
        return next((one for one in reversed(self.rounds) if one.kept), None)

    @property
    def network(self) -> Network:
        """The network after the last round that was kept.

        Raises
        ------
        StoreError
            When the result comes from a file; use ``rebuild``.
        """
        if self.last is not None:
            return self.last.network
        found = self.__dict__.get("_network")
        if found is None:
            raise StoreError("no round was kept, and the file does not hold the network as it was given.")
        return found  # type: ignore[no-any-return]  # set by ``prune``

    def rebuild(self, net: Network, number: int | None = None) -> Network:
        """The network after a round, by default the last kept, from the one that was pruned.

        Raises
        ------
        InputError
            When there is no such round.
        ModelError
            When it is another network.
        """
        if number is None:
            return net if self.last is None else self.last.rebuild(net)
        if not 1 <= number <= len(self.rounds):
            raise InputError(f"there are rounds 1 to {len(self.rounds)}, not {number}.")
        return self.rounds[number - 1].rebuild(net)

    @property
    def faster(self) -> bool:
        """Whether the last network is faster beyond the scatter of the measurement."""
        return bool(self.latency) and self.latency[4] < 1.0

    def table(self) -> Table:
        """One row for each round; accuracies in percent with the standard error for so many images."""
        return Table.of(
            [
                {
                    "round": one.number,
                    "before": 100 * one.before,
                    "pruned": 100 * one.pruned,
                    "retrained": 100 * one.retrained,
                    "error": 100 * (one.retrained * (1 - one.retrained) / one.images) ** 0.5,
                    "channels": "-".join(map(str, one.channels.values())),
                    "multiply-adds": one.share,
                    "kept": one.kept,
                }
                for one in self.rounds
            ]
        )


@register("prune", rows=("B3",), paper="dissecting", needs="channels and labelled images", kind="surgery")
def prune(
    net: Network,
    train: Dataset,
    *,
    test: Dataset | None = None,
    rounds: int = 7,
    criterion: Criterion = "absorption",
    multiply_adds: float = 0.25,
    channels: Mapping[str, int] | None = None,
    tolerance: float = 0.01,
    epochs: int = 1,
    lr: float = 0.02,
    batch: int = 64,
    sample: int = 512,
    folder: Path | str | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> Pruning:
    r"""Prune whole output channels in several rounds, with retraining after each [1]_.

    Round r of R leaves of a layer with C channels :math:`C (c / C)^{r / R}`, with c what is asked for at the end, or
    of all multiply-adds the share :math:`s^{r / R}`. The result is an ordinary smaller module: weights, biases and
    norms have fewer entries, and channels that are added, joined or grouped with others go together.

    Parameters
    ----------
    net : Network
        In float32; it stays as it is.
    train, test : data sets
        Labelled images to retrain on, and to measure on; without ``test`` the last fifth of ``train`` is held out.
    rounds : int
        How many.
    criterion : str or function
        Which channels go. ``"absorption"``: those that the next layer can best do without after a least-squares fit
        of its weights (see ``surgery.compress``), which also fits it. ``"magnitude"``: the L2 norm of the incoming
        weights; ``"taylor"``: the first-order change of the loss; ``"variation"``: the standard deviation of the
        activation over the data; another column of ``units.criteria``; or a function (net, data, layer) that gives a
        number for each unit. The channels with the least go.
    multiply_adds : float
        Share of the multiply-adds to be left at the end, where ``channels`` is not given.
    channels : mapping of str to int, optional
        For each layer how many channels it shall have at the end; other layers keep theirs.
    tolerance : float
        Accuracy that may be lost, against the network as it was given. The round that loses more ends the pruning and
        is marked as not kept.
    epochs, lr, batch
        Of the retraining: SGD with momentum 0.9 (Nesterov), the rate rising and falling once.
    sample : int
        How many training images the criterion sees.
    folder : path, optional
        Where each round is written as it ends: ``round-1.safetensors``, ... ``microtome.load`` reads them. A call that
        was interrupted goes on after the last of them when it is given again, with the same result.
    seed : int
        Of the order of the images.
    progress : function, optional
        Told of every training step.

    Returns
    -------
    Pruning
        ``.rounds`` (each: accuracy before, pruned, retrained; channels), ``.network``, ``.faster``.

    Raises
    ------
    InputError
        When a layer would be emptied, its channels cannot be removed, or data or options do not fit.
    LayerError
        When a layer does not exist or no channel of the network can be removed.
    StoreError
        When the folder holds rounds of another network, other data or other options.

    Notes
    -----
    Cost: for each round the criterion on ``sample`` images, ``epochs`` passes over ``train`` and two over ``test``.
    The cut network and the masked one agree to 1e-4 of the largest logit in float32 (sums in another order); the
    difference found is kept for each round. A pruned network need not be faster: only ``faster`` says so.

    References
    ----------
    .. [1] "Dissecting a ConvNet": seven rounds of pruning and retraining on MNIST.
    """
    _check(net, rounds, multiply_adds, tolerance)
    training, held_out = split(adapt(train, net), None if test is None else adapt(test, net))
    some = sampled(training, sample)
    targets = _targets(removal.prunable(net), channels)
    accuracy = _accuracy(net, held_out)
    kept, done = net, list[PruningRound]()
    start = removal.prunable(net)
    whole = start.channels.multiply_adds()
    asked = {"rounds": rounds, "criterion": criterion, "multiply_adds": multiply_adds, "channels": channels,
             "tolerance": tolerance, "epochs": epochs, "lr": lr, "batch": batch, "sample": sample,
             "train": _identity(training), "test": _identity(held_out)}  # fmt: skip
    for number in range(1, rounds + 1):
        note = provenance(net, "prune", seed, round=number, **asked)
        file = None if folder is None else Path(folder) / f"round-{number}.safetensors"
        if file is not None and file.exists():
            one = _stored(file, note, net)
            done.append(one)
            if not one.kept:
                break
            kept = one.network
            continue
        share = number / rounds
        found = removal.prunable(kept)
        small, gone = _cut(found, some, criterion, share, targets, multiply_adds**share * whole, start, batch, seed)
        probe = torch.rand((4, *net.input_shape), generator=torch.Generator().manual_seed(number), device="cpu").to(
            net.device
        )
        plain = removal.without(kept, found.channels, gone)
        masked = removal.masked(kept, found.channels, gone)
        away = float((plain.logits(probe, check=False) - masked.logits(probe, check=False)).abs().max())
        pruned = _accuracy(small, held_out)
        recipe = Recipe(epochs=epochs, batch=batch, lr=lr, nesterov=True, schedule="one-cycle", weight_decay=5e-4,
                        mean=net.mean, std=net.std, seed=seed + number)  # fmt: skip
        small.model.requires_grad_(True)
        fit(small.model, training, recipe=recipe, progress=progress)
        small = removal.wrapped(net, small.model)
        retrained = _accuracy(small, held_out)
        fine = retrained >= accuracy - tolerance
        before = done[-1].retrained if done else accuracy
        one = _round(
            note, kept, found, gone, small, done, number=number, before=before, pruned=pruned,
            retrained=retrained, masked_difference=away, images=len(held_out), kept=fine,
        )  # fmt: skip
        done.append(one)
        if file is not None:
            one.save(file)
        if not fine:
            break
        kept = small
    timed = latency(net, kept)
    result = Pruning(
        provenance=stated(train=len(training), test=len(held_out)),
        rounds=done,
        accuracy=accuracy,
        widths=_widths(start),
        latency=[timed.before, timed.after, timed.ratio, timed.low, timed.high],
    )  # fmt: skip
    object.__setattr__(result, "_network", kept)
    return result


def _identity(dataset: Dataset) -> dict[str, object]:
    """What tells one data set from another: the number of images, and the first and last ones with their labels."""
    places = {*range(min(len(dataset), _COMPARED)), *range(max(0, len(dataset) - _COMPARED), len(dataset))}
    images, labels = fetch(dataset, torch.tensor(sorted(places), device="cpu"))
    return {"images": len(dataset), "compared": images, "labels": labels}


def _stored(file: Path, note: Provenance, net: Network) -> PruningRound:
    """A round of an earlier call, with its network."""
    one = load(file)
    if not isinstance(one, PruningRound):
        raise StoreError(f"{file} holds {type(one).__name__}, not a round of pruning; choose another folder.")
    made = one.provenance
    if made.fingerprint != note.fingerprint:
        raise StoreError(f"{file} is a round of another network; choose another folder.")
    other = [name for name, value in note.parameters.items() if made.parameters.get(name) != value]
    if other or made.seed != note.seed:
        name = other[0] if other else "seed"
        was = made.parameters.get(name) if other else made.seed
        raise StoreError(
            f"{file} was made with {name}={was!r}, asked is {note.parameters[name] if other else note.seed!r}; choose "
            "another folder, or the same options."
        )
    one.attach(one.rebuild(net))
    return one


def _check(net: Network, rounds: int, multiply_adds: float, tolerance: float) -> None:
    if net.dtype != torch.float32:
        raise InputError(f"training is in float32, and the network is in {net.dtype}; convert it with .float().")
    if rounds < 1:
        raise InputError(f"at least one round is expected, got {rounds}.")
    if not 0 < multiply_adds <= 1:
        raise InputError(f"a share of the multiply-adds in (0, 1] is expected, got {multiply_adds}.")
    if not tolerance >= 0:
        raise InputError(f"the accuracy that may be lost is not negative, got {tolerance}.")


def _targets(found: Prunable, channels: Mapping[str, int] | None) -> dict[str, int] | None:
    """The asked number of channels by family."""
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
                "surgery.without takes a whole layer out."
            )
        targets[family.name] = count
    return targets


def _cut(
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
    """One round's cut: the smaller network and the channels that are gone."""
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
    """The same share of every layer's first channels, the largest that meets the budget."""
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
        raise InputError("the multiply-adds asked for cannot be reached without emptying a layer; ask for more.")
    return {name: max(1, round(low * count)) for name, count in sizes.items() if name in found.families}


def _round(
    note: Provenance, cut: Network, found: Prunable, gone: list[int], small: Network, done: list[PruningRound],
    **measured: Any,
) -> PruningRound:  # fmt: skip
    fields: dict[str, Any] = described(cut, found.channels, gone, small)
    if done:  # counted from the network as it was given
        fields["removed"] = done[-1].removed + fields["removed"]
        fields["multiply_adds"][0], fields["parameters"][0] = done[0].multiply_adds[0], done[0].parameters[0]
        for layer, (was, now) in done[-1].widths.items():
            fields["widths"][layer] = [was, fields["widths"].get(layer, [was, now])[1]]
    one = PruningRound(provenance=note, channels=_widths(removal.prunable(small)), **fields, **measured)
    one.attach(small)
    return one


def _widths(found: Prunable) -> dict[str, int]:
    return {name: len(family.channels) for name, family in found.channels.families.items() if not family.pinned}


def _accuracy(net: Network, dataset: Dataset) -> float:
    return evaluate(net.model, dataset, mean=net.mean, std=net.std)[1]
