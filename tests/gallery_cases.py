"""Measurements for tests of the gallery's run: one that works, one that fails, one whose process ends."""

from __future__ import annotations

import os

from microtome.errors import InputError
from microtome.gallery.finding import Drawn, Finding, Workplace
from microtome.gallery.measurement_list import Measurement

ANSWER = ("vector-spaces", "one-layer-accuracy")


def works(place: Workplace) -> list[Finding]:
    """One finding with a picture; each call leaves a mark."""
    with (place.folder / "calls").open("a", encoding="utf-8") as file:
        file.write("x")
    place.tell("at work")
    (place.folder / "seen.png").write_bytes(b"picture")
    return [
        Finding(*ANSWER, "91 %", "91 of <100> are right", "partly", "few epochs", (Drawn("seen.png", "What is seen"),))
    ]


def fails(place: Workplace) -> list[Finding]:
    """Something that is not the user's fault."""
    raise ZeroDivisionError("by nothing")


def refuses(place: Workplace) -> list[Finding]:
    """Something that the user can mend."""
    raise InputError("the folder is empty.")


def dies(place: Workplace) -> list[Finding]:
    """The process ends, as where memory does not suffice."""
    os._exit(9)


def strays(place: Workplace) -> list[Finding]:
    """A finding for another statement."""
    return [Finding("vector-spaces", "five-layer-accuracy", "1", "1", "yes")]


def case(name: str, *, photos: bool = False) -> Measurement:
    """The measurement of that name."""
    return Measurement(name, f"gallery_cases:{name}", (ANSWER,), (1, 1), photos)
