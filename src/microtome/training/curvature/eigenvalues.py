"""Curvature of the loss at a network's weights: the largest and smallest eigenvalues of its Hessian, also by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from microtome.batch_sizes import check_count
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

EIGENVALUES = "Of the Hessian of the mean loss, in units of the loss per squared weight; a layer's: of its own block."


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
        (k,) largest eigenvalues of each layer's own block of the Hessian, by layer; empty without ``per_layer``.
    layers_smallest : dict of str to Tensor
        The smallest ones.
    images, steps : int
        Number of images in the mean loss, and total number of Hessian-vector products.
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
        """Largest and smallest eigenvalue of the whole Hessian and of each layer's block."""
        rows = [("all", float(self.values[0]), float(self.smallest[0]))]
        rows += [(name, float(v[0]), float(self.layers_smallest[name][0])) for name, v in self.layers.items()]
        return Table(("layer", "largest", "smallest"), tuple(rows), EIGENVALUES)


@register(
    "hessian-eigenvalues",
    rows=("F3",),
    paper="yao2020pyhessian",
    needs="labelled images",
    kind="training",
    quantity="loss per squared weight",
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

    in evaluation mode, with unchanged running statistics [1]_.

    Parameters
    ----------
    net, dataset
        The network, and its images with labels.
    k, smallest
        Number of the largest and of the smallest eigenvalues; by default equal.
    per_layer
        Also the eigenvalues for each layer's own weights, all others fixed: the diagonal blocks of H. The largest shows
        which layer makes the minimum sharp.
    loss
        Maps scores (n, K) and labels (n,) to losses (n,). By default the cross-entropy.
    images
        Maximum number of images, drawn by ``seed``.
    tolerance
        Largest residual, as a share of the largest absolute eigenvalue.
    products
        Maximum number of Hessian-vector products for the whole Hessian and for each layer; residuals show the accuracy.
    batch, seed
        Images per pass; seed of the first vector and of the drawn images.
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
    Cost: each product takes about four passes over the images; if the graphs of the gradients fit into 1
    GiB of memory they are kept, and a product takes two passes. The vectors take ``products`` times the memory of the
    weights in float64. At the kinks of ReLU the second derivative of the linear piece is used. The eigenvalues are not
    invariant to rescaling of layers; filter-normalised surfaces are. A network in half precision is widened to float32.

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
    """Refuse numbers below 1, and fewer products than eigenvalues.

    Raises
    ------
    InputError
        One of them is too small.
    """
    for name, count in (("k", k), ("products", products), ("smallest", 1 if smallest is None else smallest)):
        check_count(count, name)
    if products < (wanted := k + (k if smallest is None else smallest)):
        raise InputError(f"products must be at least {wanted}, the number of eigenvalues at both ends; got {products}.")
    if not tolerance > 0:
        raise InputError(f"a positive tolerance was expected, got {tolerance}.")
