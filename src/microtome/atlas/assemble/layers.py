"""What do a layer's units look for, side by side? The page of one layer."""

from __future__ import annotations

from microtome.atlas.assemble import spaces
from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.overview import field_text
from microtome.atlas.assemble.relations import similarity_order, similarity_picture
from microtome.atlas.assemble.unit_pictures import unit_picture
from microtome.atlas.pages import Absent, LayerPage, Number, UnitCard, WeightSheet
from microtome.units import Filters, LayerPatches, Similarity

__all__ = ["layer_page", "state"]

_PROFILE = 20  # classes in a card's small bar chart


def layer_page(album: Album, name: str) -> LayerPage:
    """The page of one layer."""
    layer, table = album.net.layer(name), album.tables[name]
    paged = album.paged(name)
    facts = [
        Number("output", " x ".join(map(str, layer.shape))),
        Number("units", layer.units),
        Number("parameters", layer.parameters),
        Number("dead units", int(table.dead.sum()), explain="They fire on none of the images."),
    ]
    alike = album.alike(name)
    filters = album.one(Filters, "filters", layer=name)
    if isinstance(filters, Filters):
        facts.append(Number("kernel", " x ".join(map(str, filters.weights.shape[2:])), "px"))
    facts += spaces.conditions(album, name)
    averages, residuals = spaces.residuals(album, name)
    field = field_text(album, layer)
    if field:
        facts.insert(1, Number("receptive field", field))
    return LayerPage(
        name=name,
        facts=tuple(facts),
        cards=_cards(album, name, table, set(paged)),
        cards_caption=_caption(album, table, len(paged)),
        cards_made=album.made(table),
        spectrum=spaces.spectrum(album, name),
        signal=spaces.signal(album, name),
        averages=averages,
        residuals=residuals,
        similarity=similarity_picture(album, name),
        repeats=tuple(alike.repeats()[:20]) if isinstance(alike, Similarity) else (),
        weights=_weights(album, name),
    )


def _weights(album: Album, name: str) -> WeightSheet | Absent | None:
    """All kernels, outputs by inputs, as far as they fit into one picture."""
    found = album.one(Filters, "filters", layer=name)
    if not isinstance(found, Filters):
        return found or spaces.without_weights(album, name)
    outputs, inputs, height, width = found.weights.shape
    if max(outputs * height, inputs * width) > 4096:
        return Absent(f"{outputs} x {inputs} kernels of {height} x {width} weights are too many for one picture.")
    sprite = album.sheet.scaled(
        f"weights-{album.slug(name)}",
        found.weights.flatten(0, 1).float(),
        "diverging",
        "weight",
        columns=inputs,
        square=True,
    )
    below = album.origin(album.net.layer(name).inputs[0]) if album.net.layer(name).inputs else ""
    caption = "A row is an output unit, a column an input channel: red weights raise the unit, blue ones lower it."
    return WeightSheet(sprite, caption, album.made(found), below or None)


def _caption(album: Album, table: LayerPatches, paged: int) -> str:
    what = (
        "Each unit with the image made to drive it most, or else the patch of the data that does; "
        "its label with the confidence, its mean activation on each class as bars."
    )
    if paged == table.units:
        return what
    return f"{what} Of {table.units} units the {paged} most selective have pages (budget {album.budget.name})."


def _cards(album: Album, name: str, table: LayerPatches, paged: set[int]) -> tuple[UnitCard, ...]:
    words = album.tuning(name)
    order = similarity_order(album, name)
    return tuple(
        UnitCard(
            unit=unit,
            picture=unit_picture(album, name, unit),
            label=words.label(unit) if words else "",
            confidence=float(words.confidence[unit]) if words else None,
            selectivity=float(table.selectivity[unit]),
            sparsity=1 - float(table.active[unit]),
            strongest=_strongest(table, unit),
            profile=profile(table, unit),
            similarity_order=order[unit],
            state=state(table, unit),
            paged=unit in paged,
        )
        for unit in range(table.units)
    )


def _strongest(table: LayerPatches, unit: int) -> int | None:
    first = int(table.groups[unit, 0])
    return first if first >= 0 and table.class_mean.shape[1] else None


def profile(table: LayerPatches, unit: int) -> tuple[float, ...]:
    """A unit's mean response by class, in the order of the classes."""
    groups = table.groups[unit, : table.class_mean.shape[1]]
    order = groups.argsort()[:_PROFILE]
    return tuple(round(float(value), 6) for value in table.class_mean[unit][order])


def state(table: LayerPatches, unit: int) -> str:
    """``"dead"``, ``"saturated"`` or nothing."""
    return "dead" if bool(table.dead[unit]) else "saturated" if bool(table.saturated[unit]) else ""
