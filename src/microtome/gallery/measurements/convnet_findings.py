"""Findings for the article that dissects a convnet: the pruned network, omitted layers, the hand-set network."""

from __future__ import annotations

from microtome.gallery.finding import Drawn, Finding, Workplace
from microtome.reproduce.dissecting.dissecting_a_convnet import dissecting_a_convnet

__all__ = ["by_hand", "dissected", "omitted", "settled"]

_DOCUMENT = "dissecting-a-convnet"

# Possible reasons where a statement does not hold.
_WHY = {
    "pruning": "Rounds and retraining are shorter here than in the article.",
    "conv1-filters": "The angles depend on the first weights; the article shows one network.",
    "conv2-superstimuli": "A label needs a sharper tuning than the units of random networks have. What a channel "
    "detects on digits is often no line at one angle.",
    "unit-135": "The contributions are those at the place where the unit responds most; the article chose its unit by "
    "eye.",
    "duality": "The stimuli are lines and edges on a blank ground. A convolution uses the same filter everywhere and "
    "pooling keeps what is strongest, so the place may explain little.",
    "layer-omitted": "Two layers may be similar although neither copies the other.",
    "hand-net": "Few named numbers limit what fine-tuning can reach.",
    "lower-layers-first": "Distances are measured on responses, not seen in pictures.",
}


def dissected(place: Workplace) -> list[Finding]:
    """The article's walk through the pruned network."""
    return _parts(place, "dissection")


def omitted(place: Workplace) -> list[Finding]:
    """SimpleConvNet without each of its later convolutions."""
    return _parts(place, "omitted-layers")


def by_hand(place: Workplace) -> list[Finding]:
    """The network set by hand."""
    return _parts(place, "hand-net")


def settled(place: Workplace) -> list[Finding]:
    """Distances to the final features through training."""
    return _parts(place, "settling-layers", document="visualization-lecture")


def _parts(place: Workplace, part: str, document: str = _DOCUMENT) -> list[Finding]:
    result = dissecting_a_convnet(quick=place.quick, out=place.folder, parts=(part,), say=place.say)
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
        for one in result.findings
    ]
