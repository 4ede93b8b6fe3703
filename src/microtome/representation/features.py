"""Features: one row of numbers per image of a data set, from one layer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.data.adapters.adapter import Adapter, Expected, adapt
from microtome.data.adapters.class_labels import UNLABELLED
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.representation.feature_shards import FeatureShards
from microtome.results import Provenance, Result, keep_on_processor, stated

REDUCTIONS = ("mean", "max", "flat")


@dataclass(frozen=True, eq=False, kw_only=True)
class Features(Result, drawing="representation_figures:features"):
    """One layer's features of a data set.

    Attributes
    ----------
    layer : str
        The layer.
    reduce : str
        How the positions of a map were reduced to one number: ``"mean"``, ``"max"``, or ``"flat"`` for all positions.
    values : Tensor
        (N, F) one row per image; mapped from disk if a folder was given.
    labels : Tensor or None
        (N,) class indices as the data set numbers its classes, whatever the network's; -1 for an image without one;
        None if the data set has none.
    """

    layer: str
    reduce: str
    values: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        keep_on_processor(self)
        labels, count = self.labels, self.values.shape[:1]
        if labels is not None and (labels.shape != count or labels.is_floating_point() or labels.is_complex()):
            raise InputError(
                f"class indices of shape {tuple(count)} were expected as labels of the features, one for each image; "
                f"got {labels.dtype} of shape {tuple(labels.shape)}."
            )


@register("features", rows=("E1",), paper="yosinski2015understanding", needs="a data set", kind="representation")
def features(
    net: Network,
    dataset: Dataset,
    layer: str,
    *,
    reduce: str = "mean",
    folder: str | os.PathLike[str] | None = None,
    shard: int = 1024,
    batch: int = 32,
    progress: Listener | None = None,
) -> Features:
    r"""Collect a layer's features of every image of a data set [1]_.

    .. math:: x_{nu} = \frac{1}{P} \sum_p f_u(n, p) \;(\text{mean}), \qquad x_{nu} = \max_p f_u(n, p) \;(\text{max})

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with labels or without.
    layer : str
        The layer; ``"logits"`` for the scores.
    reduce : str
        How a unit's map is reduced to one number: its ``"mean"`` or ``"max"`` over positions, or ``"flat"``, where
        every position is a separate feature.
    folder : path, optional
        Folder for the features. An interrupted call that is repeated resumes; the
        memory does not grow with the data set. Default: features stay in memory.
    shard : int
        Number of images per file during the pass.
    batch : int
        Images at a time.
    progress : function, optional
        Called with a ``Progress`` after each shard.

    Returns
    -------
    Features
        ``.values`` (N, F) in the precision of the layer, at least single; ``.labels`` (N,).

    Raises
    ------
    InputError
        When the data set is empty, an option is unknown, or a feature is not finite.
    LayerError
        When the layer does not exist, belongs to no image, or has no units to reduce.
    StoreError
        When the folder holds features of another network, layer, reduction or data set.

    Notes
    -----
    Cost: one forward pass to the layer. When a call resumes, the folder is compared with the request by the network's
    fingerprint, the options, the number of images and the first image of each shard. Labels are those of the present
    data set, unless it does not declare them and those of the images that were compared are the same.

    References
    ----------
    .. [1] Yosinski, Clune, Nguyen, Fuchs, Lipson. Understanding neural networks through deep
       visualization. ICML Deep Learning Workshop 2015.

    Examples
    --------
    >>> net = Network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()), (1, 1, 2))
    >>> features(net, [torch.tensor([[[0.25, 0.75]]])], "0").values.tolist()
    [[0.5]]
    """
    if shard < 1:
        raise InputError(f"a shard must hold at least one image, got shard={shard}.")
    check_reduction(net, [layer], reduce)
    data = adapt(dataset, Expected(net.input_shape, net.pixels))  # labels are those of the data, whatever the classes
    total = len(data)
    if not total:
        raise InputError("the data set is empty: there is no image to run.")
    made = stated(images=total)
    starts = range(0, total, shard)
    clock = Clock(progress, len(starts))
    if folder is None:
        store = None
        parts: list[tuple[Tensor, Tensor]] = []
    else:
        about = {"network": net.fingerprint, "layer": layer, "reduce": reduce, "images": total}
        store = FeatureShards(Path(folder), about)
        if (found := store.joined(data)) is not None:
            return _result(made, layer, reduce, *_relabelled(data, *found))
    for done, start in enumerate(starts, 1):
        chosen = torch.arange(start, min(start + shard, total), device="cpu")
        if store is None or not store.has(start, len(chosen), data):
            part = _rows(net, data, chosen, layer, reduce, batch)
            if store is None:
                parts.append(part)
            else:
                store.write(start, *part, data)
        clock.step(f"images {start} to {int(chosen[-1])}", done)
    if store is not None:
        return _result(made, layer, reduce, *_relabelled(data, *store.join(list(starts))))
    values, labels = (torch.cat(found) for found in zip(*parts, strict=True))
    return _result(made, layer, reduce, values, labels)


def vary(values: Tensor) -> Tensor:
    """(F,) whether each feature of (N, F) varies over the images by more than the rounding of its values.

    What remains of a feature that never varies is a few units in the last place of its values.
    """
    if not values.numel():
        return torch.zeros(values.shape[1:], dtype=torch.bool, device=values.device)
    wide = values.double()
    unit = torch.finfo(torch.float64 if values.dtype == torch.float64 else torch.float32).eps
    return (wide - wide.mean(0)).abs().amax(0) > 16 * unit * wide.abs().amax(0)


def check_reduction(net: Network, layers: list[str], reduce: str) -> None:
    """Check, before anything runs, that the layers exist and can be reduced.

    Raises
    ------
    InputError
        The reduction is unknown.
    LayerError
        A layer does not exist, belongs to no image, or has no units to reduce.
    """
    if reduce not in REDUCTIONS:
        raise InputError(f'reduce must be one of {", ".join(REDUCTIONS)}; got "{reduce}".')
    for name in layers:
        if name == "logits":
            continue
        axes = net.layer(name).axes
        if axes.image_axis is None:
            raise LayerError(f'the values of layer "{name}" belong to no single image of a batch; choose another.')
        if not axes.units and reduce != "flat":
            raise LayerError(f'layer "{name}" has no units whose positions could be reduced; use reduce="flat".')


def feature_rows(net: Network, images: Tensor, layers: list[str], reduce: str) -> dict[str, Tensor]:
    """Rows (n, F) of some images by layer, on the CPU, in one pass.

    Raises
    ------
    InputError
        A feature is not finite.
    """
    found = {}
    for name, value in net.activations(images, layers, batch=max(len(images), 1)).items():
        rows = _reduced(net, name, value.detach(), len(images), reduce)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if not bool(torch.isfinite(rows).all()):
            raise InputError(
                f'layer "{name}" gives a value that is not finite; use the network in single precision, or choose '
                "an earlier layer."
            )
        found[name] = rows.cpu()
    return found


def _reduced(net: Network, name: str, value: Tensor, count: int, reduce: str) -> Tensor:
    if name == "logits":
        return value.flatten(1)
    net.layer(name).check_real()
    axes = net.layer(name).axes
    if reduce == "flat":
        return axes.per_image(value, count).reshape(count, -1)
    units = axes.per_unit(value, count)
    units = units if units.dtype == torch.float64 else units.float()
    return units.mean(2) if reduce == "mean" else units.amax(2)


def _rows(net: Network, data: Adapter, chosen: Tensor, layer: str, reduce: str, batch: int) -> tuple[Tensor, Tensor]:
    """Rows (n, F) and labels (n,) of some images."""
    rows, labels = [], []
    for indices in chosen.split(net.admitted(batch)):
        images, found = data.fetch(indices)
        rows.append(feature_rows(net, images, [layer], reduce)[layer])
        labels.append(torch.full((len(indices),), UNLABELLED, device="cpu") if found is None else found.cpu())
    return torch.cat(rows), torch.cat(labels)


def _relabelled(data: Adapter, values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Stored features with the present labels; the stored ones if only reading all images would tell others."""
    if not data.labels_known and data.bears_out(labels):
        return values, labels
    present = data.labels
    return values, torch.full((len(data),), UNLABELLED, device="cpu") if present is None else present.cpu()


def _result(made: Provenance, layer: str, reduce: str, values: Tensor, labels: Tensor) -> Features:
    known = labels if bool((labels != UNLABELLED).any()) else None
    return Features(provenance=made, layer=layer, reduce=reduce, values=values, labels=known)
