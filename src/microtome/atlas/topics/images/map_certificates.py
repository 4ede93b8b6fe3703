"""Certificates of attribution maps: how exactly a map adds up to the score that it explains."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from microtome.atlas.widgets import Number

__all__ = ["COMPLETE", "certificates"]

COMPLETE = 0.05  # completeness gap divided by the rise of the score, as in the paper of integrated gradients


def certificates(numbers: Mapping[str, Tensor], score: Tensor, place: int) -> tuple[Number, ...]:
    """The certificates of one map among several.

    Examples
    --------
    >>> import torch
    >>> gap, base, score = torch.tensor([0.2]), torch.tensor([1.0]), torch.tensor([11.0])
    >>> [one] = certificates({"completeness_gap": gap, "baseline_score": base}, score, 0)
    >>> round(one.value, 3), one.unit, one.ok
    (2.0, '%', True)
    """
    values = {name: float(value[place]) for name, value in numbers.items()}
    rise = float(score[place]) - values.pop("baseline_score", 0.0)
    return tuple(_certificate(name, value, rise) for name, value in values.items())


def _certificate(name: str, value: float, rise: float) -> Number:
    if name == "conservation":
        return Number("conservation", value, tolerance="within 1 % of 1", ok=abs(value - 1) <= 0.01,
                      explain="The sum of all relevance divided by the score.")  # fmt: skip
    if name == "pixel_share":  # conserved relevance may still lie with the biases
        return Number("score at the pixels", 100 * value, "%", tolerance="at least 1 %", ok=abs(value) >= 0.01,
                      explain="The share of the score that reaches the pixels.")  # fmt: skip
    if name == "mass":
        return Number("absolute relevance / score", value, tolerance="below 1000", ok=value <= 1000,
                      explain="Large amounts that cancel are not evidence.")  # fmt: skip
    share = 100 * abs(value) / max(abs(rise), 1e-12)
    return Number("completeness gap", share, "%", tolerance=f"at most {COMPLETE:.0%} of the rise of the score",
                  ok=share <= 100 * COMPLETE, explain="The score minus the sum over all pixels.")  # fmt: skip
