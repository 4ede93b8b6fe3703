"""The part of a vector that a linear map passes on, and the part that it loses up to a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.spaces.operators.operator import Operator
from microtome.spaces.singular.injective import injective
from microtome.spaces.split.bidiagonalisation import Bidiagonalisation
from microtome.spaces.split.projected_problem import ProjectedProblem
from microtome.spaces.split.singular_coordinates import SingularCoordinates, singular_coordinates
from microtome.spaces.split.tikhonov import lower_bound, regularisation, residual_factor
from microtome.trace.tracing.caller_modes import own_modes

THRESHOLD = 0.01  # largest share of the output from the lost part: the default of library, command line and atlas
STEPS = 300
_FLOOR = 1e-7  # rounding error of a bound, relative to the vector's norm
_COARSER = 1.25  # factor from one threshold to the next
_LARGEST = 0.95
_GROWTH = 1.15  # growth of the number of steps between two checks of convergence


@dataclass(frozen=True)
class SignalPart:
    """Vectors split by a map into a part that it passes on and a part that it loses.

    Attributes
    ----------
    kept, lost : Tensor
        ``(N, *input_shape)``, float64; they add up to the vectors.
    lost_share : Tensor
        (N,): energy (squared norm) of the lost part divided by that of the vector. For a zero vector this and the
        next two are NaN: a share of no energy is not defined.
    error : Tensor
        (N,): bound on the distance of ``lost_share`` from the exact share: proved by duality, up to rounding.
    null_share : Tensor
        (N,): energy of the part in the exact null space divided by that of the vector; NaN if unknown, and then
        between 0 and ``lost_share + error``.
    output_change : Tensor
        (N,): ``|A lost| / |A x|``: the threshold, or less.
    threshold : Tensor
        (N,): the threshold that these parts belong to: the given one, or a larger one if the steps did not
        suffice. ``lost_share`` is then an upper bound of the share for the given threshold.
    iterations : int
        Number of products with the map; 0 if its singular vectors were available.
    """

    kept: Tensor
    lost: Tensor
    lost_share: Tensor
    error: Tensor
    null_share: Tensor
    output_change: Tensor
    threshold: Tensor
    iterations: int


@own_modes()
def signal_part(
    operator: Operator,
    x: Tensor,
    *,
    threshold: float = THRESHOLD,
    accuracy: float = 0.01,
    iterations: int = STEPS,
    dense: bool = True,
) -> SignalPart:
    r"""Split vectors into the smallest part that gives nearly the same output, and the rest.

    .. math:: x_{\mathrm{kept}} = \arg\min \|k\|^2 \;\text{ with }\; \|A k - A x\| \le t\,\|A x\|,\qquad
              x_{\mathrm{lost}} = x - x_{\mathrm{kept}}

    Parameters
    ----------
    operator : Operator
        The map A.
    x : Tensor
        ``(N, *input_shape)``.
    threshold : float
        t, between 0 and 1: removing the lost part changes the output by this share of its norm.
    accuracy : float
        Relative accuracy of the norm of the lost part; its share of the energy is accurate to twice that.
    iterations : int
        Maximum number of steps; ``error`` is the proved bound.
    dense : bool
        Whether a map of up to 1,024 values on its shorter side is computed as a matrix. Then the answer is exact to
        rounding, and ``null_share`` is known. Maps of up to 64 values, Linear layers and 1 x 1 convolutions always are.

    Returns
    -------
    SignalPart

    Raises
    ------
    InputError
        When an option is out of range, or the vectors do not fit.

    Notes
    -----
    In the singular basis of A, with singular values s, the lost part keeps :math:`\lambda / (s^2 +
    \lambda)` of each coefficient of x, with the unique :math:`\lambda` at which it contributes the share t of the
    output [1]_. It contains the whole null space, and larger parts of directions that the map amplifies less. Its share
    of the energy is defined by A, x and t alone. It grows with t, and falls to that of the exact null space as t goes
    to 0.

    The exact null space alone says little in practice: for most layers its share is
    0, and an iteration would have to find singular values a million times below the largest. Both numbers
    are given if both are known.

    Larger maps are bidiagonalised (Golub and Kahan); the small problem is solved exactly at every step for its own
    :math:`\lambda`. The certificate does not depend on convergence: the dual problem gives a lower bound of
    :math:`\|x_{\mathrm{kept}}\|^2`, and the distance of a feasible vector from the solution is at most the
    root of its excess over the bound, because the constraint set is convex.

    Cost: one product with A and one with its adjoint per step; min(m, n) products for the matrix.

    References
    ----------
    .. [1] P. C. Hansen. Rank-Deficient and Discrete Ill-Posed Problems. SIAM, 1998.
    .. [2] C. Paige, M. Saunders. LSQR. ACM Transactions on Mathematical Software 8, 1982.

    Examples
    --------
    A map with the singular values 1 and 0.001, and a vector with equal coefficients: the faint one is lost.

    >>> from microtome.spaces.operators.matrix import MatrixOperator
    >>> of = MatrixOperator("two", torch.diag(torch.tensor([1.0, 0.001])), (2,))
    >>> part = signal_part(of, torch.ones(1, 2))
    >>> [round(value, 2) for value in part.kept[0].tolist()], round(part.lost_share.item(), 2)
    ([0.99, 0.0], 0.5)
    >>> part.null_share.item()
    0.0
    """
    if not 0 < threshold < 1 or not accuracy > 0 or iterations < 1:
        raise InputError(
            "a threshold between 0 and 1, an accuracy above 0 and a number of steps from 1 on were expected, got "
            f"{threshold}, {accuracy} and {iterations}."
        )
    operator = operator.structure
    x = operator.as_batch(x, operator.input_shape)
    coordinates = singular_coordinates(operator, len(x), dense=dense)
    if coordinates is not None:
        reached = torch.full_like(_square(x), threshold)
        lost, null = _by_coordinates(coordinates, x, reached)
        taken = 0
    else:
        lost, reached, taken = _by_steps(operator, x, threshold, accuracy, iterations)
        null = torch.full_like(reached, 0.0 if injective(operator, measure=False) else torch.nan)
    return _certified(operator, x, lost, null, reached, taken)


def _by_coordinates(operator: SingularCoordinates, x: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """The lost part, and the share of the energy in the null space (N,)."""
    values = operator.values.expand(len(x), -1)
    coefficients = torch.where(values > 0, operator.analyse(x), 0.0)
    squares = values.square()
    strength = regularisation(squares, values * coefficients, torch.zeros_like(_square(x)), threshold)
    null = x - operator.synthesise(coefficients)
    lost = null + operator.synthesise(coefficients * residual_factor(squares, strength))
    if operator.rank == x[0].numel():
        return lost, torch.zeros_like(_square(x))
    return lost, _share(_square(null), _square(x))


def _by_steps(
    operator: Operator, x: Tensor, threshold: float, accuracy: float, iterations: int
) -> tuple[Tensor, Tensor, int]:
    """The lost part by bidiagonalisation, the threshold that was reached (N,), and the number of steps."""
    process = Bidiagonalisation(operator, operator.apply(x), iterations)
    energy, flat = _square(x), x.flatten(1)
    along: list[Tensor] = []
    wanted = torch.full_like(energy, threshold)
    look, done = 1, False
    while not done and (vector := process.step()) is not None:
        along.append((vector * flat).sum(1))
        if process.taken >= look or process.taken == iterations:
            look = max(look + 1, int(look * _GROWTH))
            weights, gap = ProjectedProblem(process).solve(wanted)
            done = bool((gap <= _goal(weights, along, energy, accuracy)).all())
    if not along:  # the map gives zero for all of them
        return x.clone(), wanted, 0
    problem = ProjectedProblem(process)
    weights, gap = problem.solve(wanted)
    open_ = gap > _goal(weights, along, energy, accuracy)
    reached = wanted
    while bool(open_.any()) and float(reached[open_].min()) < _LARGEST:  # settle for a larger threshold
        reached = torch.where(open_, (_COARSER * reached).clamp(max=_LARGEST), reached)
        weights, gap = problem.solve(reached)
        open_ = gap > _goal(weights, along, energy, accuracy)
    return x - process.combine(weights), reached, process.taken


def _goal(weights: Tensor, along: list[Tensor], energy: Tensor, accuracy: float) -> Tensor:
    """The largest allowed gap, from the energy of the lost part."""
    lost = energy - 2 * (weights * torch.stack(along, 1)).sum(1) + weights.square().sum(1)
    return torch.maximum(accuracy**2 * lost, _FLOOR**2 * energy)


def _certified(operator: Operator, x: Tensor, lost: Tensor, null: Tensor, threshold: Tensor, taken: int) -> SignalPart:
    """The split with its certificate, from two products with the map and one with its adjoint."""
    output, left = operator.apply(x), operator.apply(lost)
    whole, length = _square(output).sqrt(), _square(left).sqrt()
    silent = whole == 0  # all of it is in the null space
    # Rounding may leave the output slightly over the threshold: a slightly smaller lost part meets it exactly.
    scale = torch.where(length > threshold * whole, threshold * whole / torch.where(length > 0, length, 1.0), 1.0)
    scale = torch.where(silent, 1.0, scale)
    lost = torch.where(_like(silent, x), x, _like(scale, x) * lost)
    kept, length, energy = x - lost, scale * length, _square(x)
    pulled = _square(operator.adjoint(left)).sqrt() * scale
    bound = lower_bound((left * output).flatten(1).sum(1) * scale, length, pulled, threshold, whole)
    radius = (_square(kept) - bound).clamp(min=0).sqrt()
    size = _square(lost).sqrt()
    most = torch.minimum((size + radius).square(), energy.maximum(size.square()))
    least = (size - radius).clamp(min=0).square()
    return SignalPart(
        kept=kept,
        lost=lost,
        lost_share=_share(size.square(), energy),
        error=_share(torch.where(silent, 0.0, torch.maximum(most - size.square(), size.square() - least)), energy),
        null_share=torch.where(energy > 0, torch.where(silent, 1.0, null), torch.nan),
        output_change=length / torch.where(whole > 0, whole, 1.0),
        threshold=threshold,
        iterations=taken,
    )


def _like(factor: Tensor, x: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (x.dim() - 1))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), torch.nan)


def _square(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)
