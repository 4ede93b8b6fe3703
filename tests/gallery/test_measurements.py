"""Does every measurement of the gallery answer its statements? On few images and steps: the numbers mean little."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from microtome import data, synthesis
from microtome.data import Images
from microtome.gallery.finding import Workplace
from microtome.gallery.measurement_list import MEASUREMENTS
from microtome.gallery.measurements import (
    attribution_findings,
    made_image_findings,
    photo_findings,
)
from microtome.reproduce import (
    information_planes,
    lectures,
    loss_surfaces,
    planted_information,
    representations,
    spotting_bias,
    vector_spaces,
)
from microtome.reproduce.dissecting import trained_convnet

_SIZES = {
    "loss_surfaces": {"images": 120, "width": 4, "epochs": 1, "pairs": 1, "steps": 3, "looked_at": 40},
    "information_planes": {
        "networks": 2, "epochs": 20, "checkpoints": 6, "others": 10, "kernel_checkpoints": 2, "trials": 1,
    },
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Few images, few steps, one epoch."""
    digits = data.mnist_5000()
    few = digits.subset(range(0, 5000, 10))
    sample, subset = Images.sample, Images.subset
    monkeypatch.setattr(Images, "sample", lambda self, count, seed=0: sample(self, min(count, len(self)), seed=seed))
    monkeypatch.setattr(Images, "subset", lambda self, places: subset(self, [one for one in places if one < len(self)]))
    monkeypatch.setattr(data, "mnist", lambda *_: few)
    monkeypatch.setattr(data, "mnist_5000", lambda: few)
    for module, name in ((loss_surfaces, "loss_surfaces"), (information_planes, "information_planes")):
        monkeypatch.setattr(module, "_QUICK", replace(module._QUICK, **_SIZES[name]))
    for name in ("WIDTHS", "SAMPLES", "BITS"):
        monkeypatch.setattr(planted_information, name, getattr(planted_information, name)[:1])
    monkeypatch.setattr(planted_information, "_HOPELESS", planted_information._HOPELESS[:1])
    monkeypatch.setattr(vector_spaces, "EPOCHS", 1)
    monkeypatch.setattr(vector_spaces, "STEPS", 2)
    monkeypatch.setattr(trained_convnet, "_EPOCHS", 1)
    monkeypatch.setattr(representations, "_digits", lambda _quick: (few, digits.subset(range(1, 5000, 40))))
    spread = photo_findings.spread
    monkeypatch.setattr(photo_findings, "spread", lambda given, count: spread(given, min(count, 4)))
    monkeypatch.setattr(attribution_findings, "_PHOTOS", 4)
    monkeypatch.setattr(lectures, "JUDGED", {"saliency": {}})
    monkeypatch.setattr(lectures, "RANDOMISED", ("gradient", "deconvnet"))
    monkeypatch.setattr(
        lectures.findings,
        "__kwdefaults__",
        {**lectures.findings.__kwdefaults__, "randomised": ("gradient", "deconvnet")},
    )
    for name in ("maximize", "maximize_class", "invert"):
        monkeypatch.setattr(synthesis, name, _fewer(getattr(synthesis, name)))
    monkeypatch.setattr(made_image_findings, "_CLASSES", made_image_findings._CLASSES[:2])
    monkeypatch.setattr(spotting_bias, "JUDGED", ("saliency", "grad-cam"))


def _fewer(function):
    return lambda *given, **options: function(*given, **{**options, "steps": 2})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MEASUREMENTS])
def test_a_measurement_answers_its_statements(small, name, tmp_path):
    one = MEASUREMENTS[name]
    photos = os.environ.get("MICROTOME_PHOTOS")
    if one.photos and photos is None:
        pytest.skip("MICROTOME_PHOTOS names no folder of photos")
    found = one.run(Workplace(tmp_path, True, None if photos is None else Path(photos)))
    for finding in found:
        assert finding.value
        assert finding.found
        assert "nan" not in finding.value
        for drawn in finding.pictures:
            assert (tmp_path / drawn.file).is_file()
            assert drawn.caption.endswith(".")
    assert any(finding.pictures for finding in found) or name == "estimators"
