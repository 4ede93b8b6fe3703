"""Golub-Kahan bidiagonalisation: a small bidiagonal matrix that represents a large linear map for one output.

Source: G. Golub, W. Kahan. Calculating the singular values and pseudo-inverse of a matrix. SIAM Journal on Numerical
Analysis 2, 1965; C. Paige, M. Saunders. LSQR. ACM Transactions on Mathematical Software 8, 1982.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from microtome.spaces.operators.operator import Operator

_HELD = 150_000_000  # numbers that the vectors of a basis may hold: 1.2 GB


class Bidiagonalisation:
    r"""The bidiagonalisation of a map, started at one output for each image.

    .. math:: A V_j = U_{j+1} B_j,\qquad y = \beta_1 u_1

    with orthonormal columns in U and V. B is lower bidiagonal, (j + 1) x j. The vectors v are stored and orthogonalised
    against all earlier ones, as long as they fit into memory; else ``combine`` computes them a second time.

    Parameters
    ----------
    operator : Operator
        A.
    outputs : Tensor
        ``(N, *output_shape)``: y.
    steps : int
        Largest number of steps.
    """

    def __init__(self, operator: Operator, outputs: Tensor, steps: int) -> None:
        self._of, self._outputs = operator, outputs
        count, size = len(outputs), operator.shape[1]
        steps = min(steps, *operator.shape)
        self._held = outputs.new_empty(count, steps, size) if count * steps * size <= _HELD else None
        self._vectors = self._run(steps)
        self.taken = 0
        self.start = _norm(outputs)
        self._diagonal: list[Tensor] = []
        self._below: list[Tensor] = []
        self._ahead = next(self._vectors)

    def step(self) -> Tensor | None:
        """One step; returns the new vector v ``(N, n)``, or None if there is no further one."""
        alpha, vector = self._ahead
        if not bool((alpha > 0).any()):
            return None
        following = next(self._vectors, None)
        if following is None:
            return None
        self._diagonal.append(alpha)
        self._below.append(self._last_beta)
        self._ahead = following
        self.taken += 1
        return vector

    @property
    def next_alpha(self) -> Tensor:
        """(N,): the entry that the next column of B would have on its diagonal."""
        return self._ahead[0]

    def matrix(self) -> Tensor:
        """B, (N, j + 1, j)."""
        found = self.start.new_zeros(len(self.start), self.taken + 1, self.taken)
        found.diagonal(dim1=1, dim2=2).copy_(torch.stack(self._diagonal, 1))
        found[:, 1:].diagonal(dim1=1, dim2=2).copy_(torch.stack(self._below, 1))
        return found

    def combine(self, weights: Tensor) -> Tensor:
        """V z ``(N, *input_shape)`` for weights z (N, j)."""
        if self._held is not None:
            whole = torch.einsum("nj,njp->np", weights, self._held[:, : self.taken])
        else:
            whole = self._outputs.new_zeros(len(weights), self._of.shape[1])
            for weight, (_, vector) in zip(weights.T, self._run(self.taken), strict=False):
                whole += weight[:, None] * vector
        return whole.reshape(-1, *self._of.input_shape)

    def _run(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each alpha with its vector v; stores the last beta."""
        _, left = _unit(self._outputs.flatten(1))
        alpha, right = _unit(self._pull(left))
        yield alpha, right
        for place in range(steps):
            if self._held is not None:
                self._held[:, place] = right
            self._last_beta, left = _unit(self._push(right) - alpha[:, None] * left, alpha)
            pulled = self._pull(left) - self._last_beta[:, None] * right
            if self._held is not None:
                # One image at a time: products of a batch of matrices with one vector each are eight times slower.
                for vector, before in zip(pulled, self._held[:, : place + 1], strict=True):
                    vector -= before.T @ (before @ vector)
            alpha, right = _unit(pulled, self._last_beta)
            yield alpha, right

    def _push(self, x: Tensor) -> Tensor:
        return self._of.apply(x.reshape(-1, *self._of.input_shape)).flatten(1)

    def _pull(self, y: Tensor) -> Tensor:
        return self._of.adjoint(y.reshape(-1, *self._of.output_shape)).flatten(1)


def _norm(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return length


def _unit(x: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Length and direction; both zero if the length is a rounding error of the previous entry."""
    length = _norm(x)
    floor = torch.zeros_like(length) if beside is None else 1e-14 * beside
    length = torch.where(length > floor, length, torch.zeros_like(length))
    return length, torch.where(length > 0, 1 / torch.where(length > 0, length, 1.0), 0.0)[:, None] * x
