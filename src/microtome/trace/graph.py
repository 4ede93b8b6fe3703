"""The layers of a model: modules and operations in the order they run, with the axes of their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from microtome.errors import LayerError, ModelError
from microtome.trace.axes.axis_reading import Pictures, Reading, read_axes
from microtome.trace.axes.followed_pass import Seen
from microtome.trace.axes.value_axes import Axes
from microtome.trace.heads.head import Path, tensors_by_path
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_table import those
from microtome.trace.receptive_fields import ReceptiveField
from microtome.trace.shared_pass import SharedPass
from microtome.trace.tracing.observers import readers_of_strangers
from microtome.trace.tracing.tracer import Tracer
from microtome.trace.tracing.watcher import Node, Span, Watcher
from microtome.trace.tracing.watching import Observer

# Bookkeeping that moves values about; such calls are no layers of their own.
_PLUMBING = those(layer=False)


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
        Shape of one image's output; of the whole output if it belongs to no single image.
    units : int
        Channels, or neurons of a layer without positions, or the width of tokens; 0 if there are none.
    parameters : int
        Weights held, those of submodules included.
    field : ReceptiveField or None
        Pixels that one position depends on, gates left out; None if it cannot be known. A layer
        without height and width sees one rectangle.
    gated : bool
        True when a global gate (squeeze-excite, attention over the picture, instance norm) makes every
        position depend on the whole picture besides.
    spatial : bool
        Whether the output has the rows and columns of the picture as axes; the channels may be first or last.
    inputs : tuple of str
        The layers it reads.
    module : nn.Module or None
        The module, if it is one.
    operation : str
        Name of the last operation, whose value is the layer's output.
    leaf : bool
        True if the layer's own operation makes its value; False if a layer inside it does, or
        where it hands on what it reads (a container, an identity, dropout in evaluation).
    step : int
        Which operation of the pass makes the value, counted from 1. Layers are listed as they begin, and a
        block that joins its branches begins before them and ends after them.
    axes : Axes
        Which axis of the output holds the images and which the units.
    is_complex : bool
        Whether the output holds complex numbers, which have no order and no sign: no unit of them fires most.
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
    axes: Axes
    is_complex: bool = False

    @property
    def operator(self) -> str:
        """The operator that makes the value, whatever the module's class: ``"softmax"`` for ``"attn/softmax.1"``."""
        return self.operation.rpartition("/")[2].partition(".")[0]

    def check_real(self) -> None:
        """Refuse a layer of complex numbers where units are compared or followed.

        Raises
        ------
        LayerError
            When the layer holds complex numbers.
        """
        if self.is_complex:
            raise LayerError(
                f'layer "{self.name}" holds complex numbers, which have no sign. Choose a layer before the '
                "transform, or one that holds the size or the real part of these numbers."
            )


@dataclass(frozen=True)
class Graph:
    """The layers of a model in the order they run.

    Attributes
    ----------
    layers : mapping of str to Layer
        By name.
    outputs : mapping
        For each tensor that the model returns, by its keys, the layer that computes it.
    axes : mapping of str to Axes
        Of all values: of layers, and of operations that are not listed.
    mixes : str
        The first layer or operation where images of a batch influence each other; empty if there is none.
    note : str
        What could not be measured about the axes; empty if everything was.
    batch : int
        The smallest batch size that the model takes; nearly always 1.
    untouched : set of str
        Values that no later operation has overwritten; a name is removed when a pass shows otherwise.
    """

    layers: Mapping[str, Layer]
    outputs: Mapping[Path, str]
    axes: Mapping[str, Axes] = dataclasses.field(repr=False)
    mixes: str = ""
    note: str = ""
    batch: int = 1
    untouched: set[str] = dataclasses.field(default_factory=set, repr=False, compare=False)

    def feeding(self, ends: Iterable[str]) -> frozenset[str]:
        """The layers that these layers depend on, themselves included; by default those of the outputs."""
        found: set[str] = set()
        queue = list(ends) or list(self.outputs.values())
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue += self.layers[name].inputs if name in self.layers else ()
        return frozenset(found)


# Attributes of every module that do not hold its own tensors.
_INSIDE = frozenset(name for name in vars(nn.Module()) if name not in ("_parameters", "_buffers"))
_BATCHES = (1, 2, 3, 4, 8, 16, 32)  # batch sizes that are tried in turn until the model takes one


def watch(
    model: nn.Module, pictures: Pictures, size: tuple[int, int], beside: Callable[[], Observer]
) -> tuple[Graph, Any, SharedPass | None]:
    """Run the model, list its layers and measure the axes of their values.

    Returns the graph, the output and the pass over several images that ``beside`` has observed, too.

    Parameters
    ----------
    model : nn.Module
        The model.
    pictures : function
        Makes prepared images: (number, (height, width), which of them is changed, if any); a single one is gray.
    size : (int, int)
        Height and width that the model takes.
    beside : function
        Makes another observer of the pass over several images.
    """
    watcher, output, count = _first_pass(model, pictures, size)
    values = {span.name: Seen("", span.shape) for span in watcher.spans if span.node is not None}
    values |= {node.call: node.seen for node in watcher.nodes[1:]}
    heads = {path: watcher.node_of(value) for path, value in tensors_by_path(output)}
    watcher.let_go()
    reading = read_axes(model, pictures, size, values, count, output, beside)
    return _graph(watcher, heads, reading, count), output, reading.shared


def _first_pass(model: nn.Module, pictures: Pictures, size: tuple[int, int]) -> tuple[Watcher, Any, int]:
    """A watched pass over as few images as the model takes."""
    first: ModelError | None = None
    found: tuple[Watcher, Any, int] | None = None
    for count in _BATCHES:
        images = pictures(count, size, None)
        watcher = Watcher(images)
        watcher.origins.add([_held(module) for module in model.modules()])
        try:
            output = Tracer(model, observer=watcher)(images)
            if watcher.strange and (hidden := readers_of_strangers(model, images)):
                watcher = Watcher(images, hidden)
                output = Tracer(model, observer=watcher)(images)
            found = found or (watcher, output, count)
            if any(value.numel() for value in tensors(output)):  # pairs of one image: there are none, and no error
                return watcher, output, count
        except ModelError as error:
            first = first or error
    if found is not None:
        return found
    assert first is not None  # noqa: S101 - every attempt has raised
    raise first


def _held(module: nn.Module) -> list[Any]:
    """Tensors that a module holds, in attributes of any kind; its submodules and hooks hold none of its own."""
    kept = [value for name, value in vars(module).items() if name not in _INSIDE and not isinstance(value, int | str)]
    return (
        [*kept, *module._buffers.values()] if type(module._buffers) is dict else [*kept, *module.buffers(recurse=False)]
    )


def _graph(watcher: Watcher, heads: Mapping[Path, int | None], reading: Reading, count: int) -> Graph:
    public: dict[int, str] = {0: "input"}  # node -> the name people know it by
    merged: set[int] = set()
    for span in watcher.spans:  # inner modules come after outer ones: the innermost owner of a value wins
        if span.node is not None and _owns(watcher, span):
            public[span.node] = span.name
            merged.add(span.node)
    layers: dict[str, Layer] = {}
    weights: dict[int, dict[int, int]] = {}
    library = {span.name for span in reversed(watcher.spans) if _library_leaf(span.module)}
    for what, index in watcher.order:
        if what == "module":
            span = watcher.spans[index]
            if span.node is not None:
                layers[span.name] = _module_layer(watcher, span, public, reading, weights)
        else:
            node = watcher.nodes[index]
            unknown = not node.inputs and not node.hidden
            hidden = index in merged or node.kind in _PLUMBING or unknown or node.scope in library
            plumbing = node.kind in _PLUMBING and node.inputs and index not in merged
            public.setdefault(index, public.get(node.inputs[0], node.call) if plumbing else node.call)
            if not hidden:
                layers[node.call] = _operation_layer(node, index, public, reading)
    outputs = {path: public.get(node, "") for path, node in heads.items() if node is not None}
    mixes = next((public[k] for k, node in enumerate(watcher.nodes) if node.call == reading.mixes and k in public), "")
    spans = ((span.name, span.node) for span in watcher.spans if span.node is not None)
    untouched = watcher.untouched | {name for name, node in spans if watcher.nodes[node].call in watcher.untouched}
    return Graph(layers, outputs, reading.axes, mixes or reading.mixes, reading.note, count, untouched)


def _owns(watcher: Watcher, span: Span) -> bool:
    """Whether the module's own operation, not a submodule's, made its output."""
    node = watcher.nodes[span.node] if span.node is not None else None
    return node is not None and node.scope == span.name and span.node not in span.reads


def _library_leaf(module: nn.Module | None) -> bool:
    """Whether this is a torch.nn module without children: its inner steps are not listed."""
    library = type(module).__module__.startswith("torch.nn.modules")
    return library and module is not None and next(module.children(), None) is None


def _weights(module: nn.Module, known: dict[int, dict[int, int]]) -> dict[int, int]:
    """How many numbers each parameter of a module and of its submodules holds, by the parameter's identity."""
    if id(module) not in known:
        found = known[id(module)] = {
            id(weight): weight.numel() for weight in module._parameters.values() if weight is not None
        }
        for child in module.children():
            found |= _weights(child, known)
    return known[id(module)]


def _module_layer(
    watcher: Watcher, span: Span, public: dict[int, str], reading: Reading, weights: dict[int, dict[int, int]]
) -> Layer:
    node = watcher.nodes[span.node] if span.node is not None else watcher.nodes[0]
    kind = getattr(span.module, "original_name", type(span.module).__name__)
    held = sum(_weights(span.module, weights).values()) if span.module is not None else 0
    axes = reading.axes.get(span.name, Axes(((),) * len(span.shape)))
    return _layer(span, kind, held, node, public, axes, leaf=_owns(watcher, span))


def _operation_layer(node: Node, step: int, public: dict[int, str], reading: Reading) -> Layer:
    axes = reading.axes.get(node.call, Axes(((),) * len(node.shape)))
    about = Span(node.call, None, step, node.inputs, step, node.shape)
    return _layer(about, node.kind, node.parameters, node, public, axes, leaf=True)


def _layer(
    span: Span, kind: str, parameters: int, node: Node, public: dict[int, str], axes: Axes, *, leaf: bool
) -> Layer:
    spread = node.field
    return Layer(
        name=span.name,
        kind=kind,
        shape=span.shape if axes.image_axis is None else axes.shape,
        units=axes.units,
        parameters=int(parameters),
        field=None if spread is None else spread.rectangle,
        gated=spread is not None and spread.gated,
        spatial=axes.spatial,
        inputs=tuple(dict.fromkeys(public.get(read, "") for read in span.reads)),
        module=span.module,
        operation=node.call,
        leaf=leaf,
        step=span.node or 0,
        axes=axes,
        is_complex=node.is_complex,
    )
