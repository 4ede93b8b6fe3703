"""The expected size of an atlas on disk, reported before the work begins."""

from __future__ import annotations

import math

from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection

__all__ = ["expected_megabytes"]

# Bytes of a unit's row in the tables, of its strongest patches, of the page and pictures of a unit, and of the page of
# an image, without its maps: measured on SimpleConvNet (small images) and EfficientNet-Lite0 (photos).
_ROW = 5e3
_PATCHES = 0.7e3
_UNIT = 160e3
_IMAGE, _OF_LAYER = 100e3, 40e3  # the page of an image, and what each layer adds to it
_STIMULI, _MOST_STIMULI = 640.0, 12e6  # bytes of the patterns at several positions: of a pixel of the image, at most
_MAPS, _SIDE = 24, 128  # number of attribution maps per image, side of each in pixels
_SHOWN, _SHOWN_SIDE = 8, 56  # number of activation maps per layer, side of each in pixels
_PIXEL = 1.6  # bytes of a pixel of a map, stored and drawn
_PLACE = 3.5  # the same of an activation map


def expected_megabytes(plan: Plan, chosen: Selection) -> float:
    """Megabytes of results, pictures and pages, within a factor of two."""
    layers = [plan.net.layer(name) for name in plan.layers]
    tables = sum(_ROW * layer.units + 2 * layer.units**2 for layer in layers)
    tables += sum(_PATCHES * plan.net.layer(name).units for name in plan.summary.surveyed)
    units = sum(len(chosen.units[name]) for name in plan.layers) * _UNIT
    stimuli = min(_MOST_STIMULI, _STIMULI * math.prod(plan.net.input_shape[1:]))
    pixels = math.prod(min(_SIDE, side) for side in plan.net.input_shape[1:])
    places = sum(math.prod(min(_SHOWN_SIDE, side) for side in layer.axes.grid) for layer in layers)
    image = _IMAGE + _OF_LAYER * len(layers) + _MAPS * _PIXEL * pixels + _SHOWN * _PLACE * places
    return (tables + units + len(chosen.images) * image + stimuli) / 1e6
