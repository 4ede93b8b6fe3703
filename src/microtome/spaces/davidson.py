"""How are the largest eigenvalues found where many lie close together? By an iteration that is told where to look."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDS = 200
_EXTRA = 4  # vectors beyond those wanted that a restart keeps: what comes next tells the last ones apart
_BASIS = 8  # vectors held for each one wanted: restarts forget, and forgetting costs rounds
_HELD = 60_000_000  # numbers that the basis may hold: 480 MB


def davidson(
    gram: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    start: Tensor,
    k: int,
    tolerance: float,
    *,
    rounds: int = _ROUNDS,
) -> tuple[Tensor, Tensor, bool]:
    r"""The ``k`` largest eigenvalues of a symmetric positive map, by Davidson's method on blocks.

    A basis grows by the preconditioned residuals of the pairs that are not yet good enough; the best pairs in
    the basis (Rayleigh and Ritz) are the answer so far. A bad preconditioner costs rounds, not truth.

    Parameters
    ----------
    gram, precondition : function
        Of vectors (N, n).
    start : Tensor
        (N, n): at least k independent vectors; with fewer nothing is found.
    k : int
        How many pairs.
    tolerance : float
        Largest :math:`\|G v - s^2 v\| / s`, by the largest s.
    rounds : int
        At most so many.

    Returns
    -------
    values : Tensor
        (k,): eigenvalues, falling.
    vectors : Tensor
        (k, n): orthonormal rows.
    converged : bool

    References
    ----------
    .. [1] M. Crouzeix, B. Philippe, M. Sadkane. The Davidson method. SIAM Journal on Scientific Computing 15, 1994.

    Examples
    --------
    >>> scale = torch.tensor([1.0, 5.0, 2.0, 4.0], dtype=torch.float64)
    >>> start = torch.eye(4, dtype=torch.float64)[:2] + 0.5
    >>> values, _, converged = davidson(lambda x: x * scale, lambda x: x, start, 2, 1e-12)
    >>> converged, [round(v, 12) for v in values.tolist()]
    (True, [5.0, 4.0])
    """
    size = start.shape[1]
    most = min(size, max(_BASIS * (k + _EXTRA), 100), max(3 * (k + _EXTRA), _HELD // size))
    basis = _orthonormal(start, start[:0])
    if len(basis) < k:
        return basis.new_empty(0), basis[:0], False
    image = gram(basis)
    before = basis.new_empty(len(basis), 0)
    for _ in range(rounds):
        values, turn = torch.linalg.eigh(_symmetric(basis @ image.T))
        values, turn = values.flip(0)[: k + _EXTRA], turn.flip(1)[:, : k + _EXTRA]
        vectors, moved = turn[:, :k].T @ basis, turn[:, :k].T @ image
        residual = moved - values[:k, None] * vectors
        away = residual.norm(dim=1) / values[:k].clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        open_ = away > tolerance * values[0].clamp(min=0).sqrt()
        if not bool(open_.any()) or len(basis) >= size:
            return values[:k], vectors, not bool(open_.any())
        if len(basis) + int(open_.sum()) > most:
            # With the best vectors those of the round before are kept, as conjugate gradients would.
            kept = torch.linalg.qr(torch.cat([turn, before], 1))[0].T
            basis, image, turn = kept @ basis, kept @ image, kept @ turn
        added = _orthonormal(precondition(residual[open_]), basis)
        if not len(added):
            return values[:k], vectors, False
        basis, image = torch.cat([basis, added]), torch.cat([image, gram(added)])
        before = torch.cat([turn[:, :k], turn.new_zeros(len(added), min(k, turn.shape[1]))])
    return values[:k], vectors, False


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _orthonormal(new: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal rows that span what is new beside the basis; what is not new is left out."""
    new = new / new.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    for _ in range(2):  # twice is enough
        new = new - (new @ basis.T) @ basis
    q, r = torch.linalg.qr(new.T)
    fresh = r.diagonal().abs() > 1e-10
    q = q[:, fresh].T
    if len(q):
        q = torch.linalg.qr((q - (q @ basis.T) @ basis).T)[0].T
    rows: Tensor = q
    return rows
