"""The smallest singular triplets of a local map, by a sparse LU factorisation and inverse iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import LayerError
from microtome.spaces.operators.operator import Operator

_FILL = 150_000_000  # numbers that a factorisation may hold: 1.2 GB
_WORK = 2.0e11  # operations it may take: a minute or so


def smallest_by_factorisation(operator: Operator, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` smallest of the min(m, n) singular triplets: left vectors, falling values, right vectors.

    A square map is factorised as it is, A = L U, and the largest singular values of its inverse are
    found: small ones come out as accurate as large ones. Otherwise the smaller of A A^T and A^T A is
    factorised, which loses values below 1e-8 of the largest.

    Raises
    ------
    LayerError
        When the map is not local, the factorisation would be too large, or the map is singular to
        rounding, so that there is no inverse to iterate with.
    """
    m, n = operator.shape
    if operator.band is None:
        raise LayerError(
            f'the smallest singular values of "{operator.name}" ({m} x {n}) cannot be computed: its matrix '
            "is neither small enough to write out nor sparse. Use a smaller input shape."
        )
    _check_size(operator, min(m, n), operator.band * (1 if m == n else 2))
    matrix = operator.sparse()
    order = _row_by_row(operator.input_shape, operator.groups), _row_by_row(operator.output_shape, operator.groups)
    square = matrix[order[1]][:, order[0]].tocsc()
    wide = m <= n
    if m != n:
        square = (square @ square.T if wide else square.T @ square).tocsc()
    solve, solve_transposed = _factorised(operator, square)
    values, vectors = _inverted(square.shape[0], solve, solve_transposed, k, seed, symmetric=m != n)
    side = order[1] if m != n and wide else order[0]
    found = np.empty_like(vectors)
    found[:, side] = vectors
    if m == n:
        partner = np.empty_like(vectors)
        partner[:, order[1]] = np.stack([solve_transposed(v) for v in vectors])
        return _from_inverse(torch.from_numpy(found).to(operator.device), torch.from_numpy(partner).to(operator.device))
    return _completed(operator, torch.from_numpy(found).to(operator.device), left=wide, count=len(values))


def _row_by_row(shape: tuple[int, ...], groups: int) -> np.ndarray[Any, Any]:
    """Groups outermost, then positions, then channels: the order that keeps the band of the matrix narrow."""
    numbers = np.arange(int(np.prod(shape))).reshape(groups, shape[0] // groups, *shape[1:])
    return np.moveaxis(numbers, 1, -1).ravel()


def _check_size(operator: Operator, size: int, band: int) -> None:
    fill, work = 2.0 * size * band, 2.0 * size * band**2
    if fill > _FILL or work > _WORK:
        raise LayerError(
            f'the smallest singular values of "{operator.name}" ({operator.shape[0]} x {operator.shape[1]}) are refused'
            f": factorising a matrix of {size} rows with a band of {band} takes about {work:.0e} operations and "
            f"{fill * 8 / 1e9:.1f} GB, and iteration without it does not converge. Use a smaller input shape."
        )


def _factorised(operator: Operator, square: Any) -> tuple[Any, Any]:
    from scipy.sparse.linalg import splu

    try:
        factors = splu(square, permc_spec="NATURAL", options={"SymmetricMode": False})
    except RuntimeError as error:
        raise LayerError(
            f'"{operator.name}" is singular to rounding ({error}): its smallest singular value is zero '
            "and has no inverse."
        ) from error
    return factors.solve, lambda y: factors.solve(y, trans="T")


def _inverted(
    size: int, solve: Any, solve_transposed: Any, k: int, seed: int, *, symmetric: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Largest eigenvalues of (A^T A)^-1 or, for a Gram matrix, of its inverse, with their vectors as rows."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    def inverse(x: Any) -> Any:
        return solve(x) if symmetric else solve(solve_transposed(x))

    start = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu").numpy()
    values, vectors = eigsh(LinearOperator((size, size), matvec=inverse, dtype=np.float64), k=k, which="LM", v0=start)
    order = np.argsort(values)
    return values[order], np.ascontiguousarray(vectors[:, order].T)


def _from_inverse(right: Tensor, partner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Triplets from A^-T v = u / s: exact in direction however small s is."""
    values = 1 / partner.norm(dim=1)
    order = values.argsort(descending=True)
    return (partner * values[:, None])[order], values[order], right[order]


def _completed(operator: Operator, found: Tensor, *, left: bool, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The other side of each triplet by one product, and the values as the norm of it."""
    shape, move = (operator.output_shape, operator.adjoint) if left else (operator.input_shape, operator.apply)
    image = move(found.reshape(count, *shape)).flatten(1)
    values = image.norm(dim=1)
    other = image / torch.where(values > 0, values, torch.ones_like(values))[:, None]
    order = values.argsort(descending=True)
    pair = (found, other) if left else (other, found)
    return pair[0][order], values[order], pair[1][order]
