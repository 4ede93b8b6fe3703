"""The loss of each image, on a private copy of a network whose weights may be changed."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.data import Dataset, adapt
from microtome.errors import InputError, MicrotomeError, ModelError
from microtome.network import Network
from microtome.trace.folding import FoldedCopy
from microtome.trace.heads.head import as_rows, at_path
from microtome.trace.tracing.tracer import Tracer
from microtome.training.quick_pooling import QuickPooling

__all__ = ["ImageLosses", "Loss", "PreparedImages", "copied", "is_norm"]

# From scores (n, K) and labels (n,) to losses (n,).
Loss = Callable[[Tensor, Tensor], Tensor]

_CACHE, _DEVICE = 2**22, 2**27  # bytes of the largest value of a batch, for a CPU's cache and for other devices
_MOST = 1024
_KEPT = 2**30  # bytes of prepared images that are kept


class ImageLosses:
    """A private copy of a network in evaluation mode, and the loss of each image under its weights.

    Parameters
    ----------
    net
        The network; it is not touched.
    loss
        Maps scores (n, K) and labels (n,) to losses (n,). By default the cross-entropy: of the softmax, or of each
        class's sigmoid summed over the classes where the head decides each class by itself.
    quick
        Whether to use the channels-last layout, and to fold batch norms into convolutions, if the model gives the same
        scores up to rounding. Then there are no gradients, and ``refresh`` must follow each change of the weights.

    Attributes
    ----------
    model : nn.Module
        The copy. Its weights may be overwritten.
    state : dict of str to Tensor
        Its floating parameters and buffers by name.
    layout : torch.memory_format
        Memory layout of the images.

    Raises
    ------
    InputError
        The network's output is a value, and no loss is given.
    ModelError
        The model cannot be copied.
    """

    def __init__(self, net: Network, loss: Loss | None = None, *, quick: bool = False) -> None:
        if loss is None and net.output == "value":
            raise InputError("the network's output is a value; give loss=, a function of scores and labels.")
        if net.head.problem:
            raise ModelError(net.head.problem)
        self.net, self.needs_labels = net, loss is None
        self._loss = loss or _cross_entropy(net.head.squash)
        self.model, self.layout = copied(net), torch.contiguous_format
        self._folded: FoldedCopy | None = None
        self._pooling = QuickPooling() if quick else contextlib.nullcontext()
        if quick and _has_convolutions(self.model):
            self._quicken()
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        self.state = {name: value for name, value in named if value.is_floating_point()}
        self.parameters = dict(self.model.named_parameters())

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (n,) of prepared images and whether each is classified correctly (n,); NaN if the scores are."""
        head = self.net.head
        with self._pooling:
            scores = self._scores(images)
        losses: Tensor = self._loss(scores, labels)
        if losses.shape != labels.shape:
            raise InputError(
                f"loss= must give one number per image, {tuple(labels.shape)}; got {tuple(losses.shape)}. "
                'Give losses without a mean over images, as with reduction="none".'
            )
        with torch.no_grad():
            right = (head.decided(scores) == labels) & scores.isfinite().all(1)
        return losses, right

    def _scores(self, images: Tensor) -> Tensor:
        head = self.net.head
        model = self.model if self._folded is None else self._folded.model
        tracer = Tracer(model, head.record, live=head.record)
        output = tracer.run_as_is(images)
        found = tracer.value[head.layer] if head.layer else at_path(output, head.path)
        scores = as_rows(found, len(images), head.classes)
        if scores is None:
            raise ModelError(f"one row of class scores per image was expected; the model gives {tuple(found.shape)}.")
        return scores if scores.dtype == torch.float64 else scores.float()

    @torch.no_grad()
    def _quicken(self) -> None:
        """The channels-last layout and folded norms, unless the model needs the usual ones; tested on one image."""
        usual, images = self.model, self.net.normalise(self.net.probe)
        expected = self._scores(images)
        self.model = copied(self.net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        if self._gives(expected, images.contiguous(memory_format=torch.channels_last)):
            self.layout = torch.channels_last
        else:
            self.model = usual
        self._folded = FoldedCopy(self.model, self.net.graph, self.net.head.record)
        if not self._gives(expected, images.contiguous(memory_format=self.layout)):
            self._folded = None

    def _gives(self, expected: Tensor, images: Tensor) -> bool:
        """Whether the scores are the expected ones, up to rounding."""
        try:
            found = self._scores(images)
        except MicrotomeError:
            return False
        return float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())

    def refresh(self) -> None:
        """Fold the norms again after the weights or the running statistics have changed."""
        if self._folded is not None:
            self._folded.refresh()

    @property
    def norms(self) -> list[nn.Module]:
        """The normalisation layers of the copy that keep running statistics."""
        return [part for part in self.model.modules() if getattr(part, "running_mean", None) is not None]

    def reestimate(self, batches: Iterator[Tensor]) -> None:
        """Set the running statistics to the averages over some batches, weighted by their images."""
        norms = self.norms
        before = [(norm, norm.training, norm.momentum) for norm in norms]
        for norm in norms:
            norm.reset_running_stats()  # type: ignore[operator]  # those with running statistics have it
            norm.training = True
        seen = 0
        try:
            for images in batches:
                seen += len(images)
                for norm in norms:
                    norm.momentum = len(images) / seen  # type: ignore[assignment]  # a small last batch counts less
                Tracer(self.model).run_as_is(images)
        finally:
            for norm, training, momentum in before:
                norm.training, norm.momentum = training, momentum


def copied(net: Network) -> nn.Module:
    """A private copy of a network's model, in evaluation mode.

    Raises
    ------
    ModelError
        The model cannot be copied.
    """
    try:
        return copy.deepcopy(net.model).eval()
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"the weights are changed in a private copy, and copy.deepcopy fails: {error}.") from error


def _has_convolutions(model: nn.Module) -> bool:
    """Whether there are kernels over channels, which are faster in the channels-last layout."""
    return any(isinstance(part, nn.Conv2d) and part.in_channels > part.groups for part in model.modules())


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: a norm of torch, or a class with norm in its name that is no weighted sum."""
    weighted = isinstance(module, nn.Linear | nn.Bilinear | nn.modules.conv._ConvNd)
    return "norm" in type(module).__name__.lower() and not weighted


class PreparedImages:
    """Labelled images of a data set in an order, normalised, in batches that suit the machine.

    Parameters
    ----------
    net, dataset
        The network and its images.
    labelled
        Whether labels are needed; images without a label are then left out.
    count
        Maximum number of images, drawn by ``seed``; by default all.
    shuffled
        Whether to shuffle them by ``seed``.
    batch
        Images per pass; for the default see Notes.
    layout
        Memory layout of the prepared images.

    Notes
    -----
    By default the largest value of a pass takes 4 MiB on a CPU, which fits into its cache, and 128 MiB elsewhere.
    """

    def __init__(
        self,
        net: Network,
        dataset: Dataset,
        *,
        labelled: bool,
        count: int | None = None,
        shuffled: bool = False,
        batch: int | None = None,
        layout: torch.memory_format = torch.contiguous_format,
        seed: int = 0,
    ) -> None:
        self._layout = layout
        self._net, self._adapter = net, adapt(dataset, net)
        places = torch.arange(len(self._adapter), device="cpu")
        if labelled and len(places):
            labels = self._adapter.labels
            if labels is None and (fault := self._adapter.label_fault()) is not None:
                raise fault
            places = places[:0] if labels is None else places[labels >= 0]
            classes = net.head.decisions
            if labels is not None and len(places) and int(labels.max()) >= classes > 0:
                raise InputError(
                    f"the label {int(labels.max())} does not exist: the network has only {classes} classes."
                )
        if not len(places):
            what = "labelled image: the loss needs a label for every image" if labelled else "image"
            raise InputError(f"the data set has no {what}.")
        if count is not None and count < 1:
            raise InputError(f"at least one image was expected, got images={count}.")
        if batch is not None and batch < 1:
            raise InputError(f"a batch must hold at least one image, got batch={batch}.")
        if shuffled or (count is not None and count < len(places)):
            places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed), device="cpu")][
                :count
            ]
        self.places, self.batch = places, net.admitted(batch or _fitting(net))
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.places)

    def batches(self, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels (-1 for none); unshuffled images are prepared only once if they fit into memory."""
        for number, start in enumerate(range(0, len(self), self.batch)):
            if order is None and number in self._kept:
                yield self._kept[number]
                continue
            places = self.places if order is None else self.places[order]
            prepared = self._prepared(places[start : start + self.batch])
            size = prepared[0].numel() * prepared[0].element_size()
            if order is None and self._bytes + size <= _KEPT:
                self._kept[number], self._bytes = prepared, self._bytes + size
            yield prepared

    def ends(self) -> tuple[Tensor, Tensor]:
        """The images of the first and of the last batch."""
        first, _ = next(self.batches())
        return first, self._prepared(self.places[-self.batch :])[0]

    @property
    def labels(self) -> Tensor:
        """The labels (n,) of all images; empty if they have none."""
        labels = self._adapter.labels
        return self.places[:0] if labels is None else labels[self.places]

    def _prepared(self, places: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self._adapter.fetch(places)
        ready = self._net.normalise(self._net.images(images, check=False))
        found = torch.full((len(places),), -1, device="cpu") if labels is None else labels
        return ready.contiguous(memory_format=self._layout), found.to(ready.device)


def _fitting(net: Network) -> int:
    values = [net.dtype.itemsize * math.prod(layer.shape) for layer in net.layers.values() if layer.leaf]
    most = _CACHE if net.device.type == "cpu" else _DEVICE
    return min(_MOST, max(8, most // max(values, default=1)))


def _cross_entropy(squash: str) -> Loss:
    """The loss by the function from scores to probabilities; none if they are probabilities already."""
    return {"softmax": _of_logits, "sigmoid": _of_sigmoids}.get(squash, _of_probabilities)


def _of_logits(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores, labels, reduction="none")


def _of_sigmoids(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores, _hot(scores, labels), reduction="none").sum(1)


def _of_probabilities(scores: Tensor, labels: Tensor) -> Tensor:
    if scores.shape[1] == 1:
        return -torch.where(labels > 0, scores[:, 0], 1 - scores[:, 0]).log()
    return -scores.gather(1, labels[:, None])[:, 0].log()


def _hot(scores: Tensor, labels: Tensor) -> Tensor:
    """Ones at the labels; of a single score, 1 for label 1."""
    if scores.shape[1] == 1:
        return labels[:, None].to(scores)
    return functional.one_hot(labels, scores.shape[1]).to(scores)
