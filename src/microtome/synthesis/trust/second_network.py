"""The unit of a second network whose activations correlate most with those of a unit of the first network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.network import Network
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.streaming_pass import Batch


@dataclass(frozen=True)
class Counterparts:
    """For each unit of the first network its counterpart in the second.

    Attributes
    ----------
    layer : list of str
    unit : list of int
    correlation : Tensor
        (n,) over the images, of the largest activation of each image.
    activations : Tensor
        (n, images) activations of the counterparts.
    """

    layer: list[str]
    unit: list[int]
    correlation: Tensor
    activations: Tensor

    def percentiles(self, second: Network, pictures: Tensor, row: int) -> Tensor:
        """The percentile among the data of the counterpart's activation on pictures, (pictures,)."""
        layer = second.layer(self.layer[row])
        value = second.activations(pictures, layer.name, check=False)[layer.name]
        peak = layer.axes.per_unit(value, len(pictures))[:, self.unit[row]].amax(1).double().cpu()
        return 100 * (self.activations[row][None] <= peak[:, None]).double().mean(1)


def counterparts(
    net: Network, layer: str, units: Sequence[int], second: Network, dataset: Dataset, batch: int = 16
) -> Counterparts:
    """The most correlated unit among all units of all layers of the second network, for each unit."""
    mine = _peaks(net, dataset, [layer], batch)[layer][:, list(units)]
    best = torch.full((len(units),), -2.0, dtype=torch.float64, device="cpu")
    names, places = [""] * len(units), [0] * len(units)
    values = torch.zeros(len(units), len(mine), dtype=torch.float64, device="cpu")
    for name, peaks in _peaks(second, dataset, streaming_pass.computing_layers(second), batch).items():
        correlation = _standardised(mine).T @ _standardised(peaks)
        high, place = correlation.max(1)
        for row in (high > best).nonzero()[:, 0].tolist():
            best[row], names[row], places[row] = high[row], name, int(place[row])
            values[row] = peaks[:, place[row]]
    return Counterparts(names, places, best, values)


def _peaks(net: Network, dataset: Dataset, layers: Sequence[str], batch: int) -> dict[str, Tensor]:
    """The largest activation of each image, by layer (images, units)."""
    found: dict[str, list[Tensor]] = {net.layer(name).name: [] for name in layers}

    def reader(name: str, value: Tensor, batch: Batch) -> None:
        found[name].append(net.layer(name).axes.per_unit(value, len(batch.indices)).amax(2).double().cpu())

    def reading(name: str) -> streaming_pass.Reader:
        return lambda value, batch: reader(name, value, batch)

    streaming_pass.read(net, dataset, {name: reading(name) for name in found}, batch=batch)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    return torch.nn.functional.normalize(centred, dim=0, eps=1e-12)
