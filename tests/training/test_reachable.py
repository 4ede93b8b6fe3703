"""Rows and columns of kernels that only meet the padding are left out, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from microtome.training.reachable import ReachableKernels


class _Sizes(TorchFunctionMode):
    """Notes the kernels that ``conv2d`` is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is functional.conv2d:
            self.seen.append(tuple(args[1].shape[-2:]))
        return func(*args, **(kwargs or {}))


def _geometries() -> Iterator[tuple[int, int, int, int, int]]:
    for size, kernel, stride, padding, dilation in product((1, 2, 3, 5), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2, 4), (1, 2)):
        if size + 2 * padding >= dilation * (kernel - 1) + 1:
            yield size, kernel, stride, padding, dilation


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "dilation"), list(_geometries()))
def test_outputs_and_gradients_are_those_of_the_whole_kernel(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups=2).double()
    image = torch.rand(2, 4, size, size + 1, dtype=torch.float64, requires_grad=True)

    def measured() -> list[Tensor]:
        out = conv(image)
        return [out, *torch.autograd.grad(out.square().sum(), (image, conv.weight, conv.bias))]

    expected = measured()
    with ReachableKernels():
        got = measured()
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "stride", "given"), [(1, 1, (1, 1)), (2, 2, (2, 2)), (2, 1, (3, 3)), (7, 1, (3, 3))])
def test_a_3_x_3_kernel_shrinks_to_what_meets_a_pixel(size: int, stride: int, given: tuple[int, int]) -> None:
    conv = nn.Conv2d(1, 1, 3, stride, 1)
    with _Sizes() as sizes, ReachableKernels():
        conv(torch.rand(1, 1, size, size))
    assert sizes.seen == [given]


def test_other_spellings_go_through_untouched() -> None:
    image, kernel = torch.rand(1, 1, 1, 1), torch.rand(1, 1, 3, 3)
    with _Sizes() as sizes, ReachableKernels():
        functional.conv2d(image, kernel, padding=1)
        nn.Conv2d(1, 1, 3, padding="same")(image)
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")(torch.rand(1, 1, 2, 2))
    assert sizes.seen == [(3, 3)] * 3
