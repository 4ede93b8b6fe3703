"""Ideal inputs: six images of each class whose scores are compared with the ideal output of the class."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from microtome import data
from microtome.attribution.result import wide
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result, stated
from microtome.spaces.split.class_residuals import class_averages

STARTS = ("average", "nearest", "average_nearest")
KINDS = (*STARTS, *(f"{start}+training" for start in STARTS))
_QUANTILE = 0.25  # the paper's lowest 25th percentile


@dataclass(frozen=True, eq=False, kw_only=True)
class IdealInputs(Result, drawing="spaces.ideal_input_figures:ideal_inputs"):
    """Six images for each class, and how near the network's answer to each is to the ideal one.

    Attributes
    ----------
    classes : list of str
        The classes.
    ideal : Tensor
        (classes, K): the ideal outputs.
    average, nearest, average_nearest : Tensor
        (classes, C, H, W): the paper's avg-img, min-img and avg-min-img.
    trained : dict of str to Tensor
        The same three, trained further with frozen weights.
    names : list of str
        Names of the rows of ``distance``.
    distance : Tensor
        (6, classes): Euclidean distance of the output to the ideal one.
    best : Tensor
        (classes,): row of the smallest distance; an untrained image wins a tie.
    history : Tensor
        (steps + 1, 3, classes): distance at each step of training.
    """

    classes: list[str]
    ideal: Tensor
    average: Tensor
    nearest: Tensor
    average_nearest: Tensor
    trained: dict[str, Tensor]
    names: list[str]
    distance: Tensor
    best: Tensor
    history: Tensor

    def images(self, kind: str) -> Tensor:
        """The images of one kind, (classes, C, H, W)."""
        if kind not in self.names:
            raise InputError(f'there is no kind "{kind}". Known: {", ".join(self.names)}.')
        start, _, training = kind.partition("+")
        whole: Tensor = self.trained[start] if training else getattr(self, start)
        return whole

    @property
    def best_images(self) -> Tensor:
        """(classes, C, H, W): the nearest of the six for each class."""
        return torch.stack([self.images(self.names[int(kind)])[c] for c, kind in enumerate(self.best)])

    @property
    def best_kinds(self) -> list[str]:
        """Name of the best kind for each class."""
        return [self.names[int(kind)] for kind in self.best]


@register("ideal-inputs", rows=("A7",), paper="pattichis2024spaces", needs="images with labels", kind="spaces")
def ideal_inputs(
    net: Network,
    dataset: Any,
    *,
    steps: int = 200,
    optimizer: str = "adam",
    lr: float = 0.01,
    momentum: float = 0.9,
    bounded: bool = True,
    progress: Listener | None = None,
) -> IdealInputs:
    r"""Look for the image whose output is nearest to the ideal output of each class.

    .. math:: t^{(c)}_k = \begin{cases} \max_i f_c(x_i) & k = c\\ \min_i f_k(x_i) & k \ne c\end{cases},\qquad
              d_c(x) = \|f(x) - t^{(c)}\|_2

    over the training images x_i. *average* is the mean image of the class; *nearest* the training image, of any
    class, of smallest d_c; *average_nearest* the mean of those images of the class whose d_c is in the lowest 25
    percent of the class. Each is then trained: steps down the gradient of d_c squared by the pixels, weights
    frozen, and the best image on the way is kept, the start included, so that training never makes it worse.

    The paper names neither optimizer nor steps nor bounds for these images, only a rate of 0.001 and a momentum
    of 0.9 for all its training, which is ``optimizer="sgd", lr=0.001``. On a linear network the squared distance
    is convex: all starts lead to the same smallest distance, and which of the three comes out best is
    decided by the last digits.

    Parameters
    ----------
    net : Network
        The network; f are its class scores.
    dataset : map-style data set
        Training images with labels.
    steps : int
        Steps of training.
    optimizer : str
        ``"adam"``, or ``"sgd"`` with ``momentum``.
    lr : float
        The learning rate; with Adam about the largest change of a pixel in a step.
    momentum : float
        Of ``"sgd"``.
    bounded : bool
        Whether trained images stay in the network's pixel range.
    progress : function, optional
        Called after each step with the mean ``distance``.

    Returns
    -------
    IdealInputs

    Raises
    ------
    InputError
        When the data set has no labels, or a class is not the network's.

    Notes
    -----
    Cost: three passes over the data and ``steps`` forward and backward passes on three images a class. The ideal
    output is an outer corner of what the network gave, which no image may reach; distances of different
    networks do not compare.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from microtome.data import Images
    >>> photos = Images.from_float(pictures, torch.arange(12) % 2)
    >>> found = ideal_inputs(net, photos, steps=2)
    >>> tuple(found.average.shape), len(found.best)
    ((2, 1, 8, 8), 2)
    """
    if steps < 0 or not 0 < lr < math.inf or not 0 <= momentum < 1:
        raise InputError(
            f"steps from 0, a positive lr and a momentum from 0 on and below 1 were expected, got {steps}, {lr} and "
            f"{momentum}."
        )
    if optimizer not in ("adam", "sgd"):
        raise InputError(f'optimizer is "adam" or "sgd", got "{optimizer}".')
    dataset = data.adapt(dataset, net)
    averages, labels = class_averages(dataset)
    if labels[-1] >= net.output_shape[0]:
        raise InputError(f"label {labels[-1]} is no class of the network, which has {net.output_shape[0]}.")
    logits, own = _scores(net, dataset)
    ideal = ideal_outputs(logits, labels)
    away = torch.cdist(ideal, logits)  # (classes, N)
    nearest = _fetched(dataset, away.argmin(1).tolist())
    close = _close(dataset, away, own, labels)
    starts = torch.stack([averages.to(nearest), nearest, close.to(nearest)])
    descent = _Descent(steps, optimizer, lr, momentum, bounded)
    trained, history = _train(net, starts, ideal, descent, progress)
    distance = torch.cat([_distances(net, starts, ideal), _distances(net, trained, ideal)])
    return IdealInputs(
        provenance=stated(**asdict(descent)),
        classes=[str(label) if net.classes is None else net.classes[label] for label in labels],
        ideal=ideal,
        average=starts[0],
        nearest=starts[1],
        average_nearest=starts[2],
        trained=dict(zip(STARTS, trained, strict=True)),
        names=list(KINDS),
        distance=distance,
        best=distance.argmin(0),
        history=history,
    )


def ideal_outputs(logits: Tensor, classes: list[int]) -> Tensor:
    """Maximum of a class's own score and minimum of all others over the images, (classes, K).

    Examples
    --------
    >>> ideal_outputs(torch.tensor([[1.0, 5.0], [3.0, 2.0]]), [0, 1]).tolist()
    [[3.0, 2.0], [1.0, 5.0]]
    """
    ideal = logits.amin(0).repeat(len(classes), 1)
    highest = logits.amax(0)
    for row, label in enumerate(classes):
        ideal[row, label] = highest[label]
    return ideal


def _scores(net: Network, dataset: Any) -> tuple[Tensor, Tensor]:
    """Class scores and labels of the whole data set."""
    scores, labels = [], []
    for _, images, given in data.batches(dataset, 512):
        scores.append(wide(net.logits(images, batch=256)).cpu())
        labels.append(given if given is not None else torch.full((len(images),), -1, device=images.device))
    return torch.cat(scores), torch.cat(labels)


def _fetched(dataset: Any, indices: list[int]) -> Tensor:
    return data.fetch(dataset, torch.tensor(indices, device="cpu"))[0]


def _close(dataset: Any, away: Tensor, own: Tensor, labels: list[int]) -> Tensor:
    """Mean of each class's images in the lowest quarter of distance to the class's ideal output."""
    chosen = torch.zeros_like(own, dtype=torch.bool)
    for row, label in enumerate(labels):
        mine = own == label
        chosen |= mine & (away[row] <= torch.quantile(away[row][mine], _QUANTILE))
    sums: dict[int, Tensor] = {}
    for indices, images, given in data.batches(dataset, 512):
        for label in given.unique().tolist() if given is not None else ():
            keep = chosen[indices] & (given == label)
            sums[label] = sums.get(label, 0) + images[keep].double().sum(0)
    counts = [int((chosen & (own == label)).sum()) for label in labels]
    return torch.stack([sums[label] / count for label, count in zip(labels, counts, strict=True)])


def _distances(net: Network, images: Tensor, ideal: Tensor) -> Tensor:
    """(3, classes)."""
    scores = wide(net.logits(images.flatten(0, 1), check=False)).cpu()
    away: Tensor = torch.linalg.vector_norm(scores.reshape(*images.shape[:2], -1) - ideal, dim=2)
    return away


@dataclass(frozen=True)
class _Descent:
    """How images are trained."""

    steps: int
    optimizer: str
    lr: float
    momentum: float
    bounded: bool

    def over(self, image: Tensor) -> torch.optim.Optimizer:
        """The optimizer of some images."""
        if self.optimizer == "sgd":
            return torch.optim.SGD([image], lr=self.lr, momentum=self.momentum)
        return torch.optim.Adam([image], lr=self.lr)


def _train(
    net: Network,
    starts: Tensor,
    ideal: Tensor,
    descent: _Descent,
    progress: Listener | None,
) -> tuple[Tensor, Tensor]:
    """Steps on the pixels of all images at once; the best image of each is kept."""
    image = starts.flatten(0, 1).to(net.device).clone().requires_grad_()
    target = ideal.repeat(len(starts), 1).to(net.device)
    optimizer = descent.over(image)
    best, least = image.detach().clone(), torch.full((len(image),), torch.inf, dtype=target.dtype, device=net.device)
    history = []
    clock = Clock(progress, descent.steps)
    for step in range(descent.steps + 1):
        away = (wide(net.forward(image, ["logits"])["logits"]) - target).square().sum(1)
        nearer = away.detach() < least
        best[nearer], least[nearer] = image.detach()[nearer], away.detach()[nearer]
        history.append(away.detach().sqrt().reshape(len(starts), -1).cpu())
        clock.step("training the images", step, distance=float(history[-1].mean()))
        if step == descent.steps:
            break
        image.grad = torch.autograd.grad(away.sum(), image)[0]
        optimizer.step()
        if descent.bounded and net.pixels is not None:
            image.data.clamp_(*net.pixels)
    return best.reshape(starts.shape).cpu(), torch.stack(history)
