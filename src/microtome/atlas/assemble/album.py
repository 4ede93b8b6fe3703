"""What has been computed, by what it is about? The results of a run, found by job, layer, unit and image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from microtome import registry
from microtome.atlas.assemble.commands import Commands
from microtome.atlas.choice import chosen_images
from microtome.atlas.findings import Refusal, Similarities, Tunings
from microtome.atlas.fit import fitted
from microtome.atlas.jobs import recall, recall_small
from microtome.atlas.pages import Absent, Made, Picture, to_image
from microtome.atlas.plan import Plan
from microtome.atlas.site import slugs
from microtome.atlas.sprites import Sheet
from microtome.atlas.stages import surveyed
from microtome.atlas.store import Store
from microtome.atlas.task import Task
from microtome.results import Result
from microtome.units import Similarity, Tuning

__all__ = ["Album"]

R = TypeVar("R", bound=Result)
T = TypeVar("T")

_SMALL = 64  # pixels a side up to which pixels are shown square


class Album:
    """All results of a run, and what every page needs to know.

    Parameters
    ----------
    plan : Plan
        Network, images and what is shown.
    store : Store
        Where results lie and sprites go.
    tasks : sequence of Task
        The run's tasks, all done.
    command : str
        The command that makes the atlas.
    """

    def __init__(self, plan: Plan, store: Store, tasks: Sequence[Task], command: str) -> None:
        self.plan, self.store, self.command = plan, store, command
        self.commands = Commands(command)
        self.net, self.subject, self.budget = plan.subject.net, plan.subject, plan.outline.budget
        self.seen, self.tables = surveyed(plan, store)
        self.images = chosen_images(self.seen, plan.outline.images)
        self.pixelated = max(self.net.input_shape[1:]) <= _SMALL
        self.sheet = Sheet(store, pixelated=self.pixelated)
        self._tasks: dict[str, list[Task]] = {}
        for task in tasks:
            self._tasks.setdefault(task.job, []).append(task)
        self._paged: dict[str, list[int]] = {}
        self._memory: dict[tuple[Any, ...], Any] = {}
        self._slugs = slugs(self.net.layers)
        self.thumbnails = self._thumbnails()

    # -- results -------------------------------------------------------------------------------------------------

    def find(self, job: str, **asked: Any) -> list[Task]:
        """The tasks of a job whose parameters are these."""
        return [
            task
            for task in self._tasks.get(job, [])
            if all(task.parameters.get(name) == value for name, value in asked.items())
        ]

    def load(self, task: Task) -> Result:
        """A task's result."""
        small = task.job in ("explain", "strongest", "walk")
        return (recall_small if small else recall)(self.store.address, task.key)

    def one(self, kind: type[R], job: str, **asked: Any) -> R | Absent | None:
        """The result of the only such task, why it cannot exist, or None if it was not asked for."""
        found = self.find(job, **asked)
        if not found:
            return None
        result = self.load(found[0])
        if isinstance(result, Refusal):
            return Absent(sentence(result.reason))
        return result if isinstance(result, kind) else None

    def remembered(self, name: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What several pages need, made once."""
        if name not in self._memory:
            self._memory[name] = make()
        found: T = self._memory[name]
        return found

    def label(self, layer: str, unit: int) -> str:
        """What a unit is tuned to, in words; empty where that was not asked."""
        tuning = self.tuning(layer)
        return tuning.label(unit) if tuning is not None and 0 <= unit < len(tuning.labels) else ""

    def tuning(self, layer: str) -> Tuning | None:
        """The tuning of a layer's units, where it was asked for."""
        found = self.remembered(("tuning",), lambda: self.one(Tunings, "tuning"))
        return found.layers.get(layer) if isinstance(found, Tunings) else None

    def alike(self, layer: str) -> Similarity | Absent | None:
        """How alike a layer's units answer."""
        found = self.remembered(("similar",), lambda: self.one(Similarities, "similar"))
        return found.layers.get(layer) if isinstance(found, Similarities) else found

    def origin(self, layer: str) -> str:
        """The shown layer whose units a layer passes on, through rectifiers and pooling; empty if there is none."""
        units = self.net.layers[layer].units if layer in self.net.layers else -1
        while layer in self.net.layers:
            found = self.net.layers[layer]
            if layer in self.plan.outline.layers:
                return layer if found.units == units else ""
            if len(found.inputs) != 1:
                return ""
            layer = found.inputs[0]
        return ""

    def small(self, indices: Sequence[int]) -> Tensor:
        """Some images at the size they are shown."""
        return fitted(self.subject.pictures(indices), 256)

    def paged(self, layer: str) -> list[int]:
        """The units of a layer that have pages."""
        if layer not in self._paged:
            self._paged[layer] = sorted(self.plan.shown(self.tables[layer]))
        return self._paged[layer]

    # -- words and pictures ----------------------------------------------------------------------------------------

    def class_name(self, index: int) -> str:
        """A class's name, or its number."""
        classes = self.net.classes
        return classes[index] if classes is not None and 0 <= index < len(classes) else str(index)

    def slug(self, layer: str) -> str:
        """A layer's name as a file name."""
        return self._slugs[layer]

    def image_id(self, index: int) -> str:
        """The address of an image's page: its place in the data set."""
        return f"{index:0{max(4, len(str(len(self.subject.images) - 1)))}d}"

    def image_file(self, index: int) -> str:
        """An image as a command line names it."""
        return self.commands.image(self.subject.name(index))

    def answer(self, index: int) -> str:
        """What an image is and what the network says: ``"true 7, says 2"``."""
        said = self.class_name(int(self.seen.said[index]))
        truth = int(self.seen.labels[index])
        if truth < 0:
            return f"says {said}"
        return f"a {said}" if truth == int(self.seen.said[index]) else f"true {self.class_name(truth)}, says {said}"

    def picture(self, index: int, note: str | None = None) -> Picture:
        """An image that has a page, as a link to it."""
        sprite, place = self.thumbnails[index]
        text = self.answer(index) if note is None else note
        return Picture(
            sprite, place, f"image {self.image_id(index)}, {self.answer(index)}", to_image(self.image_id(index)), text
        )

    def _thumbnails(self) -> dict[int, tuple[Any, int]]:
        """Sprites of the images that have pages, and of the mistakes."""
        wanted = sorted({*self.images, *self.mistakes(24)})
        found: dict[int, tuple[Any, int]] = {}
        for number, start in enumerate(range(0, len(wanted), 100)):
            part = wanted[start : start + 100]
            pictures = fitted(self.subject.pictures(part), 256)
            sprite = self.sheet.natural(f"images-{number}", pictures)
            found.update({index: (sprite, place) for place, index in enumerate(part)})
        return found

    def mistakes(self, count: int) -> list[int]:
        """Images taken for another class, the surest first."""
        wrong = self.seen.wrong.nonzero()[:, 0]
        sure = self.seen.readout.amax(1)
        return [int(index) for index in wrong[(-sure[wrong]).argsort(stable=True)][:count]]

    def made(self, result: Result, command: str = "") -> Made:
        """How a result is made, with its paper."""
        name = result.provenance.method
        method = registry.methods().get(name)
        return Made(
            method=name,
            parameters={key: value for key, value in result.provenance.parameters.items() if key != "target"},
            command=command,
            seed=result.provenance.seed,
            paper=method.reference if method else "",
        )


def sentence(text: str) -> str:
    """A message as a sentence."""
    return text[:1].upper() + text[1:] if text.endswith(".") else f"{text[:1].upper()}{text[1:]}."
