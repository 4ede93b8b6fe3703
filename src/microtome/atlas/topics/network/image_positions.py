"""How layers place the images: a map of the images at each layer, and the nearest images of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import CELL, downscaled
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.network.image_features import ImageFeatures, features_task, mapped_images
from microtome.atlas.widgets import Absent, Gallery, ImageMap, ImagePoint, Part, Picture, Section, to_image
from microtome.atlas.widgets.charts import COLOURED
from microtome.atlas.wording import kept_by_pca
from microtome.loading import Subject
from microtome.representation.neighbours import nearest
from microtome.representation.principal_components import principal_axes
from microtome.results import Result, provenance

__all__ = ["IMAGE_POSITIONS", "ImagePositions"]

_NEAREST = 6
_SECONDS = 0.002  # of the principal components of one image


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagePositions(Result):
    """Positions of some images on the maps of layers.

    Attributes
    ----------
    images : list of int
        The images.
    points, explained : dict of str to Tensor
        By layer (n, 2) the two principal components of the images' features, the mean of each unit over its
        positions, and (2,) the shares of the variance that they hold.
    last : str
        The layer whose features are compared: the one that the scores are read from, where it has units.
    nearest : Tensor
        (n, k) places in ``images`` of the nearest images there, nearest first.
    """

    images: list[int]
    points: dict[str, Tensor]
    explained: dict[str, Tensor]
    last: str
    nearest: Tensor


# -- tasks and job -------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """The maps of all layers, from the features of one pass."""
    images = mapped_images(plan, chosen)
    if not images:
        return []
    needs = (features_task(plan, images).key,)
    return [plan.task("image-positions", cost=_SECONDS * len(images), needs=needs, layers=list(plan.layers))]


def image_positions(subject: Subject, found: ImageFeatures, *, layers: Sequence[str]) -> ImagePositions:
    """The two principal components of the features of some images at some layers, and the nearest images."""
    points, explained = {}, {}
    for layer in layers:
        values = found.rows[layer].double().numpy()
        mean, axes, shares = principal_axes(values)
        placed = torch.from_numpy((values - mean) @ axes.T)
        strongest = placed.gather(0, placed.abs().argmax(0, keepdim=True))
        # The sign of a direction is free: the farthest image is on the positive side.
        points[layer] = (placed * torch.where(strongest < 0, -1.0, 1.0)).float()
        explained[layer] = torch.from_numpy(shares).float()
    indices, _ = nearest(found.rows[found.last].double().numpy(), min(_NEAREST, len(found.images) - 1))
    return ImagePositions(
        provenance=provenance(subject.net, "pca", layers=list(layers), images=len(found.images), reduce="mean"),
        images=found.images,
        points=points,
        explained=explained,
        last=found.last,
        nearest=torch.from_numpy(indices),
    )


# -- pages ---------------------------------------------------------------------------------------------------------


def _found(album: Album) -> ImagePositions | Absent | None:
    return album.remembered(("image-positions",), lambda: album.one(ImagePositions, "image-positions"))


def _layer(album: Album, layer: str) -> list[Section]:
    found = _found(album)
    shown = _map(album, found, layer) if isinstance(found, ImagePositions) else found
    use = "It shows which images are similar for the layer."
    return [Section("How it places the images", (Part(shown, "the map of the images", use),), half=True)]


def _map(album: Album, found: ImagePositions, layer: str) -> ImageMap:
    places = found.points[layer].tolist()
    seen = album.seen
    classes = torch.where(seen.known, seen.labels, seen.predicted)[found.images].tolist()
    points = tuple(
        ImagePoint(x, y, group, bool(album.seen.wrong[index]))
        for (x, y), index, group in zip(places, found.images, classes, strict=True)
    )
    named = "true" if bool(album.seen.known.any()) else "predicted"
    colour = f", in the colour of its {named} class" if len(set(classes)) <= COLOURED else ""
    caption = (
        f"Each dot is one of {len(points):,} images{colour}; a ring marks a mistake. "
        f"{kept_by_pca(float(found.explained[layer].sum()))}"
    )
    return ImageMap(points, caption, album.made(found))


def _image(album: Album, index: int) -> list[Section]:
    found = _found(album)
    shown = _nearest(album, found, index) if isinstance(found, ImagePositions) else found
    use = "They are the most similar images for the network."
    return [Section("Images that look alike to the network", (Part(shown, "the nearest images", use),))]


def _nearest(album: Album, found: ImagePositions, index: int) -> Gallery | None:
    if index not in found.images:
        return None
    others = [found.images[place] for place in found.nearest[found.images.index(index)].tolist()]
    cells = downscaled(album.subject.pictures(others), CELL)
    sprite = album.sprites.natural(f"nearest-{album.image_id(index)}", cells, columns=len(others))
    pictures = tuple(
        Picture(sprite, place, f"image {album.image_id(other)}, {album.answer(other)}",
                to_image(album.image_id(other)), album.answer(other))
        for place, other in enumerate(others)
    )  # fmt: skip
    caption = (
        f"Of {len(found.images):,} images, those whose responses at {found.last} are nearest to the responses to this "
        "image, the nearest first. Are they of the same class?"
    )
    return Gallery(pictures, caption, album.made(found))


IMAGE_POSITIONS = Topic(
    "positions of images",
    tasks=_tasks,
    jobs={"image-positions": image_positions},
    sections={"layer": _layer, "image": _image},
)
