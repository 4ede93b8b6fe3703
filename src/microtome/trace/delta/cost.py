"""The share of a network's multiply-adds that a changed window of the image can reach."""

from __future__ import annotations

import math

from microtome.trace.graph import Graph, Layer


def share_within_reach(graph: Graph, window: tuple[int, int]) -> float:
    """The share of the multiply-adds of all layers with weights whose outputs can see a window.

    Parameters
    ----------
    graph : Graph
        The layers.
    window : (int, int)
        Height and width, in pixels, away from the edges.

    Returns
    -------
    float
        0 to 1. A layer that sees the whole picture at every position (behind a gate, attention, in tokens or
        vectors) counts in full.

    Examples
    --------
    Of a row of ten positions, four see two pixels through a kernel of three.

    >>> import torch
    >>> from microtome import Network
    >>> net = Network(torch.nn.Conv2d(1, 1, (1, 3), padding=(0, 1)), (1, 1, 10))
    >>> share_within_reach(net.graph, (1, 2))
    0.4
    """
    work = {name: _work(layer) for name, layer in graph.layers.items() if layer.leaf and layer.parameters}
    within = sum(amount * _seen(graph.layers[name], window) for name, amount in work.items())
    return within / max(sum(work.values()), 1)


def _work(layer: Layer) -> int:
    """Multiply-adds of a layer for one image: its weights at each of its positions."""
    return layer.parameters * math.prod(layer.axes.grid)


def _seen(layer: Layer, window: tuple[int, int]) -> float:
    """The share of a layer's positions that see a window."""
    if not layer.spatial or layer.field is None or layer.gated:
        return 1.0
    share = 1.0
    for side, size, step, cover in zip(layer.axes.grid, layer.field.size, layer.field.stride, window, strict=True):
        share *= min(1.0, ((cover + size - 2) // step + 1) / side) if step else 1.0
    return share
