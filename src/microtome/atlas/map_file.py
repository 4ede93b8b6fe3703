"""A map of images as one file that opens from disk, with numbers, thumbnails, style and script."""

from __future__ import annotations

import base64

import torch
from torch import Tensor

from microtome.atlas.pictures.downscaling import downscaled
from microtome.atlas.pictures.sprites import encoded, gridded
from microtome.atlas.planning.first_look import Predictions, predicted, scores
from microtome.atlas.planning.plan import blocks
from microtome.atlas.site.page_file import made_by, page_file
from microtome.atlas.widgets import Sprite
from microtome.atlas.widgets.map_canvas import MapCanvas, packed
from microtome.atlas.wording import kept_by_pca, kept_by_tsne
from microtome.loading import Subject
from microtome.representation import Features, ImageMap
from microtome.representation.neighbours import nearest
from microtome.representation.principal_components import PrincipalMap

__all__ = ["map_file"]

_THUMBNAIL = 28  # pixels a side
_NEAREST = 6
_UNITS = 64  # units whose responses the page holds
_BATCH = 32


def map_file(subject: Subject, features: Features, found: ImageMap) -> bytes:
    """The page of a map, in one self-contained file.

    Parameters
    ----------
    subject : Subject
        The network, and the images that the map shows.
    features : Features
        Features of the layer; they give the nearest images and the responses of the units.
    found : ImageMap
        Positions of the images.

    Returns
    -------
    bytes
        HTML. Cost: one pass over the images for the predictions, and about 1 kB of the file for each image.
    """
    seen = predicted(subject, scores(subject, batch=_BATCH))
    count = len(found.points)
    values = torch.as_tensor(features.values, device="cpu").double().flatten(1)
    near, _ = nearest(values.numpy(), min(_NEAREST, count - 1))
    spread = values.std(0) / values.abs().mean(0).clamp(min=1e-12)
    units = spread.argsort(descending=True, stable=True)[:_UNITS].sort().values
    classes = max(int(seen.predicted.max()), int(seen.labels.max())) + 1
    names = subject.net.classes
    data = packed(
        found.points.numpy(), found.trust.numpy(), label=seen.labels.numpy(), predicted=seen.predicted.numpy(),
        confidence=_confidence(seen).numpy(), quantity=seen.quantity, names=[subject.name(i) for i in range(count)],
        classes=[names[i] if names is not None and i < len(names) else str(i) for i in range(classes)],
        nearest=near, responses=values[:, units].numpy(), units=units.tolist(), total=int(seen.logits.shape[1]),
    )  # fmt: skip
    title = f"{count:,} images as {found.layer} of {subject.net.name} sees them"
    caption = (
        f"{kept_by_pca(float(found.explained.sum())) if isinstance(found, PrincipalMap) else kept_by_tsne()} "
        f"The fainter a dot, the fewer of its {found.k} nearest images in the layer are near it here."
    )
    return page_file(title, MapCanvas(data, _thumbnails(subject, count), {}, {}, caption, made_by(found)))


def _confidence(seen: Predictions) -> Tensor:
    """The readout of the predicted class of each image."""
    return seen.readout.gather(1, seen.predicted[:, None])[:, 0].double()


def _thumbnails(subject: Subject, count: int) -> Sprite:
    """All images in one picture, as a data URL."""
    small = torch.cat([downscaled(subject.pictures(part), _THUMBNAIL) for part in blocks(range(count), 256)])
    if small.shape[1] not in (1, 3):
        small = small.mean(1, keepdim=True)
    columns = max(1, int(count**0.5))
    content = encoded(gridded(small.clamp(0, 1), columns), "thumbnails.webp", lossless=False)
    address = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
    height, width = small.shape[2:]
    plain = max(subject.net.input_shape[1:]) <= 2 * _THUMBNAIL
    return Sprite(address, (height, width), columns, count, pixelated=plain)
