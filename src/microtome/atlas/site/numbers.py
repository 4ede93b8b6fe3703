"""Numbers as text: significant digits, signs, percent, plurals, and within sentences."""

from __future__ import annotations

import math
import re


def number(value: float | int | str) -> str:
    """Three significant digits, integers in full with commas, text as it is.

    Examples
    --------
    >>> number(0.123456), number(44426), number(1.5e-9), number(12.0), number("3 x 3")
    ('0.123', '44,426', '1.5e-9', '12.0', '3 x 3')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{_minus(mantissa)}e{int(exponent)}"
    if size >= 1000:
        return _minus(f"{value:,.0f}")
    digits = max(0, 2 - math.floor(math.log10(size)))
    return _minus(f"{value:.{digits}f}")


def tick_label(value: float) -> str:
    """A round value at an axis, with no more digits than it has.

    Examples
    --------
    >>> tick_label(45.0), tick_label(-2.5), tick_label(0.125), tick_label(0.0)
    ('45', '−2.5', '0.125', '0')
    """
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def signed(value: float) -> str:
    """A number with its sign, for amounts that add up.

    Examples
    --------
    >>> signed(0.5), signed(-2.25), signed(0.0)
    ('+0.500', '−2.25', '0')
    """
    return f"+{number(float(value))}" if value > 0 else number(float(value))


def percent(share: float) -> str:
    """A share in [0, 1] as percent.

    Examples
    --------
    >>> percent(0.9873), percent(0.0004), percent(1.0), percent(0.99999)
    ('98.7\u202f%', '0.04\u202f%', '100\u202f%', '99.99\u202f%')
    >>> percent(0.0), percent(0.0000002)
    ('0\u202f%', 'below 0.001\u202f%')
    """
    value = 100 * share
    if 0 < value < 1e-3:
        return "below 0.001\u202f%"
    text = f"{value:.1f}" if value >= 1 else f"{value:.2g}"
    if text == "100.0" and value < 100:
        text = f"{min(value, 99.99):.2f}"  # nearly all is not all
    return text.removesuffix(".0") + "\u202f%"


def count(many: int, thing: str) -> str:
    """A number of things, in the plural where it must be.

    Examples
    --------
    >>> count(1, "unit"), count(32, "unit"), count(2, "class")
    ('1 unit', '32 units', '2 classes')
    """
    ending = "" if many == 1 else "es" if thing.endswith(("s", "x", "ch")) else "s"
    return f"{number(many)} {thing}{ending}"


def typeset(text: str) -> str:
    """A sentence with minus signs, its numbers on one line with their percent sign.

    Examples
    --------
    >>> typeset("It is right on 87.5 % of them. The lowest is -20.3.")
    'It is right on 87.5\u202f% of them. The lowest is −20.3.'
    """
    return re.sub(r"(?<=\s)-(?=\d)", "−", re.sub(r"(?<=\d) %", "\u202f%", text))


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
