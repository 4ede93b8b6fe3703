"""The loss along a line through the weights: a random filter-normalised direction, or a given one."""

from __future__ import annotations

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
from microtome.training.landscape.directions import Direction, random_direction
from microtome.training.landscape.evaluation import Evaluation
from microtome.training.landscape.loss_grids import LossLine

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from microtome.training.landscape.evaluation_options import EvaluationOptions

__all__ = ["centred", "check_points", "line", "treatment"]

_MOST = 4_000_000  # points of a line or plane; each takes a pass over the images


@register(
    "loss-line",
    rows=("F1", "F3"),
    paper="li2018visualizing",
    needs="labelled images",
    kind="training",
    quantity="mean loss",
)
def line(
    net: Network,
    dataset: Dataset,
    *,
    steps: int = 51,
    extent: float = 1.0,
    direction: Direction | None = None,
    normalization: str = "filter",
    biases: str = "fixed",
    norms: str = "fixed",
    seed: int = 0,
    folder: Path | str | None = None,
    progress: Listener | None = None,
    **options: Unpack[EvaluationOptions],
) -> LossLine:
    r"""The mean loss along a line through the network's weights.

    .. math:: L(\alpha) = \frac{1}{N} \sum_n \ell\big(f(x_n;\ \theta + \alpha\,\delta),\ y_n\big)

    Parameters
    ----------
    net, dataset
        The network, and its images with labels.
    steps, extent
        Number of points from -extent to extent; odd, so that one is theta itself.
    direction
        The user's own direction instead of a random one, see
        :mod:`~microtome.training.landscape.directions`.
    normalization, biases, norms, seed, folder, progress, **options
        As in :func:`~microtome.training.landscape.surface`.

    Returns
    -------
    LossLine
        Its ``width`` measures the sharpness that the paper shows as a picture [1]_.

    Raises
    ------
    InputError
        Labels are missing, or steps are even.
    StoreError
        The folder holds points of other settings.

    Notes
    -----
    Cost: one pass over the images for each step. One direction hides most non-convexity; a surface shows more.

    References
    ----------
    .. [1] H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein. Visualizing the loss landscape of neural nets.
       NeurIPS 2018.
    """
    alpha = centred(steps, extent)
    if direction is None:
        chosen: Direction = random_direction(net, seed=seed, normalization=normalization, biases=biases, norms=norms)
        words = treatment("random", normalization, biases, norms)
    else:
        chosen, words = direction, treatment("given")
    evaluation = Evaluation(net, dataset, [chosen], seed=seed, **options)
    found = evaluation.at(alpha[:, None], folder=folder, progress=progress)
    return LossLine(
        alpha=alpha,
        loss=found.loss,
        error=found.error,
        accuracy=found.accuracy,
        images=found.images,
        skewness=found.skewness,
        treatment={**words, **evaluation.treatment(found)},
        precision_error=found.precision_error,
        provenance=stated(**evaluation.options),
    )


def check_points(count: int, options: str) -> None:
    """Refuse so many points that they cannot be evaluated.

    Raises
    ------
    InputError
        Naming the options that give this number.
    """
    if count > _MOST:
        raise InputError(
            f"at most {_MOST:,} points can be evaluated, and {options} gives {count:,}; give smaller ones."
        )


def centred(steps: int, extent: float, axes: int = 1) -> Tensor:
    """Evenly spaced coordinates from -extent to extent whose middle is exactly zero.

    Raises
    ------
    InputError
        The number of steps is even, below 3 or too large for a grid with this number of ``axes``, or the extent is
        not positive.

    Examples
    --------
    >>> centred(5, 1.0).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    if steps < 3 or steps % 2 == 0:
        raise InputError(f"an odd number of steps of at least 3 was expected, so that one is the network; got {steps}.")
    check_points(steps**axes, f"steps={steps}")
    if not 0 < extent < float("inf"):
        raise InputError(f"a positive extent was expected, got {extent}.")
    half = steps // 2
    return torch.arange(-half, half + 1, dtype=torch.float64, device="cpu") * extent / half


def treatment(directions: str, normalization: str = "none", biases: str = "", norms: str = "", *, moved: str = "as the "
              "directions say") -> dict[str, str]:  # fmt: skip
    """How directions, biases and norms are treated, in words for results and figures."""
    scaled = {"filter": ", scaled filter by filter", "layer": ", scaled layer by layer", "none": ""}[normalization]
    return {"directions": directions + scaled, "biases": biases or moved, "norms": norms or moved}
