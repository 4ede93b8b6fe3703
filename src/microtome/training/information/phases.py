"""The two phases of the gradients: their mean and standard deviation by layer, and the epoch where they cross."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.registry import register
from microtome.results import Result
from microtome.training.information.networks import NetworkRuns
from microtome.training.training_run import Run

__all__ = ["GradientPhases", "gradient_phases"]


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientPhases(Result, drawing="training.information_figures:gradient_phases"):
    """Normalised gradients of each layer through training.

    Attributes
    ----------
    epochs : Tensor
        (E,).
    layers : tuple of str
        L names.
    mean, std : Tensor
        (E, L) norm of the mean and of the standard deviation of the gradients over the steps of an epoch, both over
        the norm of the weights; means over the networks.
    mean_networks, std_networks : Tensor
        (E, L, R).
    crossing : Tensor
        (L,) first epoch from which the deviation stays above the mean; NaN if there is none.
    """

    epochs: Tensor
    layers: tuple[str, ...]
    mean: Tensor
    std: Tensor
    mean_networks: Tensor
    std_networks: Tensor
    crossing: Tensor


@register(
    "gradient-phases",
    rows=("F7",),
    paper="shwartzziv2017opening",
    needs="the recorded gradients of a run",
    kind="training",
)
def gradient_phases(run: NetworkRuns | Run) -> GradientPhases:
    r"""Drift and diffusion: mean and standard deviation of the gradients, for each layer [1]_.

    .. math:: m = \frac{\lVert \mathrm{mean}_t\, g_t \rVert}{\lVert W \rVert}, \qquad
              s = \frac{\lVert \mathrm{std}_t\, g_t \rVert}{\lVert W \rVert}

    over the steps t of an epoch. An epoch of one step has no deviation, so that the two cannot cross.

    Parameters
    ----------
    run : NetworkRuns or Run
        For a ``Run``: all parameters with at least two axes.

    Returns
    -------
    GradientPhases

    Raises
    ------
    InputError
        The run has no gradients.

    References
    ----------
    .. [1] R. Shwartz-Ziv, N. Tishby. Opening the black box of deep neural networks via information.
       arXiv:1703.00810, 2017.
    """
    if isinstance(run, NetworkRuns):
        known = ~run.gradient_mean.isnan().any(2).any(1)
        epochs, layers = run.epochs[known], run.layers
        mean, deviation = (value[known].transpose(1, 2) for value in (run.gradient_mean, run.gradient_std))
    else:
        names = _tensors(run)
        if not names:
            raise InputError("the run has no gradients; record it with gradients=True, for at least one epoch.")
        rows = torch.stack([run.gradient(name) for name in names], 1)
        epochs, layers = run.epochs, tuple(name.removesuffix(".weight") for name in names)
        mean, deviation = rows[..., 0, None], rows[..., 1, None]
    return GradientPhases(
        epochs=epochs,
        layers=layers,
        mean=mean.mean(2),
        std=deviation.mean(2),
        mean_networks=mean,
        std_networks=deviation,
        crossing=_crossing(epochs, mean.mean(2), deviation.mean(2)),
    )


def _tensors(run: Run) -> list[str]:
    """The names of the parameters with at least two axes, in the order of the model."""
    noted: Mapping[str, Any] = run.records[0]["gradient"] if len(run) else {}
    # Logs of earlier versions hold neither axes nor places.
    found = [name for name, row in noted.items() if row.get("axes", 1 if name.endswith("bias") else 2) >= 2]
    return sorted(found, key=lambda name: noted[name].get("place", 0))


def _crossing(epochs: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The epoch after the last one where the mean is at least the deviation."""
    numbers = torch.arange(1, len(epochs) + 1, device="cpu")[:, None]
    last = ((mean >= deviation) * numbers).amax(0).tolist()
    found = [float(epochs[place]) if place < len(epochs) else math.nan for place in last]
    return torch.tensor(found, dtype=torch.float64, device="cpu")
