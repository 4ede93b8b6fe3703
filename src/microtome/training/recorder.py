"""Recorder of a training loop, of `fit` or of the user's own: writes curves and weights at the end of each epoch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from microtome.errors import InputError, StoreError
from microtome.option_types import checks_types
from microtome.training import checkpoints
from microtome.training.training_run import Run

__all__ = ["Recorder"]

_EPS = 1e-30  # keeps 0 / 0 out where a weight and its gradient are all zero


@dataclass
class _Sums:
    """Running sums of one epoch."""

    loss: list[float] = field(default_factory=list)
    correct: int = 0
    count: int = 0
    gradient: dict[str, Tensor] = field(default_factory=dict)
    square: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0


class Recorder:
    r"""Writes loss, accuracy, weights and gradient statistics of a training, epoch by epoch.

    .. code-block:: python

        recorder = Recorder("runs/mine", model)
        for epoch in range(epochs):
            for images, labels in loader:
                scores = model(images)
                loss = cross_entropy(scores, labels)
                optimizer.zero_grad(); loss.backward()
                recorder.step(loss, scores, labels)      # after backward, before the optimizer's step
                optimizer.step()
            recorder.epoch(validation_accuracy=...)
        run = recorder.run

    The gradients' statistics are those of Shwartz-Ziv and Tishby [1]_: with :math:`g_t` the gradient of one weight
    tensor W at step t of the epoch,

    .. math:: m = \frac{\lVert \mathrm{mean}_t\, g_t \rVert_F}{\lVert W \rVert_F}, \qquad
              s = \frac{\lVert \mathrm{std}_t\, g_t \rVert_F}{\lVert W \rVert_F}

    where the standard deviation divides by the number of steps, and W is taken at the end of the epoch.

    Parameters
    ----------
    folder
        Folder to write to; None keeps the record in memory, without weights.
    model
        The model in training. It is not changed and gets no hook.
    settings
        JSON values to store with the run.
    gradients
        Whether to record gradient statistics; costs two copies of the weights and two passes over them in each step.
    keep
        Epochs, from 1, at whose end weights and log are written; by default each. ``close`` writes the rest of the log.

    Raises
    ------
    StoreError
        The folder cannot be written.

    References
    ----------
    .. [1] R. Shwartz-Ziv, N. Tishby. Opening the black box of deep neural networks via information.
       arXiv:1703.00810, 2017.
    """

    @checks_types
    def __init__(
        self,
        folder: Path | str | None,
        model: nn.Module,
        *,
        settings: Mapping[str, Any] | None = None,
        gradients: bool = True,
        keep: Collection[int] | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder).absolute()
        self.model = model
        self.settings = dict(settings or {})
        self.gradients = gradients
        self.keep = keep
        self._epochs: list[dict[str, Any]] = []
        self._sums = _Sums()
        self._log = None if self.folder is None else self.folder / "log.safetensors"

    @property
    def run(self) -> Run:
        """The run as recorded so far."""
        return Run(tuple(self._epochs), self.settings, self.folder)

    def step(self, loss: Tensor | float, scores: Tensor | None = None, labels: Tensor | None = None) -> None:
        """Record one step: its loss, the number of correct images, and the gradients that the model holds."""
        self._sums.loss.append(float(loss.detach() if isinstance(loss, Tensor) else loss))
        self._sums.steps += 1
        if scores is not None and labels is not None:
            self._sums.correct += int((scores.detach().argmax(1) == labels).sum())
            self._sums.count += len(labels)
        if self.gradients:
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    self._add_gradient(name, parameter.grad.detach())

    def _add_gradient(self, name: str, gradient: Tensor) -> None:
        sums = self._sums
        gradient = gradient if gradient.dtype.itemsize >= 4 else gradient.float()  # sums in half precision lose steps
        if name in sums.gradient:
            sums.gradient[name] += gradient
            sums.square[name].addcmul_(gradient, gradient)
        else:
            sums.gradient[name] = gradient.clone()
            sums.square[name] = gradient.square()

    def epoch(self, **values: float) -> None:
        """Close an epoch: write its record, with further numbers such as ``validation_accuracy``, and the weights.

        Raises
        ------
        InputError
            No step was recorded since the last epoch.
        StoreError
            The folder cannot be written.
        """
        sums = self._sums
        if not sums.steps:
            raise InputError("an epoch ends without a step: call recorder.step(loss, scores, labels) in the loop.")
        record: dict[str, Any] = {
            "epoch": len(self._epochs) + 1,
            "loss": sum(sums.loss) / len(sums.loss),
            "steps": sums.loss,
            "accuracy": sums.correct / sums.count if sums.count else None,
            "gradient": self._gradient_statistics(),
            **values,
        }
        self._epochs.append(record)
        self._sums = _Sums()
        if self.folder is not None and (self.keep is None or record["epoch"] in self.keep):
            name = f"epoch-{record['epoch']:05d}.safetensors"
            checkpoints.write(self.folder / name, checkpoints.state_of(self.model), {"epoch": record["epoch"]})
            self.close()

    def restore(self, epochs: int) -> None:
        """Resume after ``epochs`` epochs that an earlier recorder wrote into the folder; later epochs are dropped."""
        if self.folder is None or epochs < 1:
            return
        records = Run.read(self.folder).records
        if len(records) < epochs:
            raise StoreError(f"the run in {self.folder} records {len(records)} epochs, not {epochs}; train it again.")
        self._epochs = [dict(record) for record in records[:epochs]]

    def close(self) -> None:
        """Write the log; ``epoch`` does so for each epoch in ``keep``."""
        if self._log is not None:
            checkpoints.write(self._log, {}, {"settings": self.settings, "epochs": self._epochs})

    def _gradient_statistics(self) -> dict[str, dict[str, float]]:
        """For each parameter: norms of mean and deviation over the steps and of the weight, its axes and place."""
        steps = max(self._sums.steps, 1)
        weights = dict(self.model.named_parameters())
        places = {name: place for place, name in enumerate(weights)}
        found = {}
        for name, total in self._sums.gradient.items():
            mean = total.double() / steps
            variance = (self._sums.square[name].double() / steps - mean.square()).clamp(min=0)
            norm = float(torch.linalg.vector_norm(weights[name].detach().double()))
            found[name] = {
                "mean": float(torch.linalg.vector_norm(mean)) / max(norm, _EPS),
                "std": float(variance.sum().sqrt()) / max(norm, _EPS),
                "weight": norm,
                "axes": weights[name].dim(),
                "place": places[name],  # the log sorts its names
            }
        return found
