"""Write the gallery's pages: one for each document and a first page, in the style of the atlas; they open from disk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from microtome.gallery.finding import HOLDS, Finding
from microtome.gallery.measurement_list import MEASUREMENTS
from microtome.gallery.measurement_store import Outcome
from microtome.reproduce.statements import DOCUMENTS, Statement, document
from microtome.result_html import unbroken
from microtome.results import write_atomically
from microtome.version import __version__

__all__ = ["Entry", "entries", "write_pages"]

_STATES = {"yes": "holds", "partly": "holds in part", "no": "does not hold", "": "not measured"}


@dataclass(frozen=True)
class Entry:
    """A statement with its finding.

    Attributes
    ----------
    statement : Statement
    finding : Finding or None
        None if it was not measured.
    outcome : Outcome or None
        Of the measurement, with its command, seed and time.
    missing : str
        Why it was not measured.
    """

    statement: Statement
    finding: Finding | None
    outcome: Outcome | None
    missing: str = ""

    @property
    def state(self) -> str:
        """``"yes"``, ``"partly"``, ``"no"``, or empty if it was not measured."""
        return "" if self.finding is None else self.finding.holds

    @property
    def words(self) -> str:
        """The same in words."""
        return _STATES[self.state]


def entries(name: str, outcomes: dict[str, Outcome], *, quick: bool) -> list[Entry]:
    """Every statement of a document in order, with its finding or the reason why there is none."""
    found: list[Entry] = []
    for one in document(name).statements.values():
        by = next((measurement for measurement in MEASUREMENTS.values() if (name, one.id) in measurement.answers), None)
        if by is None:
            found.append(Entry(one, None, None, one.how))
            continue
        outcome = outcomes.get(by.name)
        command = f"microtome reproduce all --only {by.name} {'--quick' if quick else '--full'}"
        command += " --data PHOTOS" if by.photos else ""
        if outcome is None:
            outcome = Outcome(by.name, command=command, error="it has not been run yet")
        finding = next((row for row in outcome.findings if (row.document, row.statement) == (name, one.id)), None)
        if finding is not None:
            drawn = tuple(dataclasses.replace(row, file=f"{by.name}/{row.file}") for row in finding.pictures)
            finding = dataclasses.replace(finding, pictures=drawn)
        found.append(Entry(one, finding, dataclasses.replace(outcome, command=command), outcome.error))
    return found


def write_pages(out: Path, outcomes: dict[str, Outcome], *, quick: bool) -> Path:
    """Write all pages.

    Parameters
    ----------
    out : Path
        Folder of the gallery; pictures lie in the folders of the measurements below it.
    outcomes : dict of str to Outcome
        By measurement; a missing one is shown as not measured, with its command.
    quick : bool
        Whether the pages show the quick or the full size.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    StoreError
        When a page cannot be written.
    """
    environment = _environment()
    size = "quick" if quick else "full"
    for package, name in (("microtome.atlas.site", "style.css"), ("microtome.gallery", "gallery.css"),
                          ("microtome.gallery", "gallery.js")):  # fmt: skip
        content = resources.files(package).joinpath("assets", name).read_bytes()
        write_atomically(out / "assets" / name, content)
    documents = [(document(name), entries(name, outcomes, quick=quick)) for name in DOCUMENTS]
    shared = {"size": size, "version": __version__, "counts": counts, "words": _STATES, "duration": duration}
    for at, (shown, rows) in enumerate(documents):
        around = (documents[at - 1][0] if at else None, documents[at + 1][0] if at + 1 < len(documents) else None)
        text = environment.get_template("document.html").render(document=shown, rows=rows, around=around, **shared)
        write_atomically(out / f"{shown.name}.html", unbroken(text).encode())
    failed = [(name, one.error) for name, one in outcomes.items() if one.error]
    processor = sum(one.processor for one in outcomes.values())
    text = environment.get_template("gallery.html").render(
        documents=documents, failed=failed, processor=processor, **shared
    )
    write_atomically(out / "index.html", unbroken(text).encode())
    return out / "index.html"


def counts(rows: list[Entry]) -> list[tuple[str, str, int]]:
    """Number of statements that hold, hold in part, do not hold, and were not measured: state, words, number."""
    return [
        (state or "none", _STATES[state], number)
        for state in (*HOLDS, "")
        if (number := sum(row.state == state for row in rows))
    ]


def duration(seconds: float) -> str:
    """Seconds in words.

    Examples
    --------
    >>> duration(4.2), duration(130), duration(7300)
    ('4 s', '2 min 10 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("microtome.gallery"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
