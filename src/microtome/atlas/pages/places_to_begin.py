"""Starting points on the first page: a unit with a clear role, the worst mistake, the layer that rejects most."""

from __future__ import annotations

from microtome.atlas.album import Album
from microtome.atlas.topics.images.kept_and_lost import most_rejecting
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import layer_tuning
from microtome.atlas.widgets import Start, to_image, to_layer, to_unit
from microtome.atlas.wording import with_article

__all__ = ["places_to_begin"]


def places_to_begin(album: Album) -> tuple[Start, ...]:
    """At most three links, each to another kind of page."""
    found = (_unit(album), _mistake(album), _layer(album))
    return tuple(start for start in found if start is not None)


def _unit(album: Album) -> Start | None:
    """The unit with the most confident label; without labels, the most selective unit."""
    labelled = [
        (float(tuning.confidence[unit]), layer, unit, tuning.label(unit))
        for layer in album.layers
        for tuning in [layer_tuning(album, layer)]
        if tuning is not None
        for unit in album.paged(layer)
        if tuning.label(unit) and not tuning.label(unit).startswith("not selective")
    ]
    if labelled:
        _, layer, unit, label = max(labelled, key=lambda one: one[0])
        return Start(
            f"A unit that responds to {_with_article(label)}: {layer}:{unit}",
            to_unit(layer, unit),
            unit_picture(album, layer, unit),
        )
    if not album.classes_measured:
        return _middle(album)
    _, layer, unit = max(
        (float(album.tables[layer].selectivity[unit]), layer, unit)
        for layer in album.layers
        for unit in album.paged(layer)
    )
    strongest = int(album.tables[layer].groups[unit, 0])  # the class with the highest response
    if strongest < 0:
        return None
    text = f"A unit that responds most to {with_article(album.class_name(strongest))}: {layer}:{unit}"
    return Start(text, to_unit(layer, unit), unit_picture(album, layer, unit))


def _middle(album: Album) -> Start | None:
    """A unit of the layer in the middle."""
    layer = album.layers[len(album.layers) // 2]
    unit = next(iter(album.chosen.units[layer]), None)
    if unit is None:
        return None
    text = f"A unit in the middle of the network, and what drives it: {layer}:{unit}"
    return Start(text, to_unit(layer, unit), unit_picture(album, layer, unit))


def _mistake(album: Album) -> Start | None:
    """The most confident mistake that has a page."""
    for index in album.seen.mistakes:
        if index in album.images:
            sure = ""
            if album.seen.quantity == "probability":
                sure = f", with {100 * float(album.seen.readout[index].max()):.1f} % confidence"
            text = f"The worst mistake: {album.answer(index)}{sure}"
            return Start(text, to_image(album.image_id(index)), album.picture(index, note=""))
    return None


def _layer(album: Album) -> Start | None:
    """The layer with a page that rejects the largest share of its input."""
    found = most_rejecting(album)
    if found is None:
        return None
    layer, share, page = found
    first = next(iter(album.paged(page)), None)
    picture = unit_picture(album, page, first) if first is not None else None
    return Start(f"What {layer} throws away: {100 * share:.0f} % of its input", to_layer(page), picture)


def _with_article(label: str) -> str:
    """What a unit responds to, with its article.

    Examples
    --------
    >>> _with_article("colour azure against orange"), _with_article("lower side of a horizontal line")
    ('the colour azure against orange', 'the lower side of a horizontal line')
    >>> _with_article("edge at 20°"), _with_article("class 5 (precision 0.52, recall 0.33)")
    ('an edge at 20°', 'class 5 (precision 0.52, recall 0.33)')
    """
    if label.startswith("class "):
        return label
    only_one = label.startswith("colour ") or " side of " in label
    return f"the {label}" if only_one else with_article(label)
