"""Batches of checked images with their targets, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from microtome.attribution.result import wide
from microtome.batch_sizes import Memory, in_passes
from microtome.inputs import Target, per_image
from microtome.network import Network

Result = TypeVar("Result")


def by_batch(
    net: Network,
    images: Any,
    target: Target,
    run: Callable[[Tensor, Target], Result],
    batch: int | None,
    *,
    backwards: bool = False,
    memory: Memory | None = None,
) -> list[Result]:
    """Call ``run`` on the images, batch by batch, and join the results; for batch sizes see ``batch_sizes.in_passes``.

    Parameters
    ----------
    net : Network
        The network the images are for.
    images : Tensor or array
        (N, C, H, W) or one image (C, H, W), in the network's pixel range; they are checked once.
    target : int, str, sequence, Tensor or None
        One class for all images, one for each, or None for the predicted ones.
    run : callable
        Maps a batch and its targets to a result; images must not mix, so that every split gives the same.
    batch : int, optional
        Number of images in a pass: no other number is tried.
    backwards : bool
        Whether ``run`` takes a backward pass.
    memory : Memory, optional
        The device's memory; default that of the network's device, None for a processor.

    Raises
    ------
    InputError
        When images, number of targets or batch do not fit.
    torch.cuda.OutOfMemoryError
        When one image alone, or the given batch, needs more memory than the device has.
    """
    checked = net.images(images)
    each = per_image(target, len(checked))

    def part(start: int, stop: int) -> Result:
        return run(checked[start:stop], each[start:stop] if each is not None else target)

    return in_passes(net, len(checked), part, batch, backwards=backwards, memory=memory)


def rows_of_each(image: Tensor) -> Iterator[tuple[int, slice]]:
    """Each image with its rows in a pass, from the image of each row (n,) in ascending order.

    Examples
    --------
    >>> list(rows_of_each(torch.tensor([3, 3, 4])))
    [(3, slice(0, 2, None)), (4, slice(2, 3, None))]
    """
    begin = 0
    for index, count in zip(*(part.tolist() for part in image.unique(return_counts=True)), strict=True):
        yield index, slice(begin, begin + count)
        begin += count


def class_scores(net: Network, images: Tensor, batch: int | None) -> Tensor:
    """Class scores (N, K) of checked images; for batch sizes see ``batch_sizes.in_passes``."""

    def part(start: int, stop: int) -> Tensor:
        return net.logits(images[start:stop], batch=stop - start, check=False)

    return torch.cat(in_passes(net, len(images), part, batch))


@dataclass(frozen=True)
class Scored:
    """Checked images with their class scores and the class of each.

    Attributes
    ----------
    images, logits : Tensor
        (N, C, H, W) and (N, K).
    target : Tensor
        (N,), the class that the target names, else the predicted one.
    """

    images: Tensor
    logits: Tensor
    target: Tensor

    @property
    def score(self) -> Tensor:
        """The score of each image's class, (N,)."""
        return wide(self.logits.gather(1, self.target[:, None])[:, 0])


def scored(net: Network, images: Any, target: Target, batch: int | None) -> Scored:
    """Check images and targets, once, and run the network.

    Without ``batch``, ``batch_sizes.in_passes`` chooses the batch size.

    Raises
    ------
    InputError
        When images or targets do not fit.
    """
    checked = net.images(images).detach()
    per_image(target, len(checked))  # refuse a wrong number before the network runs
    logits = class_scores(net, checked, batch)
    return Scored(checked, logits, net.targets(target, logits))


def scored_beside(
    net: Network, images: Tensor, others: Tensor, target: Target, batch: int | None
) -> tuple[Scored, Tensor]:
    """Checked images with their scores, and the logits of as many others, in one pass if images do not mix.

    Raises
    ------
    InputError
        When targets do not fit.
    """
    per_image(target, len(images))
    if net.graph.mixes:
        logits, beside = class_scores(net, images, batch), class_scores(net, others, batch)
    else:
        logits, beside = class_scores(net, torch.cat([images, others]), batch).split(len(images))
    return Scored(images, logits, net.targets(target, logits)), beside
