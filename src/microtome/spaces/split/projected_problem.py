"""The regularised problem in the space that a bidiagonalisation has built so far, solved exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.spaces.split.bidiagonalisation import Bidiagonalisation
from microtome.spaces.split.tikhonov import lower_bound, regularisation, residual_factor


class ProjectedProblem:
    r"""Minimise :math:`\|V z\|` subject to :math:`\|B z - \beta_1 e_1\| \le t \beta_1`, with B decomposed once.

    Parameters
    ----------
    process : Bidiagonalisation
        At least one step of it.
    """

    def __init__(self, process: Bidiagonalisation) -> None:
        self._left, self._values, self._right = torch.linalg.svd(process.matrix())
        self._outputs = process.start[:, None] * self._left[:, 0]
        self._start, self._next = process.start, process.next_alpha

    def solve(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """The weights z (N, j) for a threshold (N,), and how far their energy is above the dual bound (N,).

        The bound holds for the whole problem: A^T times the residual is known up to its component along the
        next vector of the basis, whose length is known. If the residual cannot be made as small as the
        threshold in this space, the gap is infinite.
        """
        s, inside, rest = self._values, self._outputs[:, :-1], self._outputs[:, -1]
        factor = residual_factor(s.square(), regularisation(s.square(), inside, rest.square(), threshold))
        scaled = torch.where(s > 0, (1 - factor) * inside / torch.where(s > 0, s, 1.0), 0.0)
        weights = torch.einsum("nrj,nr->nj", self._right, scaled)
        residual = torch.cat([factor * inside, rest[:, None]], 1)
        ahead = (self._left[:, -1] * residual).sum(1) * self._next
        pulled = ((s * residual[:, :-1]).square().sum(1) + ahead.square()).sqrt()
        length = residual.norm(dim=1)
        bound = lower_bound((residual * self._outputs).sum(1), length, pulled, threshold, self._start)
        reached = length <= (1 + 1e-9) * threshold * self._start
        return weights, torch.where(reached, weights.square().sum(1) - bound, torch.inf)
