"""All stored results of a run, found by job, layer, unit and image, for the pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from microtome import registry
from microtome.atlas.commands import Commands
from microtome.atlas.pictures.downscaling import downscaled
from microtome.atlas.pictures.sprites import SpriteWriter
from microtome.atlas.planning.network_summary import maps_inside
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.site import slugs
from microtome.atlas.store import Store, recall, recall_small
from microtome.atlas.task import Refusal, Task
from microtome.atlas.widgets import Absent, Made, Picture, Sprite, to_image
from microtome.results import Result

__all__ = ["MISTAKES", "Album"]

R = TypeVar("R", bound=Result)
T = TypeVar("T")

MISTAKES = 24  # mistakes that are shown
_SIDE = 256  # pixels a side of an image on a page


class Album:
    """All results of a run, and what every page needs to know.

    Parameters
    ----------
    plan : Plan
        Network, images and budget.
    chosen : Selection
        What gets pages.
    store : Store
        Holds results and sprites.
    tasks : sequence of Task
        The tasks of the run, all done.
    commands : Commands
        Command lines for the pages.
    """

    def __init__(
        self, plan: Plan, chosen: Selection, store: Store, tasks: Sequence[Task], commands: Commands | None = None
    ) -> None:
        self.plan, self.chosen, self.store, self.commands = plan, chosen, store, commands or Commands({})
        self.net, self.subject, self.budget, self.layers = plan.net, plan.subject, plan.budget, plan.layers
        self.seen, self.tables, self.images = chosen.seen, chosen.tables, chosen.images
        self.pixelated = plan.small
        self.sprites = SpriteWriter(store, pixelated=self.pixelated)
        self._tasks: dict[str, list[Task]] = {}
        for task in tasks:
            self._tasks.setdefault(task.job, []).append(task)
        self._memory: dict[tuple[Any, ...], Any] = {}
        self._slugs = slugs(self.net.layers)
        self.thumbnails = self._thumbnails()

    # -- results -------------------------------------------------------------------------------------------------

    def find(self, job: str, **asked: Any) -> list[Task]:
        """The tasks of a job with these parameters."""
        return [
            task
            for task in self._tasks.get(job, [])
            if all(task.parameters.get(name) == value for name, value in asked.items())
        ]

    def load(self, task: Task) -> Result:
        """The result of a task."""
        return (recall_small if "image" in task.parameters or "images" in task.parameters else recall)(
            self.store.address, task.key
        )

    def one(self, kind: type[R], job: str, **asked: Any) -> R | Absent | None:
        """The result of the only such task; the reason why there is none; or None if it was not planned."""
        found = self.find(job, **asked)
        return self._result(kind, found[0]) if found else None

    def with_item(self, kind: type[R], job: str, items: str, item: int, **asked: Any) -> tuple[R, int] | Absent | None:
        """The result of the task whose list of ``items`` holds this item, and its place in the list."""
        for task in self.find(job, **asked):
            if item in task.parameters[items]:
                result = self._result(kind, task)
                if result is None or isinstance(result, Absent):
                    return result
                return result, task.parameters[items].index(item)
        return None

    def _result(self, kind: type[R], task: Task) -> R | Absent | None:
        result = self.load(task)
        if isinstance(result, Refusal):
            return Absent(sentence(result.reason))
        return result if isinstance(result, kind) else None

    def remembered(self, name: tuple[Any, ...], make: Callable[[], T]) -> T:
        """A value that several pages need, made once."""
        if name not in self._memory:
            self._memory[name] = make()
        found: T = self._memory[name]
        return found

    def paged(self, layer: str) -> list[int]:
        """The units of a layer that have pages, by number."""
        return sorted(self.chosen.units[layer])

    # -- layers --------------------------------------------------------------------------------------------------

    def source_layer(self, layer: str) -> str:
        """The shown layer whose units a layer passes on, through rectifiers and pooling; empty if there is none."""
        units = self.net.layers[layer].units if layer in self.net.layers else -1
        while layer in self.net.layers:
            found = self.net.layers[layer]
            if layer in self.layers:
                return layer if found.units == units else ""
            if len(found.inputs) != 1:
                return ""
            layer = found.inputs[0]
        return ""

    def without_weights(self, layer: str) -> Absent | None:
        """Why a layer is no single linear map, with the layers that are; None where it is one."""
        inside = maps_inside(self.net, layer)
        if inside == [layer]:
            return None
        kind = self.net.layer(layer).kind
        if not inside:
            return Absent(f"{layer} ({kind}) has no weights of its own.")
        named = ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")
        text = (
            f"{layer} ({kind}) is a block of {len(inside)} linear layers with operations between them, not one of them."
        )
        return Absent(f"{text} Each can be looked at alone: {named}.", f"--layers {inside[0]}")

    def slug(self, layer: str) -> str:
        """The name of a layer as a file name."""
        return self._slugs[layer]

    # -- images and classes --------------------------------------------------------------------------------------

    def class_name(self, index: int) -> str:
        """The name of a class, or its number."""
        classes = self.net.classes
        return classes[index] if classes is not None and 0 <= index < len(classes) else str(index)

    def image_id(self, index: int) -> str:
        """The address of the page of an image: its place in the data set."""
        return f"{index:0{max(4, len(str(len(self.subject.images) - 1)))}d}"

    def image_file(self, index: int) -> str:
        """An image as a command line names it."""
        return self.commands.image(self.subject.name(index))

    def answer(self, index: int) -> str:
        """The true and the predicted class of an image: ``"true 7, says 2"``."""
        predicted = self.class_name(int(self.seen.predicted[index]))
        truth = int(self.seen.labels[index])
        if truth < 0:
            return f"says {predicted}"
        return (
            f"a {predicted}"
            if truth == int(self.seen.predicted[index])
            else f"true {self.class_name(truth)}, says {predicted}"
        )

    def picture(self, index: int, note: str | None = None) -> Picture:
        """An image that has a page, as a link to it."""
        sprite, place = self.thumbnails[index]
        text = self.answer(index) if note is None else note
        return Picture(
            sprite, place, f"image {self.image_id(index)}, {self.answer(index)}", to_image(self.image_id(index)), text
        )

    def small(self, indices: Sequence[int]) -> Tensor:
        """Images at the size of a page."""
        return downscaled(self.subject.pictures(indices), _SIDE)

    def _thumbnails(self) -> dict[int, tuple[Sprite, int]]:
        """Sprites of the images that have pages, and of the mistakes."""
        wanted = sorted({*self.images, *self.seen.mistakes[:MISTAKES]})
        found: dict[int, tuple[Sprite, int]] = {}
        for number, start in enumerate(range(0, len(wanted), 100)):
            part = wanted[start : start + 100]
            sprite = self.sprites.natural(f"images-{number}", self.small(part))
            found.update({index: (sprite, place) for place, index in enumerate(part)})
        return found

    # -- words ---------------------------------------------------------------------------------------------------

    def made(self, result: Result, command: str = "") -> Made:
        """How a result was made, with its paper."""
        name = result.provenance.method
        method = registry.methods().get(name)
        return Made(
            method=name,
            parameters={key: value for key, value in result.provenance.parameters.items() if key != "target"},
            command=command,
            seed=result.provenance.seed,
            paper=method.reference if method else "",
            notes=tuple(note for note in result.notes if note not in result.provenance.notes),
        )


def sentence(text: str) -> str:
    """A message as a sentence."""
    return text[:1].upper() + text[1:] if text.endswith(".") else f"{text[:1].upper()}{text[1:]}."
