"""Attribution methods in words: their names, what their maps show, and which maps are shown large."""

from __future__ import annotations

import re
from collections.abc import Iterable

from microtome.loading.own_functions import is_own

__all__ = ["evidence", "file_name", "in_words", "meaning"]

_LARGE = 4  # maps that are shown large
_STANDING = (
    "grad-cam", "lrp", "integrated-gradients", "occlusion", "attention-rollout", "smooth-grad", "cam", "deep-taylor",
    "gradient-x-input", "gradient", "saliency",
)  # fmt: skip
_NAMES = {
    "grad-cam": "Grad-CAM", "cam": "CAM", "lrp": "LRP", "smooth-grad": "SmoothGrad",
    "guided-grad-cam": "guided Grad-CAM",
    "gradient-x-input": "gradient x input", "smooth-grad-squared": "SmoothGrad squared",
    "deep-taylor": "deep Taylor", "guided-backprop": "guided backpropagation",
}  # fmt: skip
_MEANING = {
    "grad-cam": "the regions of a layer that raise the score",
    "cam": "the regions of the last layer that raise the score",
    "lrp": "the score, passed back layer by layer to the pixels",
    "integrated-gradients": "what each pixel adds on the way from a black image to this one",
    "occlusion": "how much the score falls when a window covers the place",
    "attention-rollout": "the tokens that attention passes on, of all classes together",
    "smooth-grad": "the pixels to which the score is sensitive, mean over noisy copies",
    "deep-taylor": "the score, passed back layer by layer, positive parts only",
    "gradient-x-input": "the slope of the score at each pixel, times the pixel",
    "gradient": "the slope of the score at each pixel",
    "saliency": "the size of the slope of the score at each pixel",
}


def evidence(methods: Iterable[str]) -> list[str]:
    """The methods whose maps are shown large: the user's own, then the most established; at most four.

    Examples
    --------
    >>> evidence(["saliency", "lrp", "gradient", "occlusion", "grad-cam", "integrated-gradients"])
    ['grad-cam', 'lrp', 'integrated-gradients', 'occlusion']
    """
    listed = list(methods)
    own = [name for name in listed if is_own(name)]
    return [*own, *(name for name in _STANDING if name in listed)][:_LARGE]


def in_words(method: str) -> str:
    """A method's name as papers write it.

    Examples
    --------
    >>> in_words("grad-cam"), in_words("smooth-grad"), in_words("gradient-x-input")
    ('Grad-CAM', 'SmoothGrad', 'gradient x input')
    """
    return method.rpartition(":")[2] if is_own(method) else _NAMES.get(method, method.replace("-", " "))


def file_name(method: str) -> str:
    """A method's name as part of a file name.

    Examples
    --------
    >>> file_name("grad-cam"), file_name("mine/maps.py:brightness")
    ('grad-cam', 'mine-maps.py-brightness')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", method)


def meaning(method: str) -> str:
    """The meaning of a method's maps, in one clause; empty for unknown methods.

    Examples
    --------
    >>> meaning("gradient")
    'the slope of the score at each pixel'
    """
    return _MEANING.get(method, "")
