"""Losses on a line or a plane of weights, with their width, curvature and negative curvature."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.results import Result

__all__ = ["LossLine", "LossSurface", "band"]

_NORMAL = 1.96  # standard errors on both sides of a 95 % interval of a normal variable


@dataclass(frozen=True, eq=False, kw_only=True)
class LossLine(Result, drawing="training.landscape_figures:line"):
    """The loss along a line through the weights.

    Attributes
    ----------
    alpha : Tensor
        (steps,), coordinates: the weights are theta + alpha * delta.
    loss : Tensor
        (steps,), mean loss over the images; NaN or infinite if the network's loss is.
    error : Tensor
        (steps,), standard error of ``loss`` as an estimate for the distribution that the images come from: the
        standard deviation of the images' losses over the root of their number.
    accuracy : Tensor
        (steps,), accuracy; NaN without labels.
    images : Tensor
        (steps,), number of images.
    skewness : Tensor or None
        (steps,), skewness of the images' losses, which is large where few images have most of the loss; None in files
        of earlier versions.
    treatment : dict
        How directions, biases, norms and running statistics were treated, in words.
    precision_error : float or None
        Largest difference of the mean losses in bfloat16 and float32, at up to 9 of the points, on the same
        images; None if the network's own precision was used. ``error`` does not contain it.
    test : LossLine or None
        The same on the test images.
    """

    alpha: Tensor
    loss: Tensor
    error: Tensor
    accuracy: Tensor
    images: Tensor
    skewness: Tensor | None = None
    treatment: dict[str, str] = dataclasses.field(default_factory=dict)
    precision_error: float | None = None
    test: LossLine | None = None

    @property
    def band(self) -> Tensor:
        """(steps, 2), ends of the 95 % interval of the mean loss, see :func:`band`."""
        return band(self.loss, self.error, self.skewness, self.images)

    @property
    def curvature(self) -> Tensor:
        """(steps - 2,), second differences at the inner points; NaN next to losses that are not finite."""
        return _second(self.loss, 0) / _spacing(self.alpha) ** 2

    @property
    def negative_curvature(self) -> float:
        """Share of the inner points with negative curvature beyond rounding; NaN if none is finite."""
        return _share(self.curvature, _rounding(self.loss, 0) / _spacing(self.alpha) ** 2)

    def width(self, rise: float = 1.0) -> float:
        """Length of the interval around alpha = 0 in which the loss is at most ``rise`` above that at 0.

        Crossings are interpolated; an interval that reaches the end of the line ends there. A loss that is not finite
        ends it too.
        """
        here = _centre(self.alpha)
        level = float(self.loss[here]) + rise
        return sum(_crossing(self.alpha, self.loss, here, step, level) for step in (-1, 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class LossSurface(Result, drawing="training.landscape_figures:surface"):
    """The loss on a plane through the weights.

    Attributes
    ----------
    alpha, beta : Tensor
        (steps,), coordinates: the weights are theta + alpha * delta + beta * eta.
    loss, error, accuracy, images, skewness
        (steps, steps), ``[i, j]`` at ``alpha[i]``, ``beta[j]``; see :class:`LossLine`.
    treatment : dict
        How directions, biases, norms and running statistics were treated, in words.
    precision_error : float or None
        See :class:`LossLine`.
    path : Tensor or None
        (T, 2), coordinates of a training's stored weights in the plane.
    epochs : Tensor or None
        (T,), epochs of these weights.
    distance : Tensor or None
        (T,), distance of the stored weights from the plane.
    explained : Tensor or None
        (2,), shares of the squared distances from the network along the two directions.
    off_plane : float or None
        Share of the path's length that the plane does not show.
    """

    alpha: Tensor
    beta: Tensor
    loss: Tensor
    error: Tensor
    accuracy: Tensor
    images: Tensor
    skewness: Tensor | None = None
    treatment: dict[str, str] = dataclasses.field(default_factory=dict)
    precision_error: float | None = None
    path: Tensor | None = None
    epochs: Tensor | None = None
    distance: Tensor | None = None
    explained: Tensor | None = None
    off_plane: float | None = None

    @property
    def band(self) -> Tensor:
        """(steps, steps, 2), ends of the 95 % interval of the mean loss, see :func:`band`."""
        return band(self.loss, self.error, self.skewness, self.images)

    @property
    def curvature(self) -> Tensor:
        """(steps - 2, steps - 2, 2), eigenvalues of the 2 x 2 Hessian by central differences, the smaller first.

        NaN next to losses that are not finite. Cost: none; the loss is not evaluated again.
        """
        L, a, b = self.loss, _spacing(self.alpha), _spacing(self.beta)
        aa = _second(L, 0)[:, 1:-1] / a**2
        bb = _second(L, 1)[1:-1] / b**2
        ab = (L[2:, 2:] - L[2:, :-2] - L[:-2, 2:] + L[:-2, :-2]) / (4 * a * b)
        middle, radius = (aa + bb) / 2, torch.hypot((aa - bb) / 2, ab)
        return torch.stack([middle - radius, middle + radius], -1)

    @property
    def negative_curvature(self) -> float:
        """Share of the inner points where the smaller eigenvalue is below zero beyond rounding.

        Points next to losses that are not finite are left out; NaN if none remains.
        """
        rounding = _rounding(self.loss, 0)[:, 1:-1] / min(_spacing(self.alpha), _spacing(self.beta)) ** 2
        return _share(self.curvature[..., 0], rounding)

    @property
    def convexity(self) -> Tensor:
        """(steps - 2, steps - 2), the absolute ratio of smaller to larger eigenvalue; 0 if none is negative."""
        low, high = self.curvature.unbind(-1)
        ratio = (low / high).abs()
        return torch.where(low.isnan(), low, torch.where(low < 0, ratio, torch.zeros_like(ratio)))

    def width(self, rise: float = 1.0) -> float:
        """Diameter of a disc with the area of the central region where the loss rises by at most ``rise``.

        The region consists of the grid points connected to the centre; it is cut at the edge of the grid.
        """
        row, column = _centre(self.alpha), _centre(self.beta)
        below = self.loss <= self.loss[row, column] + rise
        area = int(_joined(below, row, column).sum()) * _spacing(self.alpha) * _spacing(self.beta)
        return float(2 * (area / torch.pi) ** 0.5)


def band(loss: Tensor, error: Tensor, skewness: Tensor | None, images: Tensor) -> Tensor:
    r"""Ends of the 95 % interval of a mean loss, with Johnson's correction for skewed samples [1]_ on the long side.

    .. math:: \bar L - e\, (z + \max(-c, 0)), \quad \bar L + e\, (z + \max(c, 0)), \qquad
              c = \frac{(1 + 2 z^2)\, g}{6 \sqrt n}, \quad z = 1.96

    e is the standard error and g the skewness of the n images' losses. Where a few images have a large loss, most
    samples hold too few of them, and underestimate mean and error. The interval is then longer above the mean. The
    other side is not shortened, so that the interval is too wide rather than too narrow.

    Parameters
    ----------
    loss, error, skewness, images : Tensor
        Of equal shape (...), see :class:`LossLine`; a skewness that is unknown counts as 0.

    Returns
    -------
    Tensor
        (..., 2), NaN where the loss or its error is not finite.

    References
    ----------
    .. [1] N. J. Johnson. Modified t tests and confidence intervals for asymmetrical populations. Journal of the
       American Statistical Association 73, 1978.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> band(one, 0.1 * one, 0 * one, 100 * one)
    tensor([[0.8040, 1.1960]])
    >>> band(one, 0.1 * one, 3 * one, 100 * one)
    tensor([[0.8040, 1.2394]])
    """
    g = torch.zeros_like(loss) if skewness is None else skewness.to(loss).nan_to_num(0.0, 0.0, 0.0)
    longer = (1 + 2 * _NORMAL**2) * g / (6 * images.to(loss).clamp(min=1).sqrt())
    ends = (loss - error * (_NORMAL + (-longer).clamp(min=0)), loss + error * (_NORMAL + longer.clamp(min=0)))
    return torch.stack(ends, -1)


def _spacing(axis: Tensor) -> float:
    if len(axis) < 3:
        raise InputError(f"curvature and width need at least 3 points along each direction, got {len(axis)}.")
    return float((axis[-1] - axis[0]) / (len(axis) - 1))


def _centre(axis: Tensor) -> int:
    return int(axis.abs().argmin())


def _second(loss: Tensor, axis: int) -> Tensor:
    L = loss.movedim(axis, 0)
    return (L[2:] - 2 * L[1:-1] + L[:-2]).movedim(0, axis)


def _rounding(loss: Tensor, axis: int) -> Tensor:
    """The largest rounding error of second differences of float32 losses."""
    L = loss.abs().movedim(axis, 0)
    return 4 * torch.finfo(torch.float32).eps * (L[2:] + 2 * L[1:-1] + L[:-2]).movedim(0, axis)


def _share(curvature: Tensor, rounding: Tensor) -> float:
    known = curvature.isfinite()
    return float((curvature < -rounding)[known].double().mean()) if bool(known.any()) else float("nan")


def _crossing(alpha: Tensor, loss: Tensor, here: int, step: int, level: float) -> float:
    """The distance from ``here`` in one direction over which the loss stays at or below a level."""
    start, place = float(alpha[here]), here
    while 0 <= place + step < len(alpha) and bool(loss[place + step] <= level):
        place += step
    last = float(alpha[place])
    if 0 <= place + step < len(alpha) and bool(loss[place + step].isfinite()):
        inside, outside = float(loss[place]), float(loss[place + step])
        last += (float(alpha[place + step]) - last) * (level - inside) / (outside - inside)
    return abs(last - start)


def _joined(below: Tensor, row: int, column: int) -> Tensor:
    """The connected component of true points that contains a given one."""
    region = torch.zeros_like(below)
    region[row, column] = below[row, column]
    while True:
        wider = region.clone()
        wider[1:] |= region[:-1]
        wider[:-1] |= region[1:]
        wider[:, 1:] |= region[:, :-1]
        wider[:, :-1] |= region[:, 1:]
        wider &= below
        if torch.equal(wider, region):
            return region
        region = wider
