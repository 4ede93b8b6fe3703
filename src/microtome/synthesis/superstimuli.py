"""Superstimuli: images that maximise units, with the values they reach; the best of several starts per unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.batch_sizes import in_passes
from microtome.errors import InputError
from microtome.network import Network
from microtome.results import Provenance, Result, keep_on_device
from microtome.synthesis.objectives import Objective, Reduction
from microtome.synthesis.optimisation.ascent import Ascent
from microtome.synthesis.placement import Placement, images_per_pass
from microtome.synthesis.targets import Targets


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Superstimuli(Result, drawing="synthesis_figures:superstimuli"):
    """Images that excite units most.

    Attributes
    ----------
    images : Tensor
        (n, C, h, w) in the network's pixel range; the images of one unit follow each other.
    activation : Tensor
        (n,) the maximised value, of the image in the picture (see ``box``) without augmentation, over the
        positions centred on the image. For ``sign=-1`` the minimised value.
    peak, mean : Tensor
        (n,) the largest (for ``sign=-1`` the smallest) and the mean value over the same positions; for
        one neuron over all positions. Activations of patches of data have the same measure.
    history : Tensor
        (steps, n) the objective during the ascent, under augmentation.
    channel, variant : Tensor
        (n,) index of the channel, class or row of ``directions``; number of the image among its diverse images.
    layer : str
        The layer; ``"logits"`` for classes.
    sign : int
        1, or -1 for images that lower the unit most.
    names : list of str
        Name of the unit of each image.
    box : tuple of int
        Place of the images in the network's picture: top, left, bottom, right (exclusive). Around them
        the picture has the network's mean colour; see ``on_picture``.
    percentile : Tensor or None
        (n,) the share of the images in the data, in percent, whose largest activation is not above ``peak`` (for
        ``sign=-1``: whose smallest one is not below it). None before ``credentials``, as are all further fields.
    agreement : Tensor or None
        (n,) in [0, 1]: similarity of the paths of this image and of images from other starts. NaN if there are none.
    path_similarity : Tensor or None
        (n,) in [0, 1]: similarity of the paths of this image and of the top patches; see ``credentials``. NaN if the
        patches do not drive the unit.
    second : Tensor or None
        (n,) percentile of this image among the data for the most similar unit of a second network; NaN without one.
    margin : Tensor or None
        (n,) the smallest ratio of a credential to its bound.
    trusted : Tensor or None
        (n,) bool: the margin is at least 1.
    origin : list of str or None
        ``"first start"``, ``"another start"`` or ``"a patch of the data"``: the origin of the image.
    reasons : list of str or None
        Why an image is not trusted, in words; empty for trusted ones.
    """

    images: Tensor
    activation: Tensor
    peak: Tensor
    mean: Tensor
    history: Tensor
    channel: Tensor
    variant: Tensor
    layer: str
    sign: int
    names: list[str]
    box: tuple[int, int, int, int]
    percentile: Tensor | None = None
    agreement: Tensor | None = None
    path_similarity: Tensor | None = None
    second: Tensor | None = None
    margin: Tensor | None = None
    trusted: Tensor | None = None
    origin: list[str] | None = None
    reasons: list[str] | None = None

    def __post_init__(self) -> None:
        keep_on_device(self, self.images.device)

    def of(self, channel: int) -> Tensor:
        """The images of one channel or class, (diverse, C, h, w).

        Raises
        ------
        InputError
            When there are no images of this channel.
        """
        images = self.images[self.channel == channel]
        if not len(images):
            raise InputError(
                f"there are no images of channel {channel}; there are {sorted(set(self.channel.tolist()))}."
            )
        return images

    def on_picture(self, net: Network) -> Tensor:
        """The images at their place in pictures of the network's size, (n, C, H, W)."""
        return Placement(self.box, self.box).in_picture(self.images, net)


def superstimuli_of(
    ascent: Ascent, targets: Targets, reduction: Reduction, starts: int, sign: int, note: Provenance
) -> Superstimuli:
    """Optimise in batches, keep the best start per row, and evaluate without augmentation."""
    at_once = images_per_pass(ascent.net, ascent.objective.layers, ascent.placement.window)
    usual, ascent = max(1, at_once // ascent.diverse), ascent.faster(at_once)
    reductions = {"activation": reduction, "peak": "max", "mean": "mean"}

    def part(first: int, last: int) -> dict[str, Tensor]:
        rows = torch.arange(first, last, device=ascent.net.device).repeat_interleave(ascent.diverse)
        images, history = _best_start(ascent, rows, targets.objective(reduction, sign), starts)
        values = {
            key: sign * ascent.evaluate(images, rows, targets.objective(how, sign)) for key, how in reductions.items()
        }
        return {"images": images, "history": history.T, **values}

    parts = in_passes(ascent.net, len(targets.rows), part, backwards=True, usual=usual)
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return Superstimuli(
        provenance=note,
        images=joined["images"],
        activation=joined["activation"],
        peak=joined["peak"],
        mean=joined["mean"],
        history=sign * joined["history"].T,
        channel=torch.tensor(targets.rows, device="cpu").repeat_interleave(ascent.diverse),
        variant=torch.arange(ascent.diverse, device="cpu").repeat(len(targets.rows)),
        layer=targets.layer,
        sign=sign,
        names=[name for name in targets.names for _ in range(ascent.diverse)],
        box=ascent.placement.canvas,
    )


def _best_start(ascent: Ascent, rows: Tensor, objective: Objective, starts: int) -> tuple[Tensor, Tensor]:
    """Per row the start with the highest value, averaged over the diverse images of the row."""
    images, history = ascent.run(rows, 0)
    best = ascent.evaluate(images, rows, objective)
    for start in range(1, starts):
        other_images, other_history = ascent.run(rows, start)
        value = ascent.evaluate(other_images, rows, objective)
        higher = (value - best).view(-1, ascent.diverse).mean(1) > 0
        better = higher.repeat_interleave(ascent.diverse)
        images = torch.where(better[:, None, None, None], other_images, images)
        history = torch.where(better, other_history, history)
        best = torch.where(better, value, best)
    return images, history
