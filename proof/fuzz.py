"""Runs the same checks on random small networks; every other one is also compared with LRP by dense matrices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from microtome import attribution
from microtome.attribution import rules
from oracles import relevance_by_hand
from proof import random_networks
from proof.subject import Subject, Wrong, off

PER_FILE = 25  # networks per process
_RULES: dict[str, tuple[Any, float]] = {
    "epsilon": (rules.Epsilon(0.01), 0.01), "z-plus": (rules.ZPlus(), 1e-6),
    "gamma": (rules.Gamma(0.25), 1e-6), "alpha-beta": (rules.AlphaBeta(), 1e-6),
}  # fmt: skip


def subject(seed: int) -> Subject:
    """The network of a seed, ready for the checks."""
    if seed % 2:
        return Subject(random_networks.draw(seed), (3, random_networks.SIDE, random_networks.SIDE), torch.float64, seed)
    model = relevance_by_hand.RandomNetwork(relevance_by_hand.draw(seed)).eval()
    return Subject(model, (3, relevance_by_hand.SIDE, relevance_by_hand.SIDE), torch.float64, seed)


def describe(seed: int) -> list[str]:
    """The steps of the network of a seed."""
    return random_networks.draw(seed).names if seed % 2 else [step.kind for step in relevance_by_hand.draw(seed)]


def more_checks(seed: int, of: Subject) -> dict[str, Any]:
    """LRP under four rules against dense matrices, if the network can be written as dense matrices."""
    from proof.verdicts import verdict

    return {} if seed % 2 else {"relevance by matrices": verdict(_by_matrices(seed), of)}


def _by_matrices(seed: int) -> Callable[[Subject], str]:
    def check(s: Subject) -> str:
        steps = relevance_by_hand.draw(seed)
        worst = 0.0
        for name, (rule, epsilon) in _RULES.items():
            found = attribution.lrp(s.net, s.images[:1], 1, rules=rule).values[0]
            expected = relevance_by_hand.relevance(steps, s.images[0], 1, name, epsilon)
            worst = max(worst, off(found, expected))
            if worst > 1e-6:
                raise Wrong(f"{name}: off by {worst:.2g} of the largest value")
        return f"{worst:.0e}"

    return check
