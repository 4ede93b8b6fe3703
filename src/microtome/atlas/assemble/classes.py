"""What does the network take for a class? The page of one class."""

from __future__ import annotations

import torch

from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.stimuli import class_stimuli
from microtome.atlas.choice import chosen_classes
from microtome.atlas.pages import Amount, Amounts, ClassPage, Gallery, Number, to_unit

__all__ = ["class_pages"]

_UNITS = 12


def class_pages(album: Album) -> list[ClassPage]:
    """The pages of the classes that are shown."""
    return [_page(album, index) for index in chosen_classes(album.seen, album.plan.class_count())]


def _page(album: Album, index: int) -> ClassPage:
    seen = album.seen
    of_class, said = seen.labels == index, seen.said == index
    facts = [Number("images of it", int(of_class.sum())), Number("images taken for it", int(said.sum()))]
    if bool(of_class.any()):
        facts.append(Number("found", 100 * float(said[of_class].float().mean()), "%", explain="Recall: of its images."))
    if bool((said & seen.known).any()):
        facts.append(
            Number(
                "right",
                100 * float(of_class[said & seen.known].float().mean()),
                "%",
                explain="Precision: of what is taken for it.",
            )
        )
    known = set(album.thumbnails)
    examples = [i for i in (of_class if bool(of_class.any()) else said).nonzero()[:, 0].tolist() if i in known]
    wrong = [i for i in ((of_class | said) & seen.wrong).nonzero()[:, 0].tolist() if i in known]
    return ClassPage(
        index=index,
        facts=tuple(facts),
        stimuli=class_stimuli(album, index),
        units=_units(album, index),
        images=Gallery(tuple(album.picture(i) for i in examples), "Its images that have pages."),
        mistakes=Gallery(tuple(album.picture(i) for i in wrong), "Taken for another class, or falsely for this one."),
    )


def _units(album: Album, index: int) -> Amounts | None:
    """Units that answer this class most, compared with all other images."""
    rows = []
    for layer in album.plan.outline.layers:
        table = album.tables[layer]
        if not table.class_mean.shape[1]:
            return None
        rows += [
            Amount(
                f"{layer}:{unit}", float(table.selectivity[unit]), to_unit(layer, unit), None, album.label(layer, unit)
            )
            for unit in (table.groups[:, 0] == index).nonzero()[:, 0].tolist()
        ]
    order = torch.tensor([-row.value for row in rows]).argsort(stable=True)[:_UNITS].tolist()
    return Amounts(
        tuple(rows[i] for i in order),
        "selectivity",
        "Units that answer this class more than any other, the most selective first.",
    )
