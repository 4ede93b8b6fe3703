"""What has to be computed for an atlas? Tasks, as many as the budget lasts for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from microtome import registry
from microtome.atlas.choice import chosen_classes, questions
from microtome.atlas.findings import Predictions
from microtome.atlas.outline import Outline, work
from microtome.atlas.spaces import maps_inside
from microtome.atlas.task import Task, task
from microtome.loading import Subject
from microtome.synthesis import recommended_size
from microtome.units import LayerPatches, TopPatches

__all__ = ["Plan"]

_BLOCK = 32  # units in one task
_BATCH = 4  # images in one task
_ATTENTION = frozenset(("softmax", "scaled_dot_product_attention", "multi_head_attention_forward"))
_SLOW = {"integrated-gradients": 120.0, "smooth-grad": 60.0, "lrp": 8.0, "deep-taylor": 8.0}  # forward passes of a map


@dataclass(frozen=True)
class Plan:
    """Names the tasks of a run.

    Attributes
    ----------
    outline : Outline
        What is shown.
    subject : Subject
        Network and images.
    """

    outline: Outline
    subject: Subject

    # -- the first look ------------------------------------------------------------------------------------------

    def survey(self) -> list[Task]:
        """Tasks that look at all images once."""
        return [self.predictions(), self.patches()]

    def predictions(self) -> Task:
        """The class scores of all images."""
        return self.task("predictions", cost=self.seconds * len(self.subject.images), batch=self._batch())

    def patches(self) -> Task:
        """The table of patches of all units."""
        size = self.outline.budget
        return self.task(
            "patches", cost=1.5 * self.seconds * len(self.subject.images),
            layers=list(self.outline.surveyed), k=size.patches, bins=size.bins, batch=self._batch(),
        )  # fmt: skip

    # -- what is made of it --------------------------------------------------------------------------------------

    def details(self, seen: Predictions, tables: TopPatches, images: Sequence[int]) -> list[Task]:
        """Tasks for layers, units, classes, and the images that were chosen."""
        found = [*self.explanations(seen, images), *self.strongest(images), *self.walks(seen, images)]
        found += self.image_sheets(seen, images)
        for layer in self.outline.layers:
            found += self.unit_tasks(layer, tables[layer])
        return [*found, self.similarity(), *self.tunings(), *self.classes(seen)]

    def explanations(self, seen: Predictions, images: Sequence[int]) -> list[Task]:
        """Every attribution method on every chosen image, for the class said and for one other."""
        found = []
        for name in self._methods():
            passes = self._passes(name)
            options = self._occlusion() if name == "occlusion" else {}
            # What takes many passes is asked for the other class too only where passes are cheap.
            both = passes <= 10 or passes * len(images) * self.seconds <= self.outline.budget.explanations
            alone = passes > 10 and not self._small()  # many windows or samples of several images take gigabytes
            for block in _blocks(images, 1 if alone else _BATCH):
                for target in questions(seen, block)[: 2 if both else 1]:
                    cost = passes * len(block) * self.seconds
                    found.append(self.task("explain", cost=cost, method=name, images=block, target=target, **options))
        return found

    def _methods(self) -> list[str]:
        """Every attribution method, and those that read attention where the network has any."""
        operations = {
            layer.operation.rpartition("/")[2].partition(".")[0] for layer in self.subject.net.layers.values()
        }
        kinds = registry.EXPLAINING if operations & _ATTENTION else ("attribution",)
        return list(registry.methods(kinds))

    def _passes(self, method: str) -> float:
        """How many forward passes a map costs, about."""
        if method == "occlusion":
            options = self._occlusion()
            places = [(side - options["window"]) // options["stride"] + 1 for side in self.subject.net.input_shape[1:]]
            return float(math.prod(places))
        return _SLOW.get(method, 4.0)

    def strongest(self, images: Sequence[int]) -> list[Task]:
        """The activation maps of the chosen images."""
        return [
            self.task(
                "strongest", cost=len(block) * self.seconds, images=block, layers=list(self.outline.layers), units=12
            )
            for block in _blocks(images, _BATCH)
        ]

    def walks(self, seen: Predictions, images: Sequence[int]) -> list[Task]:
        """The score of the class said, taken apart, of every chosen image."""
        layers = list(self.outline.layers)
        return [
            self.task("walk", cost=80 * self.seconds, image=index, target=int(seen.said[index]), layers=layers)
            for index in images
        ]

    def image_sheets(self, seen: Predictions, images: Sequence[int]) -> list[Task]:
        """The unit that speaks most for the class said, dissected, of every chosen image."""
        return [
            self.task("image-sheet", cost=8 * self.seconds, image=index, target=int(seen.said[index]))
            for index in images
        ]

    def unit_tasks(self, layer: str, table: LayerPatches) -> list[Task]:
        """Everything about the units of one layer."""
        shown = sorted(self.shown(table))
        alone = maps_inside(self.subject.net, layer) == [layer]  # only one linear map has weights to look at
        found = [self.task("filters", sees=False, cost=self._fit_cost(layer), layer=layer)] if alone else []
        found += [self.task("connections", sees=False, cost=0.3, layer=layer, units=shown)]
        found += self.stimuli(layer, self.shown(table))
        found += self.reconstructions(layer, self.shown(table))
        for block in _blocks(shown[: self.outline.budget.sheets] if alone else [], _BLOCK):
            cost = len(block) * self._upto(layer)
            found.append(self.task("sheets", needs=(self.patches().key,), cost=cost, layer=layer, units=block))
        return [*found, *self.ablations(layer, self.shown(table))]

    def _fit_cost(self, layer: str) -> float:
        """A Gabor function is fitted to each filter that reads the image."""
        found = self.subject.net.layer(layer)
        return 0.2 * found.units if "input" in found.inputs else 0.1

    def reconstructions(self, layer: str, shown: Sequence[int]) -> list[Task]:
        """The strongest patches taken back to the pixels, as many as the budget lasts for."""
        size = self.outline.budget
        each = 3 * self._upto(layer)
        affordable = size.reconstructions / len(self.outline.layers) / each
        most = size.patches if self._small() else size.reconstructed
        ranks = max(1, int(min(most, affordable / len(shown))))
        kept = shown[: max(1, int(min(len(shown), affordable)))]
        return [
            self.task(
                "reconstruct", needs=(self.patches().key,), cost=len(block) * ranks * each,
                layer=layer, units=block, ranks=ranks, batch=16 if self._small() else 4,
            )
            for block in _blocks(sorted(kept), _BLOCK)
        ]  # fmt: skip

    def tunings(self) -> list[Task]:
        """Tuning of the lower layers, as many as the budget lasts for, in one pass over the stimuli."""
        layers = list(self.outline.layers)
        while layers and self._tuning_cost(layers) > self.outline.budget.tunings:
            layers.pop()
        return (
            [self.task("tuning", sees=False, cost=self._tuning_cost(layers), layers=layers, batch=self._batch())]
            if layers
            else []
        )

    def _tuning_cost(self, layers: Sequence[str]) -> float:
        """One pass over the stimuli up to the last layer, a look at each value, a gradient for each unit."""
        shown = 1450 if max(self.subject.net.input_shape[1:]) > 64 else 600
        found = shown * max(self._upto(name) for name in layers)
        for name in layers:
            layer = self.subject.net.layer(name)
            found += 4e-8 * shown * math.prod(layer.shape) + 3 * layer.units * self._upto(name)
        return found

    def similarity(self) -> Task:
        """How alike the units of each layer answer, in one pass over some images."""
        layers = list(self.outline.layers)
        images = self._sample(self.outline.budget.similarities / self.seconds)
        cost = 1.5 * len(images) * self.seconds
        return self.task("similar", cost=cost, layers=layers, images=images, batch=self._batch())

    def ablations(self, layer: str, shown: Sequence[int]) -> list[Task]:
        """Units set to zero one by one, as many as the budget lasts for."""
        total = sum(len(self.shown_count(name)) for name in self.outline.layers)
        after = max(self.seconds - self._upto(layer), 0.3 * self.seconds)
        images = self._sample(self.outline.budget.ablations / (total * self.seconds))
        affordable = int(self.outline.budget.ablations / len(self.outline.layers) / (len(images) * after))
        kept = sorted(list(shown)[:affordable])
        batch = 64 if self._small() else 8  # every value of a pass is kept, to run from the layer on
        return [
            self.task(
                "ablate", cost=len(block) * len(images) * after, layer=layer, units=block, images=images, batch=batch
            )
            for block in _blocks(kept, 8)
        ]

    def shown_count(self, layer: str) -> range:
        """As many numbers as units of a layer get pages."""
        units = self.subject.net.layer(layer).units
        return range(units if self._all_shown() else min(units, self.outline.budget.units))

    def _sample(self, affordable: float) -> list[int]:
        """Images spread evenly over the data set: at least 32, at most what the budget says."""
        total = len(self.subject.images)
        count = min(total, max(32, int(min(affordable, self.outline.budget.sample))))
        return [place * total // count for place in range(count)]

    def stimuli(self, layer: str, shown: Sequence[int]) -> list[Task]:
        """Superstimuli that raise and that lower units, as many as the budget lasts for."""
        size = self.outline.budget
        step = 3 * self._upto(layer) * self._canvas(layer)
        more = self.diverse()
        each = size.steps * step * (2 + more)
        affordable = size.stimuli / len(self.outline.layers) / each
        kept = list(shown) if affordable >= len(shown) else list(shown)[: max(1, int(affordable))]
        found = []
        for sign, diverse in ((1, 1), (-1, 1)) if not more else ((1, 1), (-1, 1), (1, more)):
            for block in _blocks(sorted(kept), _BLOCK):
                cost = len(block) * diverse * size.steps * step
                options: dict[str, Any] = {
                    "layer": layer,
                    "channels": block,
                    "sign": sign,
                    "diverse": diverse,
                    "steps": size.steps,
                }
                found.append(self.task("maximize", cost=cost, sees=False, **options))
        return found

    def _small(self) -> bool:
        """Whether pictures are so small that memory is no concern."""
        return max(self.subject.net.input_shape[1:]) <= 64

    def _batch(self) -> int:
        """Images at a time: what the values of a pass over large pictures leave of a processor's cache."""
        return 64 if self._small() else 4

    def _canvas(self, layer: str) -> float:
        """By how much a superstimulus is smaller than a picture, in pixels."""
        side = recommended_size(self.subject.net, layer)
        _, height, width = self.subject.net.input_shape
        return 1.0 if side is None else side * side / (height * width)

    def diverse(self) -> int:
        """How many further superstimuli a unit gets: small pictures are cheap enough for two in any budget."""
        return max(self.outline.budget.diverse, 2 if self._small() else 0)

    def class_count(self) -> int:
        """How many classes get a page: at most what the budget says, and as many images as a third of it lasts for."""
        size = self.outline.budget
        each = size.steps * 3 * self.seconds
        return max(1, min(size.classes, int(min(size.stimuli / 3 / each, 1e9))))

    def classes(self, seen: Predictions) -> list[Task]:
        """Images made for class scores."""
        size = self.outline.budget
        return [
            self.task(
                "maximize-class", cost=len(block) * size.steps * 3 * self.seconds, sees=False,
                classes=block, steps=size.steps,
            )
            for block in _blocks(chosen_classes(seen, self.class_count()), 5)
        ]  # fmt: skip

    def shown(self, table: LayerPatches) -> list[int]:
        """The units of a layer that get pages, the most selective first."""
        order = (-table.selectivity).argsort(stable=True)
        ranked: list[int] = order[torch.argsort(table.dead[order].int(), stable=True)].tolist()
        return ranked if self._all_shown() else ranked[: self.outline.budget.units]

    # -- parts ---------------------------------------------------------------------------------------------------

    def task(
        self, job: str, *, cost: float = 1.0, sees: bool = True, needs: tuple[str, ...] = (), **options: Any
    ) -> Task:
        """Name a task of this network, and of its images where it sees them."""
        data = self.subject.fingerprint if sees else ""
        return task(job, self.subject.net.fingerprint, data, needs=needs, cost=cost, **options)

    def _all_shown(self) -> bool:
        return sum(self.subject.net.layer(name).units for name in self.outline.layers) <= self.outline.budget.many

    @property
    def seconds(self) -> float:
        """Expected seconds of one image's forward pass on one core."""
        return self.outline.seconds

    def _upto(self, layer: str) -> float:
        return self.seconds * max(work(self.subject.net, layer) / max(work(self.subject.net), 1.0), 0.02)

    def _occlusion(self) -> dict[str, Any]:
        """A window of a seventh of the picture, at as many places as the budget has."""
        height, width = self.subject.net.input_shape[1:]
        window = max(2, min(height, width) // 7)
        stride = max(1, math.ceil((max(height, width) - window) / max(1, self.outline.budget.windows - 1)))
        return {"window": min(window, height, width), "stride": stride}


def _blocks(items: Sequence[int], size: int) -> list[list[int]]:
    return [[int(item) for item in items[start : start + size]] for start in range(0, len(items), size)]
