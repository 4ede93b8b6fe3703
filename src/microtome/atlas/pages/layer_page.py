"""The page of a layer: its units side by side, and the sections of all topics."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import arranged, numbers, unit_state
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_similarity import similarity_order
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import confidence, label, layer_tuning
from microtome.atlas.widgets import LayerPage, Number, UnitCard
from microtome.network.layer_table import field_text
from microtome.units import LayerPatches

__all__ = ["layer_page"]

_PROFILE = 20  # classes in the small bar chart of a card
_ORDER = (
    "Which units matter",
    "Pattern or place: what drives the units",
    "Does it repeat the layer before?",
    "What it keeps and what it throws away",
    "Its filters beside those that images give without labels",
    "All its weights",
    "Map of the images",
    "How it places the images",
    "Units that respond alike",
)


def layer_page(album: Album, layer: str, topics: Sequence[Topic]) -> LayerPage:
    """The page of one layer."""
    found, table = album.net.layer(layer), album.tables[layer]
    shape = " x ".join(map(str, found.shape))
    places = "units x height x width" if found.spatial and len(found.shape) == 3 else "numbers for each image"
    facts = [Number("output", shape, explain=f"{places[:1].upper()}{places[1:]}.")]
    field = field_text(found, album.net.input_shape[1:])
    if field:
        facts.append(
            Number("receptive field", field, explain="The part of the image that one position of a unit reads.")
        )
    facts.append(Number("parameters", found.parameters, explain="Weights and biases."))
    return LayerPage(
        name=layer,
        facts=(*facts, *numbers(topics, "layer", album, layer)),
        cards=_cards(album, layer, table),
        cards_caption=_caption(album, table, len(album.paged(layer))),
        cards_made=album.made(table),
        sections=arranged(topics, "layer", _ORDER, album, layer),
    )


def _caption(album: Album, table: LayerPatches, paged: int) -> str:
    what = "Each unit with an image made to drive it, if that is trusted, or else its strongest patch in the data"
    if layer_tuning(album, table.layer):
        what += "; its label, with the share of random units that are less selective"
    what += "."
    if album.classes_measured:
        what += f" The bars are its mean response to each class ({table.sampled:,} images)."
    if paged == table.units:
        return what
    which = f"the {paged} most selective" if album.classes_measured else f"{paged}"
    return f"{what} Of {table.units} units {which} have pages (budget {album.budget.name})."


def _cards(album: Album, layer: str, table: LayerPatches) -> tuple[UnitCard, ...]:
    """A card for each unit, those with pages first."""
    order, paged = similarity_order(album, layer), set(album.paged(layer))
    return tuple(
        UnitCard(
            unit=unit,
            picture=unit_picture(album, layer, unit),
            label=label(album, layer, unit),
            confidence=confidence(album, layer, unit),
            selectivity=float(table.selectivity[unit]) if album.classes_measured else None,
            sparsity=1 - float(table.active[unit]),
            strongest=_strongest(table, unit) if album.classes_measured else None,
            profile=_profile(table, unit) if album.classes_measured else (),
            similarity_order=order[unit],
            state=unit_state(table, unit),
            paged=unit in paged,
        )
        for unit in sorted(range(table.units), key=lambda unit: (unit not in paged, unit))
    )


def _strongest(table: LayerPatches, unit: int) -> int | None:
    """The class on which a unit responds most."""
    first = int(table.groups[unit, 0])
    return first if first >= 0 and table.class_mean.shape[1] else None


def _profile(table: LayerPatches, unit: int) -> tuple[float, ...]:
    """The mean response of a unit by class, in the order of the classes."""
    groups = table.groups[unit, : table.class_mean.shape[1]]
    order = groups.argsort()[:_PROFILE]
    return tuple(round(float(value), 6) for value in table.class_mean[unit][order])
