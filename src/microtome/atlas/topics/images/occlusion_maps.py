"""Occlusion maps: probability and predicted class by position of a window that covers part of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.images.attribution_maps import AttributionMaps, made_of
from microtome.atlas.widgets import CoveredBy, Occlusion, Part, Picture, Section, Winner
from microtome.atlas.wording import in_percent, listed

__all__ = ["OCCLUSION_MAPS"]

_VISIBLE = 0.02  # a map is shown if the probability falls by at least this
_COLOURS = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#17becf",
    "#bcbd22",
    "#7f7f7f",
)


def _image(album: Album, index: int) -> list[Section]:
    use = "It covers one position after another and shows how the probability and the predicted class change."
    return [Section("What happens when a part is covered", (Part(_occlusion(album, index), "occlusion", use),))]


def _occlusion(album: Album, index: int) -> Occlusion | None:
    predicted, sizes, made = album.chosen.predicted[index], [], None
    for task in album.find("explain", method="occlusion"):
        images = task.parameters["images"]
        if index not in images or task.parameters["target"][images.index(index)] != predicted:
            continue
        result, place = album.load(task), images.index(index)
        if isinstance(result, AttributionMaps) and "winner" in result.extra:
            sizes.append(_covered(album, task, result, place, index))
            made = made or made_of(album, task, result, place)
    if not sizes:
        return None
    caption = (
        "A gray window covers one position after another. Bright: the positions where the window lowers the "
        f"{album.seen.quantity} most; each map has its own scale."
    )
    return Occlusion(tuple(sizes), album.picture(index, note=""), caption, made)


def _covered(album: Album, task: Task, result: AttributionMaps, place: int, index: int) -> CoveredBy:
    """The maps of one size of the window; one sentence in place of a map without a difference."""
    predicted = album.chosen.predicted[index]
    what, name = album.seen.quantity, album.class_name(predicted)
    probability, winner = result.extra["probability"][place].float(), result.extra["winner"][place]
    whole = float(result.extra["unoccluded"][place])
    window, fall = int(task.parameters["window"]), whole - float(probability.min())
    winners = _winners(winner)
    file = f"image-{album.image_id(index)}-occlusion-{window}"
    shown, classes = None, None
    if fall > (_VISIBLE if what == "probability" else 0.01 * abs(whole)):
        sprite = album.sprites.scaled(f"{file}-fall", (whole - probability)[None], "sequential", f"fall of {what}",
                                      limits=(0.0, fall), square=True)  # fmt: skip
        shown = Picture(sprite, 0, f"how much a window of {window} px on each place lowers the {what} of {name}")
    if len(winners) > 1:
        sprite = album.sprites.classes(f"{file}-winner", winner[None], {one.index: one.colour for one in winners})
        others = listed([album.class_name(one.index) for one in winners[:4]])
        classes = Picture(sprite, 0, f"the class that wins for each place of the window: {others}")
    finding = _finding(what, name, whole, fall, winner, predicted, shown is not None)
    return CoveredBy(window, int(task.parameters["stride"]), shown, classes, winners, finding)


def _finding(what: str, name: str, whole: float, fall: float, winner: Tensor, predicted: int, visible: bool) -> str:
    """The largest effect of covering one position."""
    percent = what == "probability"
    start = in_percent(whole) if percent else f"{whole:.3g}"
    least = in_percent(whole - fall) if percent else f"{whole - fall:.3g}"
    if not visible:
        stays = least if least.startswith("above") else f"at {least} or more"
        return f"No place matters alone: wherever the window lies, the {what} of {name} stays {stays}."
    most = f"On the place that matters most the window lowers the {what} of {name} from {start} to {least}."
    other = float((winner != predicted).float().mean())
    if not other:
        return f"{most} The predicted class stays the same everywhere."
    return f"{most} On {100 * other:.0f} % of the places another class wins."


def _winners(winner: Tensor) -> tuple[Winner, ...]:
    """The classes that win at some position, most frequent first."""
    classes, counts = torch.unique(winner, return_counts=True)
    order = (-counts).argsort(stable=True).tolist()
    return tuple(
        Winner(int(classes[i]), _COLOURS[min(rank, len(_COLOURS) - 1)], float(counts[i]) / winner.numel())
        for rank, i in enumerate(order)
    )


OCCLUSION_MAPS = Topic("occlusion", sections={"image": _image})
