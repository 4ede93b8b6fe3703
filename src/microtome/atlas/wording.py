"""Wording of sentences on pages: lists, and nouns with their article."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed", "sentence", "with_article"]


def listed(names: Sequence[str]) -> str:
    """Names as a list within a sentence.

    Examples
    --------
    >>> listed(["Grad-CAM"]), listed(["LRP", "CAM"]), listed(["a", "b", "c"])
    ('Grad-CAM', 'LRP and CAM', 'a, b and c')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def with_article(noun: str) -> str:
    """A noun with "a" or "an", by its first letter or, of a number, by how it is spoken.

    Examples
    --------
    >>> with_article("Afghan hound"), with_article("tench"), with_article("8"), with_article("unicycle")
    ('an Afghan hound', 'a tench', 'an 8', 'a unicycle')
    """
    lowered = noun.lower()
    spoken_as_consonant = lowered.startswith(("uni", "euro", "ewe", "one", "once", "ute", "use", "ukulele"))
    vowel = lowered[:1] in "aeiou" and not spoken_as_consonant
    number = lowered.startswith("8") or lowered in ("11", "18")
    silent = lowered.startswith(("hour", "honest", "honou", "honor", "heir"))
    return f"{'an' if vowel or number or silent else 'a'} {noun}"


def sentence(text: str) -> str:
    """A message as a sentence."""
    return text[:1].upper() + text[1:] if text.endswith(".") else f"{text[:1].upper()}{text[1:]}."
