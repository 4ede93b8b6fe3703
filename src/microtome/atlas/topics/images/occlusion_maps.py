"""Occlusion maps: probability and predicted class by position of a window that covers part of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.topic import Topic
from microtome.atlas.topics.images.attribution_maps import made_of, maps_of
from microtome.atlas.widgets import Number, Occlusion, Part, Picture, Section, Winner

__all__ = ["OCCLUSION_MAPS"]

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
    use = "It covers one window after another and shows the probability and the predicted class."
    return [Section("What happens when a part is covered", (Part(_occlusion(album, index), "occlusion", use),))]


def _occlusion(album: Album, index: int) -> Occlusion | None:
    predicted = album.chosen.predicted[index]
    for task, result, place in maps_of(album, index, predicted):
        if task.parameters["method"] != "occlusion" or "winner" not in result.extra:
            continue
        probability, winner = result.extra["probability"][place].float(), result.extra["winner"][place]
        winners = _winners(winner)
        file = f"image-{album.image_id(index)}-occlusion"
        what = album.seen.quantity
        limits, unit, scale = ((0.0, 1.0), "%", 100) if what == "probability" else (None, "", 1)
        low = album.sprites.scaled(f"{file}-probability", probability[None], "sequential", what, limits=limits)
        classes = album.sprites.classes(
            f"{file}-winner", winner[None], {entry.index: entry.colour for entry in winners}
        )
        return Occlusion(
            probability=Picture(low, 0, f"{what} of {album.class_name(predicted)} by position of the window"),
            winner=Picture(classes, 0, "the class that wins by position of the window"),
            winners=winners,
            numbers=(
                Number("window", task.parameters["window"], "px"),
                Number("step", task.parameters["stride"], "px"),
                Number(f"{what} uncovered", scale * float(result.extra["unoccluded"][place]), unit),
                Number(f"lowest {what}", scale * float(probability.min()), unit),
            ),
            caption="Dark: covering this place lowers the probability most. Beside it: the class predicted then.",
            made=made_of(album, task, result, place),
        )
    return None


def _winners(winner: Tensor) -> tuple[Winner, ...]:
    """The classes that win somewhere, most frequent first."""
    classes, counts = torch.unique(winner, return_counts=True)
    order = (-counts).argsort(stable=True).tolist()
    return tuple(
        Winner(int(classes[i]), _COLOURS[min(rank, len(_COLOURS) - 1)], float(counts[i]) / winner.numel())
        for rank, i in enumerate(order)
    )


OCCLUSION_MAPS = Topic("occlusion", sections={"image": _image})
