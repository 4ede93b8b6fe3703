"""Which part of a vector does a map hear? Its few rows tell exactly; else conjugate gradients find it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.spaces.operators.operator import Operator

_FEW = 64  # outputs up to which a map is written out: as many products as conjugate gradients would take
_HELD = 60_000_000  # numbers that the rows of all maps may hold: 480 MB


@dataclass(frozen=True)
class SignalPart:
    """Vectors split by a map into what it hears and what it rejects.

    Attributes
    ----------
    kept, lost : Tensor
        ``(N, *input_shape)``, float64; they add up to the vectors, and are orthogonal as far as ``leak`` is 0.
    leak : Tensor
        (N,): ``|A lost| / |A x|``, the share of the output that the lost part still makes; 0 in exact arithmetic.
    iterations : int
        Steps taken.
    """

    kept: Tensor
    lost: Tensor
    leak: Tensor
    iterations: int

    @property
    def rejected(self) -> Tensor:
        """(N,): energy of the lost part by that of the vector; 0 for a zero vector. It falls with every step."""
        lost, whole = (part.flatten(1).square().sum(1) for part in (self.lost, self.kept + self.lost))
        return lost / torch.where(whole > 0, whole, torch.ones_like(whole))


def signal_part(of: Operator, x: Tensor, *, tolerance: float = 1e-6, iterations: int = 200) -> SignalPart:
    r"""Split vectors into the part in the row space of a map and the part in its null space.

    .. math:: x_s = A^+ A x,\qquad x_r = x - x_s,\qquad A x_r = 0

    A map with few outputs, such as that to ten class scores, is written out row by row and the split is exact.
    Otherwise conjugate gradients on the normal equations (CGLS), from zero: every step stays in the row space, and
    the energy of x_s only grows. They stop when what is lost makes less than ``tolerance`` of the output.

    Parameters
    ----------
    of : Operator
        The map.
    x : Tensor
        ``(N, *input_shape)``.
    tolerance : float
        Largest ``leak`` wanted.
    iterations : int
        At most so many steps.

    Returns
    -------
    SignalPart
        With the leak that was reached, and as many iterations as rows where they were written out. A map with a
        large condition number hears some directions so faintly that they take many steps to be found, and count as
        lost until then.

    Raises
    ------
    InputError
        When the tolerance is negative, there is no step, or the vectors do not fit.

    References
    ----------
    .. [1] A. Bjorck. Numerical Methods for Least Squares Problems. SIAM, 1996.
    """
    if not tolerance >= 0 or iterations < 1:
        raise InputError(
            f"a tolerance from 0 on and a number of steps from 1 on were expected, got {tolerance} and {iterations}."
        )
    x = of._batch(x, of.input_shape)
    wanted = of.apply(x)
    m, n = of.shape
    if m <= _FEW and len(x) * m * n <= _HELD:
        return _by_rows(of, x, wanted)
    residual, kept = wanted.clone(), torch.zeros_like(x)
    slope = of.adjoint(residual)
    step, length = slope.clone(), _square(slope)
    scale = _square(wanted)
    taken = 0
    while taken < iterations and bool((_square(residual) > tolerance**2 * scale).any()):
        image = of.apply(step)
        curvature = _square(image)
        alive = (curvature > 0) & (length > 0)
        if not bool(alive.any()):
            break
        rate = torch.where(alive, length / torch.where(alive, curvature, torch.ones_like(curvature)), 0.0)
        kept = kept + _times(rate, step)
        residual = residual - _times(rate, image)
        slope = of.adjoint(residual)
        renewed = _square(slope)
        ratio = torch.where(length > 0, renewed / torch.where(length > 0, length, torch.ones_like(length)), 0.0)
        step, length = slope + _times(ratio, step), renewed
        taken += 1
    leak = (_square(residual) / torch.where(scale > 0, scale, torch.ones_like(scale))).sqrt()
    return SignalPart(kept, x - kept, leak, taken)


def _by_rows(of: Operator, x: Tensor, wanted: Tensor) -> SignalPart:
    """The projection on the rows of each vector's map, from their singular value decomposition."""
    m = of.shape[0]
    unit = torch.eye(m, dtype=torch.float64).reshape(m, 1, *of.output_shape)
    rows = torch.stack([of.adjoint(one.expand(len(x), *of.output_shape)).flatten(1) for one in unit], 1)
    _, s, v = torch.linalg.svd(rows, full_matrices=False)
    heard = s > max(rows.shape[1:]) * torch.finfo(torch.float64).eps * s[:, :1]
    kept = torch.einsum("nrp,nr->np", v, torch.einsum("nrp,np->nr", v, x.flatten(1)) * heard).reshape(x.shape)
    left = torch.einsum("nmp,np->nm", rows, (x - kept).flatten(1)).square().sum(1)
    scale = _square(wanted)
    leak = (left / torch.where(scale > 0, scale, torch.ones_like(scale))).sqrt()
    return SignalPart(kept, x - kept, leak, m)


def _square(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


def _times(factor: Tensor, x: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (x.dim() - 1)) * x
