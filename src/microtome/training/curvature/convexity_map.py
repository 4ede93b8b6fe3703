"""The map of |lambda_min / lambda_max| of the whole Hessian over a plane of weights: where the loss is not convex."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.training.curvature.eigenvalues import check_options
from microtome.training.curvature.hessian_products import HessianProduct, MovableLoss
from microtome.training.curvature.lanczos import extreme
from microtome.training.image_losses import Loss
from microtome.training.landscape.directions import random_direction
from microtome.training.landscape.line import centred, treatment

__all__ = ["ConvexityMap", "convexity_map"]

_NOTE = (
    "The ratio of the Hessian's smallest to its largest eigenvalue, where the smallest is negative; 0 where none is."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvexityMap(Result, drawing="training.curvature_figures:convexity_map"):
    """Extreme eigenvalues of the Hessian of all weights at the points of a plane.

    Attributes
    ----------
    alpha, beta : Tensor
        (steps,), coordinates: the weights are theta + alpha * delta + beta * eta.
    largest, smallest : Tensor
        (steps, steps), ``[i, j]`` at ``alpha[i]``, ``beta[j]``.
    residual : Tensor
        (steps, steps), the larger of both residuals: an eigenvalue lies within this distance of each.
    treatment : dict
        How directions, biases and norms were treated, in words.
    images, steps : int
        Number of images in the mean loss, and total number of Hessian-vector products.
    """

    alpha: Tensor
    beta: Tensor
    largest: Tensor
    smallest: Tensor
    residual: Tensor
    treatment: dict[str, str] = field(default_factory=dict)
    images: int = 0
    steps: int = 0

    @property
    def ratio(self) -> Tensor:
        """(steps, steps), the absolute ratio of smallest to largest eigenvalue; 0 if none is negative."""
        ratio = (self.smallest / self.largest).abs()
        return torch.where(self.smallest < 0, ratio, torch.zeros_like(ratio))

    def table(self) -> Table:
        """The ratio at the network, its mean and largest value, and the share of points where it is above 1 %."""
        ratio, middle = self.ratio, len(self.alpha) // 2
        rows = (
            ("at the network", float(ratio[middle, middle])),
            ("mean of the plane", float(ratio.mean())),
            ("largest of the plane", float(ratio.max())),
            ("share of points above 0.01", float((ratio > 0.01).double().mean())),
        )
        return Table(("|smallest / largest|", "value"), rows, _NOTE)


@register(
    "hessian-convexity",
    rows=("F3",),
    paper="li2018visualizing",
    needs="labelled images",
    kind="training",
    quantity="ratio",
)
def convexity_map(
    net: Network,
    dataset: Dataset,
    *,
    steps: int = 11,
    extent: float = 1.0,
    normalization: str = "filter",
    biases: str = "fixed",
    norms: str = "fixed",
    loss: Loss | None = None,
    images: int | None = None,
    tolerance: float = 0.02,
    products: int = 50,
    batch: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> ConvexityMap:
    r"""The map of the absolute ratio of the Hessian's extreme eigenvalues over a plane through the weights [1]_.

    .. math:: r(\alpha, \beta) = \left|\frac{\lambda_{\min}}{\lambda_{\max}}\right|, \qquad
              H = \nabla^2_\theta L(\theta + \alpha\,\delta + \beta\,\eta)

    in the random filter-normalised directions of :func:`~microtome.training.landscape.surface` of the same seed.

    Parameters
    ----------
    net, dataset
        The network, and its images with labels.
    steps, extent
        Number of points along each direction, odd, and the extent of the grid.
    normalization, biases, norms
        See :func:`~microtome.training.landscape.random_direction`.
    loss, images, tolerance, products, batch, seed, progress
        As in :func:`~microtome.training.curvature.eigenvalues`, at each point.

    Returns
    -------
    ConvexityMap

    Raises
    ------
    InputError
        Labels are missing, steps are even, or an option is out of range.
    ModelError
        The model cannot be differentiated twice, or the loss is not finite at a point.

    Notes
    -----
    Cost: at most ``steps ** 2 * products`` products, each of two to four passes over the images, so that the default
    takes up to 24,000 passes; ``LossSurface.convexity`` shows the same ratio within the plane at no cost, and
    misses curvature outside the plane. Running statistics stay unchanged.

    References
    ----------
    .. [1] H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein. Visualizing the loss landscape of neural nets.
       NeurIPS 2018.
    """
    check_options(1, None, tolerance, products)
    axis = centred(steps, extent, 2)
    delta, eta = (
        random_direction(net, seed=seed * 2 + draw, normalization=normalization, biases=biases, norms=norms)
        for draw in (0, 1)
    )
    at = MovableLoss(net, dataset, loss=loss, images=images, batch=batch, seed=seed)
    theta = {name: weight.detach().to("cpu", torch.float64, copy=True) for name, weight in at.weights.items()}
    clock = Clock(progress, products * steps**2)
    rows: list[Tensor] = []
    taken = 0
    for a, b in torch.cartesian_prod(axis, axis).tolist():
        _move(at.weights, theta, [(a, delta), (b, eta)])
        product = HessianProduct(at, [*at.weights.values()], clock, f"point {len(rows) + 1} of {steps**2}", taken)
        ritz = extreme(product, product.size, 1, tolerance=tolerance, most=products, seed=seed)
        rows.append(torch.cat([ritz.top, ritz.bottom, torch.maximum(ritz.top_residual, ritz.bottom_residual)]))
        taken += ritz.steps
    largest, smallest, residual = torch.stack(rows).T.reshape(3, steps, steps)
    return ConvexityMap(
        alpha=axis,
        beta=axis,
        largest=largest,
        smallest=smallest,
        residual=residual,
        treatment=treatment("random", normalization, biases, norms),
        images=at.images,
        steps=taken,
    )


@torch.no_grad()
def _move(
    weights: Mapping[str, Tensor], theta: Mapping[str, Tensor], along: list[tuple[float, dict[str, Tensor]]]
) -> None:
    """Set the weights to theta plus multiples of directions, rounded once."""
    for name, weight in weights.items():
        weight.copy_(sum((c * d[name] for c, d in along if c != 0 and name in d), theta[name]))
