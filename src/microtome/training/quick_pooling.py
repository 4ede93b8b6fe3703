"""Max pooling over 2 x 2 windows by maxima of rows and columns: faster than torch's kernel on a processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["QuickPooling"]

_NAMES = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


class QuickPooling(TorchFunctionMode):
    """While it is active, max pooling over windows of 2 x 2 takes the maximum of rows and then of columns.

    torch's kernel looks at one window at a time, which takes 8 to 15 times longer on a few channels. The numbers are
    the same to the last bit, NaN included. Only on a processor and without a gradient; everything else runs as it is.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, with fast pooling."""
        options = kwargs or {}
        if getattr(func, "__name__", "") == "max_pool2d" and not torch.is_grad_enabled():
            pooled = _pooled({**dict(zip(_NAMES, args, strict=False)), **options})
            if pooled is not None:
                return pooled
        return func(*args, **options)


def _pooled(options: Mapping[str, Any]) -> Tensor | None:
    """The pooled maps, or None for other windows."""
    images = options.get("input")
    if not isinstance(images, Tensor) or images.device.type != "cpu" or images.dim() != 4:
        return None
    kernel = _pair(options.get("kernel_size", 0))
    stride = _pair(options.get("stride") or kernel)
    plain = _pair(options.get("padding", 0)) == (0, 0) and _pair(options.get("dilation", 1)) == (1, 1)
    if kernel != (2, 2) or stride != (2, 2) or not plain or options.get("return_indices"):
        return None
    if images.shape[2] % 2 or images.shape[3] % 2 or not images.numel():
        return None
    rows = torch.maximum(images[:, :, ::2], images[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _pair(value: Any) -> tuple[int, int]:
    found = (value, value) if isinstance(value, int) else tuple(value)
    return int(found[0]), int(found[-1])
