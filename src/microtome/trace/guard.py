"""Guard of the user's model: everything that a forward pass may change is saved and restored."""

from __future__ import annotations

import copy
import operator
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.no_checkpointing import plainly
from microtome.trace.tracing.random_states import GENERATORS, Generator, RandomStates
from microtome.trace.tracing.written_tensors import Written

# A run sets flags of the model, so only one run at a time; re-entrant, because methods nest runs.
LOCK = threading.RLock()


def _copy_each(copies: list[Tensor], tensors: list[Tensor]) -> None:
    for copied, tensor in zip(copies, tensors, strict=True):
        copied.copy_(tensor)


# Not public; without it, there is one call for each tensor.
_copy: Callable[[list[Tensor], list[Tensor]], Any] = getattr(torch, "_foreach_copy_", _copy_each)


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module once, by its first name: ``model.named_modules()`` without generators, which is faster."""
    found: dict[int, tuple[str, nn.Module]] = {}
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in found:
            continue
        found[id(module)] = name, module
        if children := module._modules:
            inside = f"{name}." if name else ""
            waiting += [(inside + key, child) for key, child in reversed(children.items()) if child is not None]
    return list(found.values())


def _modules(model: nn.Module) -> list[nn.Module]:
    """Every module once, the model first."""
    found, seen = [model], {id(model)}
    for module in found:  # grows while it is walked
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


@dataclass
class Guarded:
    """What a guarded pass has shown.

    Attributes
    ----------
    writes_more : bool
        After the pass, whether the model has written on tensors that it had not written on before. They are restored,
        so a gradient of this pass would read other numbers than those that were used.
    writes_elsewhere : bool
        Whether the model has written on a tensor itself although a copy stood in its place.
    """

    writes_more: bool = False
    writes_elsewhere: bool = False


@contextmanager
def as_found(model: nn.Module, modules: list[nn.Module] | None = None, *, copies: bool = False) -> Iterator[Guarded]:
    """Run the model in evaluation mode without weight gradients; leave it bitwise as it was.

    ``modules`` are all modules of the model, itself first, where they are known. With ``copies`` the model works on
    copies of the tensors that it is known to write, so that a gradient may be taken after the pass.

    What is put back, also when the model raises: the training flag of every submodule,
    ``requires_grad`` of every parameter, buffers and parameters that the forward pass changed or
    exchanged, attributes of modules that it assigned (a window size that follows the image, a cache), the content
    of their lists, sets and dicts, tensors and random generators among these, and
    the random states of torch, numpy and Python. ``.grad`` is never touched, since gradients are asked for
    by name. A weight that the model's first pass did not write on, but a later one does, is not restored, since copies
    of all weights would cost as much as the pass: a warning says so.
    """
    with LOCK:
        modules = _modules(model) if modules is None else modules
        parameters = [p for module in modules for p in module._parameters.values() if p is not None]
        training = [module for module in modules if module.training]
        attributes = _Attributes(modules)
        learning = [tensor for tensor in (*parameters, *attributes.tensors) if tensor.requires_grad]
        tensors = _Tensors(modules, attributes.tensors)
        written = Written(modules, parameters, first=tensors.first, copies=copies)
        states = RandomStates(parameters, attributes.generators)
        found = Guarded()
        fast = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it runs an encoder layer as one call, past its modules
            for module in training:
                module.training = False
            for parameter in learning:
                if parameter.is_leaf:
                    parameter.requires_grad = False
            with plainly(), _not_compiled(modules), written.watch:
                yield found
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module in training:
                module.training = True
            written.take_away()
            found.writes_more, found.writes_elsewhere = written.restore(tensors.restore())
            attributes.restore()
            for parameter in learning:
                if parameter.is_leaf:
                    parameter.requires_grad = True
            states.restore()


@contextmanager
def _not_compiled(modules: list[nn.Module]) -> Iterator[None]:
    """Run compiled code uncompiled: otherwise ``torch.compile`` would also compile the tracer."""
    compiled = [(module, call) for module in modules if (call := vars(module).get("_compiled_call_impl")) is not None]
    # Use the compiler only if it has been imported: importing it takes seconds.
    stance = getattr(torch.compiler, "set_stance", None) if "torch._dynamo.eval_frame" in sys.modules else None
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        with nullcontext() if stance is None else stance("force_eager"):
            yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call


def own_generators(model: nn.Module) -> list[Generator]:
    """The random generators in the attributes of a model."""
    return _Attributes(_modules(model)).generators


@contextmanager
def without_backward_hooks(modules: list[nn.Module]) -> Iterator[None]:
    """Take the backward hooks of these modules away: what they do to gradients means nothing to a rule's signal."""
    hooks = [(table, dict(table)) for module in modules for table in _backward_hooks(module)]
    for table, _ in hooks:
        table.clear()
    try:
        yield
    finally:
        for table, found in hooks:
            table.update(found)


def hooked_backwards(model: nn.Module) -> str:
    """The first module whose backward hooks take part in gradients; empty if none has any."""
    hooked = next((module for module in _modules(model) if _backward_hooks(module)), None)
    if hooked is None:
        return ""
    return next(name for name, module in named_modules(model) if module is hooked) or "the model"


def _backward_hooks(module: nn.Module) -> list[dict[int, Any]]:
    """The non-empty tables of a module's backward hooks."""
    held = vars(module)
    if not held.get("_backward_hooks") and not held.get("_backward_pre_hooks"):  # nearly always
        return []
    tables = (
        [] if isinstance(module, torch.jit.ScriptModule) else [held["_backward_hooks"], held["_backward_pre_hooks"]]
    )
    return [table for table in tables if table]


class _Tables:
    """The content of some dictionaries, to undo exchanged, added or removed entries.

    All keys and values are kept in one row each, which takes a tenth of the time of a copy of every dictionary.
    """

    def __init__(self, tables: list[dict[str, Any]]) -> None:
        self._tables = tables
        self._keys, self._values = self._now()
        self._sizes = list(map(len, tables))

    def _now(self) -> tuple[list[str], list[Any]]:
        return list(chain.from_iterable(self._tables)), list(chain.from_iterable(map(dict.values, self._tables)))

    def restore(self) -> None:
        """Restore the content of every dictionary."""
        keys, values = self._now()
        same = len(values) == len(self._values) and all(map(operator.is_, values, self._values))
        if same and keys == self._keys and list(map(len, self._tables)) == self._sizes:
            return
        begin = 0
        for table, size in zip(self._tables, self._sizes, strict=True):
            table.clear()
            rows = slice(begin, begin + size)
            table.update(zip(self._keys[rows], self._values[rows], strict=True))
            begin += size


class _Tensors:
    """Parameters, buffers and other tensors of a model; restores those that a pass has overwritten or replaced."""

    def __init__(self, modules: list[nn.Module], others: list[Tensor]) -> None:
        self._tables = _Tables(
            [
                table
                for module in modules
                for table in (module._buffers, module._parameters)
                if table and isinstance(table, dict)  # a scripted module's tables are views of C++, not to be exchanged
            ]
        )
        # Buffers are few and small; their version counter shows whether a pass has written on them.
        buffers = [
            tensor
            for module in modules
            if module._buffers
            for tensor in module._buffers.values()
            if isinstance(tensor, Tensor) and not tensor.is_inference()
        ]
        buffers += [tensor for tensor in others if not isinstance(tensor, nn.Parameter)]
        self._root = modules[0] if modules else None
        self._versions = [tensor._version for tensor in buffers]
        self._portrait = _portrait_of(self._root, buffers)
        self.first = self._portrait.new  # whether no earlier pass has shown what the model writes

    def restore(self) -> list[Tensor]:
        """Restore replaced and overwritten tensors; returns those whose numbers had changed."""
        self._tables.restore()
        portrait = self._portrait
        doubtful = range(len(portrait.tensors)) if portrait.new else portrait.unversioned
        changed = {row for row in doubtful if portrait.differs(row)}
        portrait.new = False
        written: list[Tensor] = []
        now = [tensor._version for tensor in portrait.tensors]
        if changed or now != self._versions:
            for row, (tensor, copy) in enumerate(zip(portrait.tensors, portrait.copies, strict=True)):
                if now[row] != self._versions[row]:
                    tensor.data.copy_(copy)  # past autograd: a graph of this pass may have saved the buffer
                    written.append(tensor)
                elif row in changed:
                    portrait.unversioned.add(row)
                    tensor.data.copy_(copy)
                    written.append(tensor)
        if self._root is not None:
            _PORTRAITS.setdefault(self._root, []).append(portrait)
        return written


class _Attributes:
    """Plain attributes of modules, to undo what a forward pass assigns to them or puts into lists, sets and dicts."""

    def __init__(self, modules: list[nn.Module]) -> None:
        tables = [
            vars(module)
            for module in modules
            # torch's own layers, which are most of a model, assign nothing in their forward pass.
            if not type(module).__module__.startswith("torch.nn.modules.")
            and not isinstance(module, torch.jit.ScriptModule)
        ]
        self._tables = _Tables(tables)
        self._held: list[tuple[Any, Any]] = []
        self.tensors: list[Tensor] = []  # other than buffers and parameters, also in a list or dict
        self.generators: list[Generator] = []
        for table in tables:
            for name in table.keys() - _OF_TORCH:
                if (kind := type(value := table[name])) in _KEPT:
                    self._keep(value, kind)

    def _keep(self, value: Any, kind: type) -> None:
        if kind in _CONTAINERS:
            self._held.append((value, copy.copy(value)))
            for item in value.values() if isinstance(value, dict) else value:
                if type(item) in _TENSORS:
                    self._keep(item, type(item))
        elif kind in _TENSORS:
            if value.is_leaf and not value.is_inference():
                self.tensors.append(value)
        else:
            self.generators.append(value)

    def restore(self) -> None:
        """Restore every attribute and the content of every container; remove new ones."""
        self._tables.restore()
        for value, content in self._held:
            if not _same_content(value, content):
                value.clear()
                (value.extend if isinstance(value, list | deque) else value.update)(content)


_CONTAINERS = frozenset((list, dict, set, OrderedDict, defaultdict, deque))
_TENSORS = frozenset((Tensor, nn.Parameter))
_KEPT = _CONTAINERS | _TENSORS | frozenset(GENERATORS)
_OF_TORCH = frozenset(vars(nn.Module()))


def _same_content(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    same = all(map(operator.is_, one, other))
    return same and (not isinstance(one, dict) or all(map(operator.is_, one.values(), other.values())))


class _Portrait:
    """Copies of a model's buffers; the next pass uses the same memory.

    ``unversioned`` names the buffers that the model writes past their version counter (``buffer.data.add_(1)``). The
    first pass compares all values and finds them; later passes compare only these.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        with torch.inference_mode(mode=False):
            self.copies = [tensor.detach().clone() for tensor in tensors]
        self._kinds = _kinds(self.copies)
        self.new = True
        self.unversioned: set[int] = set()
        self._plain = [
            type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
            for tensor in tensors
        ]
        kinds: dict[object, list[int]] = {}
        for row, (tensor, plain) in enumerate(zip(tensors, self._plain, strict=True)):
            # The kernel for many tensors takes only plain ones; the others are copied one by one.
            kinds.setdefault((tensor.dtype, tensor.device) if plain else row, []).append(row)
        self._groups = [([self.copies[row] for row in rows], [tensors[row] for row in rows]) for rows in kinds.values()]

    def is_of(self, tensors: list[Tensor]) -> bool:
        """Whether the copies match these buffers in kind and shape, and the buffers are the same objects as before."""
        same = len(tensors) == len(self.tensors) and all(map(operator.is_, tensors, self.tensors))
        return same and _kinds(tensors) == self._kinds

    def differs(self, row: int) -> bool:
        """Whether a buffer differs from its copy."""
        return self._plain[row] and not torch.equal(self.tensors[row], self.copies[row])

    def take(self) -> None:
        """Refresh all copies: one call for all buffers of a kind, which is one kernel on a GPU."""
        with torch.no_grad():
            for copies, tensors in self._groups:
                _copy(copies, tensors)


def _kinds(tensors: list[Tensor]) -> list[list[Any]]:
    return [[x.shape for x in tensors], [x.dtype for x in tensors], [x.device for x in tensors]]


# Copies of a model's buffers that are not in use; a nested pass takes a second one.
_PORTRAITS: weakref.WeakKeyDictionary[nn.Module, list[_Portrait]] = weakref.WeakKeyDictionary()


def _portrait_of(root: nn.Module | None, tensors: list[Tensor]) -> _Portrait:
    """A copy of the present buffers, in the memory of an earlier copy if there is one."""
    free = _PORTRAITS.get(root, []) if root is not None else []
    while free:
        portrait = free.pop()
        if portrait.is_of(tensors):
            portrait.take()
            return portrait
    return _Portrait(tensors)
