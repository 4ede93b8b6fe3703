"""The gradient of batch norm for one image, which torch computes wrongly for some memory layouts.

In evaluation on a processor, torch's backward pass of ``batch_norm`` compares the layouts of its input and of the
arriving gradient by flags. For a batch of one image a tensor that is laid out as tokens (channels innermost, as after
``flatten(2).transpose(1, 2)``) has the flags of another layout, and numbers are read from wrong places. If both
have the same strides the result is right, so the gradient gets the layout of the input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_NODES = frozenset(("NativeBatchNormBackward0", "NativeBatchNormLegitNoTrainingBackward0"))

# Functions whose gradient has the layout of their values. If a graph has no others, and the image and the weights
# of convolutions are contiguous, every gradient is contiguous, and no batch norm needs a hook.
_KEEPING_LAYOUT = _NODES | {
    *("ConvolutionBackward0", "AddmmBackward0", "AddBackward0", "SubBackward0", "MulBackward0", "DivBackward0"),
    *("ReluBackward0", "HardtanhBackward0", "HardtanhBackward1", "HardswishBackward0", "HardsigmoidBackward0"),
    *("SigmoidBackward0", "SiluBackward0", "GeluBackward0", "TanhBackward0", "LeakyReluBackward0"),
    *("MeanBackward0", "MeanBackward1", "SumBackward0", "SumBackward1", "AdaptiveAvgPool2DBackward0"),
    *("AvgPool2DBackward0", "MaxPool2DWithIndicesBackward0", "ViewBackward0", "CatBackward0", "SelectBackward0"),
    *("SliceBackward0", "ConstantPadNdBackward0", "NativeDropoutBackward0", "AccumulateGrad"),
}


def align_batch_norm_gradients(roots: Iterable[Tensor], images: Tensor) -> None:
    """Give the gradient at every batch norm below the roots the layout of the input of that batch norm.

    Call it once for each graph, before its gradient is taken. Only graphs on the CPU are changed.

    Parameters
    ----------
    roots : iterable of Tensor
        The tensors at which the gradient begins.
    images : Tensor
        The images that the graph was made from.
    """
    reached: list[Any] = [root.grad_fn for root in roots if root.requires_grad and root.device.type == "cpu"]
    reached = [node for node in reached if node is not None]
    if not reached:
        return
    seen = {*reached, images.grad_fn}  # the walk ends at the images: no batch norm lies before them
    kinds = set[str]()
    norms, convolutions = [], []
    for node in reached:  # grows while it is walked
        kind = type(node).__name__
        kinds.add(kind)
        if kind in _NODES:
            norms.append(node)
        elif kind == "ConvolutionBackward0":
            convolutions.append(node)
        for source, _ in node.next_functions:
            if source is not None and source not in seen:
                seen.add(source)
                reached.append(source)
    if not norms or (
        kinds <= _KEEPING_LAYOUT
        and images.is_contiguous()
        and all(node._saved_weight.is_contiguous() for node in convolutions)
    ):
        return
    for node in norms:
        read = getattr(node, "_saved_input", None)
        if isinstance(read, Tensor) and len(read) == 1:
            node.register_prehook(_as_strided(read.stride()))


def _as_strided(strides: tuple[int, ...]) -> Any:
    """A hook that lays out the arriving gradient with these strides."""

    def align(signals: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
        first, *others = signals
        if first is None or first.stride() == strides:
            return None
        return (torch.empty_strided(first.shape, strides, dtype=first.dtype, device=first.device).copy_(first), *others)

    return align
