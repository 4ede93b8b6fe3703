"""Guided backpropagation and deconvnet: backward rules at rectifiers, however the model spells them.

A rectifier is recognised by what it computes, not by its name: a value that is computed element by element from one
tensor is probed as a function of one number, and the rule acts at the operation that completes the nonlinearity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.backward_rules import RuleSet
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import ELEMENTWISE, RECTIFIERS, those
from microtome.trace.origins import calling_place
from microtome.trace.rectifiers.activation_kind import Kind, kind_of
from microtome.trace.rectifiers.elementwise import Elementwise
from microtome.trace.rectifiers.known_graphs import KnownGraph, Outline, known_graph
from microtome.trace.rectifiers.laid_beside import CHOOSING, JOINING, LAYING_OUT, TAKING
from microtome.trace.rectifiers.value_function import Value, entry, inside

_BOUNDED = those(activation="rectifier", kink="bounds")
_CURVED_ARITHMETIC = those(role=("arithmetic", "function"), function="curved") | those(activation="saturating")
_NAMED = Kind("rectifier")  # of an operator that is one by its name
_LEAVING = frozenset("numpy tolist __array__ __dlpack__".split())  # methods that export all numbers of a tensor
# Autograd's own nodes whose derivative is 0 or 1, and which return a tensor of their own.
_STEPS = frozenset(
    ("ReluBackward0", "HardtanhBackward0", "HardtanhBackward1", "ThresholdBackward0", "ThresholdBackward1")
)


class _Seen(set[str]):
    """Operators that the rules need to see; after the first mask these are all, since any may move it."""

    everything = False

    def __contains__(self, kind: object) -> bool:
        return self.everything or super().__contains__(kind)


class RectifierRules(RuleSet, ABC):
    """Rules that act at rectifiers; subclasses define the action.

    The forward pass runs as the model wrote it. Afterwards the values that are functions of one tensor are
    sorted into rectifiers and others, and hooks are set on autograd's graph.

    Attributes
    ----------
    notes : list of str
        Patterns that could not be recognised, by name: there the plain gradient is used.
    watches : bool
        Whether the calls of the next pass have to be seen; not where the rectifiers of its graph are known.
    """

    acts_on = RECTIFIERS
    asks_places = False

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        # The nodes of the rectifiers of the pass, each with the nodes of what it reads. None if one was recognised by
        # its values: a later pass may have others at the same nodes.
        self._named: list[tuple[Any, set[Any]]] | None = []
        self._known: KnownGraph | None = None
        self._elementwise = Elementwise()
        self._decided: set[int] = set()
        self._sees = _Seen(ELEMENTWISE | JOINING | {"setitem", "max", "min"})

    @property
    def sees(self) -> set[str]:
        """All operators that a rectifier may consist of; after the first mask also all that may move it."""
        return self._sees

    def ask(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a query about a tensor; noted if all its numbers are exported to NumPy or Python."""
        tensor = args[0] if args else None
        leaving = getattr(func, "__name__", "") in _LEAVING and isinstance(tensor, Tensor) and tensor.numel() > 1
        if leaving and isinstance(tensor, Tensor) and self._elementwise.knows(tensor):
            name = func.__name__.strip("_")
            self._note(f'computations on numbers of the image after "{name}" in {calling_place()} are not seen')
        return func(*args, **kwargs)

    def run(self, call: Call) -> Any:
        """Run one operation as the model wrote it and note its inputs."""
        if call.foreign and any(tensor.requires_grad for tensor in call.tensors):
            self.opaque(f'the custom operator "{call.kind}"')
        mixed = len(self._elementwise.mixed)
        value = self._elementwise.before(call)
        if len(self._elementwise.mixed) > mixed:
            self._note(
                f'"{call.kind}" in {calling_place()} joins values that are made from the image in different ways'
            )
        if (
            value is not None
            and value.source is not None
            and call.inplace
            and call.input.requires_grad
            and call.input._is_view()
        ):
            return self._on_view(call, value)
        if value is not None and value.mask:
            self._sees.everything = True
        output = call.run()
        self._elementwise.after(value, call, output)
        if call.kind in JOINING:
            self._sees |= TAKING | CHOOSING | (LAYING_OUT | {"glu"} if self._elementwise.lies_beside else frozenset())
        return output

    def _on_view(self, call: Call, value: Value) -> Any:
        """An in-place call on a part of a tensor: computed separately and copied in, so that the part has a node."""
        part = call.input
        beside = part.clone()
        args = tuple(beside if item is part else item for item in call.args)
        kwargs = {key: beside if item is part else item for key, item in call.kwargs.items()}
        output = call.func(*args, **kwargs)
        self._elementwise.after(value, Call(call.kind, call.func, args, kwargs, call.inplace), output)
        part.copy_(beside)
        return None if output is None else part

    def recall(self, model: nn.Module, passes: tuple[Any, ...]) -> None:
        """Use what earlier passes of the same model and kind have shown: then the next one is not watched."""
        self._known = known_graph(model, (type(self), *passes))
        self.watches = self._known.rows is None

    def check_graph(self, root: Tensor, begins: Sequence[Any] = ()) -> None:
        """Refuse hidden functions; then set the rules at all rectifiers that the root depends on.

        Raises
        ------
        OpaqueError
            Names a function that would run its own backward pass.
        UnknownGraphError
            When the pass was not watched, and its graph is not the known one.
        """
        outline = None if self._known is None else Outline.of(root, begins)
        if self._known is not None and not self.watches:
            self.watches = True  # if this fails, the pass is run again
            for node, ends in self._known.found(outline):
                self.rectify(node, _NAMED, ends)
            return
        super().check_graph(root)
        values = [value for value in self._elementwise.values if value.node is not None and not value.linear]
        read = {value.node for value in values if any(child.node is not None for child in value.children)}
        readers = _readers(root, read) if read else {}
        for value in values:
            if value.node not in read or not readers[value.node] <= _inner_readers(value):
                self._decide(value)
        if self._known is not None and self._named is not None and not self.notes and not self._sees.everything:
            self._known.keep(outline, self._named)
        self.forget()

    def forget(self) -> None:
        """Release the values of a pass. They refer to each other in cycles, and lead to its graph."""
        super().forget()
        self._named = []
        self._elementwise.forget()
        self._elementwise = Elementwise()

    def _decide(self, value: Value) -> None:
        """Find the operation that completes the nonlinearity of a value, and set the rule if it is a rectifier."""
        while value.affine and not value.linear:
            value = value.parents[0]
        if value.node is None or value.linear or id(value) in self._decided:
            return
        self._decided.add(id(value))
        before = value.parents[0]
        alone = len(value.parents) == 1
        if alone and value.kind in RECTIFIERS and (value.kind not in _BOUNDED or before is value.source):
            if self._named is not None:
                self._named.append((value.node, before.nodes))
            self.rectify(value.node, _NAMED, before.nodes)
            self._decide(before)
            return
        if alone and value.kind in _CURVED_ARITHMETIC and before.kind in RECTIFIERS:
            self._decide(before)
            return
        if value.kind == "mul" and all(parent.kind in RECTIFIERS for parent in value.parents):  # a square by hand
            for parent in value.parents:
                self._decide(parent)
            return
        kind = self._kind(value)
        if kind.name == "rectifier" or not alone or before is not value.source:
            self._named = None
        if kind.name == "rectifier":
            self.rectify(value.node, kind, entry(value).nodes)
        elif kind.name == "other" and (alone or kind.failed):
            for parent in value.parents:
                self._decide(parent)

    def _kind(self, value: Value) -> Kind:
        try:
            return kind_of(value)
        except (RuntimeError, TypeError, ValueError) as error:
            self._note(f'the nonlinearity that ends in "{value.kind}" ({value.name}) cannot be probed: {error}')
            return Kind("other", failed=True)

    @abstractmethod
    def rectify(self, node: Any, kind: Kind, ends: set[Any]) -> None:
        """Set the rule at a rectifier: at the node of its output, with the nodes of what it reads."""

    def _note(self, text: str) -> None:
        note = f"{self.name}: {text}; it was not recognised as a rectifier, and its gradient stands."
        if note not in self.notes:
            self.notes.append(note)


class Guided(RectifierRules):
    r"""Guided backpropagation: at a nonlinearity f the signal is :math:`f'(x)\,\max(g, 0)`.

    For ReLU this is the paper's rule (pass what is positive forwards and backwards). For ReLU6,
    LeakyReLU, PReLU, ELU, SELU, CELU, GELU, SiLU, Mish, Hardswish and Softplus it is the same
    sentence with their own derivative. Saturating functions (sigmoid, tanh, softmax) and gates keep
    their gradient.
    """

    name = "guided backpropagation"

    def rectify(self, node: Any, kind: Kind, ends: set[Any]) -> None:
        """Clamp the signal that arrives; the nonlinearity's own gradient does the rest."""
        if kind.sign > 0 and type(node).__name__ in _STEPS:
            # The derivative is 0 or 1: rectifying the fresh result is the same, and needs no memory.
            node.register_hook(_rectify)
        else:
            node.register_prehook(_clamped(kind.sign))


class Deconvnet(RectifierRules):
    r"""Deconvnet: at a nonlinearity the signal is :math:`\max(g, 0)`, whatever the forward value was.

    Max-pooling sends the signal to its switches and convolutions apply their transposed filters,
    which is what their gradients do. Acts on the same nonlinearities as ``Guided``.
    """

    name = "deconvnet"

    def rectify(self, node: Any, kind: Kind, ends: set[Any]) -> None:
        """Pass the clamped signal from the nonlinearity's output to what it was computed from."""
        if kind.sign > 0 and kind.scale == 1 and type(node).__name__ in _STEPS:
            # The node sends a new tensor: the clamped signal is written into it and needs no further memory.
            node.register_hook(_replace_by_clamped)
            return
        passing = _Passing(kind)
        node.register_prehook(passing.arrive)
        for within in inside(node, ends):
            last = [place for place, (reached, _) in enumerate(within.next_functions) if reached in ends]
            if last:
                within.register_hook(passing.leave(last))


class _Passing:
    """One nonlinearity that the signal passes: it enters at the output and leaves once at the input."""

    def __init__(self, kind: Kind) -> None:
        self._clamp, self._scale = _clamped(kind.sign), kind.scale
        self._signal: Tensor | None = None

    def arrive(self, signals: tuple[Tensor | None, ...]) -> None:
        """Keep the arriving signal; the graph below continues, but its result is exchanged."""
        signal = self._clamp(signals)[0]
        self._signal = signal if signal is None or self._scale == 1 else signal * self._scale

    def leave(self, places: list[int]) -> Any:
        """The hook of a node that sends to the input: the first of them sends the signal, the others nothing."""

        def exchange(sent: tuple[Tensor | None, ...], _arrived: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            signals = list(sent)
            for place in places:
                own = signals[place]
                if own is not None:
                    signal, self._signal = self._signal, None
                    signals[place] = torch.zeros_like(own) if signal is None else _laid_out(signal, own)
            return tuple(signals)

        return exchange


def _laid_out(signal: Tensor, own: Tensor) -> Tensor:
    """A signal in the shape of the one that it replaces: summed over repetitions, with axes of length one added."""
    same = signal.numel() == own.numel()
    return (signal.reshape(own.shape) if same else signal.sum_to_size(own.shape)).to(own)


def _clamped(sign: int) -> Any:
    """The hook that keeps the positive part of an arriving signal, or the negative part if ``sign`` is -1."""

    def clamp(signals: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        keep = {"min": 0} if sign > 0 else {"max": 0}
        return tuple(None if signal is None else signal.clamp(**keep) for signal in signals)

    return clamp


def _rectify(sent: tuple[Tensor | None, ...], _arrived: tuple[Tensor | None, ...]) -> None:
    for signal in sent:
        if signal is not None:
            signal.clamp_(min=0)


def _replace_by_clamped(sent: tuple[Tensor | None, ...], arrived: tuple[Tensor | None, ...]) -> None:
    """Write the clamped arriving signal into the fresh result of a node that has one input."""
    own, signal = sent[0], arrived[0]
    if own is not None and signal is not None:
        torch.clamp(signal, min=0, out=own)


def _readers(root: Tensor, nodes: set[Any]) -> dict[Any, set[Any]]:
    """For each of these nodes the nodes of the graph that send their gradient to it."""
    found: dict[Any, set[Any]] = {node: set() for node in nodes}
    seen: set[Any] = set()
    queue: list[Any] = [root.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for reached, _ in node.next_functions:
            if reached in found:
                found[reached].add(node)
            queue.append(reached)
    return found


def _inner_readers(value: Value) -> set[Any]:
    """The nodes of the elementwise operations that follow a value."""
    return {
        node
        for child in value.children
        if child.node is not None
        for node in inside(child.node, {node for parent in child.parents for node in parent.nodes})
    }
