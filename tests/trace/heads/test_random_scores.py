"""Scores that change with the random state: models that draw numbers in evaluation, and models that do not."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import ModelWarning, Network

SHAPE = (3, 6, 6)


class Noisy(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
        self.kind, self.own = kind, torch.Generator().manual_seed(0)
        self.numbers, self.python = np.random.default_rng(0), random.Random(0)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(x)
        if self.kind == "dropout":
            return F.dropout(scores, 0.5)
        if self.kind == "numpy":
            return scores + np.random.rand()  # noqa: NPY002 - as a user's model may
        if self.kind == "own generator":
            return scores + torch.rand(scores.shape, generator=self.own)
        if self.kind == "numpy generator":
            return scores + self.numbers.random()
        if self.kind == "python generator":
            return scores + self.python.random()
        if self.kind == "slight":
            return scores + 1e-4 * torch.rand(scores.shape)
        if self.kind == "drawn for nothing":
            return scores + 0 * torch.rand(scores.shape)
        return scores


@pytest.mark.parametrize("kind", ["dropout", "numpy", "own generator", "numpy generator", "python generator", "slight"])
def test_scores_that_change_with_the_random_state_are_said(kind: str) -> None:
    model = Noisy(kind).eval()
    before = torch.get_rng_state()
    with pytest.warns(ModelWarning, match="change with the random state"):
        net = Network(model, SHAPE)
    assert "note: the scores change with the random state" in repr(net)
    assert torch.equal(before, torch.get_rng_state())
    if kind == "dropout":
        assert '"/dropout"' in repr(net)


@pytest.mark.parametrize("kind", ["", "drawn for nothing"])
def test_scores_that_do_not_change_are_not(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Network(Noisy(kind).eval(), SHAPE).random == ""
