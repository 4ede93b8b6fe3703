"""The finding for a statement of a document, with its stored form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.errors import StoreError
from microtome.results import Result

__all__ = ["HOLDS", "Drawn", "Finding", "Workplace", "verdict"]

HOLDS = ("yes", "partly", "no")


@dataclass(frozen=True)
class Drawn:
    """A picture of a finding: its file next to the findings, and its caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Finding:
    """The finding for one statement.

    Attributes
    ----------
    document, statement : str
        Names of the document and of its statement.
    value : str
        Our number or answer, as short as the document's.
    found : str
        The measured result, in sentences; line breaks are kept.
    holds : str
        ``"yes"``, ``"partly"`` or ``"no"``.
    why : str
        A possible reason for a difference. It is not measured: measurements are in ``found``.
    pictures : tuple of Drawn
    """

    document: str
    statement: str
    value: str
    found: str
    holds: str
    why: str = ""
    pictures: tuple[Drawn, ...] = ()

    def __post_init__(self) -> None:
        if self.holds not in HOLDS:
            raise ValueError(f'holds must be one of {", ".join(HOLDS)}; got "{self.holds}".')

    def as_json(self) -> dict[str, Any]:
        """The stored form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Finding:
        """Read the stored form.

        Raises
        ------
        StoreError
            If it was stored by another version or is damaged.
        """
        try:
            drawn = tuple(Drawn(**one) for one in saved["pictures"])
            return cls(**{**saved, "pictures": drawn})
        except (TypeError, KeyError, ValueError) as error:
            raise StoreError(
                f"a stored finding cannot be read: {error}. Remove its folder to measure again."
            ) from error


def verdict(right: bool, partly: bool = False) -> str:
    """``"yes"`` if the statement holds, else ``"partly"`` or ``"no"``.

    Examples
    --------
    >>> verdict(True), verdict(False, partly=True), verdict(False)
    ('yes', 'partly', 'no')
    """
    return "yes" if right else "partly" if partly else "no"


@dataclass(frozen=True)
class Workplace:
    """The workplace of a measurement: its folder, its size and its photos.

    Attributes
    ----------
    folder : Path
        Folder of this measurement, for its pictures and networks.
    quick : bool
    photos : Path or None
        Folder of photos named by class.
    say : function or None
        Called with lines of progress.
    """

    folder: Path
    quick: bool
    photos: Path | None = None
    say: Callable[[str], None] | None = None

    def tell(self, line: str) -> None:
        """Report a line of progress."""
        if self.say is not None:
            self.say(line)

    def draw(self, name: str, result: Result, caption: str, **options: object) -> Drawn:
        """Draw a result's figure into the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure = result.plot(**options)
        figure.savefig(self.folder / f"{name}.png", dpi=110, bbox_inches="tight")
        return Drawn(f"{name}.png", caption)

    def drawn(self, files: Sequence[tuple[str, str]]) -> tuple[Drawn, ...]:
        """Pictures that already exist in the folder; missing ones are left out."""
        return tuple(Drawn(file, caption) for file, caption in files if (self.folder / file).is_file())
