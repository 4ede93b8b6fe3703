"""What is a map's number a number of? Its quantity by method, for scales on figures and pages."""

from __future__ import annotations

__all__ = ["quantity"]

_SLOPE = "logit per pixel value"
_SIGNAL = "rectified signal"
_QUANTITIES = {
    "attention-rollout": "share of attention",
    "cam": "weighted activation",
    "deconvnet": _SIGNAL,
    "grad-cam": "weighted activation",
    "gradient": _SLOPE,
    "guided-backprop": _SIGNAL,
    "guided-grad-cam": "signal x activation",
    "occlusion": "probability lost",
    "saliency": _SLOPE,
    "smooth-grad": _SLOPE,
}


def quantity(method: str) -> str:
    """What the map of a method holds: a share of the score in logits, but for methods that give another thing.

    Examples
    --------
    >>> quantity("lrp"), quantity("saliency")
    ('logit per pixel', 'logit per pixel value')
    """
    return _QUANTITIES.get(method, "logit per pixel")
