"""Findings for the article that dissects a convnet: the pruned network, omitted layers, the hand-set network."""

from __future__ import annotations

from microtome.gallery.finding import Drawn, Finding, Workplace
from microtome.reproduce.dissecting.dissecting_a_convnet import dissecting_a_convnet

__all__ = ["by_hand", "dissected", "omitted", "settled"]

_DOCUMENT = "dissecting-a-convnet"

# What is known of the reasons where a statement does not hold.
_WHY = {
    "pruning": "Rounds and retraining are shorter here than the article's.",
    "conv1-filters": "Which angles come out hangs on the first weights; the article shows one network.",
    "conv2-superstimuli": "A label needs a tuning that is sharper than that of random networks, and few "
    "channels of so small "
    "a layer have one. What a channel detects on digits is often no line at one angle.",
    "unit-135": "The contributions are added up where the unit responds most. In the networks trained here a "
    "unit is carried by "
    "several inputs; the article picked its unit by eye.",
    "duality": "The stimuli are lines and edges on a blank ground. In the convolutions place alone explains "
    "little, since the "
    "same filter is used everywhere and pooling keeps what is strongest; the place matters in the later layers.",
    "layer-omitted": "Convolutions trained here do not copy their inputs: similarity between neighbouring "
    "layers is high, but "
    "copies explain little of the variance.",
    "hand-net": "The named numbers of few detectors bound what fine-tuning can reach.",
    "lower-layers-first": "Distances are measured on responses, not seen in pictures. The first layer of a "
    "small network starts "
    "near to its end, the last has the labels' gradient at first hand.",
}


def dissected(place: Workplace) -> list[Finding]:
    """The article's walk through the pruned network."""
    return _parts(place, "dissection")


def omitted(place: Workplace) -> list[Finding]:
    """Each later convolution taken out."""
    return _parts(place, "omitted-layers")


def by_hand(place: Workplace) -> list[Finding]:
    """The network set by hand."""
    return _parts(place, "hand-net")


def settled(place: Workplace) -> list[Finding]:
    """Distances to the final features through training."""
    return _parts(place, "settling-layers", document="visualization-lecture")


def _parts(place: Workplace, part: str, document: str = _DOCUMENT) -> list[Finding]:
    made = dissecting_a_convnet(quick=place.quick, out=place.folder, parts=(part,), say=place.say)
    return [
        Finding(
            document,
            one["what"],
            one["value"],
            one["found"],
            one["holds"],
            "" if one["holds"] == "yes" else _WHY.get(one["what"], ""),
            tuple(Drawn(file, caption) for file, caption in one["pictures"]),
        )
        for one in made.findings
    ]
