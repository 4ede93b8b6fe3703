"""The interface of matrix-free linear maps between feature maps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

DENSE = 50_000_000  # entries of a matrix that may be written out: 400 MB in float64


class Operator(ABC):
    """A linear map between stacks of feature maps, given by what it does and what its adjoint does.

    Attributes
    ----------
    name : str
        The layer.
    input_shape, output_shape : tuple of int
        Shapes without the batch.
    device : torch.device
        Device of the computation.
    groups : int
        Number of channel groups without connections between them.
    band : int or None
        For a local map, about the bandwidth of its sparse matrix, with positions outermost;
        None if it has no sparse matrix.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    device: torch.device
    groups: int = 1
    band: int | None = None

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """A x for a batch ``(N, *input_shape)``, float64, without the layer's bias."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y for a batch ``(N, *output_shape)``, float64."""

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): values out, values in."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    def sparse(self) -> spmatrix:
        """The matrix as a sparse one, where the map is local.

        Raises
        ------
        LayerError
            Where it is not.
        """
        raise LayerError(f'"{self.name}" is not a local map: it has no sparse matrix.')

    def dense(self) -> Tensor:
        """The matrix (m, n).

        Raises
        ------
        LayerError
            When it would hold more than 50 million numbers.
        """
        m, n = self.shape
        if m * n > DENSE:
            raise LayerError(
                f'the matrix of "{self.name}" would be {m} x {n}, too large to write out; '
                "its singular triplets need no matrix: spaces.triplets(operator, k)."
            )
        columns = [
            self.apply(unit.reshape(-1, *self.input_shape)).reshape(-1, m)
            for unit in torch.eye(n, dtype=torch.float64, device=self.device).split(256)
        ]
        return torch.cat(columns).T.contiguous()

    @property
    def structure(self) -> Operator:
        """The operator class with the structure: itself, or the operator inside a ``LinearMap``."""
        return self

    def as_batch(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A vector or a batch of vectors of a shape as a batch in float64, on the operator's device.

        Raises
        ------
        InputError
            When the shape does not fit.
        """
        if tuple(x.shape) == shape:
            x = x[None]
        if tuple(x.shape[1:]) != shape:
            raise InputError(f'"{self.name}" maps {self.input_shape} to {self.output_shape}; got {tuple(x.shape)}.')
        return x.to(self.device, torch.float64)
