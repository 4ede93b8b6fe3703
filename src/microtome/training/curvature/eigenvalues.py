"""Curvature of the loss at a network's weights: the largest and smallest eigenvalues of its Hessian, also by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.training.curvature.hessian_products import HessianProduct, MovableLoss
from microtome.training.curvature.lanczos import Ritz, extreme
from microtome.training.image_losses import Loss

__all__ = ["HessianEigenvalues", "check_options", "eigenvalues"]


@dataclass(frozen=True, eq=False, kw_only=True)
class HessianEigenvalues(Result, drawing="training.curvature_figures:eigenvalues"):
    """Extreme eigenvalues of the Hessian of the mean loss.

    Attributes
    ----------
    values : Tensor
        (k,), the largest, in descending order; in units of loss per squared weight.
    smallest : Tensor
        (smallest,), the smallest, in ascending order.
    residual, smallest_residual : Tensor
        Of the same shapes, norms of H v - lambda v: an eigenvalue of H lies within this distance.
    layers : dict of str to Tensor
        (k,) largest eigenvalues of each layer's own block of the Hessian, by layer; empty if not asked for.
    layers_smallest : dict of str to Tensor
        The smallest ones.
    images, steps : int
        How many images the loss is the mean of, and how many Hessian-vector products were taken in all.
    """

    values: Tensor
    smallest: Tensor
    residual: Tensor
    smallest_residual: Tensor
    layers: dict[str, Tensor] = field(default_factory=dict)
    layers_smallest: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    steps: int = 0

    @property
    def convexity(self) -> float:
        """The absolute value of ``lambda_min / lambda_max``; 0 where no eigenvalue is negative."""
        low, high = float(self.smallest[0]), float(self.values[0])
        return abs(low / high) if low < 0 and high != 0 else 0.0

    def table(self) -> Table:
        """Largest and smallest eigenvalue of the whole and of each layer."""
        rows = [("all", float(self.values[0]), float(self.smallest[0]))]
        rows += [(name, float(v[0]), float(self.layers_smallest[name][0])) for name, v in self.layers.items()]
        return Table(("layer", "largest", "smallest"), tuple(rows))


@register(
    "hessian-eigenvalues", rows=("F3",), paper="yao2020pyhessian", kind="training", quantity="loss per squared weight"
)
def eigenvalues(
    net: Network,
    dataset: Dataset,
    *,
    k: int = 1,
    smallest: int | None = None,
    per_layer: bool = False,
    loss: Loss | None = None,
    images: int | None = None,
    tolerance: float = 1e-4,
    products: int = 200,
    batch: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> HessianEigenvalues:
    r"""The k largest and k smallest eigenvalues of the Hessian of the mean loss, by Lanczos' method.

    .. math:: H = \nabla^2_\theta\, \frac{1}{N} \sum_n \ell\big(f(x_n; \theta), y_n\big), \qquad
              H v = \nabla_\theta \big(v^\top \nabla_\theta L\big)

    in evaluation mode, with running statistics as they are [1]_.

    Parameters
    ----------
    net, dataset
        The network, and its images with labels.
    k, smallest
        How many of the largest and of the smallest; by default as many of both.
    per_layer
        Also those of each layer's own weights, all others fixed: the blocks on the diagonal of H. The largest shows
        which layer makes the minimum sharp.
    loss
        Of scores (n, K) and labels (n,), the losses (n,). By default the cross-entropy.
    images
        At most so many images, drawn by ``seed``.
    tolerance
        Residuals are brought to at most this share of the largest absolute eigenvalue.
    products
        At most so many Hessian-vector products for the whole and for each layer; residuals tell what was reached.
    batch, seed
        Images a pass; seed of the first vector and of the images drawn.
    progress
        Called after each product.

    Returns
    -------
    HessianEigenvalues

    Raises
    ------
    InputError
        Labels are missing, or an option is out of range.
    ModelError
        The model cannot be differentiated twice, or the loss is not finite.

    Notes
    -----
    Cost: each product takes about four passes over the images; where the graphs of the gradients fit in 1 GiB of
    memory they are kept, and a product takes two passes. The vectors take ``products`` times the memory of the weights
    in float64.
    Where ReLU's kinks lie, the second derivative of the piece counts. The eigenvalues are not invariant to a rescaling
    of layers; filter-normalised surfaces are.

    References
    ----------
    .. [1] Z. Yao, A. Gholami, K. Keutzer, M. Mahoney. PyHessian: Neural networks through the lens of the Hessian.
       IEEE Big Data 2020.
    """
    check_options(k, smallest, tolerance, products)
    loss_at = MovableLoss(net, dataset, loss=loss, images=images, batch=batch, seed=seed)
    groups = loss_at.groups(per_layer=per_layer)
    clock = Clock(progress, products * len(groups))
    found: dict[str, Ritz] = {}
    taken = 0
    for name, weights in groups.items():
        product = HessianProduct(loss_at, weights, clock, name or "all weights", taken)
        found[name] = extreme(
            product, product.size, k, smallest=smallest, tolerance=tolerance, most=products, seed=seed
        )  # fmt: skip
        taken += found[name].steps
    whole = found.pop("")
    return HessianEigenvalues(
        values=whole.top,
        smallest=whole.bottom,
        residual=whole.top_residual,
        smallest_residual=whole.bottom_residual,
        layers={name: ritz.top for name, ritz in found.items()},
        layers_smallest={name: ritz.bottom for name, ritz in found.items()},
        images=loss_at.images,
        steps=taken,
    )


def check_options(k: int, smallest: int | None, tolerance: float, products: int) -> None:
    """Refuse numbers that ask for nothing.

    Raises
    ------
    InputError
        One of them is too small.
    """
    if k < 1 or products < 1 or (smallest is not None and smallest < 1):
        wrong = f"{k}, {products}" + ("" if smallest is None else f", {smallest}")
        raise InputError(
            f"k and products are at least 1{'' if smallest is None else ', smallest too'}, got {wrong}."
        )  # fmt: skip
    if not tolerance > 0:
        raise InputError(f"a positive tolerance is expected, got {tolerance}.")
