"""Run the measurements of the gallery in parallel, each in its own process, and write the pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from microtome.atlas.engine import available_cores
from microtome.errors import InputError
from microtome.gallery.gallery_pages import write_pages
from microtome.gallery.measurement_list import chosen
from microtome.gallery.measurement_process import side_by_side
from microtome.gallery.measurement_store import Outcome, stored

__all__ = ["Gallery", "gallery"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Gallery:
    """The result of a run of the gallery.

    Attributes
    ----------
    outcomes : dict of str to Outcome
        By measurement.
    page : Path
        The first page.
    seconds : float
        Of this run.
    """

    outcomes: dict[str, Outcome]
    page: Path
    seconds: float

    @property
    def failed(self) -> dict[str, str]:
        """Measurements without findings, with the reason."""
        return {name: one.error for name, one in self.outcomes.items() if one.error}

    def report(self) -> str:
        """Number of statements that hold, and the failed measurements."""
        holds = [finding.holds for one in self.outcomes.values() for finding in one.findings]
        counts = ", ".join(f"{word} {holds.count(word)}" for word in ("yes", "partly", "no"))
        lines = [f"{len(holds)} statements measured; hold: {counts}", f"{self.seconds:.0f} s"]
        lines += [f"not measured: {name}: {why}" for name, why in self.failed.items()]
        return "\n".join(lines)


def gallery(
    out: Path | str,
    *,
    quick: bool = True,
    photos: Path | str | None = None,
    only: Sequence[str] = (),
    workers: int | None = None,
    say: Say | None = None,
) -> Gallery:
    """Measure every statement of the documents and write one page for each document.

    Parameters
    ----------
    out : path
        Folder of the pages. Results of an earlier run of the same size, versions and photos are not
        measured again.
    quick : bool
        Smaller trainings, under 45 minutes on two cores; otherwise as in the documents, many hours.
    photos : path, optional
        A folder of photos named by ImageNet's classes, such as ``207_golden_retriever.jpeg``. Without it the
        measurements that need photos are left out, and the pages say so.
    only : sequence of str
        Names of measurements; default all.
    workers : int, optional
        Number of measurements at a time, each on one core; default one per core.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    Gallery

    Raises
    ------
    InputError
        If there is no such measurement or folder, or the number of workers is zero.
    StoreError
        When a page cannot be written.

    Notes
    -----
    Each measurement runs in its own process, the longest first. If one fails or its process ends, the run reports the
    reason and still makes the other measurements and the pages.
    """
    started, tell, folder = time.monotonic(), say or (lambda line: None), Path(out)
    place = None if photos is None else Path(photos)
    if place is not None and not place.is_dir():
        raise InputError(f"{place} is not a folder of photos.")
    count = available_cores() if workers is None else workers
    if count < 1:
        raise InputError(f"at least one process is needed, got --workers {count}.")
    wanted = chosen(tuple(only))
    outcomes: dict[str, Outcome] = {}
    waiting = []
    for one in wanted:
        done = stored(one, folder, quick=quick, photos=place)
        if done is not None:
            outcomes[one.name] = done
        elif one.photos and place is None:
            outcomes[one.name] = Outcome(one.name, error="it needs photos: give their folder with --data")
        else:
            waiting.append(one)
    tell(f"{len(wanted)} measurements: {len(wanted) - len(waiting)} done or left out, {len(waiting)} to make")
    waiting.sort(key=lambda one: -one.seconds[0 if quick else 1])
    for outcome in side_by_side(waiting, folder, quick, place, count, tell):
        outcomes[outcome.name] = outcome
        state = outcome.error or f"{len(outcome.findings)} findings in {outcome.seconds:.0f} s"
        tell(f"[{len(outcomes)}/{len(wanted)}] {outcome.name}: {state}")
    everything = {
        one.name: outcomes.get(one.name) or stored(one, folder, quick=quick, photos=place) for one in chosen()
    }
    page = write_pages(folder, {name: one for name, one in everything.items() if one is not None}, quick=quick)
    return Gallery({one.name: outcomes[one.name] for one in wanted}, page, time.monotonic() - started)
