"""LRP with a vanishing stabiliser, by hooks on autograd's own nodes: the pixel times a gradient with changed slopes.

For the epsilon rule with epsilon to 0, relevance is x times the gradient of the network in which every nonlinearity f
is replaced by its slope f(x) / x, and gates, attention weights and deviations of norms are constants (Ali et al. 2022).
So each node needs only its own saved tensors. An unknown node ends the comparison with its name.

A model may normalise its images itself. What this makes of a pixel is the pixel, as with a normalisation in front of
the model: it gets the relevance of the normalised number, (x - mean) / std times the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from proof.guided_reference import nodes, operator
from proof.plain import Plain

Signals = tuple[Tensor | None, ...]

# Linear in the values that depend on the image, or piecewise linear through 0: their gradient is the rule.
_LINEAR = frozenset(
    """Convolution Addmm Mm Mv T Transpose Permute View UnsafeView ReshapeAlias Reshape Unsqueeze Squeeze Expand Cat
    Stack Split SplitWithSizes UnsafeSplit Chunk Unbind Select Slice Index IndexSelect Gather Add Sub Neg Sum Mean
    AvgPool2D AdaptiveAvgPool2D AvgPool1D MaxPool2DWithIndices AdaptiveMaxPool2D MaxPool3DWithIndices ConstantPadNd
    ReflectionPad2D ReplicationPad2D Relu LeakyRelu Threshold PreluKernel Clone ToCopy Copy CopySlices AsStrided Alias
    Repeat Roll Flip Im2Col Col2Im PixelShuffle PixelUnshuffle UpsampleBilinear2D UpsampleNearest2D UpsampleBicubic2D
    UpsampleNearestExact2D UnsafeIndex Amax Max Min Maximum Minimum Where MaskedFill ThnnConv2D SlowConvDilated2D
    ConvolutionOverrideable MkldnnConvolution Detach Movedim SwapAxes Unfold UnfoldBackward Abs AccumulateGrad
    Cumsum ChannelShuffle NativeDropout FusedDropout Identity Narrow Contiguous Diagonal Trace Linear Baddbmm
    """.split()
)
_GATES = frozenset("Sigmoid Hardsigmoid Softmax SafeSoftmax Exp Erf".split())
_WEIGHTED = frozenset("Convolution Addmm Mm Mv Baddbmm Linear".split())
_ENDS = frozenset("Convolution Addmm Mm NativeBatchNorm NativeLayerNorm NativeGroupNorm CudnnBatchNorm".split())


class NoReplica(Exception):
    """The network has a step that is not listed here; its name."""


def relevance(plain: Plain, images: Tensor, targets: Sequence[int]) -> Tensor:
    """Relevance of the pixels.

    Raises
    ------
    NoReplica
        When relevance reaches an unknown step.
    """
    x = images.clone().requires_grad_()
    with _Pixels(x) as pixels:
        score = plain.scores(x)[range(len(x)), list(targets)].sum()
    unknown: list[str] = []
    normalised = pixels.set_rules(score.grad_fn)
    for node in nodes(score.grad_fn):
        if not (normalised and node in pixels.values):
            _set_rule(node, unknown)
    found = torch.autograd.grad(score, x)[0]
    if unknown:
        raise NoReplica(unknown[0])
    return found if normalised else x.detach() * found


_MOVES = frozenset(
    """Transpose T Permute View UnsafeView ReshapeAlias Reshape Unsqueeze Squeeze Split SplitWithSizes Chunk Unbind
    Select Slice Expand Clone ToCopy Alias ConstantPadNd""".split()
)
_AFFINE = frozenset("Add Sub Rsub Mul Div Neg NativeBatchNorm".split())


class _Pixels(TorchFunctionMode):
    """Notes which values of a pass are pixels, moved or normalised with constants, by the nodes that made them."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._leaf = torch.autograd.graph.get_gradient_edge(x).node
        self.values: dict[Any, Tensor] = {self._leaf: x}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        node = output.grad_fn if isinstance(output, Tensor) else None
        made = list[Any]()  # one call may have several nodes: reshape copies and views
        while node is not None and node not in self.values and operator(node) in _MOVES | _AFFINE:
            made.append(node)
            live = [reached for reached, _ in node.next_functions if reached is not None]
            trained = operator(node) == "NativeBatchNorm" and node._saved_training  # type: ignore[attr-defined]  # of this kind of node
            node = live[0] if len(live) == 1 and not trained else None
        if node in self.values:
            self.values |= dict.fromkeys(made, output.detach().clone())  # others read the last one only
        return output

    def set_rules(self, root: Any) -> bool:
        """Set the rules of the pixels' nodes, and return whether any of them normalises.

        Where another operation reads a value of pixels, its gradient becomes relevance, which is handed to the pixels.
        """
        readers: dict[Any, list[bool]] = {}
        for node in nodes(root):
            for reached, _ in node.next_functions:
                if reached in self.values:
                    readers.setdefault(reached, []).append(node in self.values)
        used = [node for node in readers if operator(node) in _AFFINE]
        if not used:
            return False
        if any(len(set(kinds)) > 1 for kinds in readers.values()):
            raise NoReplica("pixels that are read as they are and normalised")
        for node, kinds in readers.items():
            if not kinds[0]:
                node.register_prehook(lambda signals, value=self.values[node]: (signals[0] * value, *signals[1:]))
            if operator(node) in _AFFINE:
                node.register_hook(_handed_on)
        return True


def _handed_on(sent: Signals, arrived: Signals) -> Signals:
    return tuple(None if signal is None else arrived[0] for signal in sent)


def _set_rule(node: Any, unknown: list[str]) -> None:
    name = operator(node)
    if name in _SLOPES and (name in ("Sigmoid", "Tanh") or hasattr(node, "_saved_self")):
        node.register_hook(_sloped(node, _SLOPES[name]))
    elif name == "Glu":
        node.register_hook(lambda _sent, arrived: (_glu(node, arrived[0]),))
    elif name in _NORMS:
        node.register_prehook(lambda signals: tuple(None if s is None else s.contiguous() for s in signals))
        node.register_hook(_normed(node, _NORMS[name]))
    elif name in _WEIGHTED and sum(reached is not None for reached, _ in node.next_functions) > 1:
        node.register_hook(_refuse(f"{name} of two signals", unknown))
    elif name in ("Mul", "Bmm"):
        _product(node, name, unknown)
    elif name == "Div" and len(node.next_functions) > 1 and node.next_functions[1][0] is not None:
        node.register_hook(lambda sent, arrived: (sent[0], None if sent[1] is None else torch.zeros_like(sent[1])))
    elif name not in _LINEAR and name != "Div":
        node.register_hook(_refuse(name, unknown))


def _refuse(name: str, unknown: list[str]) -> Callable[[Signals, Signals], None]:
    def look(_sent: Signals, arrived: Signals) -> None:
        if any(signal is not None and bool(signal.any()) for signal in arrived):
            unknown.append(name)

    return look


# -- nonlinearities: f(x) / x ---------------------------------------------------------------------------------------


def _read(node: Any) -> Tensor:
    return node._saved_self


def _from_sigmoid(node: Any) -> tuple[Tensor, Tensor]:
    return torch.logit(node._saved_result), node._saved_result


_SLOPES: dict[str, Callable[[Any], tuple[Tensor, Tensor]]] = {
    "Gelu": lambda n: (_read(n), functional.gelu(_read(n), approximate=n._saved_approximate)),
    "Silu": lambda n: (_read(n), functional.silu(_read(n))),
    "Hardswish": lambda n: (_read(n), functional.hardswish(_read(n))),
    "Mish": lambda n: (_read(n), functional.mish(_read(n))),
    "Softplus": lambda n: (_read(n), functional.softplus(_read(n), n._saved_beta, n._saved_threshold)),
    "Hardtanh": lambda n: (_read(n), functional.hardtanh(_read(n), n._saved_min_val, n._saved_max_val)),
    "Clamp": lambda n: (_read(n), _read(n).clamp(n._saved_min, n._saved_max)),
    "ClampMin": lambda n: (_read(n), _read(n).clamp(min=n._saved_min)),
    "Hardsigmoid": lambda n: (_read(n), functional.hardsigmoid(_read(n))),
    "Sigmoid": _from_sigmoid,
    "Tanh": lambda n: (torch.atanh(n._saved_result), n._saved_result),
    "Elu": lambda n: (_read(n), functional.elu(_read(n), n._saved_alpha) * n._saved_scale),
    "Celu": lambda n: (_read(n), functional.celu(_read(n), n._saved_alpha)),
    "Pow": lambda n: (_read(n), _read(n) ** n._saved_exponent),
}  # fmt: skip


def _sloped(node: Any, pair: Callable[[Any], tuple[Tensor, Tensor]]) -> Callable[[Signals, Signals], Signals]:
    x, y = (part.detach() for part in pair(node))
    slope = torch.where(x == 0, torch.zeros_like(x), y / x)
    return lambda sent, arrived: (None if arrived[0] is None else arrived[0] * slope, *sent[1:])


# -- norms: the deviation is held ------------------------------------------------------------------------------------


def _layer_norm(node: Any, arrived: Tensor) -> Tensor:
    width = len(node._saved_normalized_shape)
    weight = node._saved_weight
    h = (arrived if weight is None else arrived * weight) * node._saved_result2
    return h - h.mean(tuple(range(-width, 0)), keepdim=True)


def _group_norm(node: Any, arrived: Tensor) -> Tensor:
    x, weight, groups = node._saved_input, node._saved_weight, node._saved_group
    h = arrived if weight is None else arrived * weight.reshape(1, -1, *[1] * (x.dim() - 2))
    h = h.reshape(len(x), groups, -1) * node._saved_result2.reshape(len(x), groups, 1)
    return (h - h.mean(2, keepdim=True)).reshape(x.shape)


def _batch_norm(node: Any, arrived: Tensor) -> Tensor | None:
    if not node._saved_training:
        return None  # linear
    x, weight = node._saved_input, node._saved_weight
    across = (1, -1, *[1] * (x.dim() - 2))
    h = arrived * node._saved_result2.reshape(across)
    h = h if weight is None else h * weight.reshape(across)
    return h - h.mean((0, *range(2, x.dim())), keepdim=True)


def _rms_norm(node: Any, arrived: Tensor) -> Tensor:
    weight = node._saved_weight
    return (arrived if weight is None else arrived * weight) * node._saved_result1


_NORMS: dict[str, Callable[[Any, Tensor], Tensor | None]] = {
    "NativeLayerNorm": _layer_norm, "NativeGroupNorm": _group_norm, "NativeBatchNorm": _batch_norm,
    "FusedRmsNorm": _rms_norm,
}  # fmt: skip


def _normed(node: Any, rule: Callable[[Any, Tensor], Tensor | None]) -> Callable[[Signals, Signals], Signals | None]:
    def exchange(sent: Signals, arrived: Signals) -> Signals | None:
        made = None if arrived[0] is None else rule(node, arrived[0])
        return None if made is None else (made, *sent[1:])

    return exchange


# -- products: the gate is held -------------------------------------------------------------------------------------


def _product(node: Any, name: str, unknown: list[str]) -> None:
    if len([1 for reached, _ in node.next_functions if reached is not None]) < 2:
        return  # a constant factor
    (first, _), (second, _) = node.next_functions
    gates = [_is_gate(one) for one in (first, second)]
    if gates[0] == gates[1] and name == "Mul":
        sizes = [getattr(node, f"_saved_{part}").shape for part in ("self", "other")]
        if gates[0] or any(_repeats(one) for one in (first, second)):
            node.register_hook(_refuse("a product of two values that are repeated, or gates", unknown))
            return
        # A factor that is repeated over the other is a weight: one over the deviation of a norm, a global response.
        gates = [sizes[0].numel() < sizes[1].numel(), sizes[1].numel() < sizes[0].numel()]
    keep = [0.0 if gate else 1.0 for gate in gates] if gates[0] != gates[1] else [0.5, 0.5]

    def share(sent: Signals, _arrived: Signals) -> Signals:
        parts = [None if s is None else s * k for s, k in zip(sent[:2], keep, strict=True)]
        return (*parts, *sent[2:])

    node.register_hook(share)


def _glu(node: Any, arrived: Tensor | None) -> Tensor | None:
    """The part a of a sigmoid(b): the second half of the channels is the gate of the first."""
    if arrived is None:
        return None
    gate = node._saved_self.chunk(2, node._saved_dim)[1].sigmoid()
    return torch.cat((arrived * gate, torch.zeros_like(arrived)), node._saved_dim)


def _is_gate(node: Any) -> bool:
    """Whether all parts of a value come from a sigmoid, a softmax or an exponential."""
    waiting, seen, found = [node], set(), False
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.add(one)
        if operator(one) in _GATES or _is_hard_sigmoid(one):
            found = True
            continue
        if operator(one) in _ENDS or operator(one) == "AccumulateGrad":
            return False
        waiting += [reached for reached, _ in one.next_functions]
    return found


def _is_hard_sigmoid(node: Any) -> bool:
    """A clamp to [0, 1], or relu6(x + a number)."""
    if operator(node) != "Hardtanh" or node._saved_min_val != 0:
        return False
    read = node.next_functions[0][0]
    added = operator(read) == "Add" and sum(reached is not None for reached, _ in read.next_functions) == 1
    return node._saved_max_val == 1 or (node._saved_max_val == 6 and added)


def _repeats(node: Any) -> bool:
    while node is not None and operator(node) in ("View", "Clone", "UnsafeView", "Permute", "Transpose"):
        node = node.next_functions[0][0]
    return node is not None and operator(node) in ("Expand", "Repeat")
