"""The four fundamental spaces of a layer's weight matrix, from its singular value decomposition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Provenance, Result, stated, versions
from microtome.spaces.operators.layer_operator import layer_operator
from microtome.spaces.operators.linear_layer import (
    PRODUCTS,
    VIEWS,
    channels_first,
    kernel_matrix,
    linear_call,
    patch_matrix,
    weight_of,
)
from microtome.spaces.operators.operator import Operator

_BASIS = 1_000_000_000  # numbers that a complete basis may hold: 8 GB


@dataclass(frozen=True, eq=False, kw_only=True)
class Subspaces(Result, drawing="spaces.space_figures:subspaces"):
    r"""The four spaces of a matrix W (m x n) from its singular value decomposition W = U S V^T.

    Attributes
    ----------
    layer, view : str
        Whose matrix, and how it was read (see ``subspaces``; ``"exact"`` for a map such as a Jacobian).
    signal : Tensor
        (n, r) orthonormal columns: the row space, strongest direction first.
    signal_output : Tensor
        (m, r) orthonormal columns: the column space, the outputs that can be reached.
    singular_values : Tensor
        (min(m, n),), falling.
    rank : int
        Number of singular values above ``tolerance``.
    tolerance : float
        Singular values up to this count as zero.
    input_shape : tuple of int
        Shape that a row has as a picture; its product is n.
    """

    layer: str
    view: str
    signal: Tensor
    signal_output: Tensor
    singular_values: Tensor
    rank: int
    tolerance: float
    input_shape: tuple[int, ...]

    @cached_property
    def rejected(self) -> Tensor:
        """(n, n - r) orthonormal columns: the null space, inputs without any effect. Computed on first use.

        Raises
        ------
        LayerError
            When the basis would not fit into memory; ``reject`` needs no basis.
        """
        return _complement(self.signal)

    @cached_property
    def rejected_output(self) -> Tensor:
        """(m, m - r) orthonormal columns: the left null space, outputs that cannot be reached.

        Raises
        ------
        LayerError
            When the basis would not fit into memory.
        """
        return _complement(self.signal_output)

    @property
    def condition_number(self) -> float:
        """Largest by smallest non-zero singular value; NaN for a zero matrix, which has none."""
        if self.rank == 0:
            return math.nan
        return float(self.singular_values[0] / self.singular_values[self.rank - 1])

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) of the matrix."""
        return int(self.signal_output.shape[0]), int(self.signal.shape[0])

    @property
    def matrix(self) -> Tensor:
        """The matrix again, (m, n), from its singular triplets."""
        return (self.signal_output * self.singular_values[: self.rank]) @ self.signal.T

    def coefficients(self, x: Tensor) -> Tensor:
        """Coordinates of inputs on the signal vectors, (N, r)."""
        return self._rows(x) @ self.signal

    def project(self, x: Tensor) -> Tensor:
        """The signal part x_s = V V^T x of inputs, float64, shaped like ``x``.

        Parameters
        ----------
        x : Tensor
            (n,), (N, n) or any shape (N, ...) whose images have n values.
        """
        return (self.coefficients(x) @ self.signal.T).reshape(x.shape)

    def reject(self, x: Tensor) -> Tensor:
        """The rejected part x_r = x - x_s: the projection on the null space."""
        return x.to(self.signal) - self.project(x)

    def energy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (squared norm) kept and rejected of each input, both (N,); they add up to that of the input."""
        rows = self._rows(x)
        return self.coefficients(x).square().sum(1), self.reject(rows).square().sum(1)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The shortest inputs x with W x nearest to y: W^+ y, (N, n) for outputs (N, m).

        Raises
        ------
        InputError
            When outputs do not have m values.
        """
        m = self.signal_output.shape[0]
        if y.dim() == 0 or y.shape[-1] != m:
            raise InputError(f"outputs of {m} values were expected, got shape {tuple(y.shape)}.")
        inverse = 1 / self.singular_values[: self.rank]
        return ((y.to(self.signal) @ self.signal_output) * inverse) @ self.signal.T

    def _rows(self, x: Tensor) -> Tensor:
        n = self.signal.shape[0]
        if x.numel() == n:
            return x.detach().to(self.signal).reshape(1, n)
        if x.dim() == 0 or x.numel() == 0 or x[0].numel() != n:
            raise InputError(f"inputs of {n} values {self.input_shape} were expected, got shape {tuple(x.shape)}.")
        return x.detach().to(self.signal).reshape(-1, n)


@register("subspaces", rows=("A2", "A5"), paper="strang2022", needs="a Linear or convolution layer", kind="spaces")
def subspaces(net: Network, layer: str, *, view: str | None = None, tolerance: float | None = None) -> Subspaces:
    r"""Split the input and output of a layer into its four fundamental spaces.

    .. math:: W = U S V^T,\quad x = x_s + x_r,\quad x_s = V_r V_r^T x,\quad W x = W x_s,\quad
              \|x\|^2 = \|x_s\|^2 + \|x_r\|^2

    Parameters
    ----------
    net : Network
        The network.
    layer : str
        A Linear layer or a convolution (Conv1d to Conv3d, transposed ones too, functional calls too).
    view : str, optional
        How a convolution is read as a matrix: ``"kernels"``, each kernel a row of kh * kw values (the
        paper's simplified view; the default); ``"patches"``, each output channel a row over the patch it
        reads (the default where a kernel is one number: kernels of 1 x 1 have one direction);
        ``"exact"``, the whole linear operator on feature maps with its true stride, padding, dilation
        and groups, built as a dense matrix (small layers only; ``spaces.operator`` needs no
        matrix). A Linear layer has the one view ``"matrix"``.
    tolerance : float, optional
        Singular values up to this count as zero; default max(m, n) * eps * s_1, where eps is that of the
        precision in which the weights are stored.

    Returns
    -------
    Subspaces

    Raises
    ------
    LayerError
        When the layer is no linear map, or too large for a dense matrix.
    InputError
        When the view does not exist.

    Notes
    -----
    Cost: one SVD in float64, O(m n min(m, n)). The bases of the null spaces are computed on first use.
    A picture is split as the layer reads it (for a first layer: normalised). It does not show what
    the bias and the activation after the layer do.

    References
    ----------
    .. [1] G. Strang. Introduction to Linear Algebra. Wellesley-Cambridge Press, 2022.

    Examples
    --------
    >>> fc = torch.nn.Linear(3, 2, bias=False)
    >>> _ = fc.weight.data.copy_(torch.tensor([[0.0, 4.0, 0.0], [2.0, 0.0, 0.0]]))
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), fc), (1, 1, 3))
    >>> s = subspaces(net, "1")
    >>> s.singular_values.tolist(), s.rank, s.condition_number
    ([4.0, 2.0], 2, 2.0)
    >>> s.project(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [1.0, 2.0, 0.0]
    """
    matrix, shape, chosen = layer_matrix(net, layer, view)
    given = stated(view=chosen)
    return _split(matrix, tolerance, _precision(net), given, layer=layer, view=chosen, shape=shape)


def subspaces_of(operator: Operator, *, tolerance: float | None = None) -> Subspaces:
    """The four spaces of a map that is small enough to be written out; see ``Operator.subspaces``."""
    given = Provenance("subspaces", {"layer": operator.name, "tolerance": tolerance}, versions=versions())
    eps = torch.finfo(torch.float64).eps
    return _split(
        operator.dense(), tolerance, eps, given, layer=operator.name, view="exact", shape=operator.input_shape
    )


def _split(
    matrix: Tensor,
    tolerance: float | None,
    precision: float,
    given: Provenance,
    *,
    layer: str,
    view: str,
    shape: tuple[int, ...],
) -> Subspaces:
    if tolerance is not None and not tolerance >= 0:
        raise InputError(f"a tolerance is a number from 0 on, got {tolerance}.")
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    if tolerance is None:
        tolerance = max(matrix.shape) * precision * float(s[0])
    rank = int((s > tolerance).sum())
    return Subspaces(
        provenance=given,
        layer=layer,
        view=view,
        signal=v[:rank].T.contiguous(),
        signal_output=u[:, :rank].contiguous(),
        singular_values=s,
        rank=rank,
        tolerance=tolerance,
        input_shape=shape,
    )


def layer_matrix(net: Network, layer: str, view: str | None = None) -> tuple[Tensor, tuple[int, ...], str]:
    """The matrix of a layer in float64 with the picture shape of its rows and the view's name; see ``subspaces``."""
    call = linear_call(net, layer)
    if view is not None and view not in VIEWS:
        raise InputError(f'there is no view "{view}". Known: {", ".join(VIEWS)}.')
    if call.kind in PRODUCTS:
        if view not in (None, "matrix", "exact"):
            raise InputError(f'"{layer}" is a Linear layer: its view is "matrix", not "{view}".')
        weight = weight_of(call)
        if weight is None:
            raise LayerError(f'"{layer}" has no fixed weight.')
        return weight, _row_shape(net, layer, weight.shape[1]), "matrix"
    if view == "matrix":
        raise InputError(f'"{layer}" is a convolution: its views are kernels, patches and exact.')
    if view == "exact":
        whole = layer_operator(net, layer)
        return whole.dense(), whole.input_shape, "exact"
    kernels = channels_first(call)
    single = math.prod(kernels.shape[2:]) == 1  # the row space of kernels of one number each is trivial
    if view == "patches" or (view is None and single):
        groups = int(call.arguments["groups"])
        return patch_matrix(call), (int(kernels.shape[1]) * groups, *kernels.shape[2:]), "patches"
    return kernel_matrix(call), tuple(kernels.shape[2:]), "kernels"


def _row_shape(net: Network, layer: str, columns: int) -> tuple[int, ...]:
    """The shape that a row of a Linear layer has before it was flattened, as far as it is known."""
    for name in net.layer(layer).inputs:
        shape = net.input_shape if name in ("input", "") else net.layers[name].shape if name in net.layers else ()
        if math.prod(shape) == columns:
            if len(shape) == 1 and name in net.layers and net.layers[name].operator == "flatten":
                return _row_shape(net, name, columns)
            return tuple(shape)
    return (columns,)


def _precision(net: Network) -> float:
    """The relative precision of stored weights: rounding them makes singular values of this size."""
    return float(torch.finfo(net.dtype if net.dtype.is_floating_point else torch.float32).eps)


def _complement(columns: Tensor) -> Tensor:
    """Orthonormal columns that complete those given."""
    n, r = columns.shape
    if r == 0 and n * n <= _BASIS:
        return torch.eye(n, dtype=columns.dtype, device=columns.device)
    if n * n > _BASIS:
        raise LayerError(
            f"a basis of the null space would hold {n} x {n - r} numbers; project and reject split vectors without it."
        )
    whole: Tensor = torch.linalg.qr(columns, mode="complete")[0]
    return whole[:, r:]
