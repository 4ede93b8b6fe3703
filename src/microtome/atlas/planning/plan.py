"""The plan: network, images, budget and the cost of passes, from which every topic plans its tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microtome.atlas.planning.budget import Budget
from microtome.atlas.planning.network_summary import NetworkSummary, maps_inside, small_images, work
from microtome.atlas.task import Task, task
from microtome.loading import Subject
from microtome.network import Network

__all__ = ["Plan", "blocks"]

_SHARDS = 1024  # maximum number
_STEP = {True: 3.0, False: 2.0}  # cost of a step of ascent in forward passes, on small images and on photos


@dataclass(frozen=True)
class Plan:
    """The frame in which topics plan their tasks.

    Attributes
    ----------
    summary : NetworkSummary
        Layers and number of images to show.
    subject : Subject
        Network and images.
    methods : tuple of str
        The user's own attribution methods: ``file.py:function``.
    """

    summary: NetworkSummary
    subject: Subject
    methods: tuple[str, ...] = ()

    @property
    def net(self) -> Network:
        """The network."""
        return self.subject.net

    @property
    def budget(self) -> Budget:
        """How much is made."""
        return self.summary.budget

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose units get pages."""
        return self.summary.layers

    def task(
        self,
        job: str,
        *,
        cost: float,
        sees: bool = True,
        of_run: bool = False,
        needs: tuple[str, ...] = (),
        gathers: bool = False,
        interim: bool = False,
        **options: Any,
    ) -> Task:
        """Name a task of this network.

        Parameters
        ----------
        job : str
            The name of the job in its topic.
        cost : float
            Expected seconds on one core.
        sees : bool
            Whether the result depends on the images.
        of_run : bool
            Whether the result depends on the training, ``subject.run``.
        needs : tuple of str
            Keys of the tasks whose results the job takes.
        gathers, interim : bool
            See ``Task``: results are loaded one at a time; the result is removed when no task needs it any more.
        **options
            The keyword arguments of the job, as JSON can hold them.
        """
        data = self.subject.fingerprint if sees else ""
        if of_run:
            data = f"{data} run {self.subject.run_fingerprint}"
        return task(
            job, self.net.fingerprint, data, needs=needs, cost=cost, gathers=gathers, interim=interim, **options
        )

    def shards(self, seconds: float) -> list[tuple[int, int]]:
        """Shards of all images, each by its number and size, for a pass with this expected time per image.

        They depend only on the network and the images, so that the bytes of results do not depend on the workers.
        A shard takes about four seconds; half a second in a short pass, so that a few workers share it; more where
        there would be above 1,024 of them. It holds whole batches.
        """
        total = len(self.subject.images)
        work = seconds * total
        count = max(1, int(min(_SHARDS, max(work / 4, min(16, work / 0.5)))))
        size = math.ceil(math.ceil(total / count) / self.batch) * self.batch
        return [(number, size) for number in range(math.ceil(total / size))]

    # -- cost ----------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Expected seconds of a forward pass of one image on one core."""
        return self.summary.seconds

    def seconds_up_to(self, layer: str) -> float:
        """The same up to a layer."""
        return self.seconds * max(work(self.net, layer) / max(work(self.net), 1.0), 0.02)

    @property
    def step_seconds(self) -> float:
        """Expected seconds of a step of ascent of one image through the whole network."""
        return _STEP[self.small] * self.seconds

    @property
    def small(self) -> bool:
        """Whether images are so small that memory does not matter."""
        return small_images(self.net)

    @property
    def batch(self) -> int:
        """Images in one pass: few large ones, so that their values stay in a processor's cache; many on a GPU."""
        return 64 if self.small or self.net.device.type != "cpu" else 4

    # -- how many ------------------------------------------------------------------------------------------------

    def sample(self, affordable: float) -> list[int]:
        """Images at even distances in the data set: at least 32, at most as many as the budget allows."""
        total = len(self.subject.images)
        return even(total, max(32, int(min(affordable, self.budget.sample_images))))

    @property
    def all_units(self) -> bool:
        """Whether every unit of the shown layers gets a page."""
        return sum(self.net.layer(name).units for name in self.layers) <= self.budget.units_in_all

    def unit_count(self, layer: str) -> int:
        """Number of units of a layer with pages."""
        units = self.net.layer(layer).units
        return units if self.all_units else min(units, self.budget.units_per_layer)

    def single_map(self, layer: str) -> bool:
        """Whether a layer is one linear map, so that it has weights to show."""
        return maps_inside(self.net, layer) == [layer]

    def occlusion(self) -> list[dict[str, Any]]:
        """Window and stride, for windows of a seventh and of a third of the image.

        Along the longer side the small window stands at as many places as the budget has, the large one at half.
        """
        height, width = self.net.input_shape[1:]
        found = []
        for part, places in ((7, self.budget.occlusion_windows), (3, self.budget.occlusion_windows // 2)):
            window = min(max(2, min(height, width) // part), height, width)
            stride = max(1, math.ceil((max(height, width) - window) / max(1, places - 1)))
            found.append({"window": window, "stride": stride})
        return found if found[0] != found[1] else found[:1]


def even(total: int, count: int) -> list[int]:
    """At most ``count`` indices at even distances.

    Examples
    --------
    >>> even(10, 4), even(2, 4)
    ([0, 2, 5, 7], [0, 1])
    """
    count = min(total, count)
    return [place * total // count for place in range(count)]


def blocks(items: Sequence[int], size: int) -> list[list[int]]:
    """Items in blocks of at most ``size``, one block for each task.

    Examples
    --------
    >>> blocks([5, 6, 7], 2)
    [[5, 6], [7]]
    """
    return [[int(item) for item in items[start : start + size]] for start in range(0, len(items), size)]
