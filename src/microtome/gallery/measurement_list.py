"""The list of the gallery's measurements, each with the statements that it answers and its cost."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from microtome.errors import InputError, nearest
from microtome.gallery.finding import Finding, Workplace

__all__ = ["MEASUREMENTS", "Measurement", "chosen"]

_SPACES, _CONVNET, _SEEING, _EXPLAINING = (
    "vector-spaces", "dissecting-a-convnet", "visualization-lecture", "explaining-lecture",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One measurement of the gallery.

    Attributes
    ----------
    name : str
        Name of the measurement and of its folder.
    code : str
        ``module:function``; the function takes a workplace and returns a list of findings.
    answers : tuple of (str, str)
        Document and statement of each of its findings.
    seconds : tuple of (float, float)
        Processor time, quick and full; the longest measurements begin first.
    photos : bool
        Whether it needs a folder of photos.
    """

    name: str
    code: str
    answers: tuple[tuple[str, str], ...]
    seconds: tuple[float, float]
    photos: bool = False

    def run(self, place: Workplace) -> list[Finding]:
        """Measure; every statement that it answers gets a finding."""
        module, _, function = self.code.partition(":")
        code: Callable[[Workplace], list[Finding]] = getattr(importlib.import_module(module), function)
        found = code(place)
        answered, wanted = {(one.document, one.statement) for one in found}, set(self.answers)
        if answered != wanted:
            raise InputError(f"{self.name} should answer {sorted(wanted)}, got {sorted(answered)}.")
        return found


def _code(module: str, function: str) -> str:
    return f"microtome.gallery.measurements.{module}:{function}"


def _answers(document: str, *statements: str) -> tuple[tuple[str, str], ...]:
    return tuple((document, one) for one in statements)


_ALL = (
    Measurement(
        "vector-spaces",
        _code("signal_space_findings", "paper_networks"),
        _answers(
            _SPACES,
            "one-layer-accuracy",
            "five-layer-accuracy",
            "resnet18-accuracy",
            "one-layer-condition",
            "resnet18-condition",
            "residual-of-8",
            "residual-of-0",
            "last-signal-vector",
            "signal-kernels-directions",
            "one-layer-ideal",
            "five-layer-ideal",
            "resnet18-ideal",
            "resnet18-training",
        ),
        (330, 7200),
    ),
    Measurement(
        "signal-parts",
        _code("signal_space_findings", "signal_parts"),
        _answers(_SPACES, "spaces-split-exactly", "inverse-recovers-signal"),
        (20, 40),
    ),
    Measurement(
        "dissecting-a-convnet",
        _code("convnet_findings", "dissected"),
        _answers(
            _CONVNET,
            "network",
            "pruning",
            "conv1-filters",
            "conv2-superstimuli",
            "unit-135",
            "duality",
            "composition",
        ),
        (200, 3000),
    ),
    Measurement(
        "omitted-layers", _code("convnet_findings", "omitted"), _answers(_CONVNET, "layer-omitted"), (120, 5000)
    ),
    Measurement("hand-net", _code("convnet_findings", "by_hand"), _answers(_CONVNET, "hand-net"), (120, 2400)),
    Measurement(
        "settling-layers", _code("convnet_findings", "settled"), _answers(_SEEING, "lower-layers-first"), (120, 600)
    ),
    Measurement(
        "first-filters",
        _code("photo_findings", "first_filters"),
        (
            *_answers(_SEEING, "first-layer-filters"),
            *_answers(_EXPLAINING, "second-layer-filters", "gabor-everywhere"),
        ),
        (60, 90),
        photos=True,
    ),
    Measurement(
        "units-on-photos",
        _code("photo_findings", "units_on_photos"),
        _answers(_SEEING, "features-hierarchical", "specialised-maps"),
        (60, 120),
        photos=True,
    ),
    Measurement(
        "reconstructions",
        _code("photo_findings", "reconstructions"),
        (*_answers(_SEEING, "top-9"), *_answers(_EXPLAINING, "guided-is-sharper")),
        (90, 200),
        photos=True,
    ),
    Measurement(
        "made-images",
        _code("made_image_findings", "made_images"),
        (*_answers(_SEEING, "maximal-class-images"), *_answers(_EXPLAINING, "ascent")),
        (200, 600),
        photos=True,
    ),
    Measurement(
        "inversions",
        _code("made_image_findings", "inversions"),
        _answers(_EXPLAINING, "inversion-equivalent", "inversion-spatial"),
        (150, 500),
        photos=True,
    ),
    Measurement(
        "single-pixels",
        _code("attribution_findings", "single_pixels"),
        _answers(_SEEING, "saliency-single-pixels"),
        (40, 150),
        photos=True,
    ),
    Measurement(
        "photo-evidence",
        _code("attribution_findings", "photo_evidence"),
        (
            *_answers(_SEEING, "occlusion", "counterfactual"),
            *_answers(_EXPLAINING, "occlusion-probability", "deconvnet-reliable"),
        ),
        (300, 500),
        photos=True,
    ),
    Measurement(
        "deep-taylor",
        _code("attribution_findings", "relevance_sums"),
        _answers(_EXPLAINING, "deep-taylor"),
        (30, 60),
        photos=True,
    ),
    Measurement(
        "cam-conversion",
        _code("attribution_findings", "cam_conversion"),
        _answers(_SEEING, "cam-accuracy", "cam-is-grad-cam"),
        (80, 400),
    ),
    Measurement("spotting-bias", _code("attribution_findings", "bias"), _answers(_SEEING, "spotting-bias"), (150, 400)),
    Measurement(
        "digit-maps",
        _code("training_findings", "digit_maps"),
        (*_answers(_SEEING, "representation-map"), *_answers(_EXPLAINING, "digits-map")),
        (60, 900),
    ),
    Measurement(
        "photo-map", _code("training_findings", "photo_map"), _answers(_SEEING, "photo-map"), (30, 60), photos=True
    ),
    Measurement(
        "loss-surfaces",
        _code("training_findings", "surfaces"),
        _answers(_SEEING, "twenty-layers-convex", "skips-convexify"),
        (600, 20000),
    ),
    Measurement(
        "scale-invariance",
        _code("training_findings", "rescaled"),
        _answers(_SEEING, "scale-invariance", "line-between"),
        (40, 80),
    ),
    Measurement(
        "information-plane",
        _code("information_findings", "planes"),
        _answers(
            _EXPLAINING,
            "task-entropy",
            "inequality",
            "compression",
            "compression-relu",
            "training-shares",
            "gradient-phases",
            "hidden-layers",
        ),
        (500, 6000),
    ),
    Measurement("estimators", _code("information_findings", "planted"), _answers(_EXPLAINING, "estimators"), (60, 300)),
)

MEASUREMENTS = {one.name: one for one in _ALL}


def chosen(names: tuple[str, ...] = ()) -> list[Measurement]:
    """The measurements of the given names; all if none is given.

    Raises
    ------
    InputError
        If there is no such measurement.
    """
    for name in names:
        if name not in MEASUREMENTS:
            raise InputError(f'there is no measurement "{name}". Nearest: {nearest(name, [*MEASUREMENTS])}.')
    return [MEASUREMENTS[name] for name in dict.fromkeys(names)] if names else list(_ALL)
