"""The pairs of units that respond most alike are named, whether or not they respond almost equally."""

from __future__ import annotations

import math

import torch

from microtome.atlas.topics.units.unit_similarity import _finding, _most_alike


def test_the_pairs_with_the_largest_correlation_come_first_each_once() -> None:
    correlation = torch.eye(4)
    for a, b, value in ((0, 1, 0.3), (0, 2, 0.9), (1, 2, -0.5), (0, 3, math.nan), (1, 3, math.nan), (2, 3, math.nan)):
        correlation[a, b] = correlation[b, a] = value
    pairs = _most_alike(correlation, 12)
    assert [(a, b) for a, b, _ in pairs] == [(0, 2), (0, 1), (1, 2)]  # unit 3 never varies
    assert _most_alike(correlation, 1) == pairs[:1]
    assert _finding(pairs, 0) == "No two units respond almost equally: the highest correlation is 0.90."
    assert _finding(pairs, 1).startswith("1 pair of units responds almost equally")
    assert _most_alike(torch.eye(1), 12) == ()
    assert _finding((), 0) == "No two units have a correlation."
