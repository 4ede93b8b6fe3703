"""The density of all eigenvalues of the loss's Hessian, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.training.curvature.hessian_products import HessianProduct, MovableLoss
from microtome.training.curvature.lanczos import quadrature
from microtome.training.image_losses import Loss

__all__ = ["SpectralDensity", "spectral_density"]

_NOTE = (
    "Of the eigenvalues of the mean loss's Hessian, in units of the loss per squared weight; nodes are the points "
    "of the quadrature."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SpectralDensity(Result, drawing="training.curvature_figures:spectral_density"):
    """The distribution of the eigenvalues of a Hessian, as weighted nodes of each random vector.

    Attributes
    ----------
    nodes, weights : Tensor
        (probes, steps), Gauss' nodes, ascending, and weights, whose sum is 1 for each random vector; the weights of
        missing nodes, if a small space was exhausted, are 0.
    size : int
        Number of eigenvalues, one for each weight of the network.
    layer : str
        The layer of the block; empty for the whole Hessian.
    images, steps : int
        Number of images in the mean loss, and number of Hessian-vector products.
    """

    nodes: Tensor
    weights: Tensor
    size: int
    layer: str = ""
    images: int = 0
    steps: int = 0

    def mean(self, function: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """The mean of a function over all eigenvalues, and the standard error from the random vectors.

        Examples
        --------
        >>> from microtome.results import Provenance
        >>> nodes, weights = torch.tensor([[0.0, 2.0], [0.0, 4.0]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
        >>> SpectralDensity(provenance=Provenance(""), nodes=nodes, weights=weights, size=4).mean(lambda x: x)
        (1.5, 0.5)
        """
        each = (self.weights * function(self.nodes)).sum(1)
        error = float(each.std() / len(each) ** 0.5) if len(each) > 1 else float("nan")
        return float(each.mean()), error

    @property
    def trace(self) -> tuple[float, float]:
        """The sum of all eigenvalues and its standard error."""
        value, error = self.mean(lambda x: x)
        return self.size * value, self.size * error

    def share_below(self, threshold: float) -> tuple[float, float]:
        """The share of eigenvalues below a threshold, and its standard error.

        It is as exact as the nodes are dense there: a node represents an interval of the spectrum around it.
        """
        return self.mean(lambda x: (x < threshold).to(x))

    def density(self, at: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """The density of eigenvalues at some points, smoothed by a Gaussian, and its standard error, both (P,).

        Parameters
        ----------
        at
            (P,) places.
        width
            The standard deviation of the Gaussian.

        Raises
        ------
        InputError
            The width is not positive.
        """
        if not width > 0:
            raise InputError(f"a positive width was expected, got {width}.")
        apart = (at[:, None, None] - self.nodes) / width
        each = (self.weights * torch.exp(-apart.square() / 2)).sum(2) / (width * (2 * torch.pi) ** 0.5)
        error = each.std(1) / each.shape[1] ** 0.5 if each.shape[1] > 1 else torch.full_like(at, float("nan"))
        return each.mean(1), error

    def table(self) -> Table:
        """Trace, mean square, extreme nodes and the share of negative eigenvalues, with standard errors."""
        there = self.nodes[self.weights > 0]
        square, its_error = self.mean(torch.square)
        negative, error = self.share_below(0.0)
        rows = (
            ("trace", *self.trace),
            ("mean of the squares", square, its_error),
            ("share below zero", negative, error),
            ("largest node", float(there.max()), None),
            ("smallest node", float(there.min()), None),
        )
        return Table(("quantity", "value", "standard error"), rows, _NOTE)


@register(
    "hessian-density", rows=("F3",), paper="ghorbani2019investigation", needs="labelled images", kind="training",
    quantity="loss per squared weight",
)  # fmt: skip
def spectral_density(
    net: Network,
    dataset: Dataset,
    *,
    layer: str | None = None,
    probes: int = 8,
    products: int = 64,
    loss: Loss | None = None,
    images: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> SpectralDensity:
    r"""Estimate the density of the Hessian's eigenvalues by stochastic Lanczos quadrature [1]_.

    .. math:: \phi(t) = \frac1n \sum_{i=1}^n \delta(t - \lambda_i), \qquad
              \frac1n \mathrm{tr} f(H) = \mathrm{E}_v\, v^\top f(H)\, v \approx
              \frac1P \sum_{p} \sum_{j} w_{pj}\, f(\lambda_{pj})

    over P random unit vectors, with Gauss' nodes and weights of each from Lanczos' method.

    Parameters
    ----------
    net, dataset
        The network, and its images with labels.
    layer
        The block of the Hessian of one layer's weights, all others fixed; by default of all weights.
    probes
        Number of random vectors; their differences give the standard errors.
    products
        Hessian-vector products for each: an integral of a polynomial of degree below twice as many is exact.
    loss, images, batch, seed, progress
        As in :func:`~microtome.training.curvature.eigenvalues`.

    Returns
    -------
    SpectralDensity

    Raises
    ------
    InputError
        Labels are missing, an option is out of range, or no layer of that name has weights.
    ModelError
        The model cannot be differentiated twice, or the loss is not finite.

    Notes
    -----
    Cost: ``probes * products`` products, each of two to four passes over the images. A single large eigenvalue has
    the weight 1/n and is visible only if it is isolated; ``eigenvalues`` finds it with a bound. What it does not show:
    detail finer than the distance of the nodes.

    References
    ----------
    .. [1] B. Ghorbani, S. Krishnan, Y. Xiao. An investigation into neural net optimization via Hessian eigenvalue
       density. ICML 2019.
    """
    if probes < 1 or products < 1:
        raise InputError(f"probes and products must be at least 1, got {probes}, {products}.")
    at = MovableLoss(net, dataset, loss=loss, images=images, batch=batch, seed=seed)
    weights = at.groups(per_layer=False)[""] if layer is None else at.layer(net.layer(layer).name)
    product = HessianProduct(at, weights, Clock(progress, probes * products), layer or "all weights", 0)
    drawn = [quadrature(product, product.size, products, seed=seed + probe) for probe in range(probes)]
    return SpectralDensity(
        nodes=_padded([nodes for nodes, _ in drawn], repeat=True),
        weights=_padded([weights for _, weights in drawn]),
        size=product.size,
        layer=layer or "",
        images=at.images,
        steps=sum(len(nodes) for nodes, _ in drawn),
    )


def _padded(rows: list[Tensor], *, repeat: bool = False) -> Tensor:
    """Rows of one length: filled up with zeros, or with the last number."""
    most = max(map(len, rows))
    return torch.stack([
        torch.cat([row, row[-1:].expand(most - len(row)) if repeat else row.new_zeros(most - len(row))]) for row in rows
    ])  # fmt: skip
