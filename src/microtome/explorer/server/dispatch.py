"""Dispatches questions: checked, queued, and computed once for equal questions."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel

from microtome.errors import InputError, LayerError
from microtome.explorer.answers.class_maps import covered, explained
from microtome.explorer.answers.live_activations import live
from microtome.explorer.answers.unit_answers import dissected, projected, summed
from microtome.explorer.answers.unit_examples import UnitExamples
from microtome.explorer.atlas_results import AtlasResults
from microtome.explorer.frames import Frame
from microtome.explorer.kept_pictures import KeptPictures
from microtome.explorer.live_network import LiveNetwork, watched
from microtome.explorer.questions import (
    Covered,
    Dissected,
    Examples,
    Explained,
    Live,
    Looked,
    Projected,
    Summed,
)
from microtome.explorer.server.computations import Computations, Turn
from microtome.explorer.server.request_limits import Limits
from microtome.network import Network
from microtome.registry import EXPLAINING, method

__all__ = ["Dispatch", "Tell"]

Tell = Callable[[Frame], None]
_SLOW = 10.0  # forward passes from which a method is long work


def _nobody(frame: Frame) -> None:
    """Ignore the progress."""


class Dispatch:
    """Answers questions about one network or two.

    Parameters
    ----------
    networks : list of LiveNetwork
        The first, and one to compare it with.
    limits : Limits
    atlas : AtlasResults or None
        Of the first network.
    """

    def __init__(self, networks: list[LiveNetwork], limits: Limits, atlas: AtlasResults | None = None) -> None:
        if not 1 <= len(networks) <= 2:
            raise InputError(f"one network to show, or two to compare, were expected; got {len(networks)}.")
        shapes = {one.net.input_shape for one in networks}
        if len(shapes) > 1:
            raise InputError(f"networks to compare must take pictures of the same shape; these take {sorted(shapes)}.")
        self.networks, self.limits, self.atlas = networks, limits, atlas
        self.kept = KeptPictures(limits.kept_bytes)
        self.computations = Computations(limits)
        self._examples = [UnitExamples(one, atlas if place == 0 else None) for place, one in enumerate(networks)]
        self._answers = _Answers(limits.answer_bytes)

    def network(self, question: Any) -> LiveNetwork:
        """The network that a question is about."""
        if question.network >= len(self.networks):
            raise InputError("there is only one network; start the server with --against to compare two.")
        found: LiveNetwork = self.networks[question.network]
        return found

    async def answer(self, question: BaseModel, turn: Turn | None = None, tell: Tell = _nobody) -> Frame:
        """The answer to a question.

        Raises
        ------
        MicrotomeError
            The question cannot be answered; the message says why.
        BusyError
            The queue is full.
        """
        key = f"{type(question).__name__}{question.model_dump_json()}"
        found = self._answers.find(key)
        if found is not None:
            return found
        turn = turn or Turn()
        turn.urgent = self._urgent(question)
        frame = await self.computations.run(lambda own: self._compute(question, own, tell), turn)
        if not isinstance(question, Examples):  # their answer grows with each request
            self._answers.keep(key, frame)
        return frame

    def _urgent(self, question: BaseModel) -> bool:
        if isinstance(question, Explained):
            return method(question.method, EXPLAINING).cost <= _SLOW
        return not isinstance(question, Covered) and not (isinstance(question, Examples) and question.compute)

    @torch.inference_mode(False)
    def _compute(self, question: BaseModel, turn: Turn, tell: Tell) -> Frame:
        if isinstance(question, Examples):
            live_network = self.network(question)
            self._check_unit(live_network.net, question.layer, question.unit)
            examples = self._examples[question.network]
            return examples.answer(question.layer, question.unit, question.compute, turn.pause, tell)
        assert isinstance(question, Looked)  # noqa: S101 - all other questions look at a picture
        shown = self.network(question)
        image = shown.image(question.picture, self.kept)
        net = watched(shown.edited(question.edits), turn.pause)
        if isinstance(question, Live):
            self._check_unit(net, question.layer, 0)
            return live(net, image, question.layer)
        if isinstance(question, Explained):
            self._check_class(net, question.target)
            return explained(net, image, question.method, question.target)
        if isinstance(question, Covered):
            self._check_class(net, question.target)
            side, step = shown.window()
            return covered(net, image, question.target, (question.window or side, question.stride or step), tell)
        if isinstance(question, Summed):
            self._check_unit(net, question.layer, 0)
            self._check_class(net, question.target)
            return summed(net, image, question.layer, question.target)
        if isinstance(question, Dissected):
            self._check_unit(net, question.layer, question.unit)
            return dissected(net, image, question.layer, question.unit)
        assert isinstance(question, Projected)  # noqa: S101 - the last kind
        self._check_unit(net, question.layer, question.unit)
        return projected(net, image, question.layer, question.unit, question.method)

    @staticmethod
    def _check_unit(net: Network, layer: str, unit: int) -> None:
        found = net.layer(layer)
        if not found.units or found.axes.image_axis is None:
            raise LayerError(
                f'layer "{found.name}" ({found.kind}) has no separate values for each image; choose another.'
            )
        if unit >= found.units:
            raise InputError(f'unit {unit} does not exist: "{found.name}" has units 0 to {found.units - 1}.')

    @staticmethod
    def _check_class(net: Network, target: int | None) -> None:
        if target is not None:
            net.class_index(target)


class _Answers:
    """A cache of answers, the most recently used; pictures are named by content, so an answer never changes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._frames: collections.OrderedDict[str, Frame] = collections.OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: str) -> Frame | None:
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
            return self._frames.get(key)

    def keep(self, key: str, frame: Frame) -> None:
        with self._lock:
            if key in self._frames or frame.size > self._limit:
                return
            self._frames[key] = frame
            self._size += frame.size + 4096
            while self._size > self._limit:
                _, dropped = self._frames.popitem(last=False)
                self._size -= dropped.size + 4096


async def until_gone(work: asyncio.Future[Frame], gone: Callable[[], Any]) -> Frame:
    """The result of some work, which is cancelled when ``gone`` says that the client has left."""
    task = asyncio.ensure_future(work)
    while True:
        done, _ = await asyncio.wait({task}, timeout=0.2)
        if done:
            return task.result()
        if await gone():
            task.cancel()
            raise asyncio.CancelledError
