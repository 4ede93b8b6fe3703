"""Sentences on the checks of attribution maps: do they agree, beat chance, and depend on the weights?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from microtome.atlas.wording import listed, sentence

__all__ = ["against_chance", "against_noise", "agreement"]

_AGREE, _PARTLY = 0.6, 0.3  # rank correlations
_ALIKE = 0.5  # a map hardly depends on the weights if its rank correlation with random weights is above this


def agreement(names: Sequence[str], correlations: Sequence[float]) -> str:
    """Whether the maps name the same places, by the mean rank correlation of their pairs.

    Examples
    --------
    >>> agreement(["Grad-CAM", "LRP"], [0.7])
    'Grad-CAM and LRP name the same places (rank correlation 0.70).'
    """
    mean = sum(correlations) / len(correlations)
    verb = "name" if mean >= _AGREE else "partly name" if mean >= _PARTLY else "do not name"
    measure = "rank correlation" if len(correlations) == 1 else f"mean rank correlation of {len(correlations)} pairs"
    return sentence(f"{listed(names)} {verb} the same places ({measure} {mean:.2f}).")


def against_chance(names: Sequence[str], removed: Sequence[float], added: Sequence[float]) -> str:
    """Which maps find pixels that matter more than those of a random map; the last of the areas are of random maps.

    Examples
    --------
    >>> against_chance(["Grad-CAM", "LRP"], [0.2, 0.6, 0.5], [0.8, 0.4, 0.5])
    'Grad-CAM finds pixels that matter: the score falls faster without them, and rises faster with them, than with \
random pixels. LRP does no better than random pixels on this image: do not rely on it here.'
    """
    better = [
        name for name, out, into in zip(names, removed, added, strict=False) if out < removed[-1] and into > added[-1]
    ]
    half = [
        name
        for name, out, into in zip(names, removed, added, strict=False)
        if name not in better and (out < removed[-1] or into > added[-1])
    ]
    worse = [name for name in names if name not in better and name not in half]
    sentences = []
    if better:
        sentences.append(
            f"{listed(better)} find{'s' if len(better) == 1 else ''} pixels that matter: the score falls faster "
            "without them, and rises faster with them, than with random pixels."
        )
    if half:
        passes = "passes" if len(half) == 1 else "pass"
        sentences.append(f"{listed(half)} {passes} only one of these two tests.")
    if worse:
        verb, it = ("does", "it") if len(worse) == 1 else ("do", "them")
        sentences.append(
            f"{listed(worse)} {verb} no better than random pixels on this image: do not rely on {it} here."
        )
    return " ".join(sentence(part) for part in sentences)


def against_noise(correlations: Mapping[str, float], images: int) -> str:
    """Which maps hardly change when all weights are random.

    Examples
    --------
    >>> against_noise({"Grad-CAM": 0.1, "saliency": 0.8}, 2)
    'With random weights the map of Grad-CAM changes; that of saliency stays nearly the same, so that it says little \
about what was learned (2 images).'
    """
    stay = [name for name, value in correlations.items() if value >= _ALIKE]
    change = [name for name in correlations if name not in stay]
    counted = f"({images} image{'s' if images > 1 else ''})"
    if not stay:
        verb = "map of {} changes" if len(change) == 1 else "maps of {} change"
        return f"With random weights the {verb.format(listed(change))}: what was learned decides {counted}."
    kept = "that of {} stays" if len(stay) == 1 else "those of {} stay"
    says = "it says" if len(stay) == 1 else "they say"
    tail = f"{kept.format(listed(stay))} nearly the same, so that {says} little about what was learned {counted}."
    if not change:
        return f"With random weights {tail}"
    verb = "map of {} changes" if len(change) == 1 else "maps of {} change"
    return f"With random weights the {verb.format(listed(change))}; {tail}"
