"""Singular triplets of a matrix-free linear map, each with a residual that bounds its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.results import Provenance, Result, versions
from microtome.spaces.operators.convolution import ConvolutionOperator, TransposedConvolutionOperator
from microtome.spaces.operators.matrix import MatrixOperator
from microtome.spaces.operators.operator import DENSE, Operator
from microtome.spaces.singular.largest import largest_of_convolution
from microtome.spaces.singular.smallest import smallest_by_factorisation
from microtome.spaces.singular.tokenwise import by_points, by_tokens, pointwise
from microtome.trace.tracing.caller_modes import own_modes

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

_SMALL = 1024  # up to this many values on the shorter side a dense decomposition is as fast
_DIRECT = 1.0e11  # m n min(m, n) up to which one is taken for the smallest: some minutes
_BASIS = 96  # Lanczos vectors held: fewer restarts where singular values lie close together


@dataclass(frozen=True, eq=False, kw_only=True)
class SingularTriplets(Result, drawing="spaces.space_figures:triplets"):
    """Some singular values of a map, with vectors as stacks of feature maps.

    Attributes
    ----------
    layer : str
        The layer.
    values : Tensor
        (k,) falling.
    right : Tensor
        ``(k, *input_shape)``: what goes in.
    left : Tensor
        ``(k, *output_shape)``: what comes out, of norm 1.
    residual : Tensor
        (k,): ``max(|A v - s u|, |A^T u - s v|)``; there is a singular value of the map within it of each s.
    """

    layer: str
    values: Tensor
    right: Tensor
    left: Tensor
    residual: Tensor


@own_modes()
def triplets(
    operator: Operator, k: int = 32, *, which: str = "largest", tolerance: float = 1e-8, seed: int = 0
) -> SingularTriplets:
    r"""Singular triplets of a linear map that is known only by its action.

    .. math:: A v_i = s_i u_i,\qquad A^T u_i = s_i v_i

    Parameters
    ----------
    operator : Operator
        The map, from ``spaces.operator`` or ``spaces.jacobian``.
    k : int
        How many.
    which : str
        ``"largest"`` or ``"smallest"`` of the min(m, n) singular values.
    tolerance : float
        Largest residual allowed, by the largest singular value; values are good to about its square by the gap
        to the next. Large feature maps have values close together: 1e-4 is found several times faster than 1e-8.
    seed : int
        Seed of the starting vector.

    Returns
    -------
    SingularTriplets

    Raises
    ------
    InputError
        When k or ``which`` cannot be.
    LayerError
        When a residual is above ``tolerance`` of the largest singular value, or the smallest values cannot be
        found by a route that converges.

    Notes
    -----
    Largest: a convolution by its structure (see ``singular.largest``): exact for 1 x 1 kernels, group by group
    where channels do not meet, else Davidson's method started and preconditioned by the Fourier transform. Other
    maps, and convolutions of very many channels: implicitly restarted Lanczos, some hundred products, no matrix.
    Smallest: iteration does not converge there; 1 x 1 kernels have those of their small matrix, other convolutions
    have a sparse factorisation inverted (see ``singular.smallest``), and other maps are decomposed as a dense matrix up
    to some thousand values a side, or it is refused. Up to 1,024 values on the shorter side a dense
    decomposition is taken for both. A residual proves that a value exists, not that none was missed between
    two found ones; Lanczos can miss copies of a value that is repeated exactly.
    """
    operator = operator.structure
    m, n = operator.shape
    if not 0 < tolerance < 1:
        raise InputError(f"a tolerance between 0 and 1 was expected, got {tolerance}.")
    if which not in ("largest", "smallest"):
        raise InputError(f'which is "largest" or "smallest", got "{which}".')
    if not 1 <= k <= min(m, n):
        raise InputError(f'"{operator.name}" is {m} x {n}: from 1 to {min(m, n)} triplets were expected, got {k}.')
    if min(m, n) <= _SMALL and m * n <= 16 * _SMALL**2:
        left, values, right = _decomposed(operator, k, which)
    elif which == "largest":
        left, values, right = _largest(operator, k, seed, tolerance)
    else:
        left, values, right = _smallest(operator, k, seed)
    found = _proved(operator, left, values, right)
    scale = float(values[0]) if which == "largest" else float(_largest(operator, 1, seed, tolerance)[1][0])
    worst = float(found.residual.max())
    if worst > tolerance * max(scale, torch.finfo(torch.float64).tiny):
        raise LayerError(
            f'the {which} singular values of "{operator.name}" ({m} x {n}) did not converge: residual {worst:.1e} '
            f"beside a largest value of {scale:.3g}. Ask for fewer, or for a smaller input shape."
        )
    return found


def _largest(operator: Operator, k: int, seed: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    from scipy.sparse.linalg import ArpackNoConvergence, svds

    m, n = operator.shape
    if isinstance(operator, MatrixOperator) and len(operator.input_shape) > 1:
        return by_tokens(operator, k, "largest", lambda one, count: _largest(one, count, seed, tolerance))
    if k >= min(m, n) - 1:
        return _decomposed(operator, k, "largest")
    if (known := _by_structure(operator, k, seed, tolerance)) is not None:
        return known
    if _is_zero(operator, seed):
        unit = torch.eye(k, max(m, n), dtype=torch.float64, device=operator.device)
        return unit[:, :m], unit.new_zeros(k), unit[:, :n]
    start = torch.randn(
        min(m, n), generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu"
    ).numpy()
    try:
        # ARPACK stops by the eigenvalues of A^T A; a tenth of the wanted residual leaves room.
        basis = min(min(m, n) - 1, max(2 * k + 1, _BASIS))
        u, s, v = svds(as_scipy(operator), k=k, v0=start, ncv=basis, tol=0.1 * tolerance, solver="arpack")
    except ArpackNoConvergence as error:
        raise LayerError(
            f'the singular values of "{operator.name}" did not converge: {error}. Ask for fewer.'
        ) from error
    order = np.argsort(-s)
    left, values, right = (torch.from_numpy(np.ascontiguousarray(part)) for part in (u.T[order], s[order], v[order]))
    return left.to(operator.device), values.to(operator.device), right.to(operator.device)


def _smallest(operator: Operator, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(operator, MatrixOperator) and len(operator.input_shape) > 1:
        return by_tokens(operator, k, "smallest", lambda one, count: _smallest(one, count, seed))
    if (
        isinstance(operator, ConvolutionOperator)
        and pointwise(operator)
        and (found := by_points(operator, k, "smallest")) is not None
    ):
        return found
    m, n = operator.shape
    if operator.band is None and m * n <= DENSE and float(m) * n * min(m, n) <= _DIRECT:
        return _decomposed(operator, k, "smallest")
    return smallest_by_factorisation(operator, k, seed)


def _decomposed(operator: Operator, k: int, which: str) -> tuple[Tensor, Tensor, Tensor]:
    u, s, v = torch.linalg.svd(operator.dense(), full_matrices=False)
    part = slice(0, k) if which == "largest" else slice(len(s) - k, None)
    return u[:, part].T, s[part], v[part]


def _is_zero(operator: Operator, seed: int) -> bool:
    """Whether the map gives nothing for a random vector: then it is zero, but for a chance of nothing."""
    x = torch.randn(
        1, *operator.input_shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu"
    )
    return not bool(operator.apply(x.to(operator.device)).any())


def _by_structure(operator: Operator, k: int, seed: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """What is known of convolutions helps where there is one."""
    if isinstance(operator, ConvolutionOperator):
        return largest_of_convolution(operator, k, seed, tolerance)
    if isinstance(operator, TransposedConvolutionOperator):
        found = largest_of_convolution(operator.convolution, k, seed, tolerance)
        return None if found is None else (found[2], found[1], found[0])
    return None


def as_scipy(operator: Operator) -> LinearOperator:
    """The map as SciPy's solvers take it."""
    from scipy.sparse.linalg import LinearOperator

    def forward(x: Any) -> Any:
        out = operator.apply(_columns(x, operator.input_shape).to(operator.device))
        return out.reshape(x.shape[1] if x.ndim == 2 else 1, -1).T.cpu().numpy()

    def backward(y: Any) -> Any:
        out = operator.adjoint(_columns(y, operator.output_shape).to(operator.device))
        return out.reshape(y.shape[1] if y.ndim == 2 else 1, -1).T.cpu().numpy()

    return LinearOperator(operator.shape, forward, backward, forward, np.float64, backward)


def _columns(x: Any, shape: tuple[int, ...]) -> Tensor:
    """Columns of a NumPy array as a batch of feature maps."""
    return torch.from_numpy(np.ascontiguousarray(x.T)).reshape(-1, *shape)


def _proved(operator: Operator, left: Tensor, values: Tensor, right: Tensor) -> SingularTriplets:
    """Check every triplet by applying the map and its adjoint."""
    shaped = right.reshape(-1, *operator.input_shape), left.reshape(-1, *operator.output_shape)
    forth = torch.cat([operator.apply(part).flatten(1) for part in shaped[0].split(1)]) - values[:, None] * left
    back = torch.cat([operator.adjoint(part).flatten(1) for part in shaped[1].split(1)]) - values[:, None] * right
    return SingularTriplets(
        provenance=Provenance("singular-triplets", {"layer": operator.name, "k": len(values)}, versions=versions()),
        layer=operator.name,
        values=values.contiguous(),
        right=shaped[0].contiguous(),
        left=shaped[1].contiguous(),
        residual=torch.maximum(forth.norm(dim=1), back.norm(dim=1)),
    )
