"""Resolves the names of layers that callers write."""

from __future__ import annotations

import torch
from torch import nn

from microtome import trace
from microtome.errors import LayerError, nearest
from microtome.trace.graph import Graph, Layer


def layer_named(name: str, graph: Graph, model: nn.Module) -> Layer:
    """Find a layer by name; an operation of the model itself also without its leading slash.

    Raises
    ------
    LayerError
        When there is none; the nearest names are given.
    """
    found = graph.layers.get(name) or graph.layers.get(f"/{name}")
    if found is None:
        known = list(graph.layers)
        scripted = [part for part, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
        hidden = next((part for part in scripted if name.startswith(part) and name != part), None)
        why = f' "{hidden}" is scripted and shows nothing of its inside.' if hidden is not None else ""
        raise LayerError(
            f'the network has no layer "{name}".{why} Nearest: {nearest(name, known)}. '
            f"`microtome layers` lists all {len(known)}."
        )
    return found


def recorded_name(name: str, graph: Graph, model: nn.Module, head: str) -> str:
    """The name by which a pass records a value: ``"input"``, the head's layer, a layer, or what a layer reads.

    Raises
    ------
    LayerError
        When there is no such layer.
    """
    if name in ("input", head):
        return name
    bare, at, _ = name.partition(trace.INPUT)
    listed = bare in graph.layers or f"/{bare}" in graph.layers
    if not listed and bare in graph.axes:  # a module's inner step
        return name
    return layer_named(bare, graph, model).name + (trace.INPUT if at else "")
