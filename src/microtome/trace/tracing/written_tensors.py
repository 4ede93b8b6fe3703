"""Tensors that a model writes in its own forward pass: running means, kernels that it scales to a largest norm.

Copies of all weights before every pass would cost as much as the pass. So the first pass of a model is watched for
writing, and a weight is copied just before. In later passes copies stand in the places of all that were written.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from microtome.errors import ModelWarning
from microtome.trace.operators.nested_tensors import first_tensor, tensors
from microtome.trace.operators.signatures import is_inplace
from microtome.trace.operators.spellings import spelling
from microtome.trace.origins import is_transformed


class Attributes(Protocol):
    """The attributes of a model's modules."""

    def exchange(self, copies: dict[int, Tensor]) -> None:
        """Put copies in the places of some tensors (by id)."""


_OTHERS = frozenset(("__set__", "set_"))  # x.data = y, x.set_(y): the memory is exchanged


class WrittenWeights(TorchFunctionMode):
    """Watches one pass and copies each weight before the model writes on it.

    Attributes
    ----------
    copies : list of (Parameter, Tensor, Tensor)
        The weight, the memory that it had, and its numbers before they were written on.
    """

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__()
        self.copies: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._at: dict[int, list[nn.Parameter]] = {}
        for weight in weights:
            if address := _address(weight):
                self._at.setdefault(address, []).append(weight)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Copy the weights that one call is about to write on."""
        kwargs = kwargs or {}
        if not _OURS and not is_transformed():
            for target in _written(func, args, kwargs):
                for weight in self._at.pop(_address(target), ()):
                    self.copies.append((weight, weight.detach(), weight.detach().clone()))
        return func(*args, **kwargs)


_OURS: list[bool] = []  # one entry for each ``ours`` that is entered


@contextmanager
def ours() -> Iterator[None]:
    """Write on weights during a pass as a method, not as the model: they keep what is written."""
    _OURS.append(True)
    try:
        yield
    finally:
        _OURS.pop()


def _put_back(weight: nn.Parameter, memory: Tensor, numbers: Tensor) -> None:
    """Give a weight its memory and its numbers again, if a pass has changed them."""
    if weight.data_ptr() != memory.data_ptr() or weight.shape != memory.shape:
        weight.data = memory
    if not torch.equal(memory, numbers):
        memory.data.copy_(numbers)


class Written:
    """The tensors that a model writes in its forward pass. Copies stand in their places while it runs.

    A gradient may be taken after the pass, and reads the numbers that were used: they may not be put back in the same
    memory. What is not known yet is found in the first pass, and restored by copying.
    """

    def __init__(
        self, model: nn.Module, modules: list[nn.Module], attributes: Attributes, weights: list[Any], *, first: bool
    ) -> None:
        self._model, self._known = model, _WRITTEN.get(model, [])
        self._weights, self._versions = weights, [_version(weight) for weight in weights]
        self.watch = WrittenWeights(weights) if first else nullcontext()
        copies = {id(tensor): _copy_of(tensor) for tensor in self._known}
        if copies:
            for module in modules:
                for table in (module._buffers, module._parameters):
                    if isinstance(table, dict):
                        exchange(table, copies)
            attributes.exchange(copies)
            _WRITTEN[model] = [*self._known, *copies.values()]  # for a pass inside this one

    def restore(self, changed: list[Tensor]) -> bool:
        """Restore weights that were not known to be written; returns whether any tensor was not."""
        if isinstance(self.watch, WrittenWeights):
            for weight, memory, numbers in self.watch.copies:
                _put_back(weight, memory, numbers)
            changed = [*changed, *(weight for weight, _, _ in self.watch.copies)]
        elif (now := [_version(weight) for weight in self._weights]) != self._versions:
            warnings.warn(
                "the model overwrote a weight in a pass, which it had not done when it was read. The weight keeps its "
                "new numbers; from now on the model writes on a copy.",
                ModelWarning,
                stacklevel=2,
            )
            changed = [*changed, *(one for one, a, b in zip(self._weights, now, self._versions, strict=True) if a != b)]
        known = set(map(id, self._known))
        new = [tensor for tensor in changed if id(tensor) not in known]
        if new or self._known:
            _WRITTEN[self._model] = [*self._known, *new]
        return bool(new)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


@torch.inference_mode(False)
def _copy_of(tensor: Tensor) -> Tensor:
    numbers = tensor.detach().clone()
    return nn.Parameter(numbers, requires_grad=False) if isinstance(tensor, nn.Parameter) else numbers


def exchange(table: dict[str, Any], copies: dict[int, Tensor]) -> None:
    """Put copies in the places of some tensors (by id)."""
    for name, value in table.items():
        if id(value) in copies:
            table[name] = copies[id(value)]


# The tensors that a model has written in a pass.
_WRITTEN: weakref.WeakKeyDictionary[nn.Module, list[Tensor]] = weakref.WeakKeyDictionary()


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call writes on."""
    yield from tensors(kwargs.get("out"))
    name, spelled = getattr(func, "__name__", ""), spelling(func)
    if name.startswith("_foreach_") and name.endswith("_"):
        yield from tensors(args[0])
    elif name in _OTHERS if spelled is None else is_inplace(spelled, args, kwargs):
        yield first_tensor(args, kwargs)  # nn.init gives its tensor by name


def _address(tensor: Tensor) -> int:
    """Where the numbers lie; 0 for tensors without memory of their own."""
    plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    return tensor.untyped_storage().data_ptr() if plain else 0
