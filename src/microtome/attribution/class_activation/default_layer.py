"""Default layer of class activation maps: the last spatial layer that the score depends on."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from microtome.attribution.class_activation.arrangement import Arrangement, token_arrangement
from microtome.errors import LayerError
from microtome.network import Network
from microtome.trace import Factor, Layer
from microtome.trace.operators.operator_table import those

ATTENTION = those(role=("attention", "softmax"))

# What stands between the tokens and the attention that reads them: projections, scales, the product itself.
_PROJECTIONS = ATTENTION | {"linear", "addmm", "matmul", "bmm", "mul", "div"}

_SUMS = frozenset(("add", "sub"))
_REDUCTIONS = frozenset("mean sum amax amin logsumexp".split())

# It follows from the structure of a network, so it is chosen once for each.
_DEFAULTS: WeakKeyDictionary[Network, str] = WeakKeyDictionary()


def map_layer(net: Network, layer: str | None) -> str:
    """The given layer, or by default the last one that has a class activation map.

    In a convolutional network the last layer with more than one position that is no pooling: in VGG the
    rectified output of the last convolution, in ResNet that of the last block, in GoogLeNet the last
    concatenation. In a vision transformer
    the last layer of tokens where the score is read from the patches, as by a mean over them; where it
    is read from a class token alone, that is what the last attention reads, since after it nothing of
    the patches reaches the score.

    Raises
    ------
    LayerError
        When no layer has positions on the picture.
    """
    if layer is not None:
        return layer
    if net not in _DEFAULTS:
        _DEFAULTS[net] = _default(net)
    return _DEFAULTS[net]


def _default(net: Network) -> str:
    """Choose the layer by the structure of the network, and of tokens by one gradient of a gray picture."""
    last = _last_map(net)
    if any(entry.axes.tokens and (last is None or entry.step > last.step) for entry in net.layers.values()):
        found = _token_layer(net)
        if found is not None:
            return found
    if last is None:
        raise LayerError(
            "no layer of this network has channels, height and width for each image, so there is nothing to draw a "
            "class map on; use a method that explains pixels, such as saliency or integrated_gradients."
        )
    return last.name


def _last_map(net: Network) -> Layer | None:
    """The layer of maps that ends last; of a block and the operation that ends it, the operation."""
    unread = _unread_steps(net)
    found = [
        entry
        for entry in net.layers.values()
        if entry.spatial
        and entry.units
        and math.prod(entry.axes.grid) > 1
        and not _ends_in_pooling(net, entry)
        and not _only_moves(entry)
    ]
    read = [entry for entry in found if entry.step not in unread]  # empty where the model hides the readers
    ordered = sorted(read or found, key=lambda entry: (entry.step, entry.leaf), reverse=True)
    real = [entry for entry in ordered if not entry.is_complex]
    return next((entry for entry in real if _carries_gradient(net, entry)), real[0] if real else None)


def _carries_gradient(net: Network, layer: Layer) -> bool:
    """Whether a gradient can reach a layer: not a mask, nor a step inside an autograd function of the model."""
    with torch.enable_grad():
        return net.forward(net.probe.requires_grad_(), layer.name)[layer.name].requires_grad


def _unread_steps(net: Network) -> set[int]:
    """The steps of layers that no score depends on, such as a branch that only training reads."""
    end = net.head.record or [name for path, name in net.graph.outputs.items() if path == net.head.path]
    feeding = net.graph.feeding(end)
    return {entry.step for entry in net.layers.values() if entry.leaf and entry.name not in feeding}


def _ends_in_pooling(net: Network, layer: Layer) -> bool:
    """Whether a pooling makes the value, also that of a container; its class may be called PoolFormerLayer."""
    return "pool" in layer.operator or (layer.operator in _REDUCTIONS and not _joins_branches(net, layer))


def _joins_branches(net: Network, layer: Layer) -> bool:
    """Whether a sum or mean is over maps that were stacked: its units and positions are those of each of them."""
    read = [net.layers[name] for name in layer.inputs if name in net.layers]
    return bool(read) and all(
        len(entry.axes.factors) == len(layer.axes.factors) + 1 and entry.units == layer.units for entry in read
    )


def _only_moves(layer: Layer) -> bool:
    """Whether a module only reshapes its input; a block that ends so computes something before."""
    alone = layer.module is not None and next(layer.module.children(), None) is None and not layer.parameters
    return alone and layer.operator in ("permute", "transpose", "movedim", "contiguous", "identity", "reshape")


# -- tokens --------------------------------------------------------------------------------------------------------


def last_tokens(net: Network) -> tuple[str, Arrangement] | None:
    """The layer of tokens that is reduced to one vector, with the places of its tokens; None where there is none."""
    seen = set[str]()
    for entry in reversed(list(net.layers.values())):
        found = _tokens_behind(net, entry, seen) if len(entry.shape) == 1 else None
        if found is not None:
            return found
    return None


def read_tokens(net: Network, name: str, laid: Arrangement) -> Tensor:
    """Which tokens of a layer the score is read from, (T,): those where it has a gradient, on a gray picture."""
    slope = net.run(net.probe, record=name, gradient=True, check=False).gradient[name]
    return laid.axes.per_unit(slope, len(net.probe))[0].count_nonzero(0) > 0


def _token_layer(net: Network) -> str | None:
    last = last_tokens(net)
    if last is None:
        return None
    name, laid = last
    patches = slice(laid.first, laid.first + laid.height * laid.width)
    if bool(read_tokens(net, name, laid)[patches].any()):
        return name
    attention = [entry for entry in net.layers.values() if entry.leaf and entry.operator in ATTENTION]
    read = _tokens_behind(net, attention[-1], set()) if attention else None
    return read[0] if read is not None else name


def _tokens_behind(net: Network, layer: Layer, seen: set[str]) -> tuple[str, Arrangement] | None:
    """The tokens from which a layer computes its queries, keys and values, or its vector; skips ``seen`` layers."""
    waiting = list(layer.inputs)
    gridless = set[Factor]()  # the same tokens are measured once
    while waiting:
        entry = net.layers.get(waiting.pop(0))
        if entry is None or entry.name in seen or len(entry.shape) < 2:
            continue
        seen.add(entry.name)
        place = None if entry.is_complex else entry.axes.tokens
        if place is not None and not _projects(net, entry) and place not in gridless:
            laid = token_arrangement(net, entry)
            if laid is not None:
                return entry.name, laid
            gridless.add(place)
        waiting += entry.inputs
    return None


def _projects(net: Network, entry: Layer) -> bool:
    """Whether a layer only maps tokens linearly, for an attention: a linear layer, a scale, a sum of such (LoRA)."""
    if entry.operator in _PROJECTIONS:
        return True
    if entry.operator not in _SUMS:
        return False
    inside = [other for name, other in net.layers.items() if other.leaf and name.startswith(f"{entry.name}.")]
    parts = inside if entry.module is not None else [net.layers[name] for name in entry.inputs if name in net.layers]
    return len(parts) > 1 and all(part.operator in _SUMS or _by_weights(part) for part in parts)


def _by_weights(entry: Layer) -> bool:
    """Whether a layer is a projection by weights; what an attention adds to its tokens is a product of two values."""
    return entry.operator in _PROJECTIONS - ATTENTION and len(entry.inputs) < 2
