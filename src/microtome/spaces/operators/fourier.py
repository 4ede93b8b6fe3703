"""The Fourier symbol of a convolution: start and preconditioner for its largest singular values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from microtome.spaces.operators.convolution import ConvolutionOperator

_WAVES = 16  # the preconditioner's pole is above the largest value of the symbol by a share of what
_SHARE = 0.1  # the strongest waves differ among themselves: tried between 0.1 and 5
_LEAST = 1e-6


class Symbol:
    r"""The convolution on a torus: one small matrix for each frequency.

    .. math:: B(\omega) = \frac{1}{\sqrt{\prod s}} \big[\hat w(\omega + j L)\big]_{j < s}

    with the s frequencies that a stride folds onto one side by side. On the torus these blocks are the whole
    operator (Sedghi, Gupta and Long, 2019). True edges change it near the border only, so that it serves to
    start and to speed up an iteration whose result is then checked with the operator itself.

    Parameters
    ----------
    operator : ConvolutionOperator
        The convolution, of one group.
    inputs : bool
        Whether vectors are inputs of the convolution (the Gram matrix A^T A) or outputs (A A^T).
    """

    def __init__(self, operator: ConvolutionOperator, *, inputs: bool) -> None:
        sizes = zip(operator.input_shape[1:], operator.output_shape[1:], operator.stride, strict=True)
        self._size = tuple(max(out, -(-into // step)) for into, out, step in sizes)
        self._stride = operator.stride if inputs else (1,) * len(operator.stride)
        self._shape = operator.input_shape if inputs else operator.output_shape
        blocks = _fold(_transform(operator, self._size), operator.stride, self._size) / math.sqrt(
            math.prod(operator.stride)
        )
        # (C_out, C_in * strides, positions) -> one matrix for each position
        blocks = blocks.permute(2, 0, 1)
        self.gram = blocks.mH @ blocks if inputs else blocks @ blocks.mH
        self.values = _largest(self.gram)
        self.most = float(self.values.max())
        self._inverse: Tensor | None = None

    def precondition(self, x: Tensor) -> Tensor:
        """(mu - G)^-1 x on the torus, for vectors ``(N, *shape)``; mu is just above all values of G."""
        if self._inverse is None:
            near = float(self.values.topk(min(_WAVES, len(self.values))).values[-1])
            pole = self.most + max(_SHARE * (self.most - near), _LEAST * self.most)
            unit = torch.eye(self.gram.shape[-1], dtype=self.gram.dtype, device=self.gram.device)
            # Half the digits do: what it gets wrong costs a round, not truth.
            self._inverse = torch.linalg.inv(pole * unit - self.gram).to(torch.complex64)
        return self._field(self._inverse @ self._frequencies(x.float())).double()

    def start(self, count: int, noise: int, generator: torch.Generator) -> Tensor:
        """``count`` of the strongest waves and some of noise, ``(count + noise, *shape)``."""
        waves = min(len(self.values), count)
        chosen = self.values.topk(waves).indices
        vectors = torch.linalg.eigh(self.gram[chosen])[1][:, :, -1]
        spectrum = self.gram.new_zeros(len(self.values), self.gram.shape[-1], waves)
        number = torch.arange(waves, device=self.gram.device)
        # Waves come in pairs of opposite frequencies: a turned phase in the second half makes sine of cosine.
        phase = torch.where(number % 2 == 0, 1.0 + 0j, 1j).to(spectrum)
        spectrum[chosen, :, number] = vectors * phase[:, None]
        rest = torch.randn(count - waves + noise, *self._shape, generator=generator, dtype=torch.float64, device="cpu")
        return torch.cat([self._field(spectrum), rest.to(self.gram.device)])

    def bound(self, degree: tuple[int, ...]) -> float:
        """No singular value of the convolution with zero padding is above this; infinite if there is no bound.

        Zero padding cuts a piece out of the convolution on the whole plane, whose norm is the largest value of
        the symbol; that is a trigonometric polynomial, which between the points of a grid rises above them by
        at most 1 / cos(pi degree / points).
        """
        if any(points <= 2 * highest for points, highest in zip(self._size, degree, strict=True)):
            return math.inf
        rises = [math.cos(math.pi * highest / points) for points, highest in zip(self._size, degree, strict=True)]
        return math.sqrt(self.most / math.prod(rises))

    def _frequencies(self, x: Tensor) -> Tensor:
        """Vectors to (positions, channels * strides, N)."""
        grid = [size * step for size, step in zip(self._size, self._stride, strict=True)]
        axes = tuple(range(2, 2 + len(grid)))
        whole = torch.fft.fftn(x, s=grid, dim=axes, norm="ortho")
        folded: Tensor = _fold(whole, self._stride, self._size).permute(2, 1, 0)
        return folded

    def _field(self, spectrum: Tensor) -> Tensor:
        """Back to vectors, cut to the picture."""
        whole = _unfold(spectrum.permute(2, 1, 0), self._stride, self._size, self._shape[0])
        axes = tuple(range(2, 2 + len(self._size)))
        field = torch.fft.ifftn(whole, dim=axes, norm="ortho").real
        for axis, length in zip(axes, self._shape[1:], strict=True):
            field = field.narrow(axis, 0, length)
        cut: Tensor = field
        return cut


def _transform(operator: ConvolutionOperator, size: tuple[int, ...]) -> Tensor:
    """The Fourier transform of the kernels, each tap at its place beside the output that reads it."""
    grid = tuple(length * step for length, step in zip(size, operator.stride, strict=True))
    taps = operator.weight.new_zeros(*operator.weight.shape[:2], *grid)
    before = [width[0] for width in operator.widths]
    for tap in np.ndindex(*operator.weight.shape[2:]):
        places = zip(tap, operator.dilation, before, grid, strict=True)
        at = tuple((offset * d - edge) % length for offset, d, edge, length in places)
        taps[(..., *at)] += operator.weight[(..., *tap)]
    transform: Tensor = torch.fft.fftn(taps, dim=tuple(range(2, taps.dim()))).conj()
    return transform


def _fold(whole: Tensor, stride: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """(N, C, s L, ...) to (N, C * strides, positions): frequencies that a stride folds together, as channels."""
    split = whole.reshape(*whole.shape[:2], *(n for pair in zip(stride, size, strict=True) for n in pair))
    dims = len(size)
    order = [0, 1, *(2 + 2 * axis for axis in range(dims)), *(3 + 2 * axis for axis in range(dims))]
    return split.permute(order).reshape(len(whole), -1, math.prod(size))


def _unfold(folded: Tensor, stride: tuple[int, ...], size: tuple[int, ...], channels: int) -> Tensor:
    """(N, C * strides, positions) back to (N, C, s L, ...)."""
    dims = len(size)
    split = folded.reshape(len(folded), channels, *stride, *size)
    order = [0, 1, *(axis for pair in range(dims) for axis in (2 + pair, 2 + dims + pair))]
    grid = [length * step for length, step in zip(size, stride, strict=True)]
    return split.permute(order).reshape(len(folded), channels, *grid)


def _largest(gram: Tensor) -> Tensor:
    """The largest eigenvalue of every block."""
    if gram.shape[-1] == 1:
        return gram[:, 0, 0].real
    values: Tensor = torch.linalg.eigvalsh(gram)[:, -1]
    return values
