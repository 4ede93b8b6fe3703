"""Stored rounds of an interrupted pruning, checked against the call that resumes it."""

from __future__ import annotations

from pathlib import Path

from microtome.data import Dataset
from microtome.data.noted_images import NotedImages
from microtome.errors import StoreError
from microtome.network import Network
from microtome.results import Provenance, load
from microtome.surgery.pruning.pruning_results import PruningRound


def identity(dataset: Dataset) -> dict[str, object]:
    """The identity of a data set: the number of images, and their checksums and labels; it is read once."""
    noted = NotedImages.read(dataset)
    return {"images": len(dataset), "compared": noted.checksums, "labels": noted.labels}


def stored_round(file: Path, note: Provenance, net: Network) -> PruningRound:
    """A round of an earlier call, with its network.

    Raises
    ------
    StoreError
        If the file holds something else, or a round with another network, other data or other options.
    """
    one = load(file)
    if not isinstance(one, PruningRound):
        raise StoreError(f"{file} holds {type(one).__name__}, not a round of pruning; choose another folder.")
    made = one.provenance
    if made.fingerprint != note.fingerprint:
        raise StoreError(f"{file} is a round of another network; choose another folder.")
    other = [name for name, value in note.parameters.items() if made.parameters.get(name) != value]
    if other or made.seed != note.seed:
        name = other[0] if other else "seed"
        was = made.parameters.get(name) if other else made.seed
        raise StoreError(
            f"{file} was made with {name}={was!r}, not {note.parameters[name] if other else note.seed!r}; choose "
            "another folder, or the same options."
        )
    one.attach(one.rebuild(net))
    return one
