"""What is the linear map that a layer really applies to whole feature maps, without ever writing its matrix?"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.spaces.operators.linear_layer import PRODUCTS, linear_call, shape_read_by, weight_of

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

    from microtome.spaces.singular.triplets import SingularTriplets
    from microtome.spaces.split.subspaces import Subspaces

DENSE = 50_000_000  # entries of a matrix that may be written out: 400 MB in float64


class Operator(ABC):
    """A linear map between stacks of feature maps, given by what it does and what its adjoint does.

    Attributes
    ----------
    name : str
        The layer.
    input_shape, output_shape : tuple of int
        Shapes without the batch.
    groups : int
        Blocks of channels that do not meet.
    band : int or None
        For a local map, how far from the diagonal its sparse matrix reaches about, positions outermost;
        None where it has no sparse matrix.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
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

    def all_singular_values(self) -> Tensor | None:
        """All singular values by a route of the map's own, if it has one."""
        return None

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
                "use spaces.operator(...).triplets(k), which needs no matrix."
            )
        columns = [
            self.apply(torch.eye(n, dtype=torch.float64)[part].reshape(-1, *self.input_shape)).reshape(-1, m)
            for part in torch.arange(n).split(256)
        ]
        return torch.cat(columns).T.contiguous()

    def singular_values(self, k: int = 32) -> Tensor:
        """The ``k`` largest singular values, falling; see ``triplets``."""
        return self.triplets(k).values

    def triplets(
        self, k: int = 32, *, which: str = "largest", tolerance: float = 1e-8, seed: int = 0
    ) -> SingularTriplets:
        """The ``k`` largest or smallest singular values with their vectors as feature maps; see ``spaces.triplets``."""
        from microtome.spaces.singular.triplets import triplets

        return triplets(self, k, which=which, tolerance=tolerance, seed=seed)

    def subspaces(self, *, tolerance: float | None = None) -> Subspaces:
        """The four fundamental spaces of the map, with its matrix written out: signal, rejected, and both of outputs.

        Parameters
        ----------
        tolerance : float, optional
            Singular values up to this count as zero; default max(m, n) * eps * s_1 of float64.

        Returns
        -------
        Subspaces

        Raises
        ------
        LayerError
            When the matrix would hold more than 50 million numbers.
        InputError
            When the tolerance is negative, or the map is one for each of several images.
        """
        from microtome.spaces.split.subspaces import subspaces_of

        return subspaces_of(self, tolerance=tolerance)

    def condition_number(self) -> float:
        """Largest by smallest of all min(m, n) singular values; infinite where the smallest is zero to rounding.

        Raises
        ------
        LayerError
            When the smallest singular value cannot be found reliably.
        """
        known = self.all_singular_values()
        largest = float(known[0] if known is not None else self.triplets(1).values[0])
        smallest = float(known[-1] if known is not None else self.triplets(1, which="smallest").values[-1])
        floor = max(self.shape) * torch.finfo(torch.float64).eps * largest
        return largest / smallest if smallest > floor else math.inf

    def _batch(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(x.shape) == shape:
            x = x[None]
        if tuple(x.shape[1:]) != shape:
            raise InputError(f'"{self.name}" maps {self.input_shape} to {self.output_shape}; got {tuple(x.shape)}.')
        return x.double()


@final
class MatrixOperator(Operator):
    """A Linear layer; on tokens (T, n) it acts on each token."""

    def __init__(self, name: str, weight: Tensor, input_shape: tuple[int, ...]) -> None:
        self.name, self.weight = name, weight.double()
        self.input_shape = input_shape
        self.output_shape = (*input_shape[:-1], int(weight.shape[0]))

    def apply(self, x: Tensor) -> Tensor:
        """W x."""
        return self._batch(x, self.input_shape) @ self.weight.T

    def adjoint(self, y: Tensor) -> Tensor:
        """W^T y."""
        return self._batch(y, self.output_shape) @ self.weight

    def all_singular_values(self) -> Tensor:
        """Of the matrix, each once for every token."""
        s: Tensor = torch.linalg.svdvals(self.weight)
        return s.repeat_interleave(math.prod(self.input_shape[:-1]))


def operator(net: Network, layer: str) -> Operator:
    """The exact linear operator of a Linear or convolution layer on what it reads.

    Parameters
    ----------
    net : Network
        The network; it fixes the size of the feature maps.
    layer : str
        A Linear layer, Conv1d to Conv3d or ConvTranspose1d to 3d, as module or functional call.

    Returns
    -------
    Operator
        ``apply``, ``adjoint``, ``triplets(k)``, ``singular_values(k)``, ``condition_number()``.

    Raises
    ------
    LayerError
        When the layer is no linear map.

    Notes
    -----
    Stride, padding (also ``"same"`` and circular, reflected or replicated), dilation and groups are those
    of the layer. Padding that the model does itself before the layer (its own ``F.pad``) belongs to what the
    layer reads, not to the layer. The bias is left out.

    Examples
    --------
    A kernel that doubles its input has all singular values 2:

    >>> conv = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    >>> conv.weight.data.zero_()[0, 0, 1, 1] = 2
    >>> net = Network(torch.nn.Sequential(conv), (1, 6, 6))
    >>> operator(net, "0").singular_values(3).tolist()
    [2.0, 2.0, 2.0]
    """
    call = linear_call(net, layer)
    if call.kind not in PRODUCTS:
        from microtome.spaces.operators.convolution import convolution

        return convolution(net, layer, call)
    weight = weight_of(call)
    if weight is None:
        raise LayerError(f'"{layer}" has no fixed weight.')
    return MatrixOperator(layer, weight, shape_read_by(net, layer))
