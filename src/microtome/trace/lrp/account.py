"""The account of one pass: the relevance that biases, constants and stabilisers took, by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from microtome.trace.axes.value_axes import Axes
from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.image_sums import ImageAxis, ImageSums, image_axis
from microtome.trace.lrp.rules import Rule, Shared, stabilised

# Choose the rule of an operation: (its name, its kind, whether it reads the image) -> rule
Chooser = Callable[[str, str, bool], Rule]


class Account:
    """The relevance of a batch that did not reach the pixels.

    Parameters
    ----------
    choose_rule : Chooser
        The rule of an operation by its name; its epsilon holds for sums, pooling and products, too.
    axes : mapping, optional
        The axes of the result of each operation, by its name; by default the images lie along the first axis.

    Attributes
    ----------
    mixed : list of str
        Operations whose result has no image axis, so that each image got the same part.
    """

    def __init__(self, choose_rule: Chooser, axes: Mapping[str, Axes] | None = None) -> None:
        self.choose_rule = choose_rule
        self._axes = axes
        self._count = 1
        self._none = torch.empty(0, dtype=torch.float32, device="cpu")
        # The shares of the operations, (N,) each; added up at the end, which is one step on a GPU.
        self._biases: list[Tensor] = []
        self._stabilisers: list[Tensor] = []
        self.mixed: list[str] = []

    def open(self, images: Tensor) -> None:
        """Begin the account of these images."""
        self._count = images.shape[0]
        dtype = torch.promote_types(images.dtype, torch.float32)  # half precision holds too few digits for sums
        self._none = torch.zeros(self._count, dtype=dtype, device=images.device)
        self._biases, self._stabilisers = [], []

    @property
    def bias_share(self) -> Tensor:
        """The relevance that biases and constants took, (N,)."""
        return self._sum(self._biases)

    @property
    def stabiliser_share(self) -> Tensor:
        """The relevance that the stabilisers of denominators took, (N,)."""
        return self._sum(self._stabilisers)

    def _sum(self, shares: list[Tensor]) -> Tensor:
        return torch.stack([share.to(self._none.dtype) for share in shares]).sum(0) if shares else self._none

    def epsilon(self, operation: Operation) -> float:
        """The stabiliser of an operation without weights."""
        call = operation.call
        return self.choose_rule(call.name, call.kind, False).epsilon

    def images(self, name: str, shape: Sequence[int]) -> ImageSums:
        """Sums per image for values of the shape of an operation's result: the only place that knows the axis."""
        n = self._count
        if n == 1:
            return ImageSums(1)
        where = ImageAxis() if self._axes is None else image_axis(self._axes, name)
        if where is None or where.axis >= len(shape) or shape[where.axis] % (n * where.inner):
            self.mixed.append(name)
            where = None
        return ImageSums(n, where)

    def book(self, shared: Shared) -> None:
        """Write down what biases, constants and stabilisers took of the relevance."""
        self.take(bias=shared.bias, stabiliser=shared.stabiliser)

    def take(self, *, bias: Tensor | None = None, stabiliser: Tensor | None = None) -> None:
        """Write down what biases and constants took, and what stabilisers took, by image (N,)."""
        if bias is not None:
            self._biases.append(bias)
        if stabiliser is not None:
            self._stabilisers.append(stabiliser)

    def book_places(
        self, operation: Operation, *, bias: Tensor | None = None, stabiliser: Tensor | None = None
    ) -> None:
        """Record what biases and stabilisers took at each position of an operation's result."""
        images = self.images(operation.call.name, operation.output.shape)
        self.take(
            bias=None if bias is None else images.total(bias),
            stabiliser=None if stabiliser is None else images.total(stabiliser),
        )


def proportional(
    account: Account,
    operation: Operation,
    arriving: Tensor,
    takers: Sequence[Tensor] | None = None,
    *,
    factors: int = 1,
    run: Callable[[dict[int, Tensor]], Tensor] | None = None,
    constant: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    r"""Relevance through an operator that is linear in some of its inputs.

    .. math:: R_k = x_k \odot J_k^\top \frac{R}{z + \epsilon\,\mathrm{sign}(z)}, \qquad z = \sum_k J_k x_k + c

    Parameters
    ----------
    account : Account
        Records the shares of constants and stabilisers.
    operation : Operation
        The operation; its stabiliser is that of the rule chosen for it.
    arriving : Tensor
        R, in the shape of the result.
    takers : sequence of Tensor, optional
        The inputs that it is linear in; default all.
    factors : int
        2 for a product of two values that both take: each gets one half.
    run : function, optional
        The operator with some tensors (by id) exchanged, where it is not the operation itself.
    constant : Tensor, optional
        c, in the shape of the result; default none.

    Notes
    -----
    A complex number counts as two real ones: each of its parts has relevance of its own, in the parts of a complex
    number. Fourier transforms and products with complex constants are linear in these.
    """
    takers = list(operation.inputs) if takers is None else list(takers)
    z = operation.output
    quotient = _by_part(torch.div, arriving, _by_part(stabilised, z, account.epsilon(operation)))
    unique = [*{id(value): value for value in takers}.values()]  # a product may have one value as both factors
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in unique]
        swap = {id(value): leaf for value, leaf in zip(unique, leaves, strict=True)}
        again = operation.again(swap) if run is None else run(swap)
        slopes: Sequence[Tensor | None] = torch.autograd.grad(again, leaves, quotient, allow_unused=True)
    pairs = zip(unique, slopes, strict=True)
    parts = [(value, _by_part(torch.mul, value, slope) / factors) for value, slope in pairs if slope is not None]
    account.book_places(
        operation,
        bias=None if constant is None else _amount(_by_part(torch.mul, constant, quotient)),
        stabiliser=_amount(arriving - _by_part(torch.mul, z, quotient)),
    )
    return operation.back(*parts)


def _by_part(function: Callable[..., Tensor], first: Tensor, second: Any) -> Tensor:
    """A function of real numbers on the real and on the imaginary parts, each with the same part of the second."""
    if not first.is_complex():
        return function(first, second)
    whole = isinstance(second, Tensor) and second.is_complex()
    others = (second.real, second.imag) if whole else (second, second)
    return torch.complex(function(first.real, others[0]), function(first.imag, others[1]))


def _amount(relevance: Tensor) -> Tensor:
    """The relevance at each place: the sum of that of the real and of the imaginary part."""
    return relevance.real + relevance.imag if relevance.is_complex() else relevance
