"""Optimal brain surgeon for whole channels: the order of removal, and the adapted weights of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_IDLE = 8  # removed columns are dropped when they are one in eight
_MEASURED = (1, 4, 8, 16, 24, 32, 44, 54)  # steps after which the cost is measured on held-out images


@dataclass
class Reading:
    """One layer that reads the channels: its weights, second moments and the weights of its outputs.

    Attributes
    ----------
    weight : Tensor
        (groups, outputs, p), p = the inputs of a group by tap, with a last column for the bias.
    moments : Tensor
        (groups, p, p) mean of x x^T.
    importance : Tensor
        (groups, outputs, 1) weight of a squared error of each output, including the number of positions.
    columns : list of Tensor
        For each channel the columns of a group that belong to it.
    held_out : Tensor, optional
        (groups, p, p) mean of x x^T on images that ``moments`` do not contain.
    """

    weight: Tensor
    moments: Tensor
    importance: Tensor
    columns: list[Tensor]
    held_out: Tensor | None = None


@dataclass(frozen=True)
class Order:
    """The order of removal of channels, and its cost.

    Attributes
    ----------
    channels : list of int
        Indices into ``Reading.columns``, first removed first.
    cost : list of float
        The sum of weighted squared errors after each removal.
    """

    channels: list[int]
    cost: list[float]


def damped(moments: Tensor, damping: float) -> Tensor:
    """Moments with a share of their mean diagonal added: a ridge penalty towards the old weights."""
    p = moments.shape[-1]
    level = moments.diagonal(dim1=1, dim2=2)[:, : p - 1].mean(1).clamp(min=1e-30)
    ridge = torch.full((p,), damping, dtype=moments.dtype, device=moments.device)
    ridge[-1] = 1e-6  # the bias is free
    return moments + level[:, None, None] * torch.diag(ridge)


def order(readings: list[Reading], *, damping: float = 1e-2, until: int = 1, steps: int = 64) -> Order:
    r"""Remove channels greedily, each time those with the smallest cost after all weights have adapted.

    Removing the columns B of a layer y = W x and adapting the others changes the output's weighted squared error by

    .. math:: L_B = \operatorname{tr}\big(\Lambda\, W_B\, [(H^{-1})_{BB}]^{-1}\, W_B^T\big), \qquad
              W \leftarrow W - W_B\, [(H^{-1})_{BB}]^{-1} (H^{-1})_{B,:}

    with H the second moments of x [1]_ [2]_. Costs of several layers that read the channel add. If the readings have
    moments of held-out images, the cost is the squared error on those, measured after some of the steps and
    interpolated: with few images, adapted weights follow the images of H, and its error on them is much too small.

    Parameters
    ----------
    readings : list of Reading
        The layers that read the channels.
    damping : float
        Share of the mean diagonal of H added to it.
    until : int
        Number of channels that are left at the end.
    steps : int
        Number of steps of the removal.

    References
    ----------
    .. [1] Hassibi, Stork, Wolff. Optimal brain surgeon and general network pruning. ICNN 1993.
    .. [2] Kurtic, Frantar, Alistarh. ZipLM: inference-aware structured pruning of language models. NeurIPS 2023.
    """
    count = len(readings[0].columns)
    left = list(range(count))
    gone: list[int] = []
    cost: list[float] = []
    layers = [_Adapting(reading, damping) for reading in readings]
    total, measured, step = 0.0, [(0, 0.0)], 0
    while len(left) > until:
        losses = torch.stack([layer.losses(left) for layer in layers]).sum(0)
        many = min(max(1, count // steps), len(left) - until)
        chosen = losses.argsort()[:many].tolist()
        for place in chosen:
            total += max(float(losses[place]), 0.0)
            gone.append(left[place])
            cost.append(total)
        for layer in layers:
            layer.remove([left[place] for place in chosen])
        left = [channel for place, channel in enumerate(left) if place not in set(chosen)]
        step += 1
        if step in _MEASURED or len(left) == until:
            measured.append((len(gone), max(measured[-1][1], sum(layer.error() for layer in layers))))
    if all(reading.held_out is not None for reading in readings):
        at, value = zip(*measured, strict=True)
        cost = np.interp(range(1, len(gone) + 1), at, value).tolist()
    return Order(gone, cost)


class _Adapting:
    """A layer during removal: its adapted weights, and the inverse of the moments of the remaining inputs."""

    def __init__(self, reading: Reading, damping: float) -> None:
        self._inverse = _inverted(damped(reading.moments, damping))
        self._weight = reading.weight.clone()
        self._whole, self._held_out = reading.weight, reading.held_out
        self._stored = torch.arange(reading.weight.shape[2], device=reading.weight.device)
        self._importance = reading.importance[..., 0].to(self._weight)
        self._columns = list(reading.columns)
        self._idle: list[Tensor] = []  # removed columns that are still stored

    def losses(self, left: list[int]) -> Tensor:
        """The cost of removing each remaining channel, (channels,)."""
        found = self._weight.new_zeros(len(left), dtype=torch.float64)
        by_size: dict[int, list[int]] = {}
        for place, channel in enumerate(left):
            by_size.setdefault(self._columns[channel].numel(), []).append(place)
        for mine in by_size.values():
            columns = torch.stack([self._columns[left[place]] for place in mine])
            block = self._inverse[:, columns[:, :, None], columns[:, None, :]]  # (g, c, b, b)
            taps = self._weight[:, :, columns]  # (g, o, c, b)
            square = torch.einsum("goca,go,gocb->gcab", taps, self._importance, taps)
            value = torch.linalg.solve(block, square).diagonal(dim1=2, dim2=3).sum((0, 2))
            found.index_copy_(0, torch.tensor(mine, device=found.device), value.double())
        return found.cpu()

    def error(self) -> float:
        """The weighted squared error of the adapted weights on held-out images; 0 if there are none."""
        if self._held_out is None:
            return 0.0
        change = self._whole.index_add(2, self._stored, self._weight, alpha=-1)
        square = ((change @ self._held_out.to(change)) * change).sum(-1)
        return float((square * self._importance).sum())

    def remove(self, channels: list[int]) -> None:
        """Remove columns: adapt the other weights and the inverse."""
        columns = torch.cat([self._columns[channel] for channel in channels])
        rows = self._inverse[:, columns]
        step = torch.linalg.solve(rows[:, :, columns], rows)  # (g, b, p)
        self._weight -= self._weight[:, :, columns] @ step
        self._inverse -= rows.mT @ step
        self._weight[:, :, columns] = 0
        # A removed column becomes a unit vector, which keeps the matrix regular, until enough columns are idle.
        self._inverse[:, columns] = 0
        self._inverse[:, :, columns] = 0
        self._inverse[:, columns, columns] = 1
        self._idle.append(columns)
        if sum(map(len, self._idle)) > self._inverse.shape[-1] // _IDLE:
            self._close_ranks()

    def _close_ranks(self) -> None:
        """Drop the idle columns: the cost of a step is quadratic in the stored columns."""
        p = self._inverse.shape[-1]
        stays = torch.ones(p, dtype=torch.bool, device="cpu")
        stays[torch.cat(self._idle).cpu()] = False
        keep = stays.nonzero()[:, 0]
        place = stays.cumsum(0) - 1
        self._columns = [place[columns.cpu()].to(columns.device) for columns in self._columns]
        keep = keep.to(self._inverse.device)
        self._inverse = self._inverse.index_select(1, keep).index_select(2, keep)
        self._weight = self._weight.index_select(2, keep)
        self._stored = self._stored.index_select(0, keep)
        self._idle = []


def _inverted(moments: Tensor) -> Tensor:
    """The inverse of moments: by Cholesky factors, which take half the work, if rounding allows them."""
    factor, failed = torch.linalg.cholesky_ex(moments)
    return torch.linalg.inv(moments) if bool(failed.any()) else torch.cholesky_inverse(factor)


def _solved(moments: Tensor, right: Tensor) -> Tensor:
    """The solution x of moments x = right: by Cholesky factors if rounding allows them."""
    factor, failed = torch.linalg.cholesky_ex(moments)
    return torch.linalg.solve(moments, right) if bool(failed.any()) else torch.cholesky_solve(right, factor)


def least_squares(moments: Tensor, cross: Tensor, anchor: Tensor, *, damping: float) -> Tensor:
    r"""Ridge regression of y on x: :math:`(\operatorname{E} y x^T + \mu A)(\operatorname{E} x x^T + \mu I)^{-1}`.

    ``anchor`` A (groups, outputs, p) is the target of the penalty; its last column is that of the bias.
    """
    whole = damped(moments, damping)
    pulled = cross + anchor @ (whole - moments)
    return _solved(whole, pulled.mT).mT
