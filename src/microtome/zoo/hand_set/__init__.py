"""How is a network built by hand? Line detectors, patterns at positions and votes, each weight from named numbers."""

from microtome.zoo.hand_set.digit_table import PATTERNS, Pattern, Term
from microtome.zoo.hand_set.hand_net import HandNet, hand_net
from microtome.zoo.hand_set.line_detectors import LineDetectors
from microtome.zoo.hand_set.placed_patterns import PlacedPatterns
from microtome.zoo.hand_set.votes import WORDS, Votes

__all__ = [
    "PATTERNS",
    "WORDS",
    "HandNet",
    "LineDetectors",
    "Pattern",
    "PlacedPatterns",
    "Term",
    "Votes",
    "hand_net",
]
