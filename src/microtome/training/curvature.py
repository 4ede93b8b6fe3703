"""Curvature of the loss at a network's weights: the largest and smallest eigenvalues of its Hessian, also by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from microtome.data import Dataset
from microtome.errors import InputError, ModelError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.training.image_losses import ImageLosses, Loss, PreparedImages
from microtome.training.lanczos import Ritz, extreme

__all__ = ["HessianEigenvalues", "eigenvalues"]


@dataclass(frozen=True, eq=False, kw_only=True)
class HessianEigenvalues(Result, drawing="training.landscape_figures:eigenvalues"):
    """Extreme eigenvalues of the Hessian of the mean loss.

    Attributes
    ----------
    values : Tensor
        (k,), the largest, in descending order; in units of loss per squared weight.
    smallest : Tensor
        (k,), the smallest, in ascending order.
    residual, smallest_residual : Tensor
        (k,), norms of H v - lambda v: an eigenvalue of H lies within this distance.
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
    k
        How many at each end.
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
    Cost: each product takes about four passes over the images; the vectors take ``products`` times the memory of the
    weights in float64. Where all images fit one batch, the gradient's graph is kept and a product takes two passes.
    Where ReLU's kinks lie, the second derivative of the piece counts. The eigenvalues are not invariant to a rescaling
    of layers; filter-normalised surfaces are.

    References
    ----------
    .. [1] Z. Yao, A. Gholami, K. Keutzer, M. Mahoney. PyHessian: Neural networks through the lens of the Hessian.
       IEEE Big Data 2020.
    """
    if k < 1 or products < 1:
        raise InputError(f"k and products are at least 1, got {k}, {products}.")
    if not tolerance > 0:
        raise InputError(f"a positive tolerance is expected, got {tolerance}.")
    private = ImageLosses(net, loss)
    data = PreparedImages(net, dataset, labelled=loss is None, count=images, batch=batch, seed=seed)
    weights = {name: p for name, p in private.parameters.items() if p.is_floating_point()}
    if not weights:
        raise ModelError("the model has no parameter to differentiate for.")
    for name, parameter in private.parameters.items():
        parameter.requires_grad_(name in weights)
    groups: dict[str, list[Tensor]] = {"": list(weights.values())}
    if per_layer:
        for name, parameter in weights.items():
            groups.setdefault(name.rpartition(".")[0] or name, []).append(parameter)
    clock = Clock(progress, products * len(groups))
    found: dict[str, Ritz] = {}
    taken = 0
    with _differentiable(), torch.enable_grad():
        for name, parameters in groups.items():
            product = _HessianProduct(private, data, parameters, clock, name or "all weights", taken)
            size = sum(parameter.numel() for parameter in parameters)
            found[name] = extreme(product, size, k, tolerance=tolerance, most=products, seed=seed)
            taken += found[name].steps
    whole = found.pop("")
    return HessianEigenvalues(
        values=whole.top,
        smallest=whole.bottom,
        residual=whole.top_residual,
        smallest_residual=whole.bottom_residual,
        layers={name: ritz.top for name, ritz in found.items()},
        layers_smallest={name: ritz.bottom for name, ritz in found.items()},
        images=len(data),
        steps=taken,
    )


class _HessianProduct:
    """The Hessian of the mean loss for some weights, times a vector."""

    def __init__(
        self,
        losses: ImageLosses,
        data: PreparedImages,
        weights: list[Tensor],
        clock: Clock,
        stage: str,
        done: int,
    ) -> None:
        self._losses, self._data, self._weights = losses, data, weights
        self._clock, self._stage, self._done = clock, stage, done
        self._kept: list[Tensor] | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        parts = vector.split([weight.numel() for weight in self._weights])
        tangent = [
            part.view(weight.shape).to(weight.device, weight.dtype)
            for part, weight in zip(parts, self._weights, strict=True)
        ]
        total = torch.zeros_like(vector)
        for gradient in self._gradients():
            # Weights that the gradient is linear in, or that the loss does not reach, have no second derivative.
            reached = [(g, t) for g, t in zip(gradient, tangent, strict=True) if g.requires_grad]
            if not reached:
                continue
            made = torch.autograd.grad(
                [g for g, _ in reached],
                self._weights,
                [t for _, t in reached],
                retain_graph=self._kept is not None,
                allow_unused=True,
                materialize_grads=True,
            )
            total += torch.cat([part.detach().flatten().to("cpu", torch.float64) for part in made])
        self._done += 1
        self._clock.step(self._stage, self._done)
        if not bool(total.isfinite().all()):
            raise ModelError("the Hessian holds NaN or infinity: the loss at these weights is not finite.")
        return total

    def _gradients(self) -> Iterator[list[Tensor]]:
        """Gradients of each batch's share of the mean loss, with their graphs."""
        if self._kept is not None:
            yield self._kept
            return
        alone = len(self._data) <= self._data.batch
        for images, labels in self._data.batches():
            losses, _ = self._losses(images, labels)
            share = losses.sum() / len(self._data)
            gradient = [*torch.autograd.grad(
                share, self._weights, create_graph=True, allow_unused=True, materialize_grads=True
            )]  # fmt: skip
            if alone:
                self._kept = gradient
            yield gradient


@contextmanager
def _differentiable() -> Iterator[None]:
    """Attention by plain products: the fused kernels have no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
