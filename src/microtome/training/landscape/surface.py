"""The loss on a plane through the weights: random filter-normalised directions, or those of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Listener
from microtome.registry import register
from microtome.results import stated
from microtome.training.landscape.directions import Direction, principal, random_direction
from microtome.training.landscape.evaluation import Evaluation
from microtome.training.landscape.line import centred, treatment
from microtome.training.landscape.loss_grids import LossSurface
from microtome.training.training_run import Run

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from microtome.training.landscape.evaluation_options import EvaluationOptions

__all__ = ["surface"]

_MARGIN = 0.15  # margin around a path, as a share of its range


@register(
    "loss-surface",
    rows=("F1", "F3", "F4"),
    paper="li2018visualizing",
    needs="labelled images",
    kind="training",
    quantity="mean loss",
)
def surface(
    net: Network,
    dataset: Dataset,
    *,
    steps: int = 51,
    extent: float = 1.0,
    run: Run | None = None,
    directions: Sequence[Direction] | None = None,
    normalization: str = "filter",
    biases: str = "fixed",
    norms: str = "fixed",
    seed: int = 0,
    folder: Path | str | None = None,
    progress: Listener | None = None,
    **options: Unpack[EvaluationOptions],
) -> LossSurface:
    r"""The mean loss on a plane through the network's weights.

    .. math:: L(\alpha, \beta) = \frac{1}{N} \sum_n \ell\big(f(x_n;\ \theta + \alpha\,\delta + \beta\,\eta),\ y_n\big)

    With filter-normalised random directions delta and eta [1]_, surfaces of different networks can be compared:
    multiplying the weights of one ReLU layer and dividing those of the next changes nothing. The grid is centred: its
    middle is theta itself. The network's model is not touched.

    Parameters
    ----------
    net
        The network.
    dataset
        Its images with labels.
    steps
        Number of points along each direction; odd, so that one is the centre.
    extent
        The grid goes from -extent to extent; in units of the weights' own norms for normalised directions.
    run
        A training: the plane spans its first two principal directions and covers its path, which is returned
        with the share of its length outside the plane.
    directions
        The user's own two directions, see :mod:`~microtome.training.landscape.directions`.
    normalization, biases, norms
        For random directions, see :func:`~microtome.training.landscape.random_direction`.
    seed
        Seed of the directions and of the order of images.
    folder
        Folder for computed points; an interrupted call resumes there.
    progress
        Called after each point.
    **options
        How the loss is measured at each point: ``loss``, ``statistics``, ``tolerance``, ``common``, ``images``,
        ``batch`` and ``precision``, see :class:`~microtome.training.landscape.EvaluationOptions`.

    Returns
    -------
    LossSurface

    Raises
    ------
    InputError
        Labels are missing, steps are even, or the run is of another network.
    StoreError
        The folder holds points of other settings.

    Notes
    -----
    Cost: steps ** 2 passes over the images; fewer with ``tolerance``. A plane is a small part of weight
    space: a loss that is convex on it need not be convex elsewhere. With frozen running statistics, points far from the
    centre show a network whose norms no longer fit it.

    References
    ----------
    .. [1] H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein. Visualizing the loss landscape of neural nets.
       NeurIPS 2018.
    """
    if run is not None and directions is not None:
        raise InputError("give either a run (its principal directions are used) or directions.")
    plane = None if run is None else principal(net, run)
    if plane is not None:
        chosen: Sequence[Direction] = plane.directions
        alpha, beta = (_covering(axis, steps) for axis in plane.path.T)
        words = treatment("principal directions of the training", moved="moved")
    else:
        alpha = beta = centred(steps, extent, 2)
        if directions is None:
            draws = [seed * 2, seed * 2 + 1]
            chosen = [
                random_direction(net, seed=draw, normalization=normalization, biases=biases, norms=norms)
                for draw in draws
            ]
            words = treatment("random", normalization, biases, norms)
        else:
            chosen = directions
            words = treatment("given")
    if len(chosen) != 2:
        raise InputError(f"two directions were expected, got {len(chosen)}.")
    evaluation = Evaluation(net, dataset, chosen, seed=seed, **options)
    found = evaluation.at(torch.cartesian_prod(alpha, beta), folder=folder, progress=progress)
    shape = len(alpha), len(beta)
    return LossSurface(
        alpha=alpha,
        beta=beta,
        loss=found.loss.view(shape),
        error=found.error.view(shape),
        accuracy=found.accuracy.view(shape),
        images=found.images.view(shape),
        skewness=found.skewness.view(shape),
        treatment={**words, **evaluation.treatment(found)},
        precision_error=found.precision_error,
        path=None if plane is None else plane.path,
        epochs=None if plane is None else plane.epochs,
        distance=None if plane is None else plane.distance,
        explained=None if plane is None else plane.explained,
        off_plane=None if plane is None else plane.off_plane,
        provenance=stated(**evaluation.options),
    )


def _covering(path: Tensor, steps: int) -> Tensor:
    """Evenly spaced coordinates that cover a path with a margin, one of them exactly zero."""
    centred(steps, 1.0, 2)  # refuses invalid steps
    low, high = min(float(path.min()), 0.0), max(float(path.max()), 0.0)
    spacing = (high - low) * (1 + 2 * _MARGIN) / (steps - 1)
    zero = round((_MARGIN * (high - low) - low) / spacing)
    return (torch.arange(steps, dtype=torch.float64, device="cpu") - zero) * spacing
