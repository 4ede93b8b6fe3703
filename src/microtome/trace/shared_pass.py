"""One watched pass under a random seed, which several readings of a network share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.guard import LOCK, as_found, own_generators
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.random_states import RandomStates, seeded
from microtome.trace.tracing.tracer import Tracer
from microtome.trace.tracing.watching import Observer


@dataclass(frozen=True)
class SharedPass:
    """A pass over several images, and the model's output for one of them alone.

    Attributes
    ----------
    images : Tensor
        Input of the model.
    observer : Observer
        The observer of the pass.
    returned : object
        Output of the model.
    alone : object
        Output of the model for one image alone.
    place : int
        Index of this image, which is gray.
    drew : bool
        Whether random numbers were drawn.
    """

    images: Tensor
    observer: Observer
    returned: Any
    alone: Any
    place: int
    drew: bool


@dataclass(frozen=True)
class Both:
    """Two observers of one pass."""

    one: Observer
    other: Observer

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""
        self.one.enter(name, module, args)
        self.other.enter(name, module, args)

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        self.one.operation(call, output)
        self.other.operation(call, output)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""
        self.one.leave(name, module, output)
        self.other.leave(name, module, output)


def seeded_pass(model: nn.Module, images: Tensor, observer: Observer, seed: int) -> tuple[Any, bool]:
    """Run a model under its own random states; returns its output, and whether random numbers were drawn.

    Raises
    ------
    ModelError
        When the model itself raises.
    """
    held = list(model.parameters())
    with LOCK, torch.inference_mode(False), torch.no_grad():
        own = own_generators(model)
        with seeded(seed, held, own), as_found(model):
            before = RandomStates(held, own)
            returned = Tracer(model, observer=observer).run_as_is(images)
            return returned, not before.same(RandomStates(held, own))
