"""Training loop: seeded batches, cross-entropy, one optimizer; a killed run resumes with the same result."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.batch_sizes import check_count
from microtome.data import Dataset, batches, fetch
from microtome.data.noted_images import NotedImages
from microtome.errors import InputError, ModelError, StoreError
from microtome.option_types import OptionTypes, checks_types
from microtome.progress import Clock, Listener
from microtome.training import checkpoints
from microtome.training.class_scores import check_precision, check_takes, class_scores
from microtome.training.normalisation import check_normalisation, normalised
from microtome.training.reachable import ReachableKernels
from microtome.training.recorder import Recorder
from microtome.training.schedule import SCHEDULES, rate
from microtome.training.training_run import Run

__all__ = ["Recipe", "evaluate", "fit"]

_STATE = "state.safetensors"
_OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True)
class Recipe:
    """Options of a training run; the same recipe, data and initial weights give the same result.

    Parameters
    ----------
    epochs, batch
        Number of epochs, and number of images in each step.
    optimizer
        ``"sgd"`` (with ``momentum``, Nesterov's form if ``nesterov``), ``"adam"`` or ``"adamw"``.
    lr, schedule
        The (highest) learning rate, and its schedule: see :func:`~microtome.training.schedule.rate`.
    weight_decay
        L2 penalty; decoupled in ``"adamw"``.
    mean, std
        Normalisation of the images in [0, 1], one number or one for each channel.
    channels_last
        Whether to compute with channels innermost in memory, which is faster for convolutions on many machines.
    seed
        Seed of the order of the images, and of dropout.
    """

    epochs: int = 1
    batch: int = 128
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        OptionTypes(inspect.signature(type(self))).check(vars(self))
        check_count(self.epochs, "epochs")
        check_count(self.batch, "batch")
        if self.optimizer not in _OPTIMIZERS:
            raise InputError(f'there is no optimizer "{self.optimizer}"; choose from {", ".join(_OPTIMIZERS)}.')
        if self.schedule not in SCHEDULES:
            raise InputError(f'there is no schedule "{self.schedule}"; choose from {", ".join(SCHEDULES)}.')
        if not 0 < self.lr < math.inf:
            raise InputError(f"a positive learning rate is expected, got {self.lr}.")
        if not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < math.inf:
            raise InputError(
                "a momentum from 0 on and below 1 and a weight_decay from 0 on are expected, got "
                f"{self.momentum} and {self.weight_decay}."
            )
        if self.nesterov and not self.momentum:
            raise InputError("Nesterov's form needs a momentum above 0, got momentum=0.")
        check_normalisation(self.mean, self.std)


@checks_types
def fit(
    model: nn.Module,
    train: Dataset,
    validation: Dataset | None = None,
    *,
    recipe: Recipe,
    out: Path | str | None = None,
    keep: Collection[int] | None = None,
    gradients: bool = False,
    resume: bool = True,
    progress: Listener | None = None,
) -> Run:
    """Train a model on labelled images with cross-entropy.

    The loss expects logits; a model that ends in log-softmax has the same loss, since log-softmax of
    log-probabilities changes nothing. With ``out``, weights, log and the optimizer's state are written at the end of
    each epoch of ``keep``. A killed run resumes from there at the next call; on one thread its weights are
    bitwise those of an uninterrupted run. A resumed run first reads all training images once and compares them with
    those of the run, by checksums; images that are augmented at random are compared by their labels. Random numbers
    (order, dropout) depend on the epoch and the recipe's seed; the global random state does not change.

    Parameters
    ----------
    model
        Trained in place, and left in evaluation mode.
    train, validation
        Map-style data sets with labels, see :func:`~microtome.data.batches`.
    recipe
        How to train.
    out
        Folder of the run.
    keep
        Epochs, from 1, at whose end files are written, and always at the last one. Default: every epoch.
    gradients
        Whether to record the gradients' statistics, see :class:`~microtome.training.Recorder`.
    resume
        Whether to resume the run in ``out``; otherwise a folder that holds a run is an error.
    progress
        Called after each step with ``loss``, ``accuracy`` of the epoch's images so far, and ``epoch`` from 1.

    Returns
    -------
    Run
        With curves ``loss``, ``accuracy``, ``seconds`` and, given validation images, ``validation_loss`` and
        ``validation_accuracy``.

    Raises
    ------
    InputError
        The data set is empty or has no labels, the model does not take its images, or ``keep`` names an epoch that the
        recipe does not have.
    ModelError
        The loss is no longer finite, or the model does not give a row of class scores for each image.
    StoreError
        The folder holds another run, or one with other training images, or cannot be written.
    """
    if not len(train):
        raise InputError("the training set is empty.")
    for dataset in (train, validation):
        if dataset is not None and len(dataset):
            check_takes(model, dataset, mean=recipe.mean, std=recipe.std, batch=recipe.batch)
    folder = None if out is None else Path(out)
    kept = None if keep is None else {*keep, recipe.epochs}
    if kept is not None and (min(kept) < 1 or max(kept) > recipe.epochs):
        raise InputError(f"keep: expected epochs from 1 to {recipe.epochs}, got {sorted(kept - {recipe.epochs})}.")
    recorder = Recorder(folder, model, settings=asdict(recipe), gradients=gradients, keep=kept)
    optimizer = _optimizer(model, recipe)
    first, noted = _resumed(model, optimizer, recorder, recipe, train, folder, resume)
    form = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model.to(memory_format=form)  # type: ignore[call-overload]  # torch's stub leaves this overload out
    try:
        steps = -(-len(train) // recipe.batch)
        clock = Clock(progress, recipe.epochs * steps, first=first * steps)
        loop = _Loop(model, optimizer, recorder, recipe, train, clock, None if folder is None or first else noted)
        for epoch in range(first, recipe.epochs):
            started = time.monotonic()
            loop.epoch(epoch)
            if not all(bool(weight.isfinite().all()) for weight in model.state_dict().values()):
                raise ModelError(f"weights are no longer finite; lower the learning rate {recipe.lr}.")
            values = {"seconds": time.monotonic() - started}
            if validation is not None:
                loss, accuracy = evaluate(model, validation, mean=recipe.mean, std=recipe.std)
                values |= {"validation_loss": loss, "validation_accuracy": accuracy}
            recorder.epoch(**values)
            loop.noted = None  # it has seen all images
            if folder is not None and (kept is None or epoch + 1 in kept):
                _write_state(folder / _STATE, model, optimizer, recipe, noted, len(train), epoch + 1)
    finally:
        model.eval()
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as above
    return recorder.run


@dataclass
class _Loop:
    """State of the training loop."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    recorder: Recorder
    recipe: Recipe
    train: Dataset
    clock: Clock
    noted: NotedImages | None  # notes the images, if they are to be

    def epoch(self, epoch: int) -> None:
        """All batches once, in the order that the seed and the epoch give."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.train), generator=generator, device="cpu").split(recipe.batch)
        right = seen = 0
        self.model.train()
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), ReachableKernels():
            torch.default_generator.manual_seed(recipe.seed * 1_000_003 + epoch)  # dropout draws from it
            for number, indices in enumerate(order):
                step = epoch * len(order) + number
                for group in self.optimizer.param_groups:
                    group["lr"] = rate(recipe.schedule, recipe.lr, step, recipe.epochs * len(order))
                loss, correct = self.step(indices)
                right, seen = right + correct, seen + len(indices)
                stage = f"epoch {epoch + 1} of {recipe.epochs}"
                self.clock.step(stage, step + 1, epoch=epoch + 1, loss=loss, accuracy=right / seen)

    def step(self, indices: Tensor) -> tuple[float, int]:
        """One batch: forward, backward, record, update. Returns its loss and the number of correct images."""
        images, labels = fetch(self.train, indices, labelled=True)
        if labels is None or int(labels.min()) < 0:
            raise InputError("training needs a label for every image; the training set has images without one.")
        if self.noted is not None:
            self.noted.note(indices, images, labels)
        device = next(self.model.parameters()).device
        images, labels = images.to(device), labels.to(device)
        scores = class_scores(self.model, normalised(images, self.recipe.mean, self.recipe.std))
        _check_labels(labels, scores)
        loss = functional.cross_entropy(scores, labels)
        if not bool(loss.isfinite()):
            raise ModelError(f"the loss is {float(loss.detach())}; lower the learning rate {self.recipe.lr}.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.recorder.step(loss, scores, labels)
        self.optimizer.step()
        return float(loss.detach()), int((scores.detach().argmax(1) == labels).sum())


@checks_types
def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    batch: int = 500,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on labelled images; the model returns to its mode.

    Raises
    ------
    InputError
        The data set is empty or has no labels, or the model is not in single precision.
    """
    check_normalisation(mean, std)
    check_precision(model)
    modes = {module: module.training for module in model.modules()}
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    total, right, count = 0.0, 0, 0
    model.eval()
    try:
        with torch.no_grad():
            for _, images, labels in batches(dataset, batch, labelled=True):
                if labels is None or not bool((labels >= 0).any()):
                    continue
                images, labels = images[labels >= 0].to(device), labels[labels >= 0].to(device)
                scores = class_scores(model, normalised(images, mean, std))
                _check_labels(labels, scores)
                total += float(functional.cross_entropy(scores, labels, reduction="sum"))
                right += int((scores.argmax(1) == labels).sum())
                count += len(labels)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not count:
        raise InputError("accuracy needs labels: the data set is empty, or none of its images has a label.")
    return total / count, right / count


def _check_labels(labels: Tensor, scores: Tensor) -> None:
    if int(labels.max()) >= scores.shape[1]:
        raise InputError(f"there is a label {int(labels.max())}, and the model has only {scores.shape[1]} classes.")


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError("the model has no parameter that may be trained (requires_grad is off everywhere).")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
        )
    adam = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return adam(parameters, recipe.lr, weight_decay=recipe.weight_decay)


def _write_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    noted: NotedImages | None,
    images: int,
    epochs: int,
) -> None:
    tensors = {f"model.{name}": value for name, value in checkpoints.state_of(model).items()}
    tensors |= {} if noted is None else noted.tensors
    layout = checkpoints.unpacked(optimizer.state_dict(), "optimizer", tensors)
    header = {"epochs": epochs, "images": images, "optimizer": layout, "recipe": _comparable(recipe)}
    checkpoints.write(path, tensors, header)


def _resumed(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recorder: Recorder,
    recipe: Recipe,
    train: Dataset,
    folder: Path | None,
    resume: bool,
) -> tuple[int, NotedImages | None]:
    """Restore the state in the folder; returns the number of finished epochs, and the images that the run notes."""
    images = len(train)
    if folder is None or not (folder / _STATE).is_file():
        return 0, NotedImages(images)
    if not resume:
        raise StoreError(f"the folder {folder} holds a run already; resume it, delete it or choose another folder.")
    tensors, header = checkpoints.read(folder / _STATE)
    if header["recipe"] != _comparable(recipe):
        differing = sorted(key for key, value in _comparable(recipe).items() if header["recipe"].get(key) != value)
        raise StoreError(
            f"the run in {folder} was made with another recipe ({', '.join(differing)}); "
            "give the same one, delete the folder or choose another."
        )
    if header.get("images", images) != images:  # an earlier version noted none
        raise StoreError(
            f"the run in {folder} was made with {header['images']:,} training images, not {images:,}; give the same "
            "ones, delete the folder or choose another."
        )
    own = model.state_dict()
    stored = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in stored.items()}:
        raise StoreError(f"the run in {folder} is of another model; choose another folder.")
    noted = NotedImages.of(tensors)
    other = "" if noted is None else noted.differences(train, recipe.batch)
    if other:
        raise StoreError(
            f"the run in {folder} was made with other training images: {other}. Give the same ones in the same order, "
            "delete the folder or choose another."
        )
    recorder.restore(header["epochs"])
    model.load_state_dict(stored)
    optimizer.load_state_dict(checkpoints.packed(header["optimizer"], tensors))
    return int(header["epochs"]), noted


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """The recipe in the form that JSON reads back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}
