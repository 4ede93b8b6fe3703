"""Iterative pruning: channels are removed in rounds, with retraining after each; every round is stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from microtome.data import Dataset, adapt
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Listener, reported
from microtome.registry import register
from microtome.results import Provenance, provenance, stated
from microtome.surgery.channels import removal
from microtome.surgery.channels.removal import Prunable
from microtome.surgery.held_out import sampled, split
from microtome.surgery.pruning.channel_choice import CRITERIA, Criterion, cut, targets_by_family
from microtome.surgery.pruning.pruning_results import Pruning, PruningRound
from microtome.surgery.pruning.stored_rounds import identity, stored_round
from microtome.surgery.smaller import described, latency
from microtome.training.class_scores import check_precision
from microtome.training.fit import Recipe, evaluate, fit

__all__ = ["CRITERIA", "Criterion", "Pruning", "PruningRound", "prune"]


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

    Round r of R leaves :math:`C (c / C)^{r / R}` of a layer's C channels, with c channels at the end, or the share
    :math:`s^{r / R}` of all multiply-adds. The result is an ordinary smaller module: weights, biases and
    norms have fewer entries, and channels that are added, joined or grouped with others are removed together.

    Parameters
    ----------
    net : Network
        In float32; it is not changed.
    train, test : data sets
        Labelled images for retraining and for testing; without ``test`` one of every five images of ``train`` is
        held out, at random.
    rounds : int
        How many.
    criterion : str or function
        Criterion of removal. ``"absorption"``: the channels whose loss the next layer compensates best by a
        least-squares fit of its weights (see ``surgery.compress``), which is also applied. ``"magnitude"``: the L2 norm
        of the incoming weights; ``"taylor"``: the first-order change of the loss; ``"variation"``: the standard
        deviation of the activation over the data; another column of ``units.criteria``; or a function (net, data,
        layer) that gives a number for each unit. The channels with the smallest values are removed.
    multiply_adds : float
        Share of the multiply-adds at the end, if ``channels`` is not given.
    channels : mapping of str to int, optional
        Number of channels of each layer at the end; other layers keep all.
    tolerance : float
        Largest loss of accuracy relative to the original network. A round that loses more ends the pruning and
        is marked as not kept.
    epochs, lr, batch
        Options of the retraining: SGD with momentum 0.9 (Nesterov) and a one-cycle learning rate.
    sample : int
        Number of training images for the criterion.
    folder : path, optional
        Folder for the finished rounds: ``round-1.safetensors``, ... ``microtome.load`` reads them. An interrupted call
        that is repeated resumes after the last round, with the same result.
    seed : int
        Random seed of the order of images.
    progress : function, optional
        Called after each training step.

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
    Cost: for each round the criterion on ``sample`` images, ``epochs`` passes over ``train`` and two over ``test``;
    both are also read once at the start, so that rounds in ``folder`` of other images are noticed.
    The cut network and the masked one agree to 1e-4 of the largest logit in float32 (sums in another order); the
    measured difference is stored for each round. A pruned network need not be faster; ``faster`` tells.

    References
    ----------
    .. [1] "Dissecting a ConvNet": seven rounds of pruning and retraining on MNIST.
    """
    _check(net, rounds, multiply_adds, tolerance)
    training, held_out = split(adapt(train, net), None if test is None else adapt(test, net))
    some = sampled(training, sample)
    targets = targets_by_family(removal.prunable(net), channels)
    accuracy = _accuracy(net, held_out)
    kept, done = net, list[PruningRound]()
    start = removal.prunable(net)
    whole = start.channels.multiply_adds()
    settings = {"rounds": rounds, "criterion": criterion, "multiply_adds": multiply_adds, "channels": channels,
             "tolerance": tolerance, "epochs": epochs, "lr": lr, "batch": batch, "sample": sample,
             "train": identity(training), "test": identity(held_out)}  # fmt: skip
    for number in reported(range(1, rounds + 1), "rounds of pruning"):
        note = provenance(net, "prune", seed, round=number, **settings)
        file = None if folder is None else Path(folder) / f"round-{number}.safetensors"
        if file is not None and file.exists():
            one = stored_round(file, note, net)
            done.append(one)
            if not one.kept:
                break
            kept = one.network
            continue
        share = number / rounds
        found = removal.prunable(kept)
        small, gone = cut(found, some, criterion, share, targets, multiply_adds**share * whole, start, batch, seed)
        probe = torch.rand(
            (4, *net.input_shape), generator=torch.Generator().manual_seed(number), dtype=torch.float32, device="cpu"
        ).to(net.device)
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
    result.attach(kept)
    return result


def _check(net: Network, rounds: int, multiply_adds: float, tolerance: float) -> None:
    check_precision(net.model)
    if rounds < 1:
        raise InputError(f"at least one round was expected, got {rounds}.")
    if not 0 < multiply_adds <= 1:
        raise InputError(f"a share of the multiply-adds in (0, 1] was expected, got {multiply_adds}.")
    if not tolerance >= 0:
        raise InputError(f"tolerance, the largest loss of accuracy, must not be negative, got {tolerance}.")


def _round(
    note: Provenance, cut: Network, found: Prunable, gone: list[int], small: Network, done: list[PruningRound],
    **measured: Any,
) -> PruningRound:  # fmt: skip
    fields: dict[str, Any] = described(cut, found.channels, gone, small)
    if done:  # relative to the original network
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
