"""HandNet: a network for digits whose every weight follows from a few named numbers that were set by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.zoo.hand_set.digit_table import HEAD_START, PATTERNS
from microtome.zoo.hand_set.line_detectors import LineDetectors
from microtome.zoo.hand_set.placed_patterns import PlacedPatterns
from microtome.zoo.hand_set.votes import Votes

__all__ = ["FreedHandNet", "HandNet", "hand_net"]

ANGLES = tuple(22.5 * step for step in range(8))
CELL = 4  # pixels of a cell on a side


class HandNet(nn.Module):
    """Line detectors, ReLU, max-pooling, patterns at positions clipped to 0 and 1, votes for the ten digits.

    No weight is trained: all follow from the table in :mod:`~microtome.zoo.hand_set.digit_table` and the angles of the
    detectors. Training changes only the named numbers, so that :meth:`describe` still describes the whole network in
    words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = LineDetectors(ANGLES)
        self.patterns = PlacedPatterns(PATTERNS, cell=CELL)
        self.votes = Votes(PATTERNS, HEAD_START)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, 10) of images (N, 1, 28, 28) in [0, 1]."""
        x = functional.max_pool2d(functional.relu(self.lines(x)), CELL)
        x = self.patterns(x, self.lines.angle).clamp(0, 1)
        scores: Tensor = self.votes(torch.flatten(x, 1))
        return scores

    def describe(self) -> str:
        """The whole network in words: detectors, patterns, votes."""
        lines = ["Line detectors"]
        lines += [f"  {place}: {text}" for place, text in enumerate(self.lines.describe())]
        lines.append("Patterns at positions, and how often digits show them")
        share, words = self.votes.share.detach(), self.votes.words()
        for place, (name, text) in enumerate(zip(self.patterns.names, self.patterns.describe(), strict=True)):
            lines.append(f"  {name}: {text}")
            counted = (f"{digit} {word[place]} ({share[digit, place]:.2f})" for digit, word in enumerate(words))
            lines.append(f"    {', '.join(counted)}")
        starts = (f"{digit} {float(value):+.2f}" for digit, value in enumerate(self.votes.head_start.detach()))
        return "\n".join([*lines, f"Head starts: {', '.join(starts)}"])

    def named_numbers(self) -> dict[str, Tensor]:
        """All named numbers, by name."""
        return {name: value.detach().clone() for name, value in self.named_parameters()}

    def freed(self) -> FreedHandNet:
        """An ordinary network of convolutions and a linear layer with the same function and free weights."""
        free = FreedHandNet(len(self.lines.angle), len(self.patterns.names))
        state = {
            "lines.weight": self.lines.weight,
            "lines.bias": self.lines.bias,
            "patterns.weight": self.patterns.weight(self.lines.angle),
            "patterns.bias": -self.patterns.threshold,
            "votes.weight": self.votes.weight,
            "votes.bias": self.votes.bias,
        }
        free.load_state_dict({name: value.detach() for name, value in state.items()})
        return free.to(self.lines.angle.device)


class FreedHandNet(nn.Module):
    """The same layers as HandNet with free weights.

    Parameters
    ----------
    detectors, patterns
        How many.
    """

    def __init__(self, detectors: int, patterns: int) -> None:
        super().__init__()
        self.lines = nn.Conv2d(1, detectors, 7, padding=3)
        self.patterns = nn.Conv2d(detectors, patterns, 28 // CELL)
        self.votes = nn.Linear(patterns, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, 10) of images (N, 1, 28, 28) in [0, 1]."""
        x = functional.max_pool2d(functional.relu(self.lines(x)), CELL)
        x = self.patterns(x).clamp(0, 1)
        scores: Tensor = self.votes(torch.flatten(x, 1))
        return scores


def hand_net(input_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, *, seed: int = 0) -> HandNet:  # noqa: ARG001 - as of all networks of the zoo
    """HandNet with its hand-set weights; nothing is random, so the seed has no effect.

    Raises
    ------
    InputError
        The input is not gray 28 x 28, or the number of classes is not ten.

    Examples
    --------
    >>> sum(value.numel() for value in hand_net().parameters()), hand_net().lines.describe()[4]
    (806, 'line at 90°, 2.0 px wide, strength 1.00, seen above 0.15')
    """
    if tuple(input_shape) != (1, 28, 28) or classes != 10:
        raise InputError(f"HandNet is for ten digits of 1 x 28 x 28, got {classes} classes of {input_shape}.")
    return HandNet()
