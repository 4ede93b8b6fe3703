"""Scales and shifts of the batch norms of one pass, computed for all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Constants = Callable[[], tuple[Tensor, Tensor]]  # the scale and the shift of the channels, when they are needed

# One call for many tensors, few kernels on a GPU. They are not public: without them, there is one call for each tensor.
_add: Callable[..., Any] = getattr(
    torch, "_foreach_add", lambda values, numbers: [a + b for a, b in zip(values, numbers, strict=True)]
)
_root: Callable[..., Any] = getattr(torch, "_foreach_sqrt_", lambda values: [value.sqrt_() for value in values])
_inverse: Callable[..., Any] = getattr(
    torch, "_foreach_reciprocal_", lambda values: [value.reciprocal_() for value in values]
)
_multiply: Callable[..., Any] = getattr(
    torch, "_foreach_mul", lambda values, others: [a * b for a, b in zip(values, others, strict=True)]
)
_subtract_product: Callable[..., Any] = getattr(
    torch, "_foreach_addcmul",
    lambda values, a, b, value: [torch.addcmul(*row, value=value) for row in zip(values, a, b, strict=True)],
)  # fmt: skip


class BatchNorms:
    r"""The batch norms of one pass in evaluation, each a scale and a shift of the channels.

    .. math:: a = \frac{w}{\sqrt{v + \epsilon}}, \qquad c = b - a\,m

    Their constants are computed when the first is asked for, before the model overwrites one of them at the latest.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._done: list[tuple[Tensor, Tensor]] = []

    def add(self, bound: dict[str, Any]) -> Constants:
        """Note a batch norm by its arguments; returns the function that tells its scale and shift."""
        self._waiting.append(bound)
        return partial(self._of, len(self._waiting) - 1)

    def _of(self, place: int) -> tuple[Tensor, Tensor]:
        self.compute()
        return self._done[place]

    @torch.no_grad()
    def compute(self) -> None:
        """Compute the constants of all batch norms noted so far."""
        new = self._waiting[len(self._done) :]
        if not new:
            return
        means = [bound["running_mean"] for bound in new]
        scales = list(_add([bound["running_var"] for bound in new], [float(bound["eps"]) for bound in new]))
        _root(scales)
        _inverse(scales)
        weighted = [place for place, bound in enumerate(new) if bound["weight"] is not None]
        if weighted:
            products = _multiply([scales[place] for place in weighted], [new[place]["weight"] for place in weighted])
            for place, scale in zip(weighted, products, strict=True):
                scales[place] = scale
        biases = [
            torch.zeros_like(scale) if bound["bias"] is None else bound["bias"]
            for scale, bound in zip(scales, new, strict=True)
        ]
        shifts = _subtract_product(biases, means, scales, value=-1)
        self._done += zip(scales, shifts, strict=True)
