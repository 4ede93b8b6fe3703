"""A map of images: two coordinates per image, with measures of its quality."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.representation.features import Features, vary
from microtome.representation.map_quality import Quality
from microtome.representation.neighbours import Points
from microtome.results import Provenance, Result


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageMap(Result, drawing="representation_figures:image_map"):
    """Images as points in the plane.

    Attributes
    ----------
    layer : str
        The layer whose features are mapped.
    points : Tensor
        (N, 2) float64.
    labels : Tensor or None
        (N,) class indices, -1 without one.
    k : int
        Number of neighbours for the measures below: 10, or fewer for few images.
    trust : Tensor
        (N,) share of each image's k nearest neighbours in the layer that are among its k nearest on the map. Images
        that are as near in the layer as the k-th count, too.
    trustworthiness : float
        Venna and Kaski's measure: 1 if all neighbours on the map are also neighbours in the layer.
    layer_accuracy, map_accuracy : float or None
        Accuracy of k-nearest-neighbour classification, in the layer and on the map.
    """

    layer: str
    points: Tensor
    labels: Tensor | None
    k: int
    trust: Tensor
    trustworthiness: float
    layer_accuracy: float | None
    map_accuracy: float | None

    def place(self, new: Features | Tensor) -> Tensor:
        """Coordinates (M, 2) of new images on this map; the map does not change."""
        raise InputError(f"a {type(self).__name__} cannot place new images.")


def read_features(found: Features | Tensor, width: int | None = None, layer: str = "") -> Points:
    """Checked features as a float64 array (N, F).

    Raises
    ------
    InputError
        The features are not a matrix, not finite, or not those of the map's layer.
    """
    values = found.values if isinstance(found, Features) else torch.as_tensor(found, device="cpu")
    if values.dim() != 2 or not values.shape[1]:
        raise InputError(f"a matrix of images and features was expected, got shape {tuple(values.shape)}.")
    if width is not None and values.shape[1] != width:
        raise InputError(f"the map was made from {width} features of each image, got {values.shape[1]}.")
    if layer and isinstance(found, Features) and found.layer != layer:
        raise InputError(f'the map is of layer "{layer}", the features are of layer "{found.layer}".')
    array: Points = values.detach().cpu().double().numpy()
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise InputError(f"the features of image {row} are not finite; leave it out, or choose another layer.")
    return array


def varying(values: Tensor) -> None:
    """Refuse features that are the same for all images up to rounding, and fewer than four images.

    Raises
    ------
    InputError
        The features cannot be mapped.
    """
    if len(values) < 4:
        raise InputError(f"a map needs at least four images, got {len(values)}.")
    if not bool(vary(values).any()):
        raise InputError("the layer gives the same features for all images, so there is no map.")


def measures(found: Quality) -> dict[str, Any]:
    """The quality fields of every map."""
    return {entry.name: getattr(found, entry.name) for entry in dataclasses.fields(found)}


def source(found: Features) -> Provenance:
    """The origin of a map: the network and the options of the features."""
    made = found.provenance
    kept = {key: value for key, value in made.parameters.items() if key in ("layer", "reduce", "images")}
    return Provenance("", parameters=kept, fingerprint=made.fingerprint, notes=made.notes)
