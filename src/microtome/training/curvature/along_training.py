"""The largest and smallest eigenvalues of the loss's Hessian at every checkpoint of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.training.curvature.eigenvalues import EIGENVALUES, check_options
from microtome.training.curvature.hessian_products import HessianProduct, MovableLoss
from microtome.training.curvature.lanczos import extreme
from microtome.training.image_losses import Loss
from microtome.training.training_run import Run

__all__ = ["CurvatureHistory", "along_training"]


@dataclass(frozen=True, eq=False, kw_only=True)
class CurvatureHistory(Result, drawing="training.curvature_figures:along_training"):
    """Extreme eigenvalues of the Hessian at some checkpoints.

    Attributes
    ----------
    epochs : Tensor
        (E,) of the checkpoints.
    values, smallest : Tensor
        (E, k) largest in descending and (E, smallest) smallest in ascending order; in units of loss per squared weight.
    residual, smallest_residual : Tensor
        Of the same shapes: an eigenvalue of H lies within this distance.
    layers, layers_smallest : dict of str to Tensor
        The same for each layer's own block, by layer; empty without ``per_layer``.
    images, steps : int
        Number of images in the mean loss, and total number of Hessian-vector products.
    """

    epochs: Tensor
    values: Tensor
    smallest: Tensor
    residual: Tensor
    smallest_residual: Tensor
    layers: dict[str, Tensor] = field(default_factory=dict)
    layers_smallest: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    steps: int = 0

    def table(self) -> Table:
        """Largest and smallest eigenvalue of the whole Hessian and of each layer's block, for each checkpoint."""
        parts = [("all", self.values, self.smallest)]
        parts += [(name, values, self.layers_smallest[name]) for name, values in self.layers.items()]
        rows = [
            (name, int(epoch), float(high[place, 0]), float(low[place, 0]))
            for name, high, low in parts
            for place, epoch in enumerate(self.epochs)
        ]
        return Table(("layer", "epoch", "largest", "smallest"), tuple(rows), EIGENVALUES)


@register(
    "hessian-along-training", rows=("F3",), paper="yao2020pyhessian", needs="checkpoints", kind="training",
    quantity="loss per squared weight",
)  # fmt: skip
def along_training(
    net: Network,
    run: Run,
    dataset: Dataset,
    *,
    epochs: Sequence[int] | None = None,
    k: int = 1,
    smallest: int | None = None,
    per_layer: bool = False,
    loss: Loss | None = None,
    images: int | None = None,
    tolerance: float = 1e-3,
    products: int = 100,
    batch: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> CurvatureHistory:
    """The Hessian's largest and smallest eigenvalues from checkpoint to checkpoint, of all weights and by layer.

    At each checkpoint it calls :func:`~microtome.training.curvature.eigenvalues` [1]_ on the same images.

    Parameters
    ----------
    net, run, dataset
        The network, with any weights; a training with stored weights; images with labels.
    epochs
        Epochs of the checkpoints; default all.
    k, smallest, per_layer, loss, images, tolerance, products, batch, seed, progress
        As in :func:`~microtome.training.curvature.eigenvalues`.

    Returns
    -------
    CurvatureHistory

    Raises
    ------
    InputError
        The run stored no weights, or not those of an epoch; labels are missing; an option is out of range.
    ModelError
        A checkpoint is of another architecture, or the loss is not finite there.

    Notes
    -----
    Cost: that of ``eigenvalues`` times the checkpoints. The eigenvalues are those for the given images in evaluation
    mode: an optimizer sees the batches and the batch statistics of the training.

    References
    ----------
    .. [1] Z. Yao, A. Gholami, K. Keutzer, M. Mahoney. PyHessian: Neural networks through the lens of the Hessian.
       IEEE Big Data 2020.
    """
    check_options(k, smallest, tolerance, products)
    chosen = list(run.checkpoints if epochs is None else epochs)
    if not run.checkpoints:
        raise InputError("the run stored no weights; train with training.fit(..., out=FOLDER).")
    if not chosen:
        raise InputError(f"no epoch was given; the run stored the weights of {', '.join(map(str, run.checkpoints))}.")
    at = MovableLoss(net, dataset, loss=loss, images=images, batch=batch, seed=seed)
    groups = at.groups(per_layer=per_layer)
    clock = Clock(progress, products * len(groups) * len(chosen))
    found: dict[str, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {name: [] for name in groups}
    taken = 0
    for epoch in chosen:
        run.load(at.model, epoch)
        for name, weights in groups.items():
            product = HessianProduct(at, weights, clock, f"epoch {epoch}, {name or 'all weights'}", taken)
            ritz = extreme(product, product.size, k, smallest=smallest, tolerance=tolerance, most=products, seed=seed)
            found[name].append((ritz.top, ritz.bottom, ritz.top_residual, ritz.bottom_residual))
            taken += ritz.steps
    stacked = {name: [torch.stack(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    values, lowest, residual, its_residual = stacked.pop("")
    return CurvatureHistory(
        epochs=torch.tensor(chosen, device="cpu"),
        values=values,
        smallest=lowest,
        residual=residual,
        smallest_residual=its_residual,
        layers={name: columns[0] for name, columns in stacked.items()},
        layers_smallest={name: columns[1] for name, columns in stacked.items()},
        images=at.images,
        steps=taken,
        provenance=stated(epochs=chosen),
    )
