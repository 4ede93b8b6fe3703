"""A measurement with its result stored in its folder, so that it is not repeated."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microtome.errors import MicrotomeError, StoreError
from microtome.gallery.finding import Finding, Workplace
from microtome.gallery.measurement_list import Measurement
from microtome.results import versions, write_atomically

__all__ = ["Outcome", "key", "measure", "stored"]

_FILE = "findings.json"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a measurement.

    Attributes
    ----------
    name : str
    findings : list of Finding
        None if it failed or has not run.
    seconds, processor : float
        Wall-clock time and processor time.
    command : str
        The command that repeats it.
    seed : int
    versions : dict of str to str
    error : str
        Why there are no findings; empty if there are.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    processor: float = 0.0
    command: str = ""
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""


def key(one: Measurement, *, quick: bool, photos: Path | None) -> str:
    """A digest of what determines the findings: the measurement, its size, the photos and the versions."""
    files = sorted((path.name, path.stat().st_size) for path in photos.iterdir()) if one.photos and photos else []
    what = [one.name, one.answers, quick, files, versions()]
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=8).hexdigest()


def stored(one: Measurement, folder: Path, *, quick: bool, photos: Path | None) -> Outcome | None:
    """The outcome stored in the folder; None if there is none, if it failed, or if it belongs to other settings."""
    file = folder / one.name / _FILE
    if not file.is_file():
        return None
    try:
        saved: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if saved["key"] != key(one, quick=quick, photos=photos):
            return None
        findings = [Finding.from_json(row) for row in saved["findings"]]
        record = {name: saved[name] for name in ("seconds", "processor", "command", "seed", "versions")}
    except (OSError, ValueError, KeyError, StoreError):
        return None  # cut short or damaged: it is measured again
    if not all((file.parent / drawn.file).is_file() for finding in findings for drawn in finding.pictures):
        return None
    return Outcome(one.name, findings, **record)


def measure(
    one: Measurement, folder: Path, *, quick: bool, photos: Path | None, say: Callable[[str], None] | None = None
) -> Outcome:
    """Carry out a measurement and store its findings; a failure is an outcome, too.

    Notes
    -----
    Only ``KeyboardInterrupt`` and similar exceptions are passed on. The traceback of a failure that is not the user's
    lies in ``error.txt`` beside the findings.
    """
    place = Workplace(folder / one.name, quick, photos, say)
    started, processor = time.monotonic(), time.process_time()
    command = f"microtome reproduce all --only {one.name} {'--quick' if quick else '--full'}"
    command += " --data PHOTOS" if one.photos else ""
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        (place.folder / "error.txt").unlink(missing_ok=True)
        found = one.run(place)
    except MicrotomeError as error:
        return Outcome(one.name, command=command, error=str(error))
    except Exception as error:
        trace = traceback.format_exc()
        write_atomically(place.folder / "error.txt", trace.encode())
        return Outcome(one.name, command=command, error=f"{type(error).__name__}: {error} (see {one.name}/error.txt)")
    outcome = Outcome(
        one.name, found, time.monotonic() - started, time.process_time() - processor, command, 0, versions()
    )
    content = {
        "key": key(one, quick=quick, photos=photos),
        "seconds": outcome.seconds,
        "processor": outcome.processor,
        "command": command,
        "seed": outcome.seed,
        "versions": outcome.versions,
        "findings": [finding.as_json() for finding in found],
    }
    write_atomically(place.folder / _FILE, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return outcome
