"""Which images were made for a unit or a class, and how far do they drive it? Superstimuli as sprites and cards."""

from __future__ import annotations

import torch

from microtome.atlas.assemble.album import Album
from microtome.atlas.fit import fitted
from microtome.atlas.pages import Absent, Picture, Sprite, Stimuli, Stimulus, to_unit
from microtome.synthesis import Superstimuli

__all__ = ["class_stimuli", "shown_stimuli", "unit_stimuli"]

_CELL = 160  # pixels a side of a superstimulus on a page


def shown_stimuli(
    album: Album, layer: str, sign: int, diverse: int = 1
) -> dict[int, tuple[Sprite, int, float, Superstimuli]]:
    """By unit: the sprite, its (first) cell, the activation reached, and the result they come from."""
    return album.remembered(("stimuli", layer, sign, diverse), lambda: _gathered(album, layer, sign, diverse))


def _gathered(album: Album, layer: str, sign: int, diverse: int) -> dict[int, tuple[Sprite, int, float, Superstimuli]]:
    found: dict[int, tuple[Sprite, int, float, Superstimuli]] = {}
    for number, task in enumerate(album.find("maximize", layer=layer, sign=sign, diverse=diverse)):
        result = album.load(task)
        if isinstance(result, Superstimuli):
            name = f"stimuli-{album.slug(layer)}-{sign}-{diverse}-{number}"
            sprite = album.sheet.natural(name, fitted(result.images, _CELL))
            for place, unit in enumerate(result.channel.tolist()):
                found.setdefault(unit, (sprite, place, float(result.peak[place]), result))
    return found


def unit_stimuli(album: Album, layer: str, unit: int) -> Stimuli | Absent | None:
    """The superstimuli of a unit, those that raise it first."""
    items: list[Stimulus] = []
    made = None
    diverse = album.plan.diverse()
    for role, sign, count in (("positive", 1, 1), ("diverse", 1, diverse), ("negative", -1, 1)):
        found = shown_stimuli(album, layer, sign, count).get(unit) if count else None
        if found is None:
            continue
        sprite, place, _, result = found
        made = made or album.made(result, _command(album, layer, unit, result))
        for step in range(count):
            reached = float(result.peak[place + step])
            picture = Picture(
                sprite, place + step, f"{role} superstimulus of unit {unit} of {layer}", to_unit(layer, unit)
            )
            items.append(Stimulus(picture, role, reached, album.tables[layer].percentile(unit, reached)))
    if not items:
        return None
    caption = (
        "Images made to raise and to lower this unit most; the percentile says how many images of the data do less."
    )
    return Stimuli(tuple(items), caption, made)


def _command(album: Album, layer: str, unit: int, result: Superstimuli) -> str:
    """What makes the image of one unit from a shell; there it fills the network's whole input."""
    steps, seed = result.provenance.parameters["steps"], result.provenance.seed
    return album.commands.line("maximize", layer, channels=unit, steps=steps, seed=seed, to="unit.png")


def class_stimuli(album: Album, index: int) -> Stimuli | None:
    """The image made for a class's score."""
    for number, task in enumerate(album.find("maximize-class")):
        result = album.load(task)
        if index in task.parameters["classes"] and isinstance(result, Superstimuli):
            sprite = album.sheet.natural(f"classes-{number}", fitted(result.images, _CELL))
            place = int((result.channel == index).nonzero()[0, 0])
            reached = float(result.activation[place])
            share = 100 * float((album.seen.logits[:, index] <= torch.tensor(reached)).float().mean())
            picture = Picture(sprite, place, f"image made for class {album.class_name(index)}")
            caption = "The image that the network gives the highest score of this class."
            steps, seed = result.provenance.parameters["steps"], result.provenance.seed
            command = album.commands.line("maximize", **{"for": index}, steps=steps, seed=seed, to="class.png")
            return Stimuli((Stimulus(picture, "positive", reached, share),), caption, album.made(result, command))
    return None
