"""Quick pooling gives torch's own numbers, and leaves every other pooling alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome.training.quick_pooling import QuickPooling


class Seen(torch.overrides.TorchFunctionMode):
    """Names of the operations that arrive here."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("pool", "quick"),
    [
        (nn.MaxPool2d(2), True),
        (nn.MaxPool2d((2, 2), stride=2), True),
        (lambda x: torch.max_pool2d(x, 2), True),
        (lambda x: nn.functional.max_pool2d(x, kernel_size=2, ceil_mode=True), True),
        (nn.MaxPool2d(3, 2, 1), False),
        (nn.MaxPool2d(2, 1), False),
        (nn.MaxPool2d(2, padding=1), False),
        (nn.MaxPool2d(2, dilation=2), False),
    ],
)
def test_the_numbers_are_torchs_own(pool, quick, layout):
    """Oracle: torch's kernel, to the last bit, with NaN and infinities."""
    images = torch.randn(3, 5, 8, 6).contiguous(memory_format=layout)
    images[0, 0, 0, 0], images[1, 2, 3, 4], images[2, 0] = float("nan"), float("inf"), -float("inf")
    expected = pool(images)
    with torch.no_grad(), Seen() as seen, QuickPooling():
        found = pool(images)
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert ("max_pool2d" not in seen.names) == quick


def test_odd_sizes_and_gradients_run_as_they_are():
    images = torch.randn(1, 1, 5, 5, requires_grad=True)
    with QuickPooling():
        pooled = nn.functional.max_pool2d(images, 2)
    assert pooled.grad_fn.name().startswith("MaxPool2D")
    with torch.no_grad(), QuickPooling():
        assert torch.equal(nn.functional.max_pool2d(images, 2), pooled)
