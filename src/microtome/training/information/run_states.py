"""Layer values of a user's network during a training run: one checkpoint at a time, on a copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from microtome import data
from microtome.errors import InputError
from microtome.network import Network
from microtome.training.training_run import Run
from microtome.units.streaming.streaming_pass import selected_layers

__all__ = ["RunStates", "nonlinearities"]

_RANGES = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0)}
_RECTIFIERS = ("relu", "relu_", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "hardswish", "mish")


class RunStates:
    """Loads the stored weights of a run into a copy of the network and returns its layers' values.

    Raises
    ------
    InputError
        The run stored no weights, or not those of an epoch, the data set has no labels, or only one class.
    """

    exhaustive = False

    def __init__(
        self,
        run: Run,
        net: Network,
        dataset: data.Dataset,
        layers: str | Iterable[str] | None,
        epochs: Sequence[int] | None = None,
    ) -> None:
        self.run = run
        if not run.checkpoints:
            raise InputError(
                "the run stored no weights, so its layers cannot be read; train with a folder, "
                "training.fit(..., out=FOLDER) or training.Recorder(FOLDER, model)."
            )
        chosen_epochs = list(run.checkpoints if epochs is None else epochs)
        if not chosen_epochs or (strange := [epoch for epoch in chosen_epochs if epoch not in run.checkpoints]):
            named = f"epoch {strange[0]}" if chosen_epochs else "no epoch"
            kept = ", ".join(map(str, run.checkpoints))
            raise InputError(f"{named} has no stored weights; the run stored those of {kept}.")
        read = [(images, labels) for _, images, labels in data.batches(dataset, net=net, labelled=True)]
        if not read:
            raise InputError("the data set is empty; mutual information needs images of two classes or more.")
        self.images = torch.cat([images for images, _ in read])
        labels = torch.cat([found for _, found in read if found is not None])
        if int(labels.min()) < 0:
            raise InputError("an image has no label; mutual information with the class needs one for each.")
        if len(labels.unique()) < 2:
            raise InputError(
                f"all {len(labels)} images are of class {int(labels[0])}; give images of two classes or more."
            )
        self.labels = labels
        self.net = net.around(copy.deepcopy(net.model))
        chosen = selected_layers(self.net, nonlinearities(self.net) if layers is None else layers)
        self.layers = tuple(layer.name for layer in chosen)
        self.ranges = [_RANGES.get(layer.operator.rstrip("_")) for layer in chosen]
        self.epochs = torch.tensor(chosen_epochs, device="cpu")

    def states(self, checkpoint: int) -> list[Tensor]:
        """Each layer's values (1, N, width), with all units and positions in one row."""
        self.run.load(self.net.model, int(self.epochs[checkpoint]))
        values = self.net.activations(self.images, self.layers)
        count = len(self.images)
        rows = (self.net.layer(name).axes.per_image(values[name], count) for name in self.layers)
        return [row.reshape(1, count, -1) for row in rows]


def nonlinearities(net: Network) -> list[str] | None:
    """The layers whose value is the output of a nonlinearity; None (all layers) if there is none."""
    kinds = {*_RANGES, *_RECTIFIERS}
    found = [layer.name for layer in net.layers.values() if layer.leaf and layer.units and layer.operator in kinds]
    return found or None
