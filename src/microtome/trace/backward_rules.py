"""Backward rules: gradient overrides chosen by operator, and the machinery that runs an operation under one."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from microtome.errors import MicrotomeError, OpaqueError
from microtome.trace.operators.nested_tensors import substitute, tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.rectifiers.masks_and_gates import MasksAndGates


@dataclass
class Operation:
    """What a backward rule gets to see.

    Attributes
    ----------
    call : Call
        The operation; its tensors are the values it read, cut from the graph.
    inputs : tuple of Tensor
        The tensors that get a backward signal, each once, in the order of the arguments.
    output : Tensor
        The output; the first tensor if there are several.
    reduced : bool
        Whether the pass computed it in half precision; the values here are in single precision.
    signals : tuple of Tensor
        In the backward pass, the signals at all outputs of an operation with several outputs.
    """

    call: Call
    inputs: tuple[Tensor, ...]
    output: Tensor
    reduced: bool = False
    signals: tuple[Tensor, ...] = ()

    def back(self, *sent: tuple[Any, Tensor]) -> tuple[Tensor | None, ...]:
        """Signals in the order of the inputs, from pairs (input, signal).

        Two signals for one input add up; a signal for a constant is dropped.
        """
        found: list[Tensor | None] = [None] * len(self.inputs)
        for value, signal in sent:
            for index, given in enumerate(self.inputs):
                if given is value:
                    before = found[index]
                    found[index] = signal if before is None else before + signal
        return tuple(found)

    def again(self, swap: dict[int, Tensor] | None = None) -> Tensor:
        """Run the operation again, with some of its tensors (by id) exchanged; its inputs are never overwritten."""
        swap = dict(swap or {})
        if self.call.inplace:
            written = self.call.input
            swap[id(written)] = swap.get(id(written), written).clone()
        output = self.call.func(*substitute(self.call.args, swap), **substitute(self.call.kwargs, swap))
        # x[0] = 1 returns nothing: its output is the tensor that it writes on.
        return swap[id(self.call.input)] if output is None else tensors(output)[0]

    def widened(self) -> Operation:
        """The operation in single precision: half precision has too few digits for the divisions and sums of a rule."""
        values = (*self.call.tensors, *self.inputs, self.output)
        wide = {id(value): value.float() for value in values if value.dtype in _HALF}
        call = replace(
            self.call,
            args=substitute(self.call.args, wide),
            kwargs=substitute(self.call.kwargs, wide),
            _bound=None,
            _tensors=None,
        )
        widened = Operation(call, substitute(self.inputs, wide), self.output, reduced=True, signals=self.signals)
        widened.output = widened.again()
        return widened

    def detach_from(self, storage: int) -> None:
        """Copy the values in a storage that the model is about to overwrite."""
        own = {
            id(tensor): tensor.clone() for tensor in (*self.call.tensors, self.output) if _storage(tensor) == storage
        }
        if not own:
            return
        args, kwargs = substitute(self.call.args, own), substitute(self.call.kwargs, own)
        self.call = replace(self.call, args=args, kwargs=kwargs, _bound=None, _tensors=None)
        self.inputs = substitute(self.inputs, own)
        self.output = substitute(self.output, own)


def _storage(tensor: Tensor) -> int:
    """The address of a tensor's memory; 0 for other layouts, which have none and are not written in place."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


_HALF = (torch.float16, torch.bfloat16)

# (operation, signal at its output) -> one signal for each of operation.inputs
BackwardRule = Callable[[Operation, Tensor], tuple[Tensor | None, ...]]


@dataclass(frozen=True)
class Through:
    """A rule for operations of one input that reads no value and changes only the signal."""

    change: Callable[[Tensor], Tensor]


class RuleSet:
    """Backward rules by operator; subclasses choose.

    The operation itself runs exactly as the model wrote it: in-place calls stay in place, and the
    value is the model's own to the last bit. Only the backward signal changes.
    """

    name = "rules"
    # Operators with several outputs whose rule reads the signals at all outputs.
    several: frozenset[str] = frozenset()
    # Whether the rules depend on the module of an operation; otherwise the pass does not track modules.
    asks_places = True
    # Whether the calls of the next pass have to be seen.
    watches = True

    def __init__(self) -> None:
        self._masks_and_gates = MasksAndGates()
        # Operations that read a storage in the backward pass; it is copied for them before the model overwrites it.
        # Constants are hardly ever overwritten: their readers are looked for among all operations.
        self._readers: dict[int, list[Operation]] = {}

    @property
    def sees(self) -> Set[str] | None:
        """The operators that the rules need to see; None for all."""
        return None

    def choose(self, call: Call) -> BackwardRule | Through | None:
        """The rule for an operation; None keeps its gradient."""
        return None

    def run(self, call: Call) -> Any:
        """Run one operation so that its backward pass follows the chosen rule."""
        if call.foreign and any(tensor.requires_grad for tensor in call.tensors):
            self.opaque(f'the custom operator "{call.kind}" at "{call.name}"')
        call = self._recognised(call)
        if call.inplace:
            self._before_overwriting(call.input)
        inputs = [*{id(tensor): tensor for tensor in call.tensors if tensor.requires_grad}.values()]
        if not inputs or not torch.is_grad_enabled():
            output = call.run()
        elif (rule := self._chosen(call)) is not None:
            written = call.inplace and not call.input.requires_grad  # a value is written into a constant
            shape = _Nest()
            ways = [call.input, *inputs] if written else inputs
            result = (_Passed if isinstance(rule, Through) else _Ruled).apply(self, rule, call, shape, *ways)
            output = shape.restored(result)
        else:
            output = call.run()
        self._remember(call, output)
        return output

    def _chosen(self, call: Call) -> BackwardRule | Through | None:
        """The rule for an operation; an error in microtome's own code is reported as such."""
        try:
            return self.choose(call)
        except (MicrotomeError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            raise self.fault(call, error) from error

    def fault(self, call: Call, error: Exception) -> OpaqueError:
        """The error for a rule that failed: it names the operation and says that the model is not at fault."""
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in call.tensors)
        return OpaqueError(
            f'{self.name} failed at "{call.name}": its rule for the operation "{call.kind}" on tensors of shape '
            f"{shapes} raised {type(error).__name__}: {error}. The model itself is not at fault; please report this, "
            "and use a method that needs only gradients."
        )

    def ask(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a question about a tensor (its shape, its number as a Python number)."""
        return func(*args, **kwargs)

    def content(self, value: Tensor) -> Tensor:
        """The content of a value, where a tensor without content runs through the model in its place."""
        return value

    def will_read(self, operation: Operation) -> None:
        """Note the values that an operation reads in the backward pass."""
        for storage in {_storage(tensor) for tensor in (*operation.inputs, operation.output)}:
            self._readers.setdefault(storage, []).append(operation)

    def _before_overwriting(self, value: Tensor) -> None:
        """Copy a value for the operations that read it, since the model is about to write on it."""
        storage = _storage(value)
        readers = self._readers.pop(storage, [])
        if not value.requires_grad:  # a constant, or a part of one
            readers = [*{id(one): one for held in self._readers.values() for one in held}.values(), *readers]
        for operation in readers:
            operation.detach_from(storage)

    def unknown(self, call: Call) -> OpaqueError:
        """The error for an operation that has no rule."""
        return OpaqueError(
            f'{self.name} has no rule for the operation "{call.kind}" at "{call.name}". '
            "Use a gradient method, or write the model with operations that have one."
        )

    def opaque(self, what: str) -> None:
        """Refuse an operation that cannot be seen.

        Raises
        ------
        OpaqueError
            Always.
        """
        raise OpaqueError(
            f"{self.name} needs a backward rule for every operation, and {what} hides its own. "
            "Write it with torch's Python operators, or use a method that needs only gradients."
        )

    def check_graph(self, root: Tensor, begins: Sequence[Any] = ()) -> None:
        """Refuse a graph that contains a custom autograd function, which would run its own backward pass.

        Parameters
        ----------
        root : Tensor
            What is differentiated.
        begins : sequence
            Nodes and leaves at which the graph may begin.

        Raises
        ------
        OpaqueError
            Naming the function.
        """
        seen: set[Any] = set()
        queue = [root.grad_fn]
        while queue:
            node: Any = queue.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            name = type(node).__name__
            if isinstance(node, BackwardCFunction) and name not in _OURS:
                self.opaque(f'the autograd function "{name.removesuffix("Backward")}"')
            queue.extend(edge for edge, _ in node.next_functions)

    # -- rectifiers and gates written by several calls -----------------------------------------------------------

    def _remember(self, call: Call, output: Any) -> None:
        self._masks_and_gates.remember(call, output)

    def _recognised(self, call: Call) -> Call:
        return self._masks_and_gates.recognised(call)


class _Nest:
    """The nested output of an operation (a named tuple, a list), while an autograd function returns a flat tuple."""

    def __init__(self) -> None:
        self._output: Any = None
        self._flat: list[Tensor] = []

    def taken(self, call: Call, output: Any) -> Tensor | tuple[Tensor, ...]:
        """The output tensors in a row, safe to overwrite; a tensor written in place stays the same object."""
        if isinstance(output, Tensor) and (call.inplace or not output._is_view()):
            self._output = output
            return output
        flat = tensors(output) or [call.input]  # x[0] = 1 returns nothing
        read = {tensor.untyped_storage().data_ptr() for tensor in call.tensors}
        own = [value if call.inplace and value is call.input else _own(value, read) for value in flat]
        self._output, self._flat = output, flat
        return own[0] if len(own) == 1 else tuple(own)

    def restored(self, values: Any) -> Any:
        """The same nest with the tensors that the function returned."""
        output, self._output = self._output, None
        if isinstance(output, Tensor):
            return values
        swap = {id(old): new for old, new in zip(self._flat, tensors(values), strict=True)}
        self._flat = []
        return substitute(output, swap)


def _own(value: Tensor, read: set[int]) -> Tensor:
    """A value that is no view: torch forbids in-place writing on a view that a function returns."""
    if not value._is_view():
        return value
    return value.clone() if value.untyped_storage().data_ptr() in read else value.data


class _Ruled(torch.autograd.Function):
    """An operation of the model whose backward pass is a rule."""

    @staticmethod
    def forward(ctx: Any, rules: RuleSet, rule: BackwardRule, call: Call, nest: _Nest, *ways: Tensor) -> Any:
        inputs = [tensor for tensor in ways if tensor.requires_grad]
        before = {id(tensor): tensor.detach() for tensor in call.tensors}
        if call.inplace:
            before[id(call.input)] = call.input.detach().clone()
        output = nest.taken(call, call.run())
        if call.inplace:
            ctx.mark_dirty(call.input)
        args, kwargs = substitute(call.args, before), substitute(call.kwargs, before)
        seen = Call(call.kind, call.func, args, kwargs, call.inplace, call.name)
        seen._tensors = [before[id(tensor)] for tensor in call.tensors]
        flat = [output] if isinstance(output, Tensor) else [*output]
        ctx.half = any(value.dtype in _HALF for value in (*seen._tensors, *flat))
        ctx.mark_non_differentiable(*(value for value in flat if not (value.is_floating_point() or value.is_complex())))
        ctx.set_materialize_grads(True)
        ctx.rules, ctx.rule, ctx.written = rules, rule, len(ways) - len(inputs)
        ctx.operation = Operation(seen, tuple(before[id(tensor)] for tensor in inputs), flat[0].detach())
        rules.will_read(ctx.operation)
        return output

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        call, device = ctx.operation.call, signals[0].device.type
        if call.kind not in ctx.rules.several and any(bool(signal.any()) for signal in signals[1:]):
            raise ctx.rules.unknown(call)
        ctx.operation.signals = signals
        try:
            with torch.no_grad(), _exactly(device):
                operation = ctx.operation.widened() if ctx.half else ctx.operation
                arriving = signals[0].float() if operation.reduced else signals[0]
                sent = ctx.rule(operation, arriving)
        except (MicrotomeError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            raise ctx.rules.fault(call, error) from error
        return (None, None, None, None, *(None,) * ctx.written, *sent)


def _exactly(device: str) -> AbstractContextManager[Any]:
    """Rules compute in the precision of their values, also under the caller's autocast."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class _Passed(torch.autograd.Function):
    """An operation that only changes the signal; nothing is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, _rules: RuleSet, rule: Through, call: Call, nest: _Nest, *ways: Tensor) -> Any:
        ctx.rule = rule
        ctx.before = sum(not tensor.requires_grad for tensor in ways)
        ctx.after = len(ways) - ctx.before - 1
        output = nest.taken(call, call.run())
        if call.inplace:
            ctx.mark_dirty(call.input)
        return output

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        with torch.no_grad():
            return (*(None,) * (4 + ctx.before), ctx.rule.change(signals[0]), *(None,) * ctx.after)


_OURS = frozenset(f"{function.__name__}Backward" for function in (_Ruled, _Passed))
