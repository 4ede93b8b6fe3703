"""A linear classifier: logistic regression, with a penalty chosen on validation images and a test on other images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Reading", "folds_of", "read_linearly"]

_PENALTIES = tuple(10.0**power for power in range(0, -8, -1))
_PATIENCE = 2  # number of penalties that are tried after the best one
_ITERATIONS = 60  # of L-BFGS for each penalty, warm-started from the previous solution
_RANK = 1e-10  # directions below this share of the largest variance are dropped


@dataclass(frozen=True)
class Reading:
    """The predictions of the classifier for held-out images.

    Attributes
    ----------
    log_likelihood : Tensor
        (N,), in nats, of each image's own class.
    right : Tensor
        (N,) bool.
    penalties : tuple of float
        The penalty chosen in each fold.
    """

    log_likelihood: Tensor
    right: Tensor
    penalties: tuple[float, ...]


def folds_of(labels: Tensor, folds: int, seed: int) -> Tensor:
    """(N,) the fold of each image, stratified by class.

    Examples
    --------
    >>> folds_of(torch.tensor([0, 0, 0, 1, 1, 1]), 3, 0).view(2, 3).sort(1).values.tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed), device="cpu")
    order = drawn[labels[drawn].argsort(stable=True)]
    found = torch.empty_like(order)
    found[order] = torch.arange(len(labels), device="cpu") % folds
    return found


def read_linearly(values: Tensor, labels: Tensor, fold: Tensor) -> Reading:
    r"""Fit ``softmax(W x + b)`` on some images, choose its penalty on others, test it on the rest, in rotation.

    .. math:: \min_{W, b}\ \frac1n \sum_i -\log p(y_i \mid x_i) + \frac\lambda2 \lVert W \rVert^2

    on features with mean 0 whose vectors have a mean square of 1; the relative scales of features are those that the
    next layer reads. Images of fold k are tested with a classifier whose lambda was chosen on fold k + 1, and which was
    fitted to all others. If there are more features than images, the problem is solved in the space that the images
    span, which contains the solution.

    Parameters
    ----------
    values, labels, fold
        (N, F) features, (N,) classes from 0 on, and (N,) folds, three at least.
    """
    classes, folds = int(labels.max()) + 1, int(fold.max()) + 1
    log_likelihood = torch.empty(len(labels), dtype=torch.float64, device="cpu")
    right = torch.empty(len(labels), dtype=torch.bool, device="cpu")
    penalties = []
    for k in range(folds):
        judged, choosing = fold == k, fold == (k + 1) % folds
        fitting = ~(judged | choosing)
        X, others = _coordinates(values[fitting], [values[choosing], values[judged]])
        penalty, scores = _chosen(X, labels[fitting], others[0], labels[choosing], others[1], classes)
        log_likelihood[judged] = -functional.cross_entropy(scores, labels[judged], reduction="none")
        right[judged] = scores.argmax(1) == labels[judged]
        penalties.append(penalty)
    return Reading(log_likelihood, right, tuple(penalties))


def _chosen(
    X: Tensor, y: Tensor, X_choosing: Tensor, y_choosing: Tensor, X_judged: Tensor, classes: int
) -> tuple[float, Tensor]:
    """The penalty with the smallest validation loss, tried from the largest on; and the scores of the test images."""
    weight = X.new_zeros(X.shape[1] + 1, classes)
    best, least, found = 0, float("inf"), X.new_zeros(len(X_judged), classes)
    for place, penalty in enumerate(_PENALTIES):
        weight = _fitted(X, y, weight, penalty)
        loss = float(functional.cross_entropy(_scores(X_choosing, weight), y_choosing))
        if loss < least:
            best, least, found = place, loss, _scores(X_judged, weight)
        elif place - best >= _PATIENCE:
            break
    return _PENALTIES[best], found


def _fitted(X: Tensor, y: Tensor, start: Tensor, penalty: float) -> Tensor:
    weight = start.clone().requires_grad_()
    search = torch.optim.LBFGS([weight], max_iter=_ITERATIONS, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = functional.cross_entropy(_scores(X, weight), y) + penalty / 2 * weight[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(closure)
    return weight.detach()


def _scores(X: Tensor, weight: Tensor) -> Tensor:
    return X @ weight[:-1] + weight[-1]


def _coordinates(fitting: Tensor, others: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Scaled features; if there are more than images, projected onto the directions in which those images vary."""
    X = fitting.double()
    mean = X.mean(0)
    scale = 1 / ((X - mean).square().sum(1).mean().sqrt().clamp(min=1e-300))
    X = (X - mean) * scale
    rest = [(other.double() - mean) * scale for other in others]
    if X.shape[1] <= len(X):
        return X, rest
    variance, U = torch.linalg.eigh(X @ X.T)
    kept = variance > _RANK * variance[-1]
    axes = U[:, kept] / variance[kept].sqrt()  # X.T @ axes are orthonormal
    return U[:, kept] * variance[kept].sqrt(), [other @ X.T @ axes for other in rest]
