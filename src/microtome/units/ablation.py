"""Ablation: accuracy, overall and by class, after units are replaced by a constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome import trace
from microtome.data import Dataset, adapt, batches
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.trace import Layer
from microtome.trace.delta.replay import Replay
from microtome.trace.heads.head import Head
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.streaming_pass import Batch


@dataclass(frozen=True, eq=False, kw_only=True)
class Ablation(Result, drawing="units.unit_figures:ablation"):
    """Accuracy after ablation of units of a layer.

    Attributes
    ----------
    layer : str
        The layer.
    units : list of list of int
        The units that are ablated together, one list per row of the tables.
    before, after : float, Tensor
        Accuracy in [0, 1] of the whole network, and (rows,) without the units; NaN if the output is a
        regression value (``net.output``).
    labels : list of int
        The classes in the data: the columns of the tables by class.
    class_before, class_after : Tensor
        (classes,) and (rows, classes): accuracy on the images of each class.
    logit_change : Tensor
        (rows, K) change of every class score, averaged over all images.
    changed : Tensor
        (rows,) share of images whose predicted class changes.
    against : str
        The reference for accuracy: ``"labels"``, or ``"predictions"`` of the whole network for data without labels.
    images : int
        Number of images.
    classes : list of str or None
        Names of the classes.
    """

    layer: str
    units: list[list[int]]
    before: float
    after: Tensor
    labels: list[int]
    class_before: Tensor
    class_after: Tensor
    logit_change: Tensor
    changed: Tensor
    against: str
    images: int
    classes: list[str] | None

    @property
    def drop(self) -> Tensor:
        """(rows,) loss of accuracy: before - after."""
        return self.before - self.after

    @property
    def class_drop(self) -> Tensor:
        """(rows, classes) loss of accuracy on each class."""
        return self.class_before - self.class_after

    def most_hurt(self, row: int) -> tuple[int, float]:
        """The class with the largest loss of accuracy, and this loss.

        Raises
        ------
        InputError
            When the output is a regression value, without classes.
        """
        if not self.labels:
            raise InputError("the network's output is a value, not classes; see logit_change for its mean change.")
        column = int(self.class_drop[row].argmax())
        return self.labels[column], float(self.class_drop[row, column])


@register("ablation", rows=("B2", "G1"), paper="morcos2018single", needs="a data set with labels", kind="units")
def ablate(
    net: Network,
    dataset: Dataset,
    layer: str,
    *,
    units: int | Sequence[int | Sequence[int]] | None = None,
    value: str = "zero",
    batch: int = 64,
) -> Ablation:
    r"""Replace units of a layer by a constant and measure the accuracy [1]_.

    The unit's activation is replaced at every position by 0, or by its mean over all images and
    positions. The rest of the network runs as before:

    .. math:: \Delta_u = \operatorname{acc}(F) - \operatorname{acc}(F \mid f_u \leftarrow c_u)

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with labels. Without labels the reference is the prediction of the whole network.
    layer : str
        The layer.
    units : int or sequence, optional
        Units to ablate one at a time. A sequence inside the sequence is ablated together. Default: every unit.
    value : str
        ``"zero"`` or ``"mean"``. Zero is the value of a dead unit after a ReLU. The mean preserves the
        next layer's operating point.
    batch : int
        Number of images per pass.

    Returns
    -------
    Ablation
        ``.drop`` (rows,), ``.class_drop`` (rows, classes), ``.logit_change`` (rows, K).

    Raises
    ------
    InputError
        When a unit does not exist, a list of units is empty, ``value`` is unknown or the data set is empty.
    LayerError
        When the layer does not exist.

    Notes
    -----
    Cost: one complete pass, then for each unit the part of the network that depends on the layer; other
    activations are reused (memory: all activations of one batch). What it does not show: redundant
    units, because each can replace the other; ablate them together.

    References
    ----------
    .. [1] Morcos, Barrett, Rabinowitz, Botvinick. On the importance of single directions for
       generalization. ICLR 2018.

    Examples
    --------
    >>> class Largest(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.relu(x).flatten(1)
    >>> net = Network(Largest(), (2, 1, 1))
    >>> data = [(torch.tensor([[[0.2]], [[0.9]]]), 1), (torch.tensor([[[0.7]], [[0.1]]]), 0)]
    >>> ablate(net, data, "relu").after.tolist()
    [0.5, 0.5]
    """
    (info,) = streaming_pass.selected_layers(net, layer)
    rows = _rows(units, info.units, layer)
    if value not in ("zero", "mean"):
        raise InputError(f'value must be "zero" or "mean", got "{value}".')
    if len(dataset) == 0:
        raise InputError("the data set is empty: there is no image to run.")
    dataset = adapt(dataset, net)
    fill = torch.zeros(info.units, dtype=torch.float32, device="cpu") if value == "zero" else _means(net, dataset, info)
    labels = dataset.labels
    counts = _Counts(net.head, len(rows), labels is not None)
    quick: Network | None = None
    for indices, images, _ in batches(dataset, net.admitted(batch)):
        given = net.images(images)
        if quick is None:
            quick = net.quick(given, [info.name, "logits"], len(dataset) * len(rows), backwards=False)
        x = quick.normalise(given)
        replay = Replay(quick.model)
        whole = _logits(quick, x, replay, {})
        replay.recorded()
        counts.start(whole, None if labels is None else labels[indices])
        for row, group in enumerate(rows):
            counts.add(row, _logits(quick, x, replay, {info.name: _replacement(info, len(x), group, fill)}))
    return Ablation(
        provenance=stated(layer=info.name, units=rows, images=len(dataset)),
        layer=info.name,
        units=rows,
        classes=net.classes,
        **counts.fields(),  # type: ignore[arg-type]  # named as the fields
    )


def _rows(units: int | Sequence[int | Sequence[int]] | None, count: int, layer: str) -> list[list[int]]:
    if units is None:
        return [[unit] for unit in range(count)]
    groups = [units] if isinstance(units, int) else units
    rows = [[item] if isinstance(item, int) else [int(unit) for unit in item] for item in groups]
    if not rows or not all(rows):
        raise InputError("a list of units is empty; give at least one, or None for all.")
    for unit in (unit for row in rows for unit in row):
        if not 0 <= unit < count:
            raise InputError(f'unit {unit} does not exist: "{layer}" has units 0 to {count - 1}.')
    return rows


def _replacement(layer: Layer, images: int, group: list[int], fill: Tensor) -> Callable[[Tensor], Tensor]:
    def replace(value: Tensor) -> Tensor:
        by_unit = layer.axes.per_unit(value, images).clone()
        by_unit[:, group] = fill[group].to(by_unit)[:, None]
        return layer.axes.from_units(by_unit, tuple(value.shape)).to(value.dtype)

    return replace


def _means(net: Network, dataset: Dataset, layer: Layer) -> Tensor:
    """The mean of every unit over all images and positions."""
    total, count = torch.zeros(layer.units, dtype=torch.float64, device="cpu"), [0]

    def add(value: Tensor, batch: Batch) -> None:
        value = layer.axes.per_unit(value, len(batch.indices))
        total.add_(value.double().sum((0, 2)).cpu())
        count[0] += value.shape[0] * value.shape[2]

    streaming_pass.read(net, dataset, {layer.name: add})
    return total / count[0]


def _logits(net: Network, x: Tensor, replay: Replay, replace: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
    tracer = trace.Tracer(net.model, net.head.record, rules=replay, replace=replace)
    output = tracer(replay.start(x))
    return net.head.scores(tracer, output, len(x)).detach().cpu()


class _Counts:
    """Number of correct predictions by class, summed over batches."""

    def __init__(self, head: Head, rows: int, labelled: bool) -> None:
        self.labelled = labelled
        self._head = head
        self._rows = rows
        self._right: Tensor | None = None

    def start(self, whole: Tensor, labels: Tensor | None) -> None:
        """Start a batch: take the scores of the whole network and the correct classes."""
        classes = self._head.decisions
        self._whole, self._predicted = whole, self._head.decided(whole)
        truth = labels if labels is not None else self._predicted
        valid = (truth >= 0) & (truth < classes)
        self._valid, self._truth = valid, truth[valid]
        if self._right is None:
            self._right = torch.zeros(self._rows + 1, classes, dtype=torch.float32, device="cpu")
            self._shift = torch.zeros(self._rows, whole.shape[1], dtype=torch.float64, device="cpu")
            self._changed = torch.zeros(self._rows, dtype=torch.float32, device="cpu")
            self._occurrences, self._images = torch.zeros(classes, dtype=torch.float32, device="cpu"), 0
        self._images += len(whole)
        self._occurrences += torch.bincount(self._truth, minlength=classes)
        self._count(self._rows, whole)

    def add(self, row: int, logits: Tensor) -> None:
        """Add the scores without some units."""
        self._count(row, logits)
        self._shift[row] += (logits - self._whole).double().sum(0)
        self._changed[row] += int((self._head.decided(logits) != self._predicted).sum())

    def _count(self, row: int, logits: Tensor) -> None:
        assert self._right is not None  # noqa: S101 - start comes first
        hit = self._truth[self._head.decided(logits[self._valid]) == self._truth]
        self._right[row] += torch.bincount(hit, minlength=self._head.decisions)

    def fields(self) -> dict[str, object]:
        """The fields of the result."""
        regression = self._head.decisions == 0
        if self._right is None or not (regression or int(self._occurrences.sum())):
            raise InputError("no image has a label among the network's classes; pass labels of its classes, or none.")
        present = self._occurrences > 0
        share = self._right[:, present] / self._occurrences[present]
        overall = self._right.sum(1) / self._occurrences.sum()
        return {
            "before": float(overall[-1]),
            "after": overall[:-1],
            "labels": present.nonzero()[:, 0].tolist(),
            "class_before": share[-1],
            "class_after": share[:-1],
            "logit_change": self._shift / self._images,
            "changed": torch.full_like(self._changed, torch.nan) if regression else self._changed / self._images,
            "against": "labels" if self.labelled else "predictions",
            "images": self._images,
        }
