"""Training of the zoo's small networks on a named data set, each with a recipe chosen by measurement."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from microtome import data, zoo
from microtome.errors import InputError, nearest
from microtome.option_types import checks_types
from microtome.progress import Listener
from microtome.training import checkpoints
from microtome.training.fit import Recipe, evaluate, fit
from microtome.training.training_run import Run

__all__ = ["RECIPES", "Trained", "train_network"]

RECIPES = {
    # 2 passes over 60,000 digits with the one-cycle rate reach the accuracy of 10 passes at a constant rate.
    "simple-convnet": Recipe(
        epochs=2,
        batch=128,
        lr=0.05,
        nesterov=True,
        weight_decay=5e-4,
        schedule="one-cycle",
        channels_last=True,
    ),
    # The paper's: rate 0.001, momentum 0.9, 20 epochs. Its batch size is unknown; 64 gives its condition number.
    "fcnn1": Recipe(epochs=20, batch=64, lr=0.001),
    "fcnn5": Recipe(epochs=20, batch=64, lr=0.001),
    "resnet18": Recipe(epochs=20, batch=64, lr=0.001, channels_last=True),
}
_NORMALISATION = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with its run, and its loss and accuracy on the test images."""

    model: nn.Module
    run: Run
    recipe: Recipe
    test_loss: float
    test_accuracy: float
    seconds: float
    weights: Path | None


@checks_types
def train_network(
    name: str = "simple-convnet",
    dataset: str = "mnist",
    *,
    out: Path | str | None = None,
    folder: Path | str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    resume: bool = True,
    progress: Listener | None = None,
) -> Trained:
    """Train a network of the zoo on all 60,000 training images of a data set and test it on the other 10,000.

    Parameters
    ----------
    name
        One of ``RECIPES``.
    dataset
        ``"mnist"`` or ``"fashion-mnist"``.
    out
        Folder of the run; ``weights.safetensors`` in it holds the trained weights.
    folder
        Folder of the data set's idx files, if not the usual one.
    seed
        Seed of the initial weights and of the order of the images.
    epochs
        By default the recipe's.
    resume, progress
        See :func:`~microtome.training.fit`.

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        The network or the data set is unknown.
    StoreError
        The folder holds another run, or cannot be written.
    """
    entry = zoo.architecture(name)
    if entry.name not in RECIPES:
        raise InputError(f"there is no recipe for {entry.name}; there are for {', '.join(RECIPES)}. See training.fit.")
    if dataset not in _NORMALISATION:
        known = ", ".join(_NORMALISATION)
        raise InputError(
            f'"{dataset}" cannot be trained on by name. Nearest: {nearest(dataset, _NORMALISATION)}; all: {known}.'
        )
    read = data.mnist if dataset == "mnist" else data.fashion_mnist
    started = time.monotonic()
    train, test = (read(part, folder=folder) for part in ("train+validation", "test"))
    mean, std = _NORMALISATION[dataset]
    recipe = dataclasses.replace(RECIPES[entry.name], mean=mean, std=std, seed=seed)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    model = zoo.build(entry.name, input_shape=train.shape, classes=10, seed=seed)
    run = fit(model, train, recipe=recipe, out=out, resume=resume, progress=progress)
    loss, accuracy = evaluate(model, test, mean=mean, std=std)
    weights = None if out is None else Path(out) / "weights.safetensors"
    if weights is not None:
        header = {"network": entry.name, "dataset": dataset, "test_accuracy": accuracy, "test_loss": loss}
        checkpoints.write(weights, checkpoints.state_of(model), header)
    return Trained(model, run, recipe, loss, accuracy, time.monotonic() - started, weights)
