"""A linear layer whose weights are votes: how often a digit shows a pattern, given in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.zoo.hand_set.digit_table import Pattern

__all__ = ["WORDS", "Votes"]

# How often a digit shows a pattern, by the word in the table.
WORDS = {"always": 0.92, "often": 0.75, "sometimes": 0.5, "rarely": 0.2, "never": 0.05}


class Votes(nn.Module):
    r"""Votes of patterns for classes, as if patterns were independent (naive Bayes).

    .. math:: S_d = h_d + \sum_p r_p \log\frac{q_{dp}}{1 - q_{dp}} + \log(1 - q_{dp})

    r is the presence of the pattern, q how often the class shows it, h the initial log-odds of the class.

    Attributes
    ----------
    odds : Parameter
        (classes, patterns) log-odds of q; ``share`` is q itself.
    head_start : Parameter
        (classes,)
    """

    def __init__(self, patterns: Sequence[Pattern], head_start: Sequence[float]) -> None:
        super().__init__()
        share = torch.tensor(
            [[WORDS[word] for word in pattern.votes] for pattern in patterns], dtype=torch.float32, device="cpu"
        ).T
        self.odds = nn.Parameter(torch.logit(share).contiguous())
        self.head_start = nn.Parameter(torch.tensor(list(head_start), dtype=torch.float32, device="cpu"))

    @property
    def share(self) -> Tensor:
        """(classes, patterns): how often a class shows a pattern, from 0 to 1."""
        return self.odds.sigmoid()

    @property
    def weight(self) -> Tensor:
        """(classes, patterns)."""
        return self.odds

    @property
    def bias(self) -> Tensor:
        """(classes,)."""
        return self.head_start + functional.logsigmoid(-self.odds).sum(1)

    def forward(self, seen: Tensor) -> Tensor:
        """Scores (N, classes) of patterns (N, patterns)."""
        return functional.linear(seen, self.weight, self.bias)

    def words(self) -> list[list[str]]:
        """The nearest word for each class and pattern, by log-odds."""
        names = list(WORDS)
        levels = torch.logit(torch.tensor(list(WORDS.values()), dtype=torch.float32, device="cpu"))
        nearest = (self.odds.detach().cpu()[:, :, None] - levels).abs().argmin(2)
        return [[names[place] for place in row] for row in nearest.tolist()]
