"""Rectifiers of a graph that an earlier pass had, too: a pass need not be watched when its graph is known.

To recognise rectifiers, a pass is watched call by call, which takes as long as the small operations themselves. The
graph of the next pass is mostly the same. So the places of the rectifiers in autograd's graph are kept with its
outline, and a later pass of the model with the same outline has them at the same places.

An outline tells what is computed only where every node computes a function of the values that its edges lead to, with
weights at most: ``x * mask`` with a mask without gradient is the same node as a product with a constant. A graph with
a node of another kind is not kept, and its passes are watched each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

# Nodes that depend on numbers, by the names of these.
_NUMBERS = {
    "HardtanhBackward0": ("_saved_min_val", "_saved_max_val"),
    "HardtanhBackward1": ("_saved_min_val", "_saved_max_val"),
    "ClampBackward1": ("_saved_min", "_saved_max"),
    "ClampMinBackward0": ("_saved_min",),
    "LeakyReluBackward0": ("_saved_negative_slope",),
    "LeakyReluBackward1": ("_saved_negative_slope",),
    "AddBackward0": ("_saved_alpha",),
    "SubBackward0": ("_saved_alpha",),
    "SelectBackward0": ("_saved_dim", "_saved_index"),
    "SliceBackward0": ("_saved_dim", "_saved_start", "_saved_end", "_saved_step"),
    "SplitBackward0": ("_saved_dim", "_saved_split_size"),
}
# Nodes of several values: without an edge to one of them, it is not known what that is.
_OF_SEVERAL = frozenset(f"{name}Backward0" for name in "Add Sub Mul Cat".split())
_PLAIN = frozenset(
    f"{name}Backward{variant}"
    for variant in (0, 1)
    for name in """Relu Elu Celu Gelu Silu Mish Hardswish Softplus PreluKernel Sigmoid Hardsigmoid Tanh
    Softmax LogSoftmax Convolution CudnnConvolution MpsConvolution NativeBatchNorm CudnnBatchNorm MiopenBatchNorm
    NativeLayerNorm NativeGroupNorm Addmm Mm T Linear MaxPool2DWithIndices AvgPool2D AdaptiveAvgPool2D Mean Sum
    UpsampleNearest2D UpsampleBilinear2D ConstantPadNd View UnsafeView ReshapeAlias Transpose Permute Clone Squeeze
    Unsqueeze Gather""".split()
)
_MOST = 8  # graphs of one model that are kept: of several methods, layers and sizes of images

Row = tuple[Any, ...]


@dataclass
class Outline:
    """The nodes of a graph in a fixed order, and for each its kind, its numbers and where its edges lead."""

    nodes: list[Any]
    rows: list[Row]

    @classmethod
    def of(cls, root: Tensor, begins: Sequence[Any]) -> Outline | None:
        """The outline of a graph, which begins at these nodes and leaves; None if the graph tells less.

        Examples
        --------
        >>> import torch
        >>> x = torch.ones(2, requires_grad=True)
        >>> [row[0] for row in Outline.of(x.relu().sum(), [x]).rows]
        ['SumBackward0', 'ReluBackward0', 'beginning']
        >>> Outline.of((x * torch.tensor([0.0, 1.0])).sum(), [x])  # may be a mask
        """
        first = set(begins)
        nodes: list[Any] = [root.grad_fn]
        place = {root.grad_fn: 0}
        rows: list[Row] = []
        for node in nodes:  # grows while it is walked
            name = type(node).__name__
            if node in first or (name == "AccumulateGrad" and node.variable in first):
                rows.append(("beginning",))
                continue
            numbers = _NUMBERS.get(name)
            if numbers is None and name not in _PLAIN and name not in _OF_SEVERAL:
                return None
            links: list[tuple[int, int] | None] = []
            for reached, slot in node.next_functions:
                if reached is None:
                    if name in _OF_SEVERAL:
                        return None
                    links.append(None)
                    continue
                at = place.get(reached)
                if at is None:
                    at = place[reached] = len(nodes)
                    nodes.append(reached)
                links.append((at, slot))
            rows.append((name, *links, *(getattr(node, number) for number in numbers or ())))
        return cls(nodes, rows)


@dataclass
class KnownGraph:
    """The outline of the graph of some passes, and the places of its rectifiers.

    Attributes
    ----------
    rows : list or None
        The outline; None before the first pass, and after a pass whose graph was another one.
    rectifiers : list of tuple
        The place of each rectifier's node, and the places of the nodes of what it reads.
    """

    rows: list[Row] | None = None
    rectifiers: list[tuple[int, list[int]]] = field(default_factory=list)
    _changes: bool = False

    def keep(self, outline: Outline | None, rectifiers: list[tuple[Any, set[Any]]]) -> None:
        """Keep what a watched pass has found; nothing if the outline does not tell it, or changes from pass to pass."""
        if outline is None or self._changes:
            return
        place = {node: at for at, node in enumerate(outline.nodes)}
        self.rows = outline.rows
        # Without those that the root does not depend on.
        self.rectifiers = [
            (place[node], [place[end] for end in ends if end in place]) for node, ends in rectifiers if node in place
        ]

    def found(self, outline: Outline | None) -> list[tuple[Any, set[Any]]]:
        """The nodes of the rectifiers in the graph of a new pass, each with the nodes of what it reads.

        Raises
        ------
        UnknownGraphError
            When the graph is another one: the model takes several paths, and each of its passes is to be watched.
        """
        if outline is None or outline.rows != self.rows:
            self.rows, self._changes = None, True
            raise UnknownGraphError
        nodes = outline.nodes
        return [(nodes[at], {nodes[end] for end in ends}) for at, ends in self.rectifiers]


class UnknownGraphError(Exception):
    """The pass has to be run again and watched."""


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], KnownGraph]] = WeakKeyDictionary()


def known_graph(model: nn.Module, passes: tuple[Any, ...]) -> KnownGraph:
    """What is known of the graph of a model's passes of one kind: of these rules, recorded layers and sizes."""
    graphs = _KNOWN.setdefault(model, {})
    if passes not in graphs and len(graphs) >= _MOST:
        del graphs[next(iter(graphs))]  # the oldest
    return graphs.setdefault(passes, KnownGraph())
