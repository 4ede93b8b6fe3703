"""Interactive map of the images at a layer by t-SNE: pan, colour, and find units that separate a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.network.image_features import ImageFeatures, features_task, mapped_images
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.widgets import Absent, Part, Section, Sprite, to_image
from microtome.atlas.widgets.map_canvas import MapCanvas, packed
from microtome.atlas.wording import kept_by_tsne
from microtome.loading import Subject
from microtome.representation import Features, tsne
from microtome.representation.neighbours import nearest
from microtome.results import Result

__all__ = ["MAP_OF_IMAGES", "LayerMap"]

_THUMBNAIL = 28  # pixels a side
_NEAREST = 6
_UNITS = 64  # units whose responses the page holds
_SECONDS = 0.004  # of t-SNE for one image on one core
_PERPLEXITY = 30


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerMap(Result):
    """Positions of some images on the t-SNE map of a layer.

    Attributes
    ----------
    images : list of int
        The images.
    points, trust : Tensor
        (n, 2) places, and (n,) the share of its nearest images in the layer that stay nearest on the map.
    k : int
        Number of nearest images for ``trust``.
    perplexity, kl : float
        The perplexity, and the final divergence.
    nearest : Tensor
        (n, k) places in ``images`` of the nearest images in the layer.
    units : list of int
        The units that vary most over the images, relative to their mean size.
    responses : Tensor
        (n, units) their mean responses.
    accuracy : list of float
        Share of images whose nearest ones have their class, in the layer and on the map; empty without labels.
    """

    images: list[int]
    points: Tensor
    trust: Tensor
    k: int
    perplexity: float
    kl: float
    nearest: Tensor
    units: list[int]
    responses: Tensor
    accuracy: list[float]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """A map for each layer that the budget allows, the last ones first, from the features of one pass."""
    images = mapped_images(plan, chosen)
    if not images:
        return []
    needs = (features_task(plan, images).key,)
    cost = len(images) * _SECONDS
    layers = affordable([*reversed(plan.layers)], cost, plan.budget.similarity_seconds, least=1)
    return [plan.task("map-of-images", cost=cost, needs=needs, layer=layer, seed=0) for layer in layers]


def map_of_images(subject: Subject, given: ImageFeatures, *, layer: str, seed: int) -> LayerMap:
    """The map of some images at a layer."""
    images, labels = given.images, subject.labels
    found = Features(
        provenance=given.provenance, layer=layer, reduce="mean", values=given.rows[layer],
        labels=None if labels is None else labels[images],
    )  # fmt: skip
    placed = tsne(found, perplexity=min(_PERPLEXITY, (len(images) - 1) / 3), seed=seed)
    values = found.values.double()
    near, _ = nearest(values.numpy(), min(_NEAREST, len(images) - 1))
    spread = values.std(0) / values.abs().mean(0).clamp(min=1e-12)
    units = spread.argsort(descending=True, stable=True)[:_UNITS].sort().values
    known = (placed.layer_accuracy, placed.map_accuracy)
    return LayerMap(
        provenance=placed.provenance,
        images=list(images),
        points=placed.points.float(),
        trust=placed.trust.float(),
        k=placed.k,
        perplexity=placed.perplexity,
        kl=placed.kl,
        nearest=torch.from_numpy(near),
        units=units.tolist(),
        responses=values[:, units].float(),
        accuracy=[value for value in known if value is not None],
    )


# -- pages ---------------------------------------------------------------------------------------------------------


def _layer(album: Album, layer: str) -> list[Section]:
    found = album.one(LayerMap, "map-of-images", layer=layer)
    shown = _canvas(album, found, layer) if isinstance(found, LayerMap) else found
    use = "It shows which images are similar for the layer, and which units separate a group of them."
    return [Section("Map of the images", (Part(shown, "the map of the images by t-SNE", use),))]


def _canvas(album: Album, found: LayerMap, layer: str) -> MapCanvas | Absent:
    seen, images = album.seen, found.images
    confidence = seen.readout[images].gather(1, seen.predicted[images, None])[:, 0].double()
    classes = max(int(seen.predicted.max()), int(seen.labels.max())) + 1
    data = packed(
        found.points.numpy(),
        found.trust.numpy(),
        label=seen.labels[images].numpy(),
        predicted=seen.predicted[images].numpy(),
        confidence=confidence.numpy(),
        quantity=seen.quantity,
        names=[album.image_id(index) for index in images],
        classes=[album.class_name(index) for index in range(classes)],
        nearest=found.nearest.numpy(),
        responses=found.responses.numpy(),
        units=found.units,
        total=int(seen.logits.shape[1]),
    )
    pictures = {unit: unit_picture(album, layer, unit) for unit in found.units}
    paged = set(album.images)
    return MapCanvas(
        data=data,
        thumbnails=_thumbnails(album, images),
        links={place: to_image(album.image_id(index)) for place, index in enumerate(images) if index in paged},
        units={unit: picture for unit, picture in pictures.items() if picture is not None},
        caption=_caption(found, repeated=_repeated(seen.labels[images])),
        made=album.made(found),
    )


def _repeated(labels: Tensor) -> bool:
    """Whether a class has two images, so that a nearest image can be of the right class."""
    known = labels[labels >= 0]
    return len(known.unique()) < len(known)


def _caption(found: LayerMap, *, repeated: bool) -> str:
    text = (
        f"Each dot is one of {len(found.images):,} images. {kept_by_tsne()} "
        f"The fainter a dot, the fewer of its {found.k} nearest images in the layer are near it here "
        f"(on average {100 * float(found.trust.mean()):.0f} % are)."
    )
    if found.accuracy and repeated:
        layer, here = (100 * share for share in found.accuracy)
        text += f" The nearest images give the right class for {layer:.0f} % in the layer and {here:.0f} % on the map."
    return text


def _thumbnails(album: Album, images: Sequence[int]) -> Sprite:
    """One sprite of all images of the maps, written once for all layers."""
    return album.remembered(("map thumbnails", *images[:1], len(images)), lambda: _written(album, images))


def _written(album: Album, images: Sequence[int]) -> Sprite:
    small = [downscaled(album.subject.pictures(part), _THUMBNAIL) for part in blocks(images, 256)]
    return album.sprites.natural("map-thumbnails", torch.cat(small))


MAP_OF_IMAGES = Topic(
    "map of the images", tasks=_tasks, jobs={"map-of-images": map_of_images}, sections={"layer": _layer}
)
