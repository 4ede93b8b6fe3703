"""The values of one forward pass that are recorded, edited or replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSet
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from microtome.errors import InputError, MicrotomeError, OpaqueError
from microtome.trace.axes.unit_edits import Edit
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.origins import Origins
from microtome.trace.rectifiers.value_function import version
from microtome.trace.tracing import broken_pass
from microtome.trace.tracing.untouched_values import is_shared
from microtome.trace.tracing.watching import Observer, Replacement, Rules


class Stop(BaseException):
    """Ends a forward pass early; not an ``Exception``, so that no model catches it.

    A model may run its own pass (``up_to``), so each pass reacts only to its own end.
    """

    def __init__(self, values: PassValues) -> None:
        super().__init__()
        self.values = values


class PassValues:
    """The recorded, edited and replaced values of one pass; the parameters are those of ``Tracer``.

    Attributes
    ----------
    value : dict
        Recorded values, as they were before any later in-place change.
    edge : dict
        Graph edges for gradients with respect to a recorded value.
    touched : frozenset
        Names of the values that are recorded, edited or replaced.
    differentiable : bool
        Whether the pass computes gradients.
    paused : bool
        Whether operations of an edit or a replacement run now, which are not the model's.
    origins : Origins, optional
        The tensors that seen operations have computed.
    """

    def __init__(
        self,
        record: Iterable[str],
        replace: Mapping[str, Replacement],
        edits: Mapping[str, Edit],
        *,
        gradient: bool,
        live: Iterable[str],
        stop: bool,
        rules: Rules | None,
        observer: Observer | None,
        untouched: MutableSet[str],
    ) -> None:
        self.value: dict[str, Tensor] = {}
        self.edge: dict[str, Tensor | GradientEdge] = {}
        self._waiting = set(record)
        self.record = frozenset(self._waiting)
        self.replace, self._edits = dict(replace), edits
        self.touched = self.record | self.replace.keys() | edits.keys()
        self._gradient, self._live, self._stop = gradient, frozenset(live), stop and bool(self._waiting)
        self.differentiable = gradient or bool(self._live)
        self._rules, self._observer = rules, observer
        self.paused = False
        self.origins: Origins | None = None
        self._untouched = untouched
        self._version: dict[str, int] = {}  # of recorded values that are not copied

    def pass_on(self, name: str, value: Tensor, inplace: bool) -> Tensor:
        """Edit, replace and record the value of one layer; return the value that the model uses next."""
        passed = self._exchanged(name, value, inplace)
        if self.origins is not None:
            self.origins.add(passed)
        return passed

    def keep(self, name: str, value: Tensor) -> None:
        """Record a value; end the pass if it is the last one.

        Raises
        ------
        Stop
            When all values are recorded.
        """
        if name in self.value:
            return
        value = self.content(value)
        last = self._stop and self._waiting == {name}
        if self._gradient and value.requires_grad:
            self.edge[name] = get_gradient_edge(value)
        kept = value if self.differentiable else value.detach()
        if last or (name in self._untouched and not self.differentiable and not kept.is_inference()):
            self.value[name] = kept
            if not self.differentiable:
                self._version[name] = version(kept)
        else:
            self.value[name] = kept.clone()  # the model may overwrite it later
        self._arrived(name)

    def settle(self) -> bool:
        """After the pass: whether the model has overwritten a value that was not copied.

        A value whose memory something else can still write on is copied now.
        """
        found = {name for name, before in self._version.items() if version(self.value[name]) != before}
        self._untouched -= found
        for name in self._version:
            if is_shared(self.value[name]):
                self.value[name] = self.value[name].clone()
        return bool(found)

    def content(self, value: Tensor) -> Tensor:
        """The content of a value of this pass, which may be represented by a tensor without content."""
        return value if self._rules is None else self._rules.content(value)

    @property
    def missing(self) -> frozenset[str]:
        """Names of requested values that did not occur."""
        return frozenset(self._waiting)

    def _arrived(self, name: str) -> None:
        self._waiting.discard(name)
        if self._stop and not self._waiting:
            raise Stop(self)

    def _exchanged(self, name: str, value: Tensor, inplace: bool) -> Tensor:
        if name in self._edits:
            value = _written(value, self._edited(name, value), inplace)
        if name in self.replace:
            value = _written(value, self._replacement(name, value), inplace)
        if name in self.record and name not in self.value:
            floating = value.is_floating_point() or value.is_complex()
            if self._gradient and not value.requires_grad and floating and name not in self._live:
                leaf = value.detach().clone().requires_grad_()
                value = _written(value, leaf.clone(), inplace)
                self.edge[name] = leaf
                self.value[name] = leaf
                self._arrived(name)
            else:
                self.keep(name, value)
        return value

    def _edited(self, name: str, value: Tensor) -> Tensor:
        """The value with some units scaled or clamped; rules and observers see these operations, names stay."""
        self.paused, paused = True, self.paused
        try:
            return self._edits[name].apply(name, value, self._run_edit)
        finally:
            self.paused = paused

    def _run_edit(self, call: Call) -> Tensor:
        value: Tensor = call.run() if self._rules is None else self._rules.run(call)
        if self.origins is not None:
            self.origins.add(value)
        if self._observer is not None:
            self._observer.operation(call, value)
        return value

    def _replacement(self, name: str, value: Tensor) -> Tensor:
        """The replacement of a value; its own operations are not the model's and get no names."""
        replacement = self.replace[name]
        self.paused = True
        try:
            new: Any = replacement if isinstance(replacement, Tensor) else replacement(value)
            if not isinstance(new, Tensor) or new.shape != value.shape:
                shape = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                raise InputError(f'layer "{name}" gives {tuple(value.shape)}; the replacement is {shape}.')
            return new.to(value)
        except (MicrotomeError, Stop, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            if broken_pass.is_ours(error):
                raise
            raise InputError(
                f'the replacement for layer "{name}" raised {type(error).__name__} on a value of shape '
                f"{tuple(value.shape)}: {error}"
            ) from error
        finally:
            self.paused = False


def main_tensor(output: Any, name: str) -> Tensor:
    """The first tensor of an output.

    Raises
    ------
    OpaqueError
        When it holds none.
    """
    found = tensors(output)
    if not found:
        raise OpaqueError(f'"{name}" returns a {type(output).__name__} without a tensor; record a layer inside it.')
    return found[0]


def _written(value: Tensor, new: Tensor, inplace: bool) -> Tensor:
    """Continue with ``new``; overwrite the tensor of an in-place operation, because others may hold it."""
    if inplace and not value.requires_grad:
        return value.copy_(new)
    return new
