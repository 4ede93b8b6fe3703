"""The loss on the straight line from one network to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Listener
from microtome.registry import register
from microtome.results import stated
from microtome.training.landscape.directions import toward
from microtome.training.landscape.evaluation import Evaluation
from microtome.training.landscape.line import check_points, treatment
from microtome.training.landscape.loss_grids import LossLine

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from microtome.training.landscape.evaluation_options import EvaluationOptions

__all__ = ["between"]


@register(
    "loss-between",
    rows=("F2",),
    paper="goodfellow2015qualitatively",
    needs="two networks of one architecture, and labelled images",
    kind="training",
    quantity="mean loss",
)
def between(
    net_a: Network,
    net_b: Network,
    dataset: Dataset,
    *,
    test: Dataset | None = None,
    steps: int = 51,
    margin: float = 0.0,
    seed: int = 0,
    folder: Path | str | None = None,
    progress: Listener | None = None,
    **options: Unpack[EvaluationOptions],
) -> LossLine:
    r"""The mean loss and accuracy on the straight line between two networks of one architecture [1]_.

    .. math:: \theta(\alpha) = (1 - \alpha)\,\theta_A + \alpha\,\theta_B

    alpha = 0 is the first network and alpha = 1 the second, each to the last bit. Running statistics are
    interpolated with the weights, or re-estimated at each point.

    Parameters
    ----------
    net_a, net_b
        The networks; images are normalised as for the first.
    dataset, test
        Training images with labels and, optionally, test images, whose losses are ``.test``.
    steps
        Number of points from 0 to 1, both included.
    margin
        Extension of the line beyond both ends; the grid contains the ends if ``margin * (steps - 1)`` is an integer.
    seed, folder, progress, **options
        As in :func:`~microtome.training.landscape.surface`.

    Returns
    -------
    LossLine

    Raises
    ------
    InputError
        The networks have different architectures or normalisations, or labels are missing.
    StoreError
        The folder holds points of other settings.

    Notes
    -----
    Cost: one pass over the images for each point. A barrier on the straight line does not mean that there is no path
    without a barrier: units of the two networks may be ordered differently.

    References
    ----------
    .. [1] I. Goodfellow, O. Vinyals, A. Saxe. Qualitatively characterizing neural network optimization problems.
       ICLR 2015.
    """
    if steps < 2:
        raise InputError(f"at least two steps were expected, got steps={steps}.")
    if not 0 <= margin < float("inf"):
        raise InputError(f"a margin of at least 0 was expected, got {margin}.")
    check_points(steps + 2 * round(margin * (steps - 1)), f"steps={steps} with margin={margin:g}")
    if (net_a.mean, net_a.std, net_a.input_shape) != (net_b.mean, net_b.std, net_b.input_shape):
        raise InputError("the two networks take images of different shape or normalisation.")
    way = toward(net_a, net_b)
    more = round(margin * (steps - 1))
    alpha = torch.arange(-more, steps + more, dtype=torch.float64, device="cpu") / (steps - 1)
    parts: list[LossLine] = []
    for name, part in (("train", dataset), ("test", test)):
        if part is None:
            continue
        evaluation = Evaluation(net_a, part, [way], seed=seed, **options)
        found = evaluation.at(alpha[:, None], folder=None if folder is None else Path(folder) / name, progress=progress)
        words = treatment("from the first network to the second", moved="moved")
        parts.append(
            LossLine(
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
        )
    return parts[0] if len(parts) == 1 else replace(parts[0], test=parts[1])
