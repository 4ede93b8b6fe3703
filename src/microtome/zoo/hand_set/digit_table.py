"""Table of the hand-set network: 39 patterns of lines at positions, and how often each digit shows them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from microtome.errors import InputError

__all__ = ["HEAD_START", "PATTERNS", "TABLE", "Pattern", "Term", "read"]

# One line for each pattern: its name; how often 0 1 2 3 4 5 6 7 8 9 show it (Always, Often, Sometimes, Rarely, Never);
# how much must be seen; and the lines that it consists of: angle, place in pixels from the upper left corner, spread.
#
# Set by hand on MNIST's training images, in several versions that were chosen by their accuracy on 10,000 of them: 32,
# 55, 66, 78 to 80, and 82 %. Gains, thresholds and the formula of the votes were tried by that number. Most words were
# revised after looking at what the patterns give for 10 to 14 training images of each digit, and the last seven
# patterns and the head starts were added for pairs that were confused. No optimiser fitted a weight, and the test
# images were not used.
TABLE = """
top left bar                 | R N O O N R N A S S |   0.2 | 0° at 9,8 within 2.5
top bar                      | S N A A N O R S A A |   0.2 | 0° at 15,6 within 2.5
top right bar                | R N R R N O N R S R |   0.2 | 0° at 20,6 within 2.5
top right end                | N N N N R S N N R N |   0.2 | 20° at 23,6 within 2
upper left side              | A N R N O R O R S S |   0.2 | 80° at 8,11 within 2.5
upper left, inner            | R R R N S R O N O S |   0.2 | 90° at 11,9 within 2
upper right side             | O S O S A N R O O O |   0.2 | 70° at 19,10 within 2.5
upper right, inner           | S R S S S N N S S S |   0.2 | 110° at 18,8 within 2
upper stem                   | S A R S S S A N O S |   0.2 | 80° at 14,8 within 2
upper stroke rising          | S S O S O S A O A A |   0.2 | 50° at 16,8 within 2.5
middle bar                   | R N S O A O S R S O |   0.2 | 0° at 14,14 within 2.5
middle bar, right            | R N S R S R O R R N |   0.2 | 0° at 19,15 within 2.5
middle bar, left             | R N R S O S N R R R |   0.2 | 0° at 9,14 within 2.5
centre stem                  | S A S S S S S O A O |   0.2 | 80° at 14,14 within 2
lower stem                   | S A S S O O O A A A |   0.2 | 80° at 14,19 within 2.5
foot of the stem             | N S N N R N N O R O |   0.2 | 85° at 14,23 within 2
lower left side              | O S S N R R O N O N |   0.2 | 90° at 8,18 within 2.5
lower right side             | O R R O S S O S S S |   0.2 | 90° at 18,18 within 2.5
bottom bar, left             | O N O O N O S N O N |   0.2 | 0° at 9,21 within 2.5
bottom bar                   | A N O A N O A N S N |   0.2 | 0° at 14,22 within 2.5
bottom bar, right            | R N S R N R N N N N |   0.2 | 0° at 20,21 within 2.5
lower left rising            | O S A R S O S O A O |   0.2 | 45° at 11,18 within 2.5
centre rising                | S S A S A S O A A A |   0.2 | 45° at 16,13 within 2.5
centre falling               | N N N S R O N N O S |   0.2 | 135° at 13,12 within 2
middle right falling         | N N R O S O S N S R |   0.2 | 135° at 16,15 within 2.5
top left rising              | O N O S S R O S S O |   0.2 | 45° at 10,8 within 2.5
bottom right rising          | A R S A R S O S S R |   0.2 | 45° at 18,20 within 2.5
bottom left falling          | O N S S N O O N S N |   0.2 | 135° at 10,20 within 2.5
right side                   | A N R R S N S R N R |   0.2 | 90° at 20,14 within 2
left side                    | A N N N S R O N R R |   0.2 | 90° at 8,15 within 2
hook on the left             | S N S S N O R N R N |   0.2 | 0° at 7,20 within 2.5
start of the arc             | S N O O N S R S O S |   0.2 | 0° at 12,6 within 2.5
upper half open on the right | N S N N N S A N N N | -0.25 | 80° at 11,10 within 2.5 - 75° at 19,10 within 2.5
                                                           - 0.6 x 120° at 18,8 within 2
upper half open on the left  | R S A O S N N O S S |   0.1 | 75° at 19,10 within 2.5 + 120° at 18,8 within 2
                                                           - 80° at 9,11 within 2.5
lower half open on the left  | N R N O R O R R R R |  -0.2 | 100° at 18,18 within 2.5 - 80° at 9,18 within 2.5
lower half open on the right | S S S N R R S N S N |  -0.1 | 80° at 9,18 within 2.5 - 95° at 18,18 within 2.5
open top                     | S S N N O N S R N R |   0.5 | 0.7 x 75° at 9,10 within 2.5
                                                           + 0.7 x 75° at 19,10 within 2.5 - 0° at 14,7 within 2.5
empty middle                 | A R R N R N S R N N |   0.4 | 0.7 x 80° at 8,15 within 2.5
                                                           + 0.7 x 80° at 20,14 within 2.5 - 0° at 14,14 within 2
only a stem                  | N O N N N N N N N N |   0.3 | 0.7 x 75° at 14,8 within 2.5
                                                           + 0.7 x 75° at 14,20 within 2.5 - 0° at 14,14 within 3
                                                           - 90° at 8,15 within 3 - 90° at 20,14 within 3
"""

# Initial log-odds of a digit: set by hand for digits that were predicted too often or too rarely.
HEAD_START = (0.0, -1.5, 0.0, 0.0, 0.0, -0.5, 1.0, 0.0, 2.0, 0.5)

_WORDS = {"A": "always", "O": "often", "S": "sometimes", "R": "rarely", "N": "never"}
_TERM = re.compile(r"([+-]?)\s*(?:([\d.]+) x )?([\d.]+)° at ([\d.]+),([\d.]+) within ([\d.]+)")


@dataclass(frozen=True)
class Term:
    """A line that a pattern looks for: strength (below 0: it must be absent), angle in degrees, place and spread."""

    strength: float
    angle: float
    x: float
    y: float
    spread: float


@dataclass(frozen=True)
class Pattern:
    """A pattern at a place, and how often each digit shows it, in words."""

    name: str
    terms: tuple[Term, ...]
    threshold: float
    votes: tuple[str, ...]


def read(table: str) -> tuple[Pattern, ...]:
    """The patterns of a table in the form of ``TABLE``.

    Raises
    ------
    InputError
        A line cannot be read; the message has it.

    Examples
    --------
    >>> (bar,) = read("bar | A N | 0.2 | 0° at 14,6 within 2 - 0.5 x 90° at 14,14 within 3")
    >>> bar.votes, bar.terms[1].strength
    (('always', 'never'), -0.5)
    """
    joined = re.sub(r"\n\s*(?=[+-] )", " ", table.strip())  # a line that begins with a sign continues the terms
    return tuple(_pattern(line) for line in joined.splitlines())


def _pattern(line: str) -> Pattern:
    parts = [part.strip() for part in line.split("|")]
    if len(parts) != 4 or not set(parts[1].split()) <= _WORDS.keys() or _TERM.sub("", parts[3]).strip():
        raise InputError(
            f'a line "name | A N ... | threshold | angle° at x,y within spread" was expected, got "{line}".'
        )
    terms = tuple(
        Term((-1.0 if sign == "-" else 1.0) * float(factor or 1), *(float(number) for number in numbers))
        for sign, factor, *numbers in _TERM.findall(parts[3])
    )
    return Pattern(parts[0], terms, float(parts[2]), tuple(_WORDS[letter] for letter in parts[1].split()))


PATTERNS = read(TABLE)
