"""The stored results of an atlas, for the explorer of the same network: patches, superstimuli, pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microtome.atlas.planning.budget import Budget, budget
from microtome.atlas.planning.network_summary import network_summary
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import select
from microtome.atlas.site import slugs
from microtome.atlas.store import MARK, OPTIONS, Store
from microtome.atlas.task import Task
from microtome.atlas.topics.units.unit_superstimuli import SUPERSTIMULI
from microtome.errors import StoreError
from microtome.loading import Subject
from microtome.synthesis import Superstimuli
from microtome.units import LayerPatches

__all__ = ["AtlasResults", "atlas_options"]

_SERVED = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}


def atlas_options(folder: Path) -> dict[str, str]:
    """The options of the command line that made an atlas, by name.

    Raises
    ------
    StoreError
        The folder is not an atlas, or an older one without the options that made it.
    """
    if not (folder / MARK).is_file():
        raise StoreError(
            f"{folder} is not an atlas: it holds no {MARK}. Make one with `microtome atlas`, or give --model."
        )
    if not (folder / OPTIONS).is_file():
        raise StoreError(
            f"the atlas {folder} does not name its model: it was made from an object in Python, or by an "
            "older version. Give --model, --weights and --data as when it was made."
        )
    try:
        found = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no table of options")
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / OPTIONS} cannot be read: {error}.") from error
    return {str(name): str(value) for name, value in found.items()}


class AtlasResults:
    """What an atlas holds of a network.

    Parameters
    ----------
    folder : Path
        The atlas.
    subject : Subject
        The network and images that it was made of.
    options : mapping
        The command-line options that made it; ``budget``, ``layers`` and ``images`` determine which results exist.

    size : Budget, optional
        The user's own budget, if it was made with one.

    Raises
    ------
    StoreError
        The atlas is of another network.
    """

    def __init__(self, folder: Path, subject: Subject, options: Mapping[str, str], size: Budget | None = None) -> None:
        self._check(folder, subject)
        self._store = Store(folder)
        layers = [name.strip() for name in options["layers"].split(",")] if "layers" in options else None
        images = int(options["images"]) if "images" in options else None
        chosen = size or budget(options.get("budget", "quick"))
        plan = Plan(network_summary(subject, chosen, layers, images), subject)
        self._selected = select(plan, self._store)
        self._stimuli: dict[str, list[Task]] = {}
        for task in SUPERSTIMULI.tasks(plan, self._selected):
            if task.job == "maximize":
                self._stimuli.setdefault(str(task.parameters["layer"]), []).append(task)
        # By the address that a browser requests: requests reach the file system only through this table.
        self.files: dict[str, tuple[Path, str]] = {
            path.relative_to(folder).as_posix(): (path, _SERVED[path.suffix])
            for path in sorted(folder.rglob("*"))
            if path.suffix in _SERVED and path.is_file() and not path.is_symlink()
        }
        self._slugs = slugs(plan.layers)

    @staticmethod
    def _check(folder: Path, subject: Subject) -> None:
        try:
            manifest: dict[str, Any] = json.loads((folder / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder} is not an atlas: {error}.") from error
        if manifest.get("fingerprint") != subject.net.fingerprint:
            raise StoreError(
                f"the atlas {folder} is of another network (fingerprint {manifest.get('fingerprint')}, the given one "
                f"has {subject.net.fingerprint}); give the weights and options that it was made with."
            )

    def patches(self, layer: str) -> LayerPatches | None:
        """The strongest patches of a layer's units, if the atlas has them."""
        return self._selected.tables.layers.get(layer)

    def superstimuli(self, layer: str, unit: int) -> list[tuple[Superstimuli, int]]:
        """Superstimuli of the unit: results and positions in them; images that raise the unit come first."""
        found = []
        for task in self._stimuli.get(layer, []):
            if (
                unit not in task.parameters["channels"]
                or task.parameters["sign"] != 1
                or not self._store.done(task.key)
            ):
                continue
            result = self._store.load(task.key)
            if isinstance(result, Superstimuli):
                found += [(result, place) for place, one in enumerate(result.channel.tolist()) if one == unit]
        return found

    def page(self, layer: str, unit: int) -> str:
        """The address of the unit's page; empty if it has none."""
        address = f"units/{self._slugs[layer]}/{unit}.html" if layer in self._slugs else ""
        return address if address in self.files else ""
