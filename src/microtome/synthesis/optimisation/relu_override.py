"""Gradient override of ReLU: a blocked gradient passes where it would raise the ReLU's input."""

from __future__ import annotations

from torch import Tensor

from microtome.trace import BackwardRule, Call, Operation, RuleSet

_CEILING = {"relu6": 6.0}


def _redirected(operation: Operation, signal: Tensor) -> tuple[Tensor | None, ...]:
    x = operation.inputs[0]
    ceiling = _CEILING.get(operation.call.kind, float("inf"))
    low, high = x <= 0, x >= ceiling
    passed = signal.masked_fill(low | high, 0)
    opening = signal.masked_fill((low & (signal < 0)) | (high & (signal > 0)), 0)
    blocked = passed.flatten(1).count_nonzero(1) == 0
    sent = opening.where(blocked.view(-1, *(1,) * (x.dim() - 1)), passed)
    return (sent, *(None,) * (len(operation.inputs) - 1))


class RedirectedReLU(RuleSet):
    r"""If a ReLU blocks the whole gradient of an image, pass the part that would raise its input.

    .. math:: g_x = \begin{cases} g \cdot 1[x > 0] & \text{if that is not zero everywhere} \\
              g \cdot 1[x > 0 \text{ or } g > 0] & \text{else} \end{cases}

    ReLU6 has the same rule at both ends [1]_.

    References
    ----------
    .. [1] Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017 (and its code, lucid).
    """

    name = "redirected ReLU gradients"

    def choose(self, call: Call) -> BackwardRule | None:
        """Return the override for ReLU and ReLU6, and None for other operations."""
        return _redirected if call.kind in ("relu", "relu6") else None
