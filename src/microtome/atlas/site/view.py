"""Functions that templates call to draw one page: addresses relative to it, widgets, pictures, empty states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup, escape

from microtome.atlas.site import drawing, flow
from microtome.atlas.site.addresses import Addresses
from microtome.atlas.site.numbers import number
from microtome.atlas.site.sprite_styles import SpriteStyles, position
from microtome.atlas.widgets import (
    Absent,
    Atlas,
    Curve,
    DissectionRow,
    DissectionTable,
    Histogram,
    ImageMap,
    Link,
    Patch,
    Picture,
    Section,
    Spectrum,
    Sprite,
    UnitCard,
    Widget,
    Wiring,
    to_unit,
)


@dataclass(frozen=True)
class RunningRow:
    """A row of a dissection with its running sums: in the channels' order, and ranked by contribution."""

    row: DissectionRow
    place: int
    rank: int
    running: float
    running_ranked: float


@dataclass(frozen=True)
class Gaps:
    """The missing parts of a page: reasons, and the names of parts that commands would make."""

    reasons: list[Absent]
    commands: list[tuple[str, str]]


_SIDES = ("left", "top", "width", "height")


def _shows(content: object) -> bool:
    """Whether there is something to draw."""
    if isinstance(content, Wiring):
        return _shows(content.inputs) or _shows(content.outputs)
    return content is not None and not isinstance(content, Absent)


def _inner(content: object, kind: type[Absent]) -> list[Absent]:
    """The missing sides of a unit's connections."""
    sides = (content.inputs, content.outputs) if isinstance(content, Wiring) else ()
    return [side for side in sides if isinstance(side, kind)]


def _unconnected(content: Wiring) -> list[str]:
    sides = ((content.inputs, "the strongest inputs"), (content.outputs, "the strongest outputs"))
    return [name for side, name in sides if side is None]


class View:
    """Everything that depends on the address of one page.

    Parameters
    ----------
    atlas : Atlas
        The whole.
    addresses : Addresses
        Of its pages.
    address : str
        This page's, relative to the folder of the site.
    environment : jinja2.Environment
        Holds the macros that draw widgets.
    """

    def __init__(self, atlas: Atlas, addresses: Addresses, address: str, environment: Environment) -> None:
        self.atlas = atlas
        self.address = address
        self.root = "../" * address.count("/")
        self.styles = SpriteStyles(self.root)
        self._addresses = addresses
        self._hints = dict(atlas.hints)
        self._environment = environment

    def widget(self, widget: Widget) -> Markup:
        """A widget, drawn by its macro."""
        template, _, macro = widget.macro.partition(".")
        draw = getattr(self._environment.get_template(f"{template}.html").module, macro)
        return Markup(draw(self, widget))  # noqa: S704 - rendered with escaping

    def links(self, links: dict[int, Link]) -> dict[int, str]:
        """Addresses by number, for those that have a page."""
        return {number: href for number, link in links.items() if (href := self.href(link))}

    @staticmethod
    def rows(sections: Sequence[Section]) -> list[list[Section]]:
        """Sections with content, in rows: two successive half sections share a row."""
        found: list[list[Section]] = []
        for section in sections:
            if not any(_shows(part.content) for part in section.parts):
                continue
            if section.half and found and len(found[-1]) == 1 and found[-1][0].half:
                found[-1].append(section)
            else:
                found.append([section])
        return found

    def href(self, link: Link | None) -> str | None:
        """Where a link leads from here, or None if there is no such page or it is this one."""
        address = self._addresses.of(link)
        return None if address is None or address == self.address else self.root + quote(address)

    def anchor(self, text: str, link: Link | None) -> Markup:
        """A text, linked if its page exists."""
        href = self.href(link)
        return Markup('<a href="{}">{}</a>').format(href, text) if href else escape(text)

    def unit(self, layer: str, index: int) -> Markup:
        """A unit's name, linked."""
        return self.anchor(f"{layer}:{index}", to_unit(layer, index))

    def label(self, index: int | None) -> str:
        """A class's name."""
        names = self.atlas.classes
        return "" if index is None else names[index] if index < len(names) else str(index)

    def pic(self, picture: Picture, size: str = "m", link: bool = True) -> Markup:
        """One picture: a link where it leads somewhere."""
        return self._cell(
            f"{self.styles.name(picture.sprite)} z{size}",
            position(picture.sprite, picture.index),
            picture.alt,
            picture.link if link else None,
        )

    def under(self, picture: Picture, size: str) -> Markup:
        """A picture below a map; it is described elsewhere."""
        names, style = self._classes(picture, size), position(picture.sprite, picture.index)
        return Markup('<span class="{} under" style="{}" aria-hidden="true"></span>').format(names, style)

    def over(self, picture: Picture, size: str) -> Markup:
        """A map over a picture of the same shape; the button around it describes it."""
        names, style = self._classes(picture, size), position(picture.sprite, picture.index)
        return Markup('<span class="{} on" style="{}" aria-hidden="true"></span>').format(names, style)

    def opening(self, patch: Patch) -> Markup:
        """A patch that opens the whole image with its position."""
        whole, box = patch.whole, patch.box or (0.0, 0.0, 1.0, 1.0)
        if whole is None:
            return self.pic(patch.crop)
        sides = ";".join(f"{side}:{100 * share:.2f}%" for side, share in zip(_SIDES, box, strict=True))
        return Markup(
            '<button type="button" class="patch" data-picture="{}" data-cell="{}" data-box="{}" data-page="{}" '
            'data-about="{}" aria-label="{}">{}</button>'
        ).format(
            self._classes(whole, "xl"),
            position(whole.sprite, whole.index),
            sides,
            self.href(whole.link) or "",
            f"{whole.alt}: response {number(float(patch.activation))} at the marked position",
            f"{patch.crop.alt}; show the whole image",
            self.pic(patch.crop, "m", link=False),
        )

    def _classes(self, picture: Picture, size: str) -> str:
        return f"{self.styles.name(picture.sprite)} z{size}"

    def strip(self, sprite: Sprite, row: int, alt: str, link: Link | None) -> Markup:
        """A whole row of a sprite in one element."""
        return self._cell(f"{self.styles.name(sprite)} zs strip", f"--y:{row};--x:0", alt, link)

    def _cell(self, names: str, style: str, alt: str, link: Link | None) -> Markup:
        href = self.href(link)
        tag = f'a href="{escape(href)}"' if href else 'span role="img"'
        end = "a" if href else "span"
        return Markup(f'<{tag} class="{names}" style="{style}" aria-label="{escape(alt)}"></{end}>')  # noqa: S704

    def hint(self, part: str) -> str:
        """The command that makes a part which is not there."""
        return self._hints.get(part) or self._hints.get("*") or self.atlas.command

    def hint_time(self) -> str:
        """The time of the command that computes missing parts."""
        return f"This command adds them, in {self.atlas.larger}: " if self.atlas.larger else "This command adds them: "

    def missing(self, sections: Sequence[Section]) -> Gaps:
        """Parts that the sections lack: names by the command that computes them, and reasons, each once."""
        parts = [part for section in sections for part in section.parts]
        reasons = dict.fromkeys(part.content for part in parts if isinstance(part.content, Absent))
        reasons.update(dict.fromkeys(gap for part in parts for gap in _inner(part.content, Absent)))
        names: dict[str, list[str]] = {}
        absent = [part.name for part in parts if part.content is None and part.name]
        absent += [name for part in parts if isinstance(part.content, Wiring) for name in _unconnected(part.content)]
        for name in dict.fromkeys(absent):
            names.setdefault(self.hint(name), []).append(name)
        return Gaps(list(reasons), [(command, ", ".join(found)) for command, found in names.items()])

    def ridges(self, histogram: Histogram) -> Markup:
        """A histogram's drawing."""
        return drawing.ridges(histogram, [self.href(link) for _, link, _ in histogram.rows])

    def flow(self) -> Markup:
        """The network's drawing."""
        return flow.flow(self.atlas.overview.blocks, lambda name: self.href(Link("layer", name)), self.pic)

    @staticmethod
    def curve(curve: Curve) -> Markup:
        """A tuning curve's drawing."""
        return drawing.curve(curve)

    @staticmethod
    def spectrum(drawn: Spectrum) -> Markup:
        """The singular values' drawing."""
        return drawing.spectrum(drawn)

    def image_map(self, drawn: ImageMap) -> Markup:
        """The drawing of images on a plane."""
        return drawing.image_map(drawn, self.label)

    @staticmethod
    def orders(cards: Sequence[UnitCard]) -> list[tuple[str, str]]:
        """The distinct orders of a layer's cards: key and name, the page's own order first."""
        found = [("unit", "number")]
        if len({card.paged for card in cards}) > 1:
            found.insert(0, ("paged", "pages first"))
        for key, name, values in (
            ("label", "label", [card.label for card in cards]),
            ("selectivity", "selectivity", [card.selectivity for card in cards]),
            ("sparsity", "sparsity", [card.sparsity for card in cards]),
            ("class", "class", [card.strongest for card in cards]),
            ("similarity", "similarity", [card.similarity_order for card in cards]),
        ):
            if len(set(values)) > 1:
                found.append((key, name))
        return found

    @staticmethod
    def spark(values: tuple[float, ...]) -> Markup:
        """A profile's drawing."""
        return drawing.sparkline(values) if values else Markup("")

    @staticmethod
    def range(sprite: Sprite) -> str:
        """What the colours of a sprite mean, in words."""
        if sprite.limits is None or sprite.colours == "classes":
            return ""
        low, high = (number(float(value)) for value in sprite.limits)
        if sprite.limits[0] == -sprite.limits[1]:
            return f"±{high} {sprite.quantity}".strip()
        return f"{low} to {high} {sprite.quantity}".strip()

    @staticmethod
    def spot(sheet: DissectionTable) -> str:
        """Where the sheet is read, on the map of y."""
        (row, column), (height, width) = sheet.position, sheet.size
        box = {"left": column / width, "top": row / height, "width": 1 / width, "height": 1 / height}
        return ";".join(f"{side}:{100 * share:.2f}%" for side, share in box.items())

    @staticmethod
    def running(sheet: DissectionTable) -> list[RunningRow]:
        """The sheet's rows with both running sums."""
        ranked = sorted(range(len(sheet.rows)), key=lambda at: -abs(sheet.rows[at].amount))
        sums = [*accumulate(row.amount for row in sheet.rows)]
        by_rank = dict(zip(ranked, accumulate(sheet.rows[at].amount for at in ranked), strict=True))
        ranks = {at: rank for rank, at in enumerate(ranked)}
        return [RunningRow(row, at, ranks[at], sums[at], by_rank[at]) for at, row in enumerate(sheet.rows)]
