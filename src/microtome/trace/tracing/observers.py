"""Observers of a pass: one that keeps an operation, and one that finds readers of unseen tensors."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from microtome.errors import ModelError
from microtome.trace.operators.operator_calls import Call
from microtome.trace.origins import Origins
from microtome.trace.tracing.tracer import Tracer


def _under_autocast(call: Call) -> Call:
    """The operation as the model runs it: under the model's own autocast, if it has one."""
    device = call.input.device.type
    if not torch.is_autocast_enabled(device):
        return call
    dtype, function = torch.get_autocast_dtype(device), call.func

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            return function(*args, **kwargs)

    return replace(call, func=run)


class Capture:
    """Keeps one operation of a pass with its arguments; for a module that reads no image, its last own operation."""

    def __init__(self, name: str) -> None:
        self.call: Call | None = None
        self._name = name
        self._exact = False

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run: keep it if it is the one."""
        if call.name == self._name and not self._exact:
            self.call, self._exact = _under_autocast(call), True
        elif call.name.rpartition("/")[0] == self._name and not self._exact:
            self.call = _under_autocast(call)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""


class _Readers:
    """Notes the operations that read a tensor of unseen code, detected by the gradient that it carries."""

    differentiable = True

    def __init__(self, images: Tensor) -> None:
        self.names: set[str] = set()
        self._origins = Origins(images)

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run: note it if it read a tensor of unseen code."""
        if self._origins.stranger(call.tensors) is not None:
            self.names.add(call.name)
        self._origins.add(output)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: one without visible operations, such as a scripted one, is noted by its name."""
        self._origins.add(output)


def readers_of_strangers(model: nn.Module, images: Tensor) -> frozenset[str]:
    """Operations that read a value that depends on the images and that no seen operation has computed.

    Found by one pass with gradients; empty if the model does not run with gradients.
    """
    with torch.enable_grad():
        images = images.detach().clone().requires_grad_().clone()  # no leaf, as the model may write on it
    readers = _Readers(images)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Tracer(model, observer=readers)(images)
    except ModelError:
        return frozenset()
    return frozenset(readers.names)
