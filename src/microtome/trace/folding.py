"""A faster copy of a model with the same outputs: batch norms folded into convolutions, channels-last kernels."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from microtome.trace.axes.unit_edits import edits_of
from microtome.trace.graph import Graph
from microtome.trace.guard import named_modules

# One call for many tensors, in one kernel on a GPU. Not public: without it, there is one call for each tensor.
_norms: Callable[[list[Tensor]], Iterable[Tensor]] = getattr(
    torch, "_foreach_norm", lambda group: map(torch.linalg.vector_norm, group)
)
_largest: Callable[[list[Tensor]], Iterable[Tensor]] = getattr(
    torch, "_foreach_max", lambda group: map(torch.max, group)
)


def folded(model: nn.Module, graph: Graph, keep: Sequence[str] = ()) -> nn.Module:
    """A private copy with batch norms folded into convolutions that nothing else reads; the model if there are none.

    Parameters
    ----------
    model : nn.Module
        The user's model; it is not touched.
    graph : Graph
        Its layers.
    keep : sequence of str
        Layers that keep their values: convolutions among them are not folded.

    Notes
    -----
    The copy holds the model's own tensors where nothing was folded: it costs the memory of the folded kernels. In it
    a batch norm passes on what the convolution gives; the layers' names stay.
    """
    return FoldedCopy(model, graph, keep).model


class FoldedCopy:
    """The copy of :func:`folded`, and its folded kernels again after the weights of the model have changed.

    Attributes
    ----------
    model : nn.Module
        The copy; the model itself if nothing was folded.
    """

    def __init__(self, model: nn.Module, graph: Graph, keep: Sequence[str] = ()) -> None:
        self.model = model
        self._folds: list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]] = []
        edits = edits_of(model)
        kept = {name.partition("/")[0].partition("@")[0] for name in keep}
        # A folded convolution has other values.
        pairs = [pair for pair in _pairs(graph) if pair[0] not in edits and pair[0] not in kept]
        private = _private(model) if pairs else None
        if private is None:
            return
        self.model = private
        for before, after in pairs:
            convolution, norm = model.get_submodule(before), model.get_submodule(after)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                one = fuse_conv_bn_eval(convolution, norm)
                _place(private, before, one)
                _place(private, after, nn.Identity())
                self._folds.append((convolution, norm, one))

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold again, with the model's present weights and running statistics."""
        for convolution, norm, one in self._folds:
            one.load_state_dict(fuse_conv_bn_eval(convolution, norm).state_dict())


class Weights:
    """The state of a model's tensors, to check that a copy is still valid.

    It compares the tensors themselves, their versions, and norm and largest number of each floating one: a change
    that keeps the version (``weight.data.mul_(2)``) changes these numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = [module for _, module in named_modules(model)]
        tables = [table for module in modules for table in (module._parameters, module._buffers)]
        self._held = [tensor for table in tables for tensor in table.values() if tensor is not None]
        self._versions = [-1 if tensor.is_inference() else tensor._version for tensor in self._held]
        kinds: dict[object, list[Tensor]] = {}
        for tensor in self._held:
            if tensor.is_floating_point() and tensor.numel():
                kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
        self._sums = [torch.stack([*_norms(group), *_largest(group)]) for group in kinds.values()]

    def equal(self, other: Weights) -> bool:
        """Whether the weights are unchanged."""
        same = len(self._held) == len(other._held) and all(map(operator.is_, self._held, other._held))
        return same and self._versions == other._versions and all(map(torch.equal, self._sums, other._sums))


def channels_innermost(model: nn.Module) -> nn.Module:
    """A private copy whose kernels lie with their channels innermost, as images do that come so; else the model.

    Otherwise every pass would convert the kernels, which takes a twentieth of the time of one photo in VGG16.
    """
    private = _private(model)
    if private is None:
        return model
    for module in private.modules():
        kernel = module._parameters.get("weight") if isinstance(module, nn.Conv2d) else None
        if kernel is not None:  # else it is made from others at each pass, by a hook or a parametrization
            laid = kernel.detach().contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(laid, requires_grad=False)
    return private


def _private(model: nn.Module) -> nn.Module | None:
    """A copy in evaluation mode that holds the model's own tensors; None if it cannot be copied."""
    own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        return copy.deepcopy(model, dict(own)).eval()
    except (TypeError, RuntimeError):  # holds a lock, or a tensor inside a graph
        return None


def _pairs(graph: Graph) -> list[tuple[str, str]]:
    """Convolutions and the batch norms that alone read them; each used once."""
    readers: dict[str, int] = {}
    calls = Counter(id(layer.module) for layer in graph.layers.values())
    for layer in graph.layers.values():
        if layer.leaf:
            for name in layer.inputs:
                readers[name] = readers.get(name, 0) + 1
    pairs = []
    for layer in graph.layers.values():
        before = graph.layers.get(layer.inputs[0]) if len(layer.inputs) == 1 else None
        if type(layer.module) is not nn.BatchNorm2d or before is None or not isinstance(before.module, nn.Conv2d):
            continue
        if _hooked(before.module) or _hooked(layer.module):
            continue  # a user's hook reads the value between them
        once = calls[id(before.module)] == calls[id(layer.module)] == 1
        statistics = layer.module.running_mean is not None
        if once and statistics and readers[before.name] == 1 and before.name not in graph.outputs.values():
            pairs.append((before.name, layer.name))
    return pairs


def _hooked(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks)


def _place(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
