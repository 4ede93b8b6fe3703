"""One cell of a sprite as a background picture; the style of each sprite is written once a page."""

from __future__ import annotations

from urllib.parse import quote

from markupsafe import Markup

from microtome.atlas.widgets import Sprite

# Sides in CSS pixels at which pictures are shown; the zoom that comes nearest is taken.
SIZES = {"s": 56, "c": 72, "m": 112, "l": 224, "xl": 336}


class SpriteStyles:
    """The sprites that one page uses, each with a short class name.

    Parameters
    ----------
    root : str
        The way from the page to the site's folder: ``"../../"``.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._known: dict[Sprite, int] = {}

    def name(self, sprite: Sprite) -> str:
        """The sprite's class names on this page."""
        index = self._known.setdefault(sprite, len(self._known))
        kind = {"natural": "", "diverging": " dv", "sequential": "", "classes": ""}[sprite.colours]
        return f"p s{index}{kind}{' px' if sprite.pixelated else ''}"

    def css(self) -> Markup:
        """The rules of all sprites used so far."""
        return Markup("").join(self._rules(sprite, index) for sprite, index in self._known.items())

    def _rules(self, sprite: Sprite, index: int) -> Markup:
        height, width = sprite.cell
        rows = -(-sprite.count // sprite.columns)
        zooms = "".join(f";--z{size}:{zoom(sprite, size):g}" for size in SIZES)
        rule = f".s{index}{{background-image:url({self._url(sprite.file)});--w:{width};--h:{height};"
        rule += f"--c:{sprite.columns};--r:{rows}{zooms}}}"
        if sprite.own:
            rule += f".own .s{index}{{background-image:url({self._url(sprite.own)})}}"
        return Markup(rule)  # noqa: S704 - numbers and quoted addresses

    def _url(self, file: str) -> str:
        return quote(self._root + file)


def zoom(sprite: Sprite, size: str) -> float:
    """By how much a cell is enlarged: whole numbers where pixels stay square, at least 4 for small ones.

    Examples
    --------
    >>> zoom(Sprite("a.png", (28, 28), 1, 1), "s"), zoom(Sprite("a.png", (5, 5), 1, 1), "s")
    (4, 11)
    >>> zoom(Sprite("a.png", (1280, 1280), 1, 1), "xl")
    0.2625
    >>> zoom(Sprite("a.png", (224, 224), 1, 1, pixelated=False), "m")
    0.5
    """
    side = max(sprite.cell)
    wanted = SIZES[size] / side
    if side >= 2 * max(SIZES.values()):
        return wanted  # more pixels than there is room for
    if not sprite.pixelated:
        return max(4.0, wanted) if side <= 32 else wanted
    least = 4 if side <= 32 else 2 if side <= 64 else 1
    return max(least, round(wanted))


def position(sprite: Sprite, index: int) -> str:
    """Where a cell lies, as the style of its element."""
    row, column = divmod(index, sprite.columns)
    return f"--x:{column};--y:{row}"
