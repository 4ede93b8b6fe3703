"""All stored results of a run, found by job, layer, unit and image, for the pages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
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
from microtome.atlas.wording import sentence, with_article
from microtome.results import Result
from microtome.units.wiring.channel_sources import same_channels

__all__ = ["MISTAKES", "Album"]

R = TypeVar("R", bound=Result)
T = TypeVar("T")

MISTAKES = 24  # number of mistakes shown
_WHOLE = 1000  # further images, without pages, that are shown whole behind their patches
_SIDE = 256  # side of an image on a page in pixels
_IN_ONE_FILE = {False: 8, True: 100}  # images in one file, of photos and of small images: a page loads few files


class Album:
    """All results of a run, and what every page needs to know.

    Parameters
    ----------
    plan : Plan
        Network, images and budget.
    chosen : Selection
        The layers, units, images and classes with pages.
    store : Store
        Holds results and sprites.
    tasks : sequence of Task
        The tasks of the run, all done.
    commands : Commands
        Command lines for the pages.
    failed : mapping of str to str
        By key of a failed task the reason; pages show it instead of the result.
    """

    def __init__(
        self,
        plan: Plan,
        chosen: Selection,
        store: Store,
        tasks: Sequence[Task],
        commands: Commands | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        self._failed = dict(failed or {})
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
        """The result of a task; a refusal if the task failed."""
        if task.key in self._failed:
            return Refusal.of(self.net, task, f"It could not be computed: {self._failed[task.key]}")
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
        """A value that several pages need, computed once."""
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
        below = layer
        while below in self.net.layers and below not in self.layers:
            inputs = self.net.layers[below].inputs
            below = inputs[0] if len(inputs) == 1 else ""
        if below == layer or below not in self.layers:
            return below if below in self.layers else ""
        return below if same_channels(self.net, below, layer, made=True) else ""

    def read_layer(self, layer: str) -> str:
        """The shown layer whose units are the input channels of a layer, in their order; empty if there is none."""
        inputs = self.net.layer(layer).inputs
        return self.source_layer(inputs[0]) if inputs and same_channels(self.net, inputs[0], layer) else ""

    def without_weights(self, layer: str) -> Absent | None:
        """Why a layer is no single linear map, with the layers that are; None if it is one."""
        inside = maps_inside(self.net, layer)
        if inside == [layer]:
            return None
        kind = self.net.layer(layer).kind
        if not inside:
            return Absent(f"{layer} ({kind}) has no weights of its own.")
        named = ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")
        text = f"{layer} ({kind}) is a block of {len(inside)} linear layers with operations between them."
        return Absent(f"{text} Each layer can be shown alone: {named}.", self.commands.atlas(layers=inside[0]))

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
        """The true and the predicted class of an image: ``"a 7, taken for a 2"``."""
        predicted = with_article(self.class_name(int(self.seen.predicted[index])))
        truth = int(self.seen.labels[index])
        if truth < 0:
            return f"taken for {predicted}"
        if truth == int(self.seen.predicted[index]):
            return predicted
        return f"{with_article(self.class_name(truth))}, taken for {predicted}"

    def picture(self, index: int, note: str | None = None) -> Picture:
        """An image that has a page, as a link to it."""
        sprite, place = self.thumbnails[index]
        text = self.answer(index) if note is None else note
        return Picture(
            sprite, place, f"image {self.image_id(index)}, {self.answer(index)}", to_image(self.image_id(index)), text
        )

    def whole(self, index: int) -> Picture | None:
        """The whole image behind its patches; None beyond the first thousand of such images."""
        found = self.thumbnails.get(index) or self.remembered(("whole",), self._patched).get(index)
        if found is None:
            return None
        link = to_image(self.image_id(index)) if index in self.images else None
        return Picture(*found, f"image {self.image_id(index)}, {self.answer(index)}", link)

    def _patched(self) -> dict[int, tuple[Sprite, int]]:
        """Sprites of the images that patches of units with pages come from, those of the strongest patches first."""
        wanted: dict[int, None] = {}
        for name in ("image", "low_image", "binned_image"):
            for layer in self.layers:
                column = getattr(self.tables[layer], name)[self.paged(layer)]
                wanted.update(dict.fromkeys(column.T.flatten().tolist()))
        known = [index for index in wanted if index >= 0 and index not in self.thumbnails]
        return self._in_files("whole", sorted(known[:_WHOLE]))

    def small(self, indices: Sequence[int]) -> Tensor:
        """Images at the size of a page."""
        return downscaled(self.subject.pictures(indices), _SIDE)

    def _thumbnails(self) -> dict[int, tuple[Sprite, int]]:
        """Sprites of the images that have pages, and of the mistakes."""
        wanted = sorted({*self.images, *self.seen.mistakes[:MISTAKES]})
        return self._in_files("images", wanted)

    def _in_files(self, name: str, wanted: Sequence[int]) -> dict[int, tuple[Sprite, int]]:
        """Sprites of some images, a few images in each file."""
        found: dict[int, tuple[Sprite, int]] = {}
        each = _IN_ONE_FILE[self.pixelated]
        for number, start in enumerate(range(0, len(wanted), each)):
            part = wanted[start : start + each]
            sprite = self.sprites.natural(f"{name}-{number}", self.small(part))
            found.update({index: (sprite, place) for place, index in enumerate(part)})
        return found

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """(classes,) labelled images of each class."""
        return torch.bincount(self.seen.labels[self.seen.known], minlength=self.seen.logits.shape[1])

    @property
    def classes_measured(self) -> bool:
        """Whether statistics by class are meaningful: at least two classes with at least two images."""
        return int((self.class_counts >= 2).sum()) >= 2

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
