"""Davidson's method: the largest eigenvalues of a symmetric map with a preconditioner."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDS = 200
_EXTRA = 4  # vectors beyond k that a restart keeps, so that the last ones converge
_BASIS = 8  # vectors held for each of the k: early restarts cost rounds
_HELD = 60_000_000  # numbers that the basis may hold: 480 MB
_CANCELLED = 1e-3  # below this share of its norm, a vector is orthogonalised a second time


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
        Number of pairs.
    tolerance : float
        Largest :math:`\|G v - s^2 v\| / s`, by the largest s.
    rounds : int
        Largest number of rounds.

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
    first = _orthonormal(start, start[:0])
    if len(first) < k:
        return first.new_empty(0), first[:0], False
    held = _Basis(max(most, len(first)), gram, first)
    before = first.new_empty(len(first), 0)
    for _ in range(rounds):
        values, turn = torch.linalg.eigh(held.projected)
        values, turn = values.flip(0)[: k + _EXTRA], turn.flip(1)[:, : k + _EXTRA]
        vectors, moved = turn[:, :k].T @ held.rows, turn[:, :k].T @ held.images
        residual = moved - values[:k, None] * vectors
        away = residual.norm(dim=1) / values[:k].clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        open_ = away > tolerance * values[0].clamp(min=0).sqrt()
        if not bool(open_.any()) or len(held.rows) >= size:
            return values[:k], vectors, not bool(open_.any())
        if len(held.rows) + int(open_.sum()) > most:
            # With the best vectors those of the round before are kept, as conjugate gradients would.
            kept = torch.linalg.qr(torch.cat([turn, before], 1))[0].T
            held.turn(kept)
            turn = kept @ turn
        added = _orthonormal(precondition(residual[open_]), held.rows)
        if not len(added):
            return values[:k], vectors, False
        held.add(added)
        before = torch.cat([turn[:, :k], turn.new_zeros(len(added), min(k, turn.shape[1]))])
    return values[:k], vectors, False


class _Basis:
    """Orthonormal rows, what the map makes of them, and the map between them: each product is taken once."""

    def __init__(self, most: int, gram: Callable[[Tensor], Tensor], first: Tensor) -> None:
        self._gram, self._count = gram, 0
        self._rows, self._images = first.new_empty(most, first.shape[1]), first.new_empty(most, first.shape[1])
        self.projected = first.new_empty(0, 0)
        self.add(first)

    @property
    def rows(self) -> Tensor:
        """(count, n)."""
        return self._rows[: self._count]

    @property
    def images(self) -> Tensor:
        """(count, n): the map of each row."""
        return self._images[: self._count]

    def add(self, rows: Tensor) -> None:
        """Further rows, orthonormal to those held."""
        end = self._count + len(rows)
        self._rows[self._count : end], self._images[self._count : end] = rows, self._gram(rows)
        across = self._rows[:end] @ self._images[self._count : end].T
        corner = self.projected
        self.projected = across.new_empty(end, end)
        self.projected[: self._count, : self._count] = corner
        self.projected[:, self._count :], self.projected[self._count :] = across, across.T
        self.projected[self._count :, self._count :] = _symmetric(across[self._count :])
        self._count = end

    def turn(self, kept: Tensor) -> None:
        """Go on with fewer rows, orthonormal combinations of those held."""
        rows, images = kept @ self.rows, kept @ self.images
        self.projected = _symmetric(kept @ self.projected @ kept.T)
        self._count = len(kept)
        self._rows[: self._count], self._images[: self._count] = rows, images


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _orthonormal(new: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal rows that span what is new beside the basis; what is not new is left out."""
    new = new / new.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    for _ in range(2):  # twice is enough
        new = new - (new @ basis.T) @ basis
    q, r = torch.linalg.qr(new.T)
    left = r.diagonal().abs()
    fresh = left > 1e-10
    q = q[:, fresh].T
    if len(q) and float(left[fresh].min()) < _CANCELLED:
        q = torch.linalg.qr((q - (q @ basis.T) @ basis).T)[0].T
    rows: Tensor = q
    return rows
