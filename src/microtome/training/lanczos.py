"""Lanczos' method: the largest and smallest eigenvalues of a symmetric operator that is only applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Ritz", "extreme"]


@dataclass(frozen=True)
class Ritz:
    """Eigenvalues found, each with the norm of its residual ``A v - lambda v``, which bounds its error.

    Attributes
    ----------
    top, bottom : Tensor
        (k,), the largest in descending and the smallest in ascending order.
    top_residual, bottom_residual : Tensor
        (k,).
    steps : int
        How often the operator was applied.
    """

    top: Tensor
    bottom: Tensor
    top_residual: Tensor
    bottom_residual: Tensor
    steps: int


def extreme(
    apply: Callable[[Tensor], Tensor], size: int, k: int, *, tolerance: float, most: int, seed: int = 0
) -> Ritz:
    """The ``k`` largest and ``k`` smallest eigenvalues of a symmetric operator on vectors of ``size`` numbers.

    Every new vector is made orthogonal to all before it, twice, in float64, so that no eigenvalue appears as a ghost.
    Where the Krylov space is exhausted a new random vector goes on, so that repeated eigenvalues are found too. It ends
    when all residuals are at most ``tolerance`` times the largest absolute eigenvalue, or after ``most`` steps.

    Parameters
    ----------
    apply
        The operator, on float64 vectors (size,).
    size, k
        Length of the vectors, and how many eigenvalues at each end.
    tolerance, most, seed
        When to end; seed of the first vector.

    Examples
    --------
    >>> A = torch.diag(torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64))
    >>> found = extreme(lambda v: A @ v, 4, 1, tolerance=1e-9, most=4)
    >>> round(float(found.top), 6), round(float(found.bottom), 6)
    (3.0, -1.0)
    """
    generator = torch.Generator().manual_seed(seed)
    k, most = min(k, size), min(most, size)
    basis = torch.empty(most, size, dtype=torch.float64, device="cpu")  # the system gives the memory as rows are filled
    steps = 0
    diagonal: list[float] = []
    beside: list[float] = []
    v = _unit(torch.randn(size, generator=generator, dtype=torch.float64, device="cpu"), basis[:0])
    while True:
        basis[steps] = v
        steps += 1
        w = apply(v)
        diagonal.append(float(w @ v))
        w = _orthogonal(w, basis[:steps])
        norm = float(w.norm())
        values, residual = _ritz(diagonal, beside, norm)
        scale = float(values.abs().max().clamp(min=1e-300))
        exhausted = norm <= 1e-12 * scale
        ends = torch.cat([residual[:k], residual[-k:]])
        converged = len(values) >= 2 * k and bool((ends <= tolerance * scale).all()) and not exhausted
        if steps >= most or converged:
            break
        beside.append(0.0 if exhausted else norm)
        drawn = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu") if exhausted else w
        v = _unit(drawn, basis[:steps])
    if steps == size:
        residual = torch.zeros_like(residual)
    return Ritz(values[-k:].flip(0), values[:k], residual[-k:].flip(0), residual[:k], steps)


def _ritz(diagonal: list[float], beside: list[float], norm: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the tridiagonal matrix, ascending, and the norms of their residuals."""
    off = torch.tensor(beside, dtype=torch.float64, device="cpu")
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64, device="cpu")) + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(T)
    return values, norm * vectors[-1].abs()


def _orthogonal(vector: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):
        vector = vector - Q.T @ (Q @ vector)
    return vector


def _unit(vector: Tensor, Q: Tensor) -> Tensor:
    return functional.normalize(_orthogonal(vector, Q), dim=0, eps=1e-300)
