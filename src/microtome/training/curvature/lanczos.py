"""Lanczos' method: extreme eigenvalues and the spectral density of a matrix-free symmetric operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import ModelError

__all__ = ["Ritz", "extreme", "quadrature"]

_SYMMETRIC = 1e-2  # deviation from symmetry, as a share of the largest entry, beyond the rounding of single precision


@dataclass(frozen=True)
class Ritz:
    """Eigenvalues found, each with the norm of its residual ``A v - lambda v``, which bounds its error.

    Attributes
    ----------
    top, bottom : Tensor
        The largest in descending and the smallest in ascending order.
    top_residual, bottom_residual : Tensor
        Of the same shapes.
    steps : int
        Number of applications of the operator.
    """

    top: Tensor
    bottom: Tensor
    top_residual: Tensor
    bottom_residual: Tensor
    steps: int


def extreme(
    apply: Callable[[Tensor], Tensor],
    size: int,
    k: int,
    *,
    smallest: int | None = None,
    tolerance: float,
    most: int,
    seed: int = 0,
) -> Ritz:
    """The largest and smallest eigenvalues of a symmetric operator on vectors of ``size`` numbers.

    When the Krylov space is exhausted, a new random vector continues it, so that repeated eigenvalues are found too. It
    ends when all residuals are at most ``tolerance`` times the largest absolute eigenvalue, or after ``most`` steps.

    Parameters
    ----------
    apply
        The operator, on float64 vectors (size,).
    size, k, smallest
        Length of the vectors, and number of eigenvalues at each end; by default as many of the smallest as of the
        largest.
    tolerance, most, seed
        Stopping criteria; seed of the first vector.

    Examples
    --------
    >>> A = torch.diag(torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64))
    >>> found = extreme(lambda v: A @ v, 4, 1, tolerance=1e-9, most=4)
    >>> round(float(found.top), 6), round(float(found.bottom), 6)
    (3.0, -1.0)
    """
    most, k, low = min(most, size), min(k, size), min(k if smallest is None else smallest, size)
    steps = 0
    values = residual = torch.empty(0, dtype=torch.float64, device="cpu")
    for steps, (T, norm, exhausted) in enumerate(_steps(apply, size, most, seed, restart=True), 1):
        values, vectors = torch.linalg.eigh(T)
        residual = norm * vectors[-1].abs()
        scale = float(values.abs().max().clamp(min=1e-300))
        ends = torch.cat([residual[: min(low, steps)], residual[max(steps - k, 0) :]])
        if steps >= k + low and not exhausted and bool((ends <= tolerance * scale).all()):
            break
    if steps == size:
        residual = torch.zeros_like(residual)
    top = slice(max(steps - k, 0), None)
    return Ritz(values[top].flip(0), values[:low], residual[top].flip(0), residual[:low], steps)


def quadrature(apply: Callable[[Tensor], Tensor], size: int, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Gauss' nodes and weights of the spectral measure at a random unit vector.

    .. math:: v^\top f(A)\, v \approx \sum_j w_j\, f(\lambda_j)

    exactly for polynomials f of degree below twice the number of steps; the mean over vectors v is :math:`\mathrm{tr}
    f(A)` over the size.

    Parameters
    ----------
    apply, size
        The operator, on float64 vectors (size,).
    steps
        Number of applications; fewer if the Krylov space is exhausted, and then all f are exact.
    seed
        Of the vector, which is uniform on the sphere.

    Returns
    -------
    nodes, weights : Tensor
        (m,), the nodes ascending; the weights are positive and have the sum 1.

    Examples
    --------
    >>> A = torch.diag(torch.tensor([3.0, -1.0], dtype=torch.float64))
    >>> nodes, weights = quadrature(lambda v: A @ v, 2, 5)
    >>> [round(value, 6) for value in nodes.tolist()], round(float(weights.sum()), 6)
    ([-1.0, 3.0], 1.0)
    """
    for T, _, _ in _steps(apply, size, min(steps, size), seed, restart=False):
        last = T
    nodes, vectors = torch.linalg.eigh(last)
    return nodes, vectors[0].square()


def _steps(
    apply: Callable[[Tensor], Tensor], size: int, most: int, seed: int, *, restart: bool
) -> Iterator[tuple[Tensor, float, bool]]:
    """After each step: the tridiagonal matrix, the norm of the part outside the space, and whether it vanishes.

    Every new vector is made orthogonal to all before it, twice, in float64, so that no eigenvalue appears as a ghost.
    With ``restart`` an exhausted space is continued by a random vector.

    Raises
    ------
    ModelError
        The operator is not symmetric, so that the tridiagonal matrix does not have its eigenvalues.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")

    basis = torch.empty(
        most, size, dtype=torch.float64, device="cpu"
    )  # the system allocates the memory when rows are filled
    T = torch.zeros(most, most, dtype=torch.float64, device="cpu")
    v = _unit(drawn(), basis[:0])
    for step in range(most):
        basis[step] = v
        w = apply(v)
        T[step, step] = w @ v
        known = basis[:step] @ w  # by symmetry the last column of T
        if float((known - T[:step, step]).norm()) > _SYMMETRIC * float(T.abs().max()):
            raise ModelError(
                "the Hessian is not symmetric: an operation of the model has a wrong second derivative. Replace custom "
                "autograd functions and fused operations of the model by plain ones."
            )
        w = _orthogonal(w, basis[: step + 1])
        norm = float(w.norm())
        exhausted = norm <= 1e-12 * max(float(T.abs().max()), 1e-300)
        yield T[: step + 1, : step + 1], norm, exhausted
        if step + 1 == most or (exhausted and not restart):
            return
        T[step, step + 1] = T[step + 1, step] = 0.0 if exhausted else norm
        v = _unit(drawn() if exhausted else w, basis[: step + 1])


def _orthogonal(vector: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):
        vector = vector - Q.T @ (Q @ vector)
    return vector


def _unit(vector: Tensor, Q: Tensor) -> Tensor:
    return functional.normalize(_orthogonal(vector, Q), dim=0, eps=1e-300)
