"""Saliency scores for pruning: magnitude, Taylor, variation of the activation, any column of the criteria."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome import synthesis, units
from microtome.data import Dataset, batches
from microtome.errors import InputError, nearest
from microtome.network import Network
from microtome.surgery.channels.channel_families import Family
from microtome.surgery.compression.moments import scores_layer

if TYPE_CHECKING:
    from microtome.surgery.channels.removal import Prunable

_STEPS = 64  # ascent steps of a superstimulus that is only scored
SCORES = ("magnitude", "taylor", *units.COLUMNS)


def scores(found: Prunable, family: Family, data: Dataset, criterion: Any, *, batch: int, seed: int) -> Tensor:
    """A score for each channel of a family; the smallest are removed first. Scores of several layers add up.

    Raises
    ------
    InputError
        When there is no such criterion, or a function does not give one number for each unit.
    """
    if criterion == "magnitude":
        return _summed(found, family, lambda net, name: _magnitude(found, name))
    if criterion == "taylor":
        slopes = _taylor(found, family, data, batch)
        return _summed(found, family, lambda net, name: slopes[name])
    if callable(criterion):
        return _summed(found, family, _from_user(found, criterion, data))
    if criterion in units.COLUMNS:
        return _summed(found, family, _from_column(criterion, data, batch, seed))
    known = ("absorption", *SCORES)
    raise InputError(
        f'there is no criterion "{criterion}". Nearest: {nearest(str(criterion), known)}; all: {", ".join(known)}, '
        "or a function (net, data, layer)."
    )


def _summed(found: Prunable, family: Family, score: Callable[[Network, str], Tensor]) -> Tensor:
    """The sum of the scores of a channel's outputs."""
    total = dict.fromkeys(family.channels, 0.0)
    for name in family.makers:
        outputs = found.channels.operations[name].made.tolist()
        for channel, value in zip(outputs, score(found.net, name).tolist(), strict=True):
            if channel in total:
                total[channel] += value
    return torch.tensor([total[channel] for channel in family.channels], dtype=torch.float64, device="cpu")


def _magnitude(found: Prunable, name: str) -> Tensor:
    """Squared L2 norm of the incoming weights of each output."""
    operation = found.channels.operations[name]
    weight: Tensor = getattr(found.net.model.get_submodule(operation.owner), operation.weight).detach().double()
    by_output = weight.transpose(0, 1) if "transpose" in operation.kind else weight
    return by_output.flatten(1).square().sum(1)


def _taylor(found: Prunable, family: Family, data: Dataset, batch: int) -> dict[str, Tensor]:
    r"""Mean square of :math:`\sum_p y_o \partial L / \partial y_o`, the first-order change of the loss [1]_.

    References
    ----------
    .. [1] Molchanov, Tyree, Karras, Aila, Kautz. Pruning convolutional neural networks for resource efficient
       inference. ICLR 2017.
    """
    net, names = found.net, list(family.makers)
    total: dict[str, Tensor] = {}
    for _, images, labels in batches(data, batch, labelled=True):
        if labels is None or int(labels.min()) < 0:
            raise InputError(
                "the Taylor criterion needs a label for every image; the training set has images without one."
            )

        def slope(logits: Tensor, labels: Tensor = labels) -> Tensor:
            truth = functional.one_hot(labels, logits.shape[1]).to(logits)
            return logits.softmax(1) - truth

        record = net.run(images, record=names, gradient=True, output_layer=scores_layer(net), grad_output=slope)
        for name in names:
            axis = found.channels.operations[name].axis
            product = (record.value[name] * record.gradient[name]).double().movedim(axis, 1).flatten(2).sum(2)
            square = product.square().sum(0)
            total[name] = square if name not in total else total[name] + square
    return total


def _layer(net: Network, name: str) -> str:
    """The layer of an operation."""
    return next((layer.name for layer in net.layers.values() if layer.operation == name and layer.leaf), name)


def _from_user(found: Prunable, criterion: Callable[..., Any], data: Dataset) -> Callable[[Network, str], Tensor]:
    def score(net: Network, name: str) -> Tensor:
        value = criterion(net, data, _layer(net, name))
        count = len(found.channels.operations[name].made)
        if not isinstance(value, Tensor) or value.shape != (count,) or not bool(value.isfinite().all()):
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f'the criterion gives {what} for layer "{name}"; {count} finite numbers are expected.')
        return value.double().cpu()

    return score


def _from_column(column: str, data: Dataset, batch: int, seed: int) -> Callable[[Network, str], Tensor]:
    def score(net: Network, name: str) -> Tensor:
        layer = _layer(net, name)
        superstimuli = (
            {layer: synthesis.maximize(net, layer, steps=_STEPS, seed=seed)} if column == "superstimulus" else None
        )
        table = units.criteria(net, data, [layer], columns=[column], superstimuli=superstimuli, batch=batch, seed=seed)
        value = table.column(column, layer)
        if bool(value.isnan().any()):
            raise InputError(f'the criterion "{column}" is not defined for layer "{layer}"; choose another one.')
        return value

    return score
