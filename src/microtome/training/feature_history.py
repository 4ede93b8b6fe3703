"""Features during training: top patch, superstimulus, filter, label and distance to the final feature by checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome import synthesis, units
from microtome.data import Dataset, adapt
from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.trace.operators.operator_table import WEIGHTED
from microtome.training.training_run import Run
from microtome.units.streaming.layer_statistics import rounding
from microtome.units.streaming.streaming_pass import computing_layers, selected_layers
from microtome.zoo.weight_files.weights import fill

__all__ = ["FeatureHistory", "feature_history"]

_NOTE = (
    "distance: one minus the correlation of a unit's activations with its final ones, median over the units of a "
    "layer; 0 when it has settled."
)

SHOWN = ("patches", "superstimuli", "filters", "tuning")


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureHistory(Result, drawing="training.feature_history_figures:feature_history"):
    """Features of some units at every checkpoint, and how far all units are from their final features.

    Attributes
    ----------
    layers : list of str
    epochs : list of float
        Epoch of each checkpoint; the last one is the final network.
    units : list of int
        The units that are shown, in every layer that has them.
    distance : dict of str to Tensor
        By layer: (checkpoints, units) one minus the correlation of a unit's activations with its final ones.
    patches : dict of str to Tensor
        By layer: (checkpoints, shown, C, h, w) the patch of the data with the highest activation.
    superstimuli : dict of str to Tensor
        By layer: (checkpoints, shown, C, h, w).
    filters : dict of str to Tensor
        By convolution: (checkpoints, shown, J, kh, kw).
    labels : dict of str to list
        By layer: the tuning label of each shown unit, for each checkpoint.
    images : int
        Number of images for the distances.
    """

    layers: list[str]
    epochs: list[float]
    units: list[int]
    distance: dict[str, Tensor]
    patches: dict[str, Tensor]
    superstimuli: dict[str, Tensor]
    filters: dict[str, Tensor]
    labels: dict[str, list[list[str]]]
    images: int

    def settled(self, within: float = 0.1) -> dict[str, float | None]:
        """By layer the first epoch from which on the median distance stays at or below a threshold.

        None for a layer that has not settled: the last checkpoint does not count alone, since it is compared with
        itself.
        """
        found: dict[str, float | None] = {}
        for layer in self.layers:
            near = (self.distance[layer].median(1).values <= within).tolist()
            count = next((back for back, is_near in enumerate(reversed(near)) if not is_near), len(near))
            found[layer] = self.epochs[len(near) - count] if count > 1 else None
        return found

    def table(self) -> Table:
        """One row for each layer and checkpoint: median distance and its quartiles over the units."""
        rows = []
        for layer in self.layers:
            for place, epoch in enumerate(self.epochs):
                low, middle, high = _quartiles(self.distance[layer][place])
                rows.append((layer, epoch, middle, low, high))
        return Table(("layer", "epoch", "distance", "first quartile", "third quartile"), tuple(rows), _NOTE)


@register("feature-history", rows=("D6",), paper="zeiler2014visualizing", needs="checkpoints", kind="training")
def feature_history(
    net: Network,
    run: Run | Sequence[Mapping[str, Tensor]],
    dataset: Dataset,
    layers: Iterable[str] | None = None,
    *,
    epochs: Sequence[float] | None = None,
    shown: Sequence[int] = (0, 1, 2, 3),
    show: Sequence[str] = SHOWN,
    steps: int = 64,
    seed: int = 0,
    batch: int = 64,
) -> FeatureHistory:
    r"""Follow the features of a network's units from checkpoint to checkpoint [1]_.

    The distance of unit u at checkpoint t to its final feature is

    .. math:: d_u(t) = 1 - r\big(f_u^{(t)}, f_u^{(T)}\big)

    with the correlation r over all images and positions: 0 for the same feature at any scale, about 1 for an unrelated
    feature. A unit that is constant at t has the distance 1.

    Parameters
    ----------
    net : Network
        The network; only its architecture and its normalisation are used, and it is not changed.
    run : Run or sequence of state dicts
        The checkpoints, in order; the last is the final network.
    dataset : Dataset
        Images for distances and top patches.
    layers : iterable of str, optional
        Default the convolutions and fully connected layers.
    epochs : sequence of float, optional
        For a run the checkpoints to use, default all; for state dicts the epoch of each, default 0, 1, ...
    shown : sequence of int
        Units whose pictures are stored; units that a layer does not have are skipped.
    show : sequence of str
        What to show: ``"patches"``, ``"superstimuli"``, ``"filters"``, ``"tuning"``.
    steps : int
        Steps of ascent for each superstimulus, all from the same seed.
    seed : int
        Seed of the superstimuli.
    batch : int
        Images per pass; it does not change the results.

    Returns
    -------
    FeatureHistory
        ``.distance``, ``.settled()``, ``.table()`` and the pictures.

    Raises
    ------
    InputError
        When there are fewer than two checkpoints, their epochs do not fit, or ``show`` holds an unknown word.
    ModelError
        When a checkpoint is of another architecture.
    LayerError
        When a layer does not exist or has no units.

    Notes
    -----
    Cost: for each checkpoint one pass over the images, one more for the patches, ``steps`` passes for the
    superstimuli of each layer and one over the stimuli for the tuning. Memory: all activations of the final network.
    What it does not show: features that move to another unit of the layer; they count as distant.

    References
    ----------
    .. [1] Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.1.
    """
    if not set(show) <= set(SHOWN):
        raise InputError(f"show takes {', '.join(SHOWN)}; got {', '.join(show)}.")
    states, moments = _states(run, epochs)
    names = _layers(net, layers)
    final = _network(net, states[-1], moments[-1])
    data = adapt(dataset, net)
    reference = _activations(final, data, names, batch)
    distance: dict[str, list[Tensor]] = {name: [] for name in names}
    pictures: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in SHOWN[:3]}
    labels: dict[str, list[list[str]]] = {name: [] for name in names} if "tuning" in show else {}
    for state, moment in zip(states, moments, strict=True):
        one = _network(net, state, moment)
        now = _activations(one, data, names, batch)
        for name in names:
            distance[name].append(_distances(now[name], reference[name]))
        del now
        for kind, by_layer in _pictures(one, data, names, shown, show, steps, seed, batch).items():
            for name, picture in by_layer.items():
                pictures[kind].setdefault(name, []).append(picture)
        if labels:
            for name, found in units.tuning(one, names, batch=batch).items():
                labels[name].append([found.labels[unit] for unit in _own(one, name, shown)])
    return FeatureHistory(
        provenance=stated(layers=names, epochs=moments, images=len(data)),
        layers=names,
        epochs=moments,
        units=list(shown),
        distance={name: torch.stack(rows) for name, rows in distance.items()},
        labels=labels,
        images=len(data),
        **{kind: {name: torch.stack(rows) for name, rows in found.items()} for kind, found in pictures.items()},
    )


def _states(
    run: Run | Sequence[Mapping[str, Tensor]], epochs: Sequence[float] | None
) -> tuple[list[Mapping[str, Tensor]], list[float]]:
    if isinstance(run, Run):
        kept = run.checkpoints if epochs is None else [int(epoch) for epoch in epochs]
        states: list[Mapping[str, Tensor]] = [run.weights(epoch) for epoch in kept]
        moments = [float(epoch) for epoch in kept]
    else:
        if isinstance(run, Mapping) or not isinstance(run, Iterable):
            raise InputError(f"a training.Run or a list of state dicts was expected, got {type(run).__name__}.")
        given: list[Any] = list(run)
        if wrong := [state for state in given if not isinstance(state, Mapping)]:
            raise InputError(f"state dicts, tensors by name, were expected in run, got {type(wrong[0]).__name__}.")
        states = given
        moments = [float(epoch) for epoch in (range(len(states)) if epochs is None else epochs)]
    if len(states) < 2 or len(moments) != len(states):
        raise InputError(f"two checkpoints and an epoch for each are expected, got {len(states)} and {len(moments)}.")
    return states, moments


def _layers(net: Network, layers: Iterable[str] | None) -> list[str]:
    if layers is not None:
        names = [net.layer(name).name for name in ([layers] if isinstance(layers, str) else dict.fromkeys(layers))]
    else:
        whole = [name for name in computing_layers(net) if net.layers[name].units]
        names = [name for name in whole if net.layers[name].operator in WEIGHTED] or whole
    return [layer.name for layer in selected_layers(net, names)]


def _network(net: Network, state: Mapping[str, Tensor], moment: float) -> Network:
    """The same structure with the weights of a checkpoint."""
    model = copy.deepcopy(net.model)
    fill(model, {name: value.to(net.device) for name, value in state.items()}, f"the checkpoint of epoch {moment:g}")
    return Network(model.eval(), net.input_shape, net.mean, net.std, net.classes, pixels=net.pixels)


def _activations(net: Network, data: Dataset, names: list[str], batch: int) -> dict[str, Tensor]:
    """(units, images * positions) by layer."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    adapted = adapt(data, net)
    for indices in torch.arange(len(adapted), device="cpu").split(net.admitted(batch)):
        images, _ = adapted.fetch(indices)
        for name, value in net.activations(images, names, batch=batch).items():
            rows[name].append(
                net.layer(name).axes.per_unit(value, len(images)).transpose(0, 1).flatten(1).float().cpu()
            )
    return {name: torch.cat(parts, 1) for name, parts in rows.items()}


def _distances(now: Tensor, final: Tensor) -> Tensor:
    """One minus the correlation of each row with the same row of the final network."""
    found = torch.ones(len(now), dtype=torch.float64, device="cpu")
    for unit in range(len(now)):
        rows = [one[unit].double() for one in (now, final)]
        a, b = (row - row.mean() for row in rows)
        if all(part.norm() > rounding(now.dtype) * row.norm() for part, row in zip((a, b), rows, strict=True)):
            found[unit] = 1 - float(a @ b / (a.norm() * b.norm()))
    return found.clamp(min=0)


def _own(net: Network, layer: str, shown: Sequence[int]) -> list[int]:
    return [unit for unit in shown if 0 <= unit < net.layer(layer).units]


def _pictures(
    net: Network, data: Dataset, names: list[str], shown: Sequence[int], show: Sequence[str], steps: int, seed: int,
    batch: int,
) -> dict[str, dict[str, Tensor]]:  # fmt: skip
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in SHOWN[:3]}
    if "patches" in show:
        tables = units.top_patches(net, data, names, k=1, batch=batch)
        for name in names:
            crops = [tables[name].crop(unit, 0) for unit in _own(net, name, shown)]
            if crops:
                found["patches"][name] = torch.stack(crops).float().cpu()
    for name in names:
        own = _own(net, name, shown)
        if "superstimuli" in show and own:
            superstimuli = synthesis.maximize(net, name, channels=own, steps=steps, seed=seed)
            found["superstimuli"][name] = superstimuli.images.detach().float().cpu()
        if "filters" in show and own and net.layer(name).operator == "conv2d":
            found["filters"][name] = units.filters(net, name, fit=False).weights[own]
    return found


def _quartiles(values: Tensor) -> tuple[float, float, float]:
    at = torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype, device=values.device)
    low, middle, high = values.quantile(at).tolist()
    return low, middle, high
