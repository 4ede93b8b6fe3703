"""Backward rules: gradient overrides chosen by operator, and the machinery that runs an operation under one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from microtome.errors import OpaqueError
from microtome.trace.operator_table import those
from microtome.trace.operators import Call, substitute, tensors

_COPIES = those(role=("cast", "copy"), function="identity")
_GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}
# x > 0 and what it is when it is turned round: ~(x > 0).
_NOT = frozenset(("invert", "logical_not", "bitwise_not"))
_TURNED = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}


@dataclass
class Operation:
    """What a backward rule gets to see.

    Attributes
    ----------
    call : Call
        The operation; its tensors are the values it read, cut from the graph.
    inputs : tuple of Tensor
        The tensors that a signal goes back to, in the order of the arguments.
    output : Tensor
        What it computed.
    """

    call: Call
    inputs: tuple[Tensor, ...]
    output: Tensor

    def storages(self) -> set[int]:
        """Where the values lie that the rule will read."""
        return {tensor.untyped_storage().data_ptr() for tensor in (*self.call.tensors, self.output)}

    def detach_from(self, storage: int) -> None:
        """Copy the values that lie where the model is about to write."""
        own = {
            id(tensor): tensor.clone()
            for tensor in (*self.call.tensors, self.output)
            if tensor.untyped_storage().data_ptr() == storage
        }
        args, kwargs = substitute(self.call.args, own), substitute(self.call.kwargs, own)
        self.call = replace(self.call, args=args, kwargs=kwargs, _bound=None, _tensors=None)
        self.inputs = substitute(self.inputs, own)
        self.output = substitute(self.output, own)


# (operation, signal at its output) -> one signal for each of operation.inputs
BackwardRule = Callable[[Operation, Tensor], tuple[Tensor | None, ...]]


@dataclass(frozen=True)
class Through:
    """A rule for operations of one input that needs to see no value: only the signal is changed."""

    change: Callable[[Tensor], Tensor]


class RuleSet:
    """Backward rules by operator; subclasses choose.

    The operation itself runs exactly as the model wrote it: in-place calls stay in place, and the
    value is the model's own to the last bit. Only what travels backwards changes.
    """

    name = "rules"
    # Whether it matters in which module an operation runs; where it does not, the pass keeps no track of modules.
    asks_places = True

    def __init__(self) -> None:
        # What a mask or a gate was made from, so that x * (x > 0) and x * sigmoid(x) are known again.
        self._made_from: dict[int, tuple[Tensor, Tensor, str]] = {}
        # Which operations will read a storage on the way back, so that it is copied before the model writes there.
        self._readers: dict[int, list[Operation]] = {}

    @property
    def sees(self) -> frozenset[str] | None:
        """The operators that the rules need to be told of; None for all."""
        return None

    def choose(self, call: Call) -> BackwardRule | Through | None:
        """The rule for an operation; None lets its gradient stand."""
        return None

    def run(self, call: Call) -> Any:
        """Run one operation so that its backward pass follows the chosen rule."""
        if call.foreign and any(tensor.requires_grad for tensor in call.tensors):
            self.opaque(f'the custom operator "{call.kind}" at "{call.name}"')
        call = self._recognised(call)
        if call.inplace:
            storage = call.input.untyped_storage().data_ptr()
            for operation in self._readers.pop(storage, ()):
                operation.detach_from(storage)
        inputs = [tensor for tensor in call.tensors if tensor.requires_grad]
        if not inputs or not torch.is_grad_enabled():
            output = call.run()
        elif isinstance(rule := self.choose(call), Through):
            output = _Passed.apply(rule, call, *inputs)
        elif rule is not None:
            output = _Ruled.apply(self, rule, call, *inputs)
        else:
            output = call.run()
        self._remember(call, output)
        return output

    def ask(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a question about a tensor (its shape, its number as a Python number)."""
        return func(*args, **kwargs)

    def content(self, value: Tensor) -> Tensor:
        """What a value of the pass holds, where the tensor that runs through the model only stands for it."""
        return value

    def will_read(self, operation: Operation) -> None:
        """Note what an operation reads on the way back."""
        for storage in operation.storages():
            self._readers.setdefault(storage, []).append(operation)

    def opaque(self, what: str) -> None:
        """Refuse what cannot be seen.

        Raises
        ------
        OpaqueError
            Always.
        """
        raise OpaqueError(
            f"{self.name} needs a backward rule for every operation, and {what} hides its own. "
            "Write it with torch's Python operators, or use a method that needs gradients only."
        )

    def check_graph(self, root: Tensor) -> None:
        """Refuse a graph with somebody's own autograd function in it: it would run its own backward.

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

    # -- spellings made of several calls -------------------------------------------------------------------------

    def _remember(self, call: Call, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if (call.kind in _GATES and not call.inplace) or (call.kind in _TURNED and _zero(call.arguments.get("other"))):
            self._made_from[id(output)] = (output, call.input, call.kind)
        elif id(call.input) in self._made_from:
            _, source, kind = self._made_from[id(call.input)]
            if call.kind in _COPIES:
                self._made_from[id(output)] = (output, source, kind)
            elif call.kind in _NOT and kind in _TURNED:
                self._made_from[id(output)] = (output, source, _TURNED[kind])

    def _recognised(self, call: Call) -> Call:
        """A product with a mask or gate of the same tensor, as the rectifier that it is."""
        if call.kind == "mul":
            a, b = call.arguments["input"], call.arguments["other"]
            for x, mask in ((a, b), (b, a)):
                if self._is_from(mask, x, "gt", "ge"):
                    return _pointwise_call(call, "relu", x)
                for gate, kind in _GATES.items():
                    if self._is_from(mask, x, gate):
                        return _pointwise_call(call, kind, x)
        elif call.kind == "where":
            bound = call.arguments
            if self._is_from(bound["condition"], bound["input"], "gt", "ge") and _zero(bound["other"]):
                return _pointwise_call(call, "relu", bound["input"])
            if self._is_from(bound["condition"], bound["other"], "lt", "le") and _zero(bound["input"]):
                return _pointwise_call(call, "relu", bound["other"])
        elif call.kind in ("masked_fill", "setitem"):
            bound = call.arguments
            mask = bound["mask" if call.kind == "masked_fill" else "index"]
            if self._is_from(mask, bound["input"], "lt", "le") and _zero(bound["value"]):
                return _pointwise_call(call, "relu", bound["input"])
        return call

    def _is_from(self, mask: Any, x: Any, *kinds: str) -> bool:
        found = self._made_from.get(id(mask))
        return found is not None and found[0] is mask and found[1] is x and found[2] in kinds


def _pointwise_call(call: Call, kind: str, x: Tensor) -> Call:
    """The same call as a function of ``x`` alone; a gate stays attached, its path is part of the derivative."""

    def run(value: Tensor) -> Tensor:
        swap = {id(x): value}
        output = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
        return value if output is None else output  # x[x < 0] = 0 returns nothing

    return Call(kind, run, (x,), {}, call.inplace, call.name)


def _zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() > 0 and not value.requires_grad and not bool(value.count_nonzero())
    return isinstance(value, int | float) and value == 0


class _Ruled(torch.autograd.Function):
    """An operation of the model whose backward pass is a rule."""

    @staticmethod
    def forward(ctx: Any, rules: RuleSet, rule: BackwardRule, call: Call, *inputs: Tensor) -> Any:
        before = {id(tensor): tensor.detach() for tensor in call.tensors}
        if call.inplace:
            before[id(call.input)] = call.input.detach().clone()
        output = call.run()
        if call.inplace:
            ctx.mark_dirty(call.input)
        args, kwargs = substitute(call.args, before), substitute(call.kwargs, before)
        seen = Call(call.kind, call.func, args, kwargs, call.inplace, call.name)
        main = tensors(output)[0]
        ctx.set_materialize_grads(True)
        ctx.rule = rule
        ctx.operation = Operation(seen, tuple(before[id(tensor)] for tensor in inputs), main.detach())
        rules.will_read(ctx.operation)
        return output

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        with torch.no_grad():
            sent = ctx.rule(ctx.operation, signals[0])
        return (None, None, None, *sent)


class _Passed(torch.autograd.Function):
    """An operation of the model through which a signal passes; nothing is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, rule: Through, call: Call, *inputs: Tensor) -> Any:
        ctx.rule, ctx.others = rule, inputs[1:]
        output = call.run()
        if call.inplace:
            ctx.mark_dirty(call.input)
        return output

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        with torch.no_grad():
            return (None, None, ctx.rule.change(signals[0]), *(torch.zeros_like(other) for other in ctx.others))


_OURS = frozenset(f"{function.__name__}Backward" for function in (_Ruled, _Passed))
