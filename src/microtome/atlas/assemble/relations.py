"""Which units belong together? Those it reads, those that read it, those that answer alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.unit_pictures import unit_picture
from microtome.atlas.pages import Absent, Amount, Amounts, Link, Picture, to_class, to_unit
from microtome.units import Ablation, Connections, Similarity

__all__ = ["ablation", "inputs_and_outputs", "nearest", "similarity_order", "similarity_picture"]

_MOST = 8


def inputs_and_outputs(album: Album, layer: str, unit: int) -> tuple[Amounts | Absent | None, Amounts | Absent | None]:
    """The units that a unit reads most and those that read it most, by weight."""
    found = album.one(Connections, "connections", layer=layer)
    if not isinstance(found, Connections):
        return found, found
    if unit not in found.units:
        return None, None
    made = album.made(found)
    sides: list[Amounts | Absent] = []
    for links, caption in (
        (found.inputs(unit, _MOST), "The units it reads most; red raises it, blue lowers it."),
        (found.outputs(unit, _MOST), "The units that read it most; it raises the red ones and lowers the blue ones."),
    ):
        rows = tuple(
            Amount(f"{link.layer}:{link.unit}", link.weight, _link(album, link.layer, link.unit),
                   unit_picture(album, link.layer, link.unit), album.label(link.layer, link.unit))
            for link in links
        )  # fmt: skip
        if rows:
            sides.append(Amounts(rows, "sum of weights", caption, made, signed=True))
        else:
            sides.append(Absent(found.unknown or "No weights lead here: it stands at the end of the network."))
    return sides[0], sides[1]


def _link(album: Album, layer: str, unit: int) -> Link | None:
    return to_unit(layer, unit) if layer in album.plan.outline.layers else None


def nearest(album: Album, layer: str, unit: int) -> Amounts | Absent | None:
    """The units of the layer that answer most alike."""
    found = album.alike(layer)
    if not isinstance(found, Similarity):
        return found
    rows = tuple(
        Amount(
            f"{layer}:{other}",
            value,
            to_unit(layer, other),
            unit_picture(album, layer, other),
            album.label(layer, other),
        )
        for other, value in found.nearest(unit, _MOST)
    )
    if not rows:
        return Absent("It never varies, so nothing can be said to answer alike.")
    caption = f"Units whose maps correlate most with its own over {found.images} images."
    return Amounts(rows, "correlation", caption, album.made(found))


def ablation(album: Album, layer: str, unit: int) -> Amounts | Absent | None:
    """What each class loses when the unit is set to zero."""
    for task in album.find("ablate", layer=layer):
        if unit not in task.parameters["units"]:
            continue
        found = album.load(task)
        if not isinstance(found, Ablation):
            return Absent(getattr(found, "reason", "It cannot be ablated."))
        return _loss(album, found, task.parameters["units"].index(unit))
    return None


def _loss(album: Album, found: Ablation, row: int) -> Amounts:
    drop = 100 * found.class_drop[row].double()
    order = (-drop.abs()).argsort(stable=True)[:10].sort().values.tolist()
    rows = tuple(
        Amount(album.class_name(found.labels[i]), float(-drop[i]) or 0.0, to_class(found.labels[i])) for i in order
    )
    total = round(-100 * float(found.drop[row]), 2) or 0.0  # no "-0.00"
    against = "accuracy" if found.against == "labels" else "agreement with its own answers"
    caption = (
        f"Change of each class's {against} when the unit is set to zero, on {found.images} images; "
        f"over all classes {total:+.2f} points."
    )
    return Amounts(rows, "percentage points", caption, album.made(found))


def similarity_order(album: Album, layer: str) -> list[int]:
    """Each unit's place in an order that puts those that answer alike side by side."""
    return album.remembered(("order", layer), lambda: _places(album, layer))


def _places(album: Album, layer: str) -> list[int]:
    count = album.tables[layer].units
    found = album.alike(layer)
    if not isinstance(found, Similarity) or count < 3:
        return list(range(count))
    leaves = _leaves(found.correlation)
    places = [0] * count
    for place, unit in enumerate(leaves):
        places[unit] = place
    return places


def _leaves(correlation: Tensor) -> list[int]:
    """Units in the order of a tree of average linkage."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - torch.nan_to_num(correlation, nan=0.0).double().numpy()
    distance = np.round(np.clip((distance + distance.T) / 2, 0, 2), 9)
    np.fill_diagonal(distance, 0)
    return [int(leaf) for leaf in leaves_list(linkage(squareform(distance, checks=False), "average"))]


def similarity_picture(album: Album, layer: str) -> Picture | Absent | None:
    """Units x units, in the order of the tree."""
    found = album.alike(layer)
    if not isinstance(found, Similarity):
        return found
    places = torch.tensor(similarity_order(album, layer)).argsort()
    matrix = torch.nan_to_num(found.correlation, nan=0.0)[places][:, places]
    name = f"similarity-{album.slug(layer)}"
    sprite = album.sheet.scaled(name, matrix[None].float(), "diverging", "correlation", limits=(-1.0, 1.0), square=True)
    return Picture(sprite, 0, f"correlation of the {len(matrix)} units of {layer}, alike ones side by side")
