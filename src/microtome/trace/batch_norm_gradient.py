"""The gradient of batch norm for one image, which torch computes wrongly for some layouts in memory.

In evaluation on a processor, torch's backward pass of ``batch_norm`` compares the layouts of its input and of the
arriving gradient by flags. For a batch of one image a tensor that is laid out as tokens (channels innermost, as after
``flatten(2).transpose(1, 2)``) has the flags of another layout, and numbers are taken from wrong places. Where both
have the same strides the result is right, so the gradient is laid out as the input is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_NODES = frozenset(("NativeBatchNormBackward0", "NativeBatchNormLegitNoTrainingBackward0"))


def align_batch_norm_gradients(roots: Iterable[Tensor]) -> None:
    """Have the gradient at every batch norm that the roots depend on laid out as the input of the batch norm.

    To be called once for each graph, before its gradient is taken. Only graphs on a processor are changed.
    """
    seen: set[Any] = set()
    queue: list[Any] = [root.grad_fn for root in roots if root.requires_grad and root.device.type == "cpu"]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ in _NODES:
            read = getattr(node, "_saved_input", None)
            if isinstance(read, Tensor) and len(read) == 1:
                node.register_prehook(_as_strided(read.stride()))
        queue.extend(edge for edge, _ in node.next_functions)


def _as_strided(strides: tuple[int, ...]) -> Any:
    """A hook that lays out the arriving gradient with these strides."""

    def align(signals: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
        first, *others = signals
        if first is None or first.stride() == strides:
            return None
        return (torch.empty_strided(first.shape, strides, dtype=first.dtype, device=first.device).copy_(first), *others)

    return align
