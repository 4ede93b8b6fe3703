"""Do lower layers settle first? The distance of units to their final features through training, over several seeds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from microtome import data, zoo
from microtome.errors import InputError
from microtome.results import Result, provenance
from microtome.tables import Table
from microtome.training.checkpoints import state_of
from microtome.training.feature_history import FeatureHistory, feature_history
from microtome.training.fit import Recipe, fit

__all__ = ["SettlingLayers", "settling"]

_IMAGES = 200  # on which distances are measured
_TRAINED = 6000  # images of an epoch, so that ten checkpoints take one pass over MNIST


@dataclass(frozen=True, eq=False, kw_only=True)
class SettlingLayers(Result, drawing="training.feature_history_figures:settling"):
    """Distances to the final features by layer and epoch, for several seeds.

    Attributes
    ----------
    layers : list of str
    epochs : list of float
        The first checkpoint is the network before training.
    median, low, high : Tensor
        (seeds, layers, checkpoints) median distance over the units of a layer, and its quartiles.
    first : FeatureHistory
        Film strips of the first seed.
    """

    layers: list[str]
    epochs: list[float]
    median: Tensor
    low: Tensor
    high: Tensor
    first: FeatureHistory

    @property
    def area(self) -> Tensor:
        """(seeds, layers) mean distance after the first epoch: the smaller, the earlier a layer settles."""
        return self.median[:, :, 1:-1].mean(2)

    def in_order(self) -> bool:
        """Whether the mean distance grows from each layer to the next, averaged over the seeds."""
        mean = self.area.mean(0)
        return bool((mean[1:] > mean[:-1]).all())

    def table(self) -> Table:
        """One row for each layer: mean distance during training, its spread over seeds and over units."""
        rows = []
        for place, layer in enumerate(self.layers):
            values = self.area[:, place]
            spread = float(values.std()) if len(values) > 1 else float("nan")
            between = float((self.high - self.low)[:, place, 1:-1].mean())
            first = float(self.median[:, place, 1].mean()) if len(self.epochs) > 2 else float("nan")
            rows.append((layer, float(values.mean()), spread, between, first))
        return Table(
            ("layer", "mean distance", "spread of seeds", "quartiles of units", "after one epoch"), tuple(rows)
        )

    def report(self) -> str:
        """The numbers as text."""
        return f"{len(self.median)} seeds, {len(self.epochs) - 1} epochs\n{self.table()}"


def settling(
    train: data.Images,
    test: data.Images,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 8,
    shown: Sequence[int] = (0,),
    steps: int = 48,
) -> SettlingLayers:
    """Train SimpleConvNet from several seeds at a constant rate and follow its features.

    Parameters
    ----------
    train, test : Images
        Training images (6,000 in each epoch), and images for the distances (200).
    seeds : sequence of int
        Seeds of first weights and orders.
    epochs : int
        Number of epochs. A checkpoint is taken before training and after each epoch.
    shown : sequence of int
        Units of the film strips of the first seed.
    steps : int
        Steps of ascent of their superstimuli.

    Returns
    -------
    SettlingLayers

    Notes
    -----
    The rate is constant, so that no layer stands still because the rate has fallen. The final features are those of
    the last epoch: distances go to 0 there for every layer.
    """
    if not seeds:
        raise InputError("at least one seed is expected.")
    part = train.sample(min(_TRAINED, len(train)), seed=0)
    looked = test.sample(min(_IMAGES, len(test)), seed=0)
    found: list[FeatureHistory] = []
    for seed in seeds:
        net = zoo.network("simple-convnet", seed=seed)
        states = [state_of(net.model)]
        recipe = Recipe(epochs=epochs, batch=128, lr=0.02, channels_last=True, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            run = fit(net.model, part, recipe=replace(recipe, mean=net.mean, std=net.std), out=Path(folder))
            states += [run.weights(epoch) for epoch in run.checkpoints]
        show = ("patches", "superstimuli", "filters", "tuning") if not found else ()
        found.append(feature_history(net, states, looked, shown=shown, show=show, steps=steps))
    layers = found[0].layers
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device="cpu")
    rows = torch.stack(
        [torch.stack([one.distance[layer].quantile(at, dim=1) for layer in layers]) for one in found]
    )  # (seeds, layers, quartiles, checkpoints)
    return SettlingLayers(
        provenance=provenance(net, "settling", seeds=list(seeds), epochs=epochs, train=len(part), images=len(looked)),
        layers=layers,
        epochs=found[0].epochs,
        low=rows[:, :, 0],
        median=rows[:, :, 1],
        high=rows[:, :, 2],
        first=found[0],
    )  # fmt: skip
