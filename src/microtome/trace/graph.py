"""Which layers does the model have, as it runs? One watched pass lists modules and operations in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace import receptive_fields as fields
from microtome.trace.head import Path, tensors_by_path
from microtome.trace.operators import Call, tensors
from microtome.trace.receptive_fields import Field, ReceptiveField
from microtome.trace.tracer import Tracer

# Bookkeeping that moves values about; such calls are no layers of their own.
_PLUMBING = frozenset(
    """getitem view reshape permute transpose contiguous flatten unflatten squeeze unsqueeze to float chunk split
    unbind expand detach clone type_as T t movedim view_as dropout identity size expand_as repeat_interleave half
    bfloat16 double setitem pad cuda cpu data requires_grad_ reshape_as ravel broadcast_to tensor_split""".split()
)


# Where a value (heads, tokens, width) comes from that has three dimensions and no picture in them.
_HEADS = frozenset("scaled_dot_product_attention matmul softmax unbind permute transpose reshape view bmm".split())
_RESHAPED = frozenset("permute transpose reshape view".split())
# What does not change what a place is, such as a bias added to the weights of an attention.
_IN_PLACE = frozenset("add sub mul div masked_fill where".split())


@dataclass(frozen=True)
class Layer:
    """One layer of a network: a module, or an operation between modules.

    Attributes
    ----------
    name : str
        A module's qualified name, or ``module/op`` for a call inside it; ``#2`` marks a second call.
    kind : str
        The module's class or the operator.
    shape : tuple of int
        Output shape without the batch.
    units : int
        Channels, or neurons of a layer without height and width, or the width of tokens.
    parameters : int
        Weights held, those of submodules included.
    field : ReceptiveField or None
        Pixels that one position depends on, gates left out; None where it cannot be known. A layer
        without height and width sees one rectangle.
    gated : bool
        True when a global gate (squeeze-excite, attention over the picture, instance norm) makes every
        position depend on the whole picture besides.
    spatial : bool
        Whether the output has height and width.
    inputs : tuple of str
        The layers it reads.
    module : nn.Module or None
        The module, if it is one.
    operation : str
        Name of the last operation, whose value is the layer's output.
    leaf : bool
        True where the layer's own operation makes its value; False where a layer inside it does, or
        where it hands on what it reads (a container, an identity, dropout in evaluation).
    step : int
        Which operation of the pass makes the value, counted from 1. Layers are listed as they begin, and a
        block that joins its branches begins before them and ends after them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    units: int
    parameters: int
    field: ReceptiveField | None
    gated: bool
    spatial: bool
    inputs: tuple[str, ...]
    module: nn.Module | None = dataclasses.field(repr=False)
    operation: str
    leaf: bool
    step: int


@dataclass
class _Node:
    """One operation of the watched pass."""

    call: str
    kind: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    field: Field | None
    parameters: int
    scope: str
    heads: bool = False


@dataclass
class _Span:
    """One module's call."""

    name: str
    module: nn.Module
    start: int
    reads: tuple[int, ...]
    node: int | None = None
    shape: tuple[int, ...] = ()


class Watcher:
    """Notes every module and operation of one pass."""

    def __init__(self, images: Tensor) -> None:
        self.nodes: list[_Node] = [_Node("input", "input", tuple(images.shape[1:]), (), fields.START, 0, "")]
        self._images = len(images)
        self.spans: list[_Span] = []
        self.order: list[tuple[str, int]] = []  # ("module", span) or ("operation", node), by start
        self.softmax: dict[int, int] = {}  # a softmax's node -> the node it reads
        self._open: list[_Span] = []
        self._made: dict[int, tuple[Tensor, int]] = {id(images): (images, 0)}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""
        span = _Span(name, module, len(self.nodes), tuple(self._sources(args)))
        self._open.append(span)
        self.order.append(("module", len(self.spans)))
        self.spans.append(span)

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        made = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        if not made:
            return
        read = call.tensors
        known = [(value, self._made[id(value)][1]) for value in read if id(value) in self._made]
        sources = [(value, self.nodes[node].field) for value, node in known]
        carried = [(value, found) for value, found in sources if found is not None]
        lost = len(carried) < len(sources)
        spread = None if lost or made[0].dim() < 2 else fields.propagate(call, carried, made[0])
        held = sum(value.numel() for value in read if isinstance(value, nn.Parameter))
        index = len(self.nodes)
        scope = self._open[-1].name if self._open else ""
        inputs = tuple(dict.fromkeys(node for _, node in known))
        shape = tuple(made[0].shape[1:])
        apart = made[0].dim() == 4 and len(made[0]) != self._images
        heads = apart or self._holds_heads(call.kind, shape, inputs, spread)
        self.nodes.append(_Node(call.name, call.kind, shape, inputs, spread, held, scope, heads))
        self.order.append(("operation", index))
        if call.kind in ("softmax", "log_softmax") and inputs:
            self.softmax[index] = inputs[0]
        if inputs:
            for value in made:
                self._made[id(value)] = (value, index)

    def _holds_heads(self, kind: str, shape: tuple[int, ...], inputs: tuple[int, ...], spread: Field | None) -> bool:
        """Whether a value of three axes holds heads or windows of an attention rather than a picture."""
        if kind in _IN_PLACE:
            alike = [self.nodes[read] for read in inputs if self.nodes[read].shape == shape]
            return any(node.heads and node.kind not in _RESHAPED for node in alike)
        if kind not in _HEADS or (spread is not None and not spread.everywhere):
            return False
        # A block that puts its windows together gives maps of a size that a convolution has made before.
        return kind not in _RESHAPED or all(node.kind != "conv2d" or node.shape[1:] != shape[1:] for node in self.nodes)

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
            spread = fields._everything(everything) if everything else None
            held = sum(parameter.numel() for parameter in module.parameters())
            kind = type(module).__name__
            self.nodes.append(_Node(name, kind, tuple(found[0].shape[1:]), span.reads, spread, held, name))
            self._made[id(found[0])] = (found[0], len(self.nodes) - 1)
        span.node = self._made[id(found[0])][1]
        span.shape = tuple(found[0].shape[1:])

    def node_of(self, value: Tensor) -> int | None:
        """Which operation made a value."""
        found = self._made.get(id(value))
        return None if found is None else found[1]

    def _sources(self, args: Any) -> list[int]:
        return [self._made[id(value)][1] for value in tensors(args) if id(value) in self._made]


@dataclass(frozen=True)
class Graph:
    """The layers of a model in the order they run.

    Attributes
    ----------
    layers : mapping of str to Layer
        By name.
    outputs : mapping
        For each tensor that the model returns, by the keys that lead to it, the layer that makes it.
    """

    layers: Mapping[str, Layer]
    outputs: Mapping[Path, str]


def watch(model: nn.Module, images: Tensor) -> tuple[Graph, Any]:
    """Run the model once on ``images`` and list what happens; returns the graph and the output."""
    watcher = Watcher(images)
    output = Tracer(model, observer=watcher)(images)
    return _graph(watcher, output), output


def _graph(watcher: Watcher, output: Any) -> Graph:
    public: dict[int, str] = {0: "input"}  # node -> the name people know it by
    merged: set[int] = set()
    for span in watcher.spans:  # inner modules come after outer ones: the innermost owner of a value wins
        if span.node is not None and _owns(watcher, span):
            public[span.node] = span.name
            merged.add(span.node)
    layers: dict[str, Layer] = {}
    for what, index in watcher.order:
        if what == "module":
            span = watcher.spans[index]
            if span.node is not None:
                layers[span.name] = _module_layer(watcher, span, public)
        else:
            node = watcher.nodes[index]
            hidden = index in merged or node.kind in _PLUMBING or not node.inputs or _in_library_leaf(watcher, node)
            plumbing = node.kind in _PLUMBING and node.inputs and index not in merged
            public.setdefault(index, public.get(node.inputs[0], node.call) if plumbing else node.call)
            if not hidden:
                layers[node.call] = _operation_layer(node, index, public)
    heads = {path: watcher.node_of(value) for path, value in tensors_by_path(output)}
    outputs = {path: public.get(node, "") for path, node in heads.items() if node is not None}
    return Graph(layers, outputs)


def _owns(watcher: Watcher, span: _Span) -> bool:
    """Whether the module's own operation, not a submodule's, made its output."""
    node = watcher.nodes[span.node] if span.node is not None else None
    return node is not None and node.scope == span.name and span.node not in span.reads


def _in_library_leaf(watcher: Watcher, node: _Node) -> bool:
    """Inside a torch.nn module without children: its inner steps are not listed."""
    for span in watcher.spans:
        if span.name == node.scope:
            library = type(span.module).__module__.startswith("torch.nn.modules")
            return library and next(span.module.children(), None) is None
    return False


def _module_layer(watcher: Watcher, span: _Span, public: dict[int, str]) -> Layer:
    node = watcher.nodes[span.node] if span.node is not None else watcher.nodes[0]
    kind = getattr(span.module, "original_name", type(span.module).__name__)
    held = sum(parameter.numel() for parameter in span.module.parameters())
    owned, step = _owns(watcher, span), span.node or 0
    return _layer(span.name, kind, span.shape, held, node, span.reads, public, span.module, leaf=owned, step=step)


def _operation_layer(node: _Node, step: int, public: dict[int, str]) -> Layer:
    held, read = node.parameters, node.inputs
    return _layer(node.call, node.kind, node.shape, held, node, read, public, None, leaf=True, step=step)


def _layer(
    name: str,
    kind: str,
    shape: tuple[int, ...],
    parameters: int,
    node: _Node,
    reads: tuple[int, ...],
    public: dict[int, str],
    module: nn.Module | None,
    *,
    leaf: bool,
    step: int,
) -> Layer:
    units = shape[0] if len(shape) in (1, 3) else shape[-1] if shape else 1
    spread = node.field
    return Layer(
        name=name,
        kind=kind,
        shape=shape,
        units=int(units),
        parameters=int(parameters),
        field=None if spread is None else spread.rectangle(),
        gated=spread is not None and spread.gated,
        spatial=len(shape) == 3 and not node.heads,
        inputs=tuple(dict.fromkeys(public.get(read, "") for read in reads)),
        module=module,
        operation=node.call,
        leaf=leaf,
        step=step,
    )
