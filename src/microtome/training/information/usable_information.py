"""Usable information: how many bits about the class a linear classifier extracts from each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from microtome import spaces
from microtome.data import Dataset, adapt, batches
from microtome.errors import InputError, LayerError, OpaqueError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.representation import features
from microtome.results import Result
from microtome.tables import Table
from microtome.training.information.binary_task import entropy
from microtome.training.information.linear_reader import folds_of, read_linearly
from microtome.training.information.run_states import nonlinearities
from microtome.units.streaming.streaming_pass import selected_layers

__all__ = ["UsableInformation", "usable_information"]

_NOTE = (
    "usable bits: what a linear classifier extracts about the class on held-out images. of H(Y): their share of "
    "the class's entropy. accuracy, and the energy of the image that reaches the layer: shares of 1."
)

INPUT, SCORES = "input", "logits"


@dataclass(frozen=True, eq=False, kw_only=True)
class UsableInformation(Result, drawing="training.usable_information_figures:usable_information"):
    """Usable information about the class, layer by layer, in bits.

    Attributes
    ----------
    layers : list of str
        L names, the pixels as ``"input"`` first and the class scores as ``"logits"`` last.
    values, error : Tensor
        (L,) bits that a linear classifier extracts from held-out images, and their standard error over the
        images. Negative if the classifier is worse than the class frequencies.
    accuracy : Tensor
        (L,), accuracy of the classifier.
    pointwise : Tensor
        (L, N), the bits of each image, whose mean is ``values``: negative where the layer misleads the classifier.
    images : Tensor
        (N,) indices of the images in the data set.
    widths : list of int
        Features of each layer.
    penalties : list of list of float
        By layer, the penalty chosen in each fold.
    label_entropy : float
        H(Y) in bits: no more can be known about the class.
    kept, kept_error : Tensor
        (L,) mean share of an image's energy that reaches the layer, and its largest error; NaN
        if it was not measured or there is no local linear map. See ``spaces.kept_and_lost``.
    """

    layers: list[str]
    values: Tensor
    error: Tensor
    accuracy: Tensor
    pointwise: Tensor
    images: Tensor
    widths: list[int]
    penalties: list[list[float]]
    label_entropy: float
    kept: Tensor
    kept_error: Tensor

    def table(self) -> Table:
        """One row for each layer."""
        columns = ("layer", "features", "usable bits", "standard error", "of H(Y)", "accuracy", "image energy kept")
        rows = [
            (name, self.widths[at], float(self.values[at]), float(self.error[at]),
             float(self.values[at]) / self.label_entropy, float(self.accuracy[at]),
             None if math.isnan(float(self.kept[at])) else float(self.kept[at]))
            for at, name in enumerate(self.layers)
        ]  # fmt: skip
        return Table(columns, tuple(rows), _NOTE)


@register(
    "usable-information",
    rows=("F5", "H7"),
    paper="xu2020theory",
    needs="labelled images",
    kind="training",
    quantity="bit",
)
def usable_information(
    net: Network,
    dataset: Dataset,
    layers: str | Iterable[str] | None = None,
    *,
    reduce: str = "flat",
    folds: int = 5,
    images: int | None = None,
    kept: int = 0,
    seed: int = 0,
    progress: Listener | None = None,
) -> UsableInformation:
    r"""Measure how many bits about the class a linear classifier extracts from each layer [1]_.

    .. math:: I_V(T \to Y) = H_V(Y) - H_V(Y \mid T) \approx
              \frac1N \sum_n \log_2 \frac{p_V(y_n \mid t_n)}{p_V(y_n)}

    with V the classifiers softmax(W t + b), fitted and tested on different images. Unlike the mutual information it is
    finite and estimated without bins or noise, and a layer can increase it: a network makes the class decodable that is
    hidden in the pixels.

    Parameters
    ----------
    net, dataset
        The network, and images with labels of two classes or more; images without a label are left out.
    layers
        Default the outputs of nonlinearities. The pixels and the class scores are always included.
    reduce
        How a map becomes features: ``"flat"``, all positions; ``"mean"`` or ``"max"`` over positions.
    folds
        Each image is tested with a classifier that was fitted to ``folds - 2`` of ``folds`` folds and whose penalty was
        chosen on one more.
    images
        Maximum number of images, drawn by ``seed``.
    kept
        Number of images on which the share of an image's energy that reaches the layer is measured.
    seed
        Seed of the folds and of the drawn images.
    progress
        Called after each layer.

    Returns
    -------
    UsableInformation

    Raises
    ------
    InputError
        Labels are missing or all equal, or a class has fewer images than folds.
    LayerError
        A layer does not exist or has no units.

    Notes
    -----
    Cost: a pass for each layer, and for each layer and fold up to eight logistic regressions: seconds for 1,000 images
    of 10,000 features. Memory: the features of one layer. The value is a lower bound for the best linear classifier on
    unlimited data; the bound is looser with fewer images. It does not hold for nonlinear classifiers. The
    standard error is over the images, for fixed classifiers.

    References
    ----------
    .. [1] Y. Xu, S. Zhao, J. Song, R. Stewart, S. Ermon. A theory of usable information under computational
       constraints. ICLR 2020.
    """
    if folds < 3:
        raise InputError(f"at least three folds were expected, to fit, to validate and to test; got {folds}.")
    if kept < 0 or (images is not None and images < 1):
        raise InputError(f"at least one image, and kept from 0 on, were expected; got images={images}, kept={kept}.")
    chosen = [one.name for one in selected_layers(net, nonlinearities(net) if layers is None else layers)]
    places, labels = _labelled(net, dataset, images, folds, seed)
    adapted: Any = adapt(dataset, net)
    some: Any = Subset(adapted, places.tolist())
    fold = folds_of(labels, folds, seed)
    alone = _constant(labels, fold)
    names = [INPUT, *chosen, SCORES]
    clock = Clock(progress, len(names))
    readings, widths = [], []
    for done, name in enumerate(names, 1):
        if name == INPUT:
            values = torch.cat([pixels.flatten(1) for _, pixels, _ in batches(some, net=net)])
        else:
            values = features(net, some, name, reduce="flat" if name == SCORES else reduce).values
        readings.append(read_linearly(values, labels, fold))
        widths.append(values.shape[1])
        clock.step(f"reading {name}", done)
    pointwise = torch.stack([(reading.log_likelihood - alone) / math.log(2) for reading in readings])
    shares, errors = _kept_shares(net, dataset, places[:kept], names)
    return UsableInformation(
        layers=names,
        values=pointwise.mean(1),
        error=pointwise.std(1) / len(labels) ** 0.5,
        accuracy=torch.stack([reading.right.double().mean() for reading in readings]),
        pointwise=pointwise,
        images=places,
        widths=widths,
        penalties=[list(reading.penalties) for reading in readings],
        label_entropy=entropy(labels),
        kept=shares,
        kept_error=errors,
    )


def _labelled(net: Network, dataset: Dataset, images: int | None, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """The places of the labelled images, up to a number, and their classes, numbered from 0."""
    known_labels, _ = adapt(dataset, net).shown_classes
    places = (
        torch.empty(0, dtype=torch.int64, device="cpu")
        if known_labels is None
        else (known_labels >= 0).nonzero()[:, 0].cpu()
    )
    if known_labels is None or not len(places):
        raise InputError("the data set has no labels; usable information about the class needs one for each image.")
    if images is not None and images < len(places):
        drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed), device="cpu")[
            : max(images, 0)
        ]
        places = places[drawn.sort().values]
    classes, labels, counts = known_labels.cpu()[places].unique(return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"all {len(places)} images belong to {len(classes)} class; give images of at least two classes."
        )
    if int(counts.min()) < folds:
        few = int(counts.argmin())
        raise InputError(
            f"class {int(classes[few])} has {int(counts[few])} images for {folds} folds; give at least {folds} images "
            "of each class, or fewer folds."
        )
    return places, labels


def _constant(labels: Tensor, fold: Tensor) -> Tensor:
    """(N,) the log-likelihood of each image's class by the class frequencies in the fitted folds."""
    found = torch.empty(len(labels), dtype=torch.float64, device="cpu")
    folds, classes = int(fold.max()) + 1, int(labels.max()) + 1
    for k in range(folds):
        judged = fold == k
        fitted = ~(judged | (fold == (k + 1) % folds))
        counts = torch.bincount(labels[fitted], minlength=classes).double()
        found[judged] = (counts / counts.sum()).log()[labels[judged]]
    return found


def _kept_shares(net: Network, dataset: Dataset, places: Tensor, names: list[str]) -> tuple[Tensor, Tensor]:
    """By layer the mean share of an image's energy that reaches it, and its error; 1 for the input."""
    shares = torch.full((len(names),), math.nan, dtype=torch.float64, device="cpu")
    errors = shares.clone()
    if not len(places):
        return shares, errors
    images, _ = adapt(dataset, net).fetch(places)
    shares[0], errors[0] = 1.0, 0.0
    for place, name in enumerate(names[1:], 1):
        try:
            found = spaces.kept_and_lost(net, images, [name])
        except (LayerError, OpaqueError):
            continue
        shares[place] = 1 - found.share[0].double().nanmean()  # black images have no energy to share
        errors[place] = found.error[0].double().nanmean()
    return shares, errors
