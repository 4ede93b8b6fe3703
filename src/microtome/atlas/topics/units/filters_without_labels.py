"""Filters learned from image patches without labels, compared with the filters of a layer that reads the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from microtome import units
from microtome.atlas.album import Album
from microtome.atlas.planning.plan import Plan, even
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Absent, Gallery, Part, Picture, Section, Sprite, to_unit
from microtome.loading import Subject
from microtome.units import NaturalFilters
from microtome.units.wiring.channel_sources import reads_pixels

__all__ = ["FILTERS_WITHOUT_LABELS"]

_IMAGES = 300  # from which patches are cut
_PATCHES = 10_000
_SECONDS = 15.0  # of the components of kernels of 11 x 11
_USE = "They show how much of the first layer follows from the statistics of images alone."


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    images = even(len(plan.subject.images), _IMAGES)
    return [
        plan.task("natural-filters", cost=_SECONDS, layer=layer, images=images, patches=_PATCHES)
        for layer in plan.layers
        if plan.budget.topic_seconds >= _SECONDS and _reads_the_image(plan, layer)
    ]


def _reads_the_image(plan: Plan, layer: str) -> bool:
    found = plan.net.layer(layer)
    return plan.single_map(layer) and found.spatial and reads_pixels(plan.net, layer)


def natural_filters(subject: Subject, *, layer: str, images: Sequence[int], patches: int) -> NaturalFilters:
    """The independent components of patches of some images, matched with a layer's filters."""
    return units.natural_filters(subject.net, subject.subset(images), layer=layer, patches=patches)


def _layer(album: Album, layer: str) -> list[Section]:
    if not _reads_the_image(album.plan, layer):
        return []
    found = album.one(NaturalFilters, "natural-filters", layer=layer)
    shown = _pairs(album, found) if isinstance(found, NaturalFilters) else found
    name = "filters that images give without labels"
    return [Section("Its filters beside those that images give without labels", (Part(shown, name, _USE),))]


def _pairs(album: Album, found: NaturalFilters) -> Gallery | Absent:
    """Each filter next to its component, the most similar first."""
    similarity = found.similarity.tolist()
    paired = [unit for unit in range(len(similarity)) if int(found.partner[unit]) >= 0]
    if not paired:
        return Absent("No filter has a partner among the components.")
    order = sorted(paired, key=lambda unit: -similarity[unit])
    layer = found.filters.layer
    sprite = _sprite(album, found, order)
    pictures = tuple(
        Picture(
            sprite, place, f"filter of unit {unit} of {layer}, and its component", to_unit(layer, unit),
            f"{unit}: {similarity[unit]:.2f}",
        )
        for place, unit in enumerate(order)
    )  # fmt: skip
    mean = float(found.similarity.nanmean())
    caption = (
        f"Left: the filter of a unit. Right: the matched independent component of {found.patches:,} image patches, "
        "which is learned without labels. Below: unit and similarity (cosine), the most similar "
        f"first. Their mean is {mean:.2f}; random filters reach {found.chance:.2f} ± {found.chance_spread:.2f}."
    )
    if not bool(found.gabor.isnan().all()):  # no Gabor function is fitted to kernels below 3 x 3
        caption += (
            f" A Gabor function explains {100 * float(found.filters.goodness.nanmean()):.0f} % of a filter on average, "
            f"and {100 * float(found.gabor.nanmean()):.0f} % of a component."
        )
    command = album.commands.line("natural-filters", data=album.commands.data, layer=layer, to="components.png")
    return Gallery(pictures, caption, album.made(found, command))


def _sprite(album: Album, found: NaturalFilters, order: Sequence[int]) -> Sprite:
    """Filter and component side by side, each on its own scale, with a column of pixels between them."""
    weights = found.filters.weights.float()[list(order)]
    components = (found.components.float()[found.partner[list(order)]]) * found.sign[list(order)][:, None, None, None]
    sides = torch.cat([functional.pad(_scaled(weights), (0, 1)), _scaled(components)], 3)
    name = f"natural-{album.slug(found.filters.layer)}"
    if sides.shape[1] == 3:
        return album.sprites.natural(name, 0.5 + 0.5 * sides)
    return album.sprites.scaled(name, sides.mean(1), "diverging", "of each largest weight", limits=(-1, 1), square=True)


def _scaled(kernels: Tensor) -> Tensor:
    """Kernels (n, J, kh, kw) without their mean, from -1 to 1."""
    centred = kernels - kernels.flatten(1).mean(1)[:, None, None, None]
    return centred / centred.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None, None]


FILTERS_WITHOUT_LABELS = Topic(
    "filters without labels",
    tasks=_tasks,
    jobs={"natural-filters": natural_filters},
    sections={"layer": _layer},
)
