"""The observer that reads a network: every module and operation of one pass, and what each reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from microtome.trace import receptive_fields
from microtome.trace.axes.followed_pass import Seen, kept
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.origins import Origins
from microtome.trace.receptive_fields import Field
from microtome.trace.tracing import memory_order
from microtome.trace.tracing.untouched_values import Untouched


@dataclass
class Node:
    """One operation of the watched pass."""

    call: str
    seen: Seen
    inputs: tuple[int, ...]
    field: Field | None
    parameters: int
    scope: str
    is_complex: bool = False
    hidden: bool = False

    @property
    def kind(self) -> str:
        """The operator."""
        return self.seen.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.seen.shape


@dataclass
class Span:
    """One module's call, or one operation between modules."""

    name: str
    module: nn.Module | None
    start: int
    reads: tuple[int, ...]
    node: int | None = None
    shape: tuple[int, ...] = ()


class Watcher:
    """Notes every module and operation of one pass.

    Parameters
    ----------
    images : Tensor
        Images of the pass.
    hidden : set of str
        Operations that read a value that the tracer did not see being computed, so its origin is unknown.
    """

    def __init__(self, images: Tensor, hidden: frozenset[str] = frozenset()) -> None:
        self.hidden = hidden
        self.origins = Origins(images)
        self.strange = False  # whether something was read that no operation made: a constant, or made unseen
        self.nodes: list[Node] = [Node("input", kept("input", images), (), receptive_fields.START, 0, "")]
        self.spans: list[Span] = []
        self.order: list[tuple[str, int]] = []  # ("module", span) or ("operation", node), by start
        self.untouched: set[str] = set()  # operations whose value no later one has overwritten, after the pass
        self._values = Untouched()
        self.softmax: dict[int, int] = {}  # a softmax's node -> the node it reads
        self._open: list[Span] = []
        self._made: dict[int, tuple[Tensor, int]] = {id(images): (images, 0)}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""
        span = Span(name, module, len(self.nodes), tuple(self._sources(args)))
        self._open.append(span)
        self.order.append(("module", len(self.spans)))
        self.spans.append(span)

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        outputs = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        if not outputs:
            return
        read = call.tensors
        self.strange |= any(not isinstance(value, nn.Parameter) and not self.origins.knows(value) for value in read)
        self.origins.add(outputs)
        known = [(value, self._made[id(value)][1]) for value in read if id(value) in self._made]
        sources = [(value, self.nodes[node].field) for value, node in known]
        carried = [(value, found) for value, found in sources if found is not None]
        hidden = call.name in self.hidden
        lost = hidden or len(carried) < len(sources)
        spread = None if lost or outputs[0].dim() < 2 else receptive_fields.propagate(call, carried, outputs[0])
        held = sum(value.numel() for value in read if isinstance(value, nn.Parameter))
        index = len(self.nodes)
        scope = self._open[-1].name if self._open else ""
        memory_order.note(self._open[-1].module if self._open else None, call)
        inputs = tuple(dict.fromkeys(node for _, node in known))
        seen, is_complex = kept(call.kind, outputs[0]), outputs[0].is_complex()
        self.nodes.append(Node(call.name, seen, inputs, spread, held, scope, is_complex, hidden))
        self.order.append(("operation", index))
        self._values.note(call.name, outputs[0])
        if call.kind in ("softmax", "log_softmax") and inputs:
            self.softmax[index] = inputs[0]
        if inputs or hidden:
            for value in outputs:
                self._made[id(value)] = (value, index)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""
        while self._open and self._open[-1].module is not module:
            self._open.pop()
        span = self._open.pop()
        found = tensors(output)
        if not found:
            return
        if id(found[0]) not in self._made:  # an opaque module (scripted): one node for all of it
            sources = [self.nodes[node].field for node in span.reads]
            everything = [(found[0], source) for source in sources if source is not None]
            spread = receptive_fields._everything(everything) if everything else None
            held = sum(parameter.numel() for parameter in module.parameters())
            seen = kept(type(module).__name__, found[0])
            self.nodes.append(Node(name, seen, span.reads, spread, held, name, found[0].is_complex()))
            self._made[id(found[0])] = (found[0], len(self.nodes) - 1)
        span.node = self._made[id(found[0])][1]
        span.shape = tuple(found[0].shape)
        if not span.reads:  # called by keyword: the values that its operations read from outside
            inside = (read for node in self.nodes[span.start :] for read in node.inputs)
            span.reads = tuple(dict.fromkeys(read for read in inside if read < span.start))

    def node_of(self, value: Tensor) -> int | None:
        """Which operation made a value."""
        found = self._made.get(id(value))
        return None if found is None else found[1]

    def let_go(self) -> None:
        """Forget which value is which, after the pass: each is held only until it has been compared."""
        self._made.clear()
        self.untouched = self._values.names()

    def _sources(self, args: Any) -> list[int]:
        return [self._made[id(value)][1] for value in tensors(args) if id(value) in self._made]
