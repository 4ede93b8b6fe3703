"""Replay of a pass after a change inside it: only operations that the change reaches are recomputed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.operators.nested_tensors import substitute, tensors
from microtome.trace.operators.operator_calls import Call

_UNKNOWN = "unknown"


class Replay:
    """Run the operations of a pass; in later passes, only those whose inputs have changed.

    Use as the ``rules`` of a ``Tracer``. The first pass is recorded: every operation's output with a
    note of what it read. In a later pass on the same images an operation whose inputs are all known
    from the recording, and whose other arguments are equal, hands out the recorded output; any other
    runs. So a pass with one layer's value replaced computes the layers after it only, whatever the
    model's graph, and gives the same bits as a whole pass.

    Values that the model later writes on are copied before, and handed out as copies. What the
    engine cannot see inside (a scripted module) makes unknown values, and everything after it runs.

    Parameters
    ----------
    model : nn.Module
        The model; its parameters and buffers are known inputs.

    Notes
    -----
    Memory: the outputs of all operations of one batch.
    """

    name = "replay"
    asks_places = True
    sees = None

    def __init__(self, model: nn.Module) -> None:
        self._fixed = {id(value): f"weight {name}" for name, value in model.state_dict(keep_vars=True).items()}
        self._recording = True
        self._signature: dict[str, Any] = {}
        self._output: dict[str, Any] = {}
        self._copied: set[str] = set()
        self._at: dict[int, list[str]] = {}  # storage -> the operations whose outputs lie there
        self._known: dict[int, tuple[Tensor, int, str]] = {}
        self.ran = 0

    def start(self, images: Tensor) -> Tensor:
        """Begin a pass on the recorded images; returns the tensor to give to the model."""
        self._known.clear()
        self.ran = 0
        own = images.clone()
        self._know(own, "input")
        return own

    def recorded(self) -> None:
        """End the recording: passes from now on are replays."""
        self._recording = False
        self._at.clear()

    def run(self, call: Call) -> Any:
        """Run one operation, or return its recorded output."""
        signature = self._sign(call)
        if self._recording:
            return self._record(call, signature)
        seen = signature is not None and self._signature.get(call.name) == signature
        if seen and call.name in self._output:
            output = self._output[call.name]
            if call.name in self._copied:
                output = substitute(output, {id(value): value.clone() for value in tensors(output)})
        else:
            output = call.run()
            self.ran += 1
        if seen:
            self._know_all(output if output is not None else call.input, call.name)
        return output

    def ask(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a query about a tensor as torch does; a tensor in the answer counts as unknown."""
        return func(*args, **kwargs)

    def content(self, value: Tensor) -> Tensor:
        """What a value of the pass holds: itself."""
        return value

    def opaque(self, what: str) -> None:
        """Nothing to do: outputs of unseen code are unknown, and operations that read them run."""

    def _record(self, call: Call, signature: Any) -> Any:
        if call.inplace:
            self._put_aside(call.input.untyped_storage().data_ptr())
        output = call.run()
        if signature is None:
            return output
        self._signature[call.name] = signature
        if not call.inplace:
            self._output[call.name] = output
            for value in tensors(output):
                self._at.setdefault(value.untyped_storage().data_ptr(), []).append(call.name)
        self._know_all(output if output is not None else call.input, call.name)
        return output

    def _put_aside(self, storage: int) -> None:
        """Copy values that the model is about to overwrite; a replay makes views of them again."""
        first, *views = self._at.pop(storage, [""])
        if first in self._output:
            output = self._output[first]
            self._output[first] = substitute(output, {id(value): value.clone() for value in tensors(output)})
            self._copied.add(first)
        for name in views:
            self._output.pop(name, None)

    def _sign(self, call: Call) -> Any:
        """The arguments of an operation, tensors by origin; None if an origin is unknown."""
        marks: dict[int, str] = {}
        for value in call.tensors:
            mark = self._mark(value)
            if mark == _UNKNOWN:
                return None
            marks[id(value)] = mark

        return (call.kind, _spelled(call.args, marks), _spelled(call.kwargs, marks))

    def _mark(self, value: Tensor) -> str:
        if id(value) in self._fixed:
            return self._fixed[id(value)]
        known = self._known.get(id(value))
        if known is None or known[0] is not value or known[1] != value._version:
            return _UNKNOWN
        return known[2]

    def _know_all(self, output: Any, name: str) -> None:
        for index, value in enumerate(tensors(output)):
            self._know(value, f"{name} {index}")

    def _know(self, value: Tensor, mark: str) -> None:
        if id(value) not in self._fixed:
            self._known[id(value)] = (value, value._version, mark)


def _spelled(tree: Any, marks: dict[int, str]) -> Any:
    """The arguments as nested tuples that are equal for equal calls."""
    if isinstance(tree, Tensor):
        return marks[id(tree)]
    if isinstance(tree, list | tuple):
        return tuple(_spelled(item, marks) for item in tree)
    if isinstance(tree, dict):
        return tuple((key, _spelled(item, marks)) for key, item in sorted(tree.items()))
    return tree if isinstance(tree, int | float | str | slice | torch.dtype | torch.Size | type(None)) else repr(tree)
