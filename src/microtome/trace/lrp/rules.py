"""Rules of layer-wise relevance propagation: how a linear operator shares relevance among its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.trace.lrp.image_sums import ImageSums

Map = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Linear:
    """A linear operator at one point: z = forward(x, w) + b.

    Attributes
    ----------
    x, weight, bias : Tensor
        What it read, its weights, and its bias in a shape that adds to the output (a zero where it has none).
    output : Tensor
        z, as the network computed it.
    forward, adjoint : function
        (x, w) -> output without bias; (signal at the output, w) -> signal at the input.
    low, high : Tensor or None
        Range of the input where it is the image, in a shape that expands to that of ``x``.
    images : ImageSums
        Adds up what has the shape of the output by image.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    output: Tensor
    forward: Map
    adjoint: Map
    low: Tensor | None = None
    high: Tensor | None = None
    images: ImageSums = field(default_factory=lambda: ImageSums(1))

    @cached_property
    def is_positive(self) -> bool:
        """Whether it read no negative number."""
        return float(self.x.amin()) >= 0


@dataclass(frozen=True)
class Shared:
    """The shared relevance, and how much of it biases and stabilisers took, by image (N,)."""

    relevance: Tensor
    bias: Tensor
    stabiliser: Tensor


# One term of a sum: what it reads, its weights and its bias.
Term = tuple[Tensor, Tensor, Tensor]


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """Move z away from zero by epsilon; zero counts as positive."""
    return _stabiliser(z, epsilon).add_(z)


def _stabiliser(z: Tensor, epsilon: float) -> Tensor:
    """Epsilon with the sign of z."""
    return torch.copysign(torch.tensor(epsilon, dtype=z.dtype, device="cpu"), z)


def _share(
    operator: Linear, terms: Sequence[Term], arriving: Tensor, epsilon: float, z: Tensor | None = None
) -> Shared:
    """Share the arriving relevance in proportion to the parts of z = sum of forward(x_k, w_k) + b_k."""
    bias: Tensor = sum((b for _, _, b in terms[1:]), start=terms[0][2])
    if z is None:
        z = sum((operator.forward(x, w) for x, w, _ in terms[1:]), start=operator.forward(*terms[0][:2])) + bias
    taken = _stabiliser(z, epsilon)
    quotient = torch.div(arriving, z + taken)
    back = operator.adjoint(quotient, terms[0][1]).mul(terms[0][0])
    for x, w, _ in terms[1:]:
        back.addcmul_(x, operator.adjoint(quotient, w))
    images = operator.images
    return Shared(back, images.product(quotient, bias), images.product(quotient, taken))


def _signed(operator: Linear, weight: Callable[[bool], Tensor], bias: Tensor) -> list[Term]:
    """Positive inputs with one set of weights, negative inputs with the other; terms that are zero are left out."""
    x = operator.x
    if operator.is_positive:
        return [(x, weight(True), bias)]
    return [(x.clamp(min=0), weight(True), bias), (x.clamp(max=0), weight(False), torch.zeros_like(bias))]


def _half(values: Tensor, positive: bool) -> Tensor:
    """The positive or the negative part."""
    return values.clamp(min=0) if positive else values.clamp(max=0)


@dataclass(frozen=True)
class Rule:
    """Base of the rules; ``epsilon`` keeps the denominator from zero, and the relevance that it takes is reported.

    It also holds for the sums, pooling and products of the layers that follow the rule.
    """

    epsilon: float = field(default=1e-6, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a stabiliser that would move a denominator towards zero."""
        if not 0 <= self.epsilon < math.inf:
            raise InputError(f"epsilon is a finite number from 0 on, got {self.epsilon}.")

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share what arrives at the output among the inputs."""
        raise TypeError("Rule is abstract; use Epsilon, ZPlus, Gamma, AlphaBeta, Flat, WSquare or ZBox.")


@dataclass(frozen=True)
class Epsilon(Rule):
    r""":math:`R_i = \sum_j \frac{x_i w_{ij}}{z_j + \epsilon\,\mathrm{sign}(z_j)} R_j` (Bach et al. 2015)."""

    epsilon: float = 1e-6

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share in proportion to the contributions, with the network's own z."""
        terms = [(operator.x, operator.weight, operator.bias)]
        return _share(operator, terms, arriving, self.epsilon, operator.output)


@dataclass(frozen=True)
class ZPlus(Rule):
    r""":math:`R_i = \sum_j \frac{(x_i w_{ij})^+}{\sum_{i'} (x_{i'} w_{i'j})^+ + b_j^+} R_j` (Montavon et al. 2017).

    With ``bias=False`` the biases take nothing, as deep Taylor decomposition has it.
    """

    bias: bool = True

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share among what spoke for the output."""
        bias = operator.bias.clamp(min=0) if self.bias else torch.zeros_like(operator.bias)
        terms = _signed(operator, partial(_half, operator.weight), bias)
        return _share(operator, terms, arriving, self.epsilon)


@dataclass(frozen=True)
class SparingZPlus(Rule):
    r"""z+ without biases; where no input contributes positively to an output, :math:`w^2`, which needs no input.

    .. math:: R_i = \sum_{j:\,s_j > \epsilon} \frac{(x_i w_{ij})^+}{s_j} R_j
              + \sum_{j:\,s_j \le \epsilon} \frac{w_{ij}^2}{\sum_{i'} w_{i'j}^2} R_j,
              \qquad s_j = \sum_{i'} (x_{i'} w_{i'j})^+

    Both are rules of deep Taylor decomposition (Montavon et al. 2017). Biases take nothing, and no relevance is lost
    at an output that is positive only by its bias, which is frequent in depthwise convolutions.
    """

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share among positive contributions, or by squared weights."""
        terms = _signed(operator, partial(_half, operator.weight), torch.zeros_like(operator.bias))
        z = sum((operator.forward(x, w) for x, w, _ in terms[1:]), start=operator.forward(*terms[0][:2]))
        alone = z <= self.epsilon
        spoken = _share(operator, terms, arriving.masked_fill(alone, 0), self.epsilon, z)
        silent = arriving.masked_fill(~alone, 0)
        if not bool(silent.any()):
            return spoken
        squared = WSquare(epsilon=self.epsilon).share(operator, silent)
        return Shared(spoken.relevance.add_(squared.relevance), spoken.bias, spoken.stabiliser + squared.stabiliser)


@dataclass(frozen=True)
class Gamma(Rule):
    r"""Weights :math:`w + \gamma w^+` where :math:`z_j > 0`, :math:`w + \gamma w^-` where :math:`z_j < 0`.

    The form for inputs of either sign (Andeol et al. 2021) of Montavon et al. 2019.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        """Refuse a gamma that favours what disagrees."""
        super().__post_init__()
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"gamma is a finite number from 0 on, got {self.gamma}.")

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share with what agrees with the output made stronger."""
        z = operator.output
        parts = []
        for sign in (True, False):
            part = arriving * (z > 0 if sign else z < 0)
            if bool(part.any()):
                terms = _signed(
                    operator, partial(self._stronger, operator.weight, sign), self._stronger(operator.bias, sign)
                )
                parts.append(_share(operator, terms, part, self.epsilon))
        lost = operator.images.total(arriving * (z == 0))
        if not parts:
            return Shared(torch.zeros_like(operator.x), torch.zeros_like(lost), lost)
        first, *others = parts
        return Shared(
            sum((part.relevance for part in others), start=first.relevance),
            sum((part.bias for part in others), start=first.bias),
            sum((part.stabiliser for part in parts), start=lost),
        )

    def _stronger(self, values: Tensor, sign: bool, positive: bool = True) -> Tensor:
        """Weights for inputs of one sign, with those made stronger that lead to an output of this sign."""
        return torch.add(values, _half(values, positive is sign), alpha=self.gamma)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    r""":math:`R_i = \sum_j \big(\alpha \frac{(x_i w_{ij})^+}{z_j^+} - \beta \frac{(x_i w_{ij})^-}{z_j^-}\big) R_j`.

    :math:`\alpha - \beta = 1` (Bach et al. 2015).
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse shares that do not add up to the relevance."""
        super().__post_init__()
        if not (self.beta >= 0 and math.isclose(self.alpha - self.beta, 1.0, rel_tol=1e-6)):
            raise InputError(
                f"alpha - beta = 1 and beta from 0 on were expected, so that the relevance is conserved; got alpha "
                f"{self.alpha} and beta {self.beta}."
            )

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share evidence for and against with their own weights."""

        def part(sign: bool, sent: Tensor) -> Shared:
            terms = _signed(
                operator, lambda positive: _half(operator.weight, positive is sign), _half(operator.bias, sign)
            )
            return _share(operator, terms, sent, self.epsilon)

        for_it = part(True, self.alpha * arriving)
        if self.beta == 0:
            return for_it
        against = part(False, -self.beta * arriving)
        return Shared(
            for_it.relevance + against.relevance,
            for_it.bias + against.bias,
            for_it.stabiliser + against.stabiliser,
        )


@dataclass(frozen=True)
class Flat(Rule):
    """Every input of an output gets the same share (Lapuschkin et al. 2019)."""

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share evenly."""
        terms = [(torch.ones_like(operator.x), torch.ones_like(operator.weight), torch.zeros_like(operator.bias))]
        return _share(operator, terms, arriving, self.epsilon)


@dataclass(frozen=True)
class WSquare(Rule):
    r""":math:`R_i = \sum_j \frac{w_{ij}^2}{\sum_{i'} w_{i'j}^2} R_j`, for unbounded inputs (Montavon et al. 2017)."""

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share by squared weights."""
        terms = [(torch.ones_like(operator.x), operator.weight**2, torch.zeros_like(operator.bias))]
        return _share(operator, terms, arriving, self.epsilon)


@dataclass(frozen=True)
class ZBox(Rule):
    r"""The z^B rule, which shares by :math:`q_{ij} = x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-`.

    For pixels between l and h (Montavon et al. 2017); the range is the network's ``pixels``, as the
    first layer sees it after normalisation. Away from the image it is ``ZPlus``.
    """

    def share(self, operator: Linear, arriving: Tensor) -> Shared:
        """Share by distance from the box's far corner."""
        if operator.low is None or operator.high is None:
            return ZPlus(epsilon=self.epsilon).share(operator, arriving)
        w, zero = operator.weight, torch.zeros_like(operator.bias)
        low, high = -operator.low.expand_as(operator.x), -operator.high.expand_as(operator.x)
        terms = [(operator.x, w, zero), (low, w.clamp(min=0), zero), (high, w.clamp(max=0), zero)]
        return _share(operator, terms, arriving, self.epsilon)


RULES: dict[str, type[Rule]] = {
    "epsilon": Epsilon,
    "z-plus": ZPlus,
    "sparing-z-plus": SparingZPlus,
    "gamma": Gamma,
    "alpha-beta": AlphaBeta,
    "flat": Flat,
    "w-square": WSquare,
    "z-box": ZBox,
}
