"""Kept and lost: the part of an image that reaches each layer, and the share that layers reject."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from microtome import spaces
from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled, downscaled_signal
from microtome.atlas.pictures.signed_pictures import SIDE, signed_pictures
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.network_summary import multiply_adds
from microtome.atlas.planning.plan import Plan, blocks, even
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import (
    Absent,
    Amount,
    Amounts,
    KeptParts,
    KeptRow,
    Number,
    Part,
    Picture,
    Section,
    to_layer,
)
from microtome.atlas.wording import listed
from microtome.loading import Subject
from microtome.results import Result
from microtome.spaces import Rejected
from microtome.spaces.operators.linear_layer import linear_layers

__all__ = ["KEPT_AND_LOST", "Kept", "kept_layers", "kept_tasks", "lost_numbers", "most_rejecting"]

_LAYERS = 5  # layers at which the kept and lost part of an image is shown
_BLOCK = 4  # images in one task
_STEPS = 160  # maximum number of steps for the local map of an image: enough for small images
_STEPS_OF_PHOTOS = 40  # the same for larger images: deep layers then have an upper bound
_PHOTO = 4096
_TYPICAL = 40  # typical number of steps
_STEP = 18.0  # forward passes that one step through the local map costs, in double precision
_STEP_ALONE = 8.0  # passes through a layer that one step through it alone costs
_STEPS_ALONE = (300, 80, 40)  # maximum number of steps, depending on the available time
_TAKEN = 150  # of 300 steps are taken on average
_PASSES_OVER = 20  # passes over a vector in a step, besides one over each vector before
_MEMORY = 5e9  # bytes per second that one core reads
_SAMPLE = 32  # images for the share that layers reject


@dataclass(frozen=True, eq=False, kw_only=True)
class Kept(Result):
    """By layer the kept part of each image (n, C, H, W), and by layer and image the lost share with its bounds.

    ``share``, ``error``, ``null_share``, ``known`` and ``reached`` are (layers, n); see ``spaces.KeptAndLost``. For an
    image without energy the first three are NaN.
    """

    layers: list[str]
    kept: dict[str, Tensor]
    share: Tensor
    error: Tensor
    null_share: Tensor
    known: Tensor
    reached: Tensor
    threshold: float


# -- tasks and jobs ------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    names = linear_layers(plan.net)
    if not names:
        return []
    return [*_rejected_tasks(plan, names), *kept_tasks(plan, chosen.images)]


def _rejected_tasks(plan: Plan, names: Sequence[str]) -> list[Task]:
    """The share that every layer rejects: as many steps as the time allows for one image, then images."""
    seconds = plan.budget.space_seconds
    steps = next((most for most in _STEPS_ALONE if _rejected_seconds(plan, names, most) <= seconds), _STEPS_ALONE[-1])
    each = _rejected_seconds(plan, names, steps)
    images = affordable(even(len(plan.subject.images), _SAMPLE), each, seconds)
    if not images:
        return []
    return [plan.task("rejected", cost=len(images) * each, layers=list(names), images=images, steps=steps)]


def _rejected_seconds(plan: Plan, names: Sequence[str], steps: int) -> float:
    """Expected for one image: products with each convolution, and vectors that are held orthogonal."""
    total = max(plan.seconds, 1e-4)
    taken, whole = min(steps, _TAKEN), max(multiply_adds(plan.net), 1.0)
    for name in names:
        layer = plan.net.layer(name)
        if math.prod(getattr(layer.module, "kernel_size", (1,))) == 1:
            continue  # Linear layers and 1 x 1 convolutions take no steps
        read = sum(math.prod(plan.net.layers[one].shape) for one in layer.inputs if one in plan.net.layers)
        read = read or math.prod(plan.net.input_shape)
        passes = layer.parameters * math.prod(layer.axes.grid) / whole
        total += taken * (_STEP_ALONE * plan.seconds * passes + (taken + _PASSES_OVER) * 8 * read / _MEMORY)
    return total


def kept_tasks(plan: Plan, images: Sequence[int]) -> list[Task]:
    """The kept and lost part of images. If time is short, only at the first layer, then for fewer images.

    Deep layers cost most, and few steps converge there only in small networks.
    """
    layers, seconds = kept_layers(plan), plan.budget.space_seconds
    few = min(len(images), _BLOCK)
    if len(affordable(range(few), _kept_seconds(plan, layers), seconds)) < few:
        layers = layers[:1]
    each = _kept_seconds(plan, layers)
    return [
        plan.task("kept", cost=len(block) * each, images=block, layers=layers)
        for block in blocks(affordable(images, each, seconds), _BLOCK)
    ]


def kept_layers(plan: Plan) -> list[str]:
    """A few of the shown layers, spread over the depth of the network, with the first and the last."""
    count = min(_LAYERS, len(plan.layers))
    return [plan.layers[round(place * (len(plan.layers) - 1) / max(1, count - 1))] for place in range(count)]


def _kept_seconds(plan: Plan, layers: Sequence[str]) -> float:
    """Expected for one image."""
    whole = max(multiply_adds(plan.net), 1.0)
    depth = sum(max(multiply_adds(plan.net, layer) / whole, 0.02) for layer in layers)
    return _TYPICAL * _STEP * plan.seconds * depth


def rejected(subject: Subject, *, layers: Sequence[str], images: Sequence[int], steps: int) -> Rejected:
    """The share of its input that each linear layer rejects."""
    pictures = subject.pictures(images)
    return spaces.rejected_energy(subject.net, pictures, layers, iterations=steps)


def kept(subject: Subject, *, layers: Sequence[str], images: Sequence[int]) -> Kept:
    """The part of some images that reaches some layers; small and in half precision, for display."""
    pictures = subject.pictures(images)
    steps = _STEPS if math.prod(subject.net.input_shape) <= _PHOTO else _STEPS_OF_PHOTOS
    found = spaces.kept_and_lost(subject.net, pictures, layers, iterations=steps, dense=False)
    return Kept(
        provenance=found.provenance,
        layers=found.layers,
        kept={name: _small(found.kept[place]) for place, name in enumerate(found.layers)},
        share=found.share.float(),
        error=found.error.float(),
        null_share=found.null_share.float(),
        known=found.known,
        reached=found.reached.float(),
        threshold=found.threshold,
    )


def _small(parts: Tensor) -> Tensor:
    """Kept parts (n, C, H, W) at the size of a page; they may leave the range of pixels."""
    maps = downscaled_signal(parts.flatten(0, 1).float(), SIDE)
    return maps.reshape(*parts.shape[:2], *maps.shape[-2:]).half()


# -- pages ---------------------------------------------------------------------------------------------------------


def _overview(album: Album) -> list[Section]:
    use = "It shows at which layers parts of an image are lost."
    part = Part(_rejected_shares(album), "the share that each layer rejects", use)
    return [Section("What each layer throws away", (part,))]


def _rejected_shares(album: Album) -> Amounts | Absent | None:
    found = album.one(Rejected, "rejected")
    if not isinstance(found, Rejected):
        return found
    shares = list(zip(found.layers, found.mean.tolist(), strict=True))
    rows = tuple(
        Amount(name, 100 * float(share), to_layer(_page_of(album, name) or name), label=_proof(found, place))
        for place, (name, share) in enumerate(shares)
        if not math.isnan(share)
    )
    silent = [name for name, share in shares if math.isnan(share)]
    count = found.share.shape[1]
    caption = (
        f"The share of each layer's input (of its sum of squares) that can be removed while the output of the "
        f"layer's weights changes by less than {found.threshold:.0%}, "
        + ("for one image." if count == 1 else f"mean over {count:,} images.")
        + " At most: the value is an upper bound. Exact null space: the part whose removal changes nothing at all."
        + (f" Not defined, since all that they read is zero: {listed(silent)}." if silent else "")
    )
    return Amounts(rows, "%", caption, album.made(found))


def most_rejecting(album: Album) -> tuple[str, float, str] | None:
    """The layer on a page that rejects the largest share of the energy of its input, this share, and the page."""
    found = album.one(Rejected, "rejected")
    if not isinstance(found, Rejected):
        return None
    shares = [(float(share), name, page) for name, share in zip(found.layers, found.mean.tolist(), strict=True)
              if (page := _page_of(album, name)) is not None and not math.isnan(share)]  # fmt: skip
    if not shares:
        return None
    share, name, page = max(shares)
    return name, share, page


def _page_of(album: Album, name: str) -> str | None:
    """The layer whose page shows a layer: itself, or the block that holds it."""
    parts = name.split(".")
    holders = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((holder for holder in holders if holder in album.layers), None)


def _proof(found: Rejected, layer: int) -> str:
    """Whether an amount is an upper bound or not defined, and the exact null space if known."""
    proof, null = found.proof(layer), found.null_space(layer)
    bound = proof.replace("an upper bound", "at most").removeprefix("proved").removeprefix(", ")
    return ", ".join(part for part in (bound, f"exact null space {null}" if null[0].isdigit() else "") if part)


def lost_numbers(found: Kept, row: int, place: int) -> tuple[Number, ...]:
    """The lost share with its proof, and the share in the exact null space where it is known."""
    share, error, null = (float(value[row, place]) for value in (found.share, found.error, found.null_share))
    if math.isnan(share):
        return (Number("lost", "not defined", explain="The image has no energy: all its pixels are zero."),)
    known = bool(found.known[row, place])
    explain = f"Its removal changes the layer by {float(found.reached[row, place]):.2g} of its norm, to first order."
    if not known:
        explain += f" The steps of this atlas do not reach {found.threshold:.0%}; there the share is smaller."
    numbers = (
        Number("lost" if known else "lost at most", 100 * share, "%", explain=explain),
        Number("proved to within", 100 * error, "%", tolerance="4 % of it or 0.1 %" if known else ""),
    )
    if math.isnan(null):
        return numbers
    return (*numbers, Number("in the exact null space", 100 * null, "%", explain="0 where the local map is injective."))


def _image(album: Album, index: int) -> list[Section]:
    found = album.with_item(Kept, "kept", "images", index)
    shown: KeptParts | Absent | None = None if isinstance(found, tuple) else found
    if isinstance(found, tuple):
        result, place = found
        first = album.load(album.find("kept")[0])
        caption = (
            "Left: the part of the image that reaches the layer. Right: the part that does not: to first order, "
            "removing it does not change the layer. Both add up to the image."
        )
        shown = KeptParts(_rows(album, result, place, index), caption, album.made(first))
    part = Part(shown, "kept and lost parts", "They show which part of the image reaches each layer.")
    return [Section("What is left of it at each layer", (part,))]


def _rows(album: Album, found: Kept, place: int, index: int) -> tuple[KeptRow, ...]:
    picture = downscaled(album.subject.pictures([index]).float(), SIDE)[0]
    rows = []
    for row, layer in enumerate(found.layers):
        file = f"image-{album.image_id(index)}-kept-{album.slug(layer)}"
        part = found.kept[layer][place].float()
        sprite = album.sprites.natural(file, part[None].clamp(0, 1))
        limit = float(picture.abs().max()) or 1.0
        lost, _ = signed_pictures(album, f"{file}-lost", (picture - part)[None], limit, "pixel value")
        numbers = lost_numbers(found, row, place)
        rows.append(
            KeptRow(layer, Picture(sprite, 0, f"the part of the image that reaches {layer}"),
                    Picture(lost[0].sprite, 0, f"the part of the image that does not reach {layer}"), numbers)
        )  # fmt: skip
    return tuple(rows)


KEPT_AND_LOST = Topic(
    "kept and lost parts",
    tasks=_tasks,
    jobs={"rejected": rejected, "kept": kept},
    sections={"overview": _overview, "image": _image},
)
