"""Tensors that a model writes in its own forward pass: running means, kernels that it scales to a largest norm.

What a pass has changed is put back after it. Copies of all weights before every pass would cost as much as the pass, so
the first pass of a model is watched for writing, and a weight is copied just before.

A gradient reads the numbers that were used, after the pass. They may not be overwritten in their memory before: in a
pass with a gradient, copies stand in the places of all tensors that the model is known to write.
"""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from microtome.errors import ModelWarning
from microtome.trace.operators.nested_tensors import first_tensor, tensors
from microtome.trace.operators.signatures import is_inplace
from microtome.trace.operators.spellings import spelling
from microtome.trace.origins import is_transformed
from microtome.trace.rectifiers.value_function import version

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
                    self.copies.append(_kept(weight))
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


def _kept(weight: nn.Parameter) -> tuple[nn.Parameter, Tensor, Tensor]:
    """A weight, its memory, and a copy of its numbers."""
    memory = weight.detach()
    return weight, memory, memory.clone()


def _put_back(weight: nn.Parameter, memory: Tensor, numbers: Tensor) -> bool:
    """Give a weight its memory and its numbers again; returns whether a pass had changed them."""
    exchanged = weight.data_ptr() != memory.data_ptr() or weight.shape != memory.shape
    if exchanged:
        weight.data = memory
    changed = not torch.equal(memory, numbers)
    if changed:
        memory.data.copy_(numbers)
    return exchanged or changed


class Written:
    """The tensors that a model writes in its forward pass.

    Parameters
    ----------
    modules : list of nn.Module
        All modules of the model, itself first.
    weights : list of Parameter
        Its parameters.
    first : bool
        Whether no earlier pass has shown what the model writes.
    copies : bool
        Whether copies stand in the places of the tensors that are known, until ``take_away``.

    Attributes
    ----------
    watch : context manager
        The pass runs in it.
    """

    def __init__(self, modules: list[nn.Module], weights: list[nn.Parameter], *, first: bool, copies: bool) -> None:
        self._model, self._weights = modules[0], weights
        self._versions = [version(weight) for weight in weights]
        self._known, self._copied = _WRITTEN.get(self._model, []), copies
        known = set(map(id, self._known))
        self._kept = [_kept(weight) for weight in weights if id(weight) in known] if known else []
        self.watch = WrittenWeights(weights) if first else nullcontext()
        self._places: list[tuple[Any, Any, Tensor]] = []
        if copies and known:
            _exchange(modules, _copies(self._known), self._places)

    def take_away(self) -> None:
        """Put the tensors in the places of their copies again."""
        for holder, key, tensor in reversed(self._places):
            if isinstance(holder, set):
                holder.discard(key)
                holder.add(tensor)
            elif isinstance(holder, dict) or key < len(holder):
                holder[key] = tensor

    def restore(self, changed: list[Tensor]) -> tuple[bool, bool]:
        """Put back weights that the pass has written.

        Parameters
        ----------
        changed : list of Tensor
            Other tensors that were written, and are restored.

        Returns
        -------
        tuple of bool
            Whether a tensor was written that was not known, and whether one was written in place of its copy.
        """
        known = set(map(id, self._known))
        changed = [*changed, *(kept[0] for kept in self._kept if _put_back(*kept))]
        if isinstance(self.watch, WrittenWeights):
            for kept in self.watch.copies:
                _put_back(*kept)
                changed.append(kept[0])
        elif (now := [version(weight) for weight in self._weights]) != self._versions:
            versions = zip(self._weights, now, self._versions, strict=True)
            late = [weight for weight, after, before in versions if after != before and id(weight) not in known]
            if late:
                warnings.warn(
                    "the model overwrote a weight in a pass, which it had not done when it was read. The weight keeps "
                    "its new numbers; from now on it is restored.",
                    ModelWarning,
                    stacklevel=2,
                )
            changed += late
        new = [tensor for tensor in changed if id(tensor) not in known]
        if new:
            _WRITTEN[self._model] = [*self._known, *{id(tensor): tensor for tensor in new}.values()]
        return bool(new), self._copied and any(id(tensor) in known for tensor in changed)


# The tensors that a model has written in a pass.
_WRITTEN: weakref.WeakKeyDictionary[nn.Module, list[Tensor]] = weakref.WeakKeyDictionary()
_HOLDERS = frozenset((dict, OrderedDict, defaultdict, list, deque, set))


@torch.inference_mode(False)
def _copies(tensors: list[Tensor]) -> dict[int, Tensor]:
    """A copy of each tensor, by its id; those that share memory have copies that share memory."""
    memories: dict[int, Any] = {}
    found: dict[int, Tensor] = {}
    for tensor in tensors:
        address = _address(tensor)
        if address and address not in memories:
            memories[address] = tensor.untyped_storage().clone()
        place = tensor.storage_offset(), tensor.shape, tensor.stride()
        empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        copied = empty.set_(memories[address], *place) if address else tensor.detach().clone()
        found[id(tensor)] = nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied
    return found


def _exchange(modules: list[nn.Module], copies: dict[int, Tensor], places: list[tuple[Any, Any, Tensor]]) -> None:
    """Put copies in all places in which modules hold these tensors; the places are noted."""
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):  # its tables are views of C++
            continue
        held = vars(module)
        for holder in (held, *held.values()):
            if type(holder) not in _HOLDERS or not holder:
                continue
            if isinstance(holder, set):
                for value in [value for value in holder if id(value) in copies]:
                    holder.discard(value)
                    holder.add(copies[id(value)])
                    places.append((holder, copies[id(value)], value))
                continue
            for key, value in [*holder.items()] if isinstance(holder, dict) else [*enumerate(holder)]:
                if id(value) in copies:
                    holder[key] = copies[id(value)]
                    places.append((holder, key, value))


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
