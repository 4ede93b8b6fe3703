"""Which tasks make the signal spaces of an atlas, and how many images can be afforded?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from microtome.atlas.outline import work
from microtome.atlas.plan import Plan
from microtome.atlas.spaces import maps_inside
from microtome.atlas.task import Task
from microtome.network import Network
from microtome.spaces.operators.linear_layer import linear_layers

__all__ = ["kept_layers", "space_tasks", "steps"]

_LAYERS = 5  # layers at which the kept and lost part of an image is shown
_BLOCK = 4  # images in one task
_STEPS = 160  # of the local map of an image at most: enough for small images
_STEPS_OF_PHOTOS = 40  # the same above so many pixel values: deep layers then have an upper bound
_PHOTO = 4096
_TYPICAL = 40  # steps that are taken
_STEP = 18.0  # forward passes that a step through the local map costs, in twice the digits
_STEP_ALONE = 5.0  # the same for each layer by itself
_SAMPLE = 32  # images that what units hear is measured on
_PRODUCTS = 5e9  # multiply-adds a second of a decomposition


def space_tasks(plan: Plan, images: Sequence[int]) -> list[Task]:
    """Spectra of all linear layers, signal vectors of those shown, residuals of class averages, what images lose."""
    net = plan.subject.net
    names = linear_layers(net)
    if not names:
        return []
    total = len(plan.subject.images)
    sample = [place * total // min(total, _SAMPLE) for place in range(min(total, _SAMPLE))]
    found = [
        plan.task("spectra", cost=2 * _spectra_cost(plan), sees=False, layers=names, view=view)
        for view in ("patches", "kernels")
    ]
    alone = [layer for layer in plan.outline.layers if maps_inside(net, layer) == [layer]]
    found += [plan.task("signal", cost=1.0, layer=layer, images=sample) for layer in alone]
    if plan.subject.labels is not None:
        found.append(plan.task("class-residuals", cost=0.002 * total, layer=names[0]))
    return [*found, *_rejected(plan, names, sample), *_kept(plan, images)]


def steps(net: Network) -> int:
    """At most so many steps through the local map of an image."""
    return _STEPS if math.prod(net.input_shape) <= _PHOTO else _STEPS_OF_PHOTOS


def kept_layers(plan: Plan) -> list[str]:
    """A few of the shown layers, spread over the depth of the network, the first and the last among them."""
    layers = plan.outline.layers
    count = min(_LAYERS, len(layers))
    return [layers[round(place * (len(layers) - 1) / max(1, count - 1))] for place in range(count)]


def _rejected(plan: Plan, names: Sequence[str], sample: Sequence[int]) -> list[Task]:
    """The share that every layer rejects, on as many images as a third of the budget lasts for."""
    each = _TYPICAL * _STEP_ALONE * plan.seconds
    count = int(min(len(sample), plan.outline.budget.spaces / 3 / each))
    if not count:
        return []
    return [plan.task("rejected", cost=count * each, layers=list(names), images=list(sample[:count]))]


def _kept(plan: Plan, images: Sequence[int]) -> list[Task]:
    """The kept and lost parts of images, at the first layer only where not all can be afforded.

    What is deep costs most, and so few steps find it in small networks only.
    """
    layers, size = kept_layers(plan), plan.outline.budget.spaces
    if _kept_seconds(plan, layers) * min(len(images), _BLOCK) > size:
        layers = layers[:1]
    each = _kept_seconds(plan, layers)
    count = int(min(len(images), size / each))
    blocks = [list(images[at : at + _BLOCK]) for at in range(0, count, _BLOCK)]
    return [plan.task("kept", cost=len(block) * each, images=block[: count - _BLOCK * at], layers=layers)
            for at, block in enumerate(blocks)]  # fmt: skip


def _kept_seconds(plan: Plan, layers: Sequence[str]) -> float:
    """Expected for one image."""
    whole = max(work(plan.subject.net), 1.0)
    depth = sum(max(work(plan.subject.net, layer) / whole, 0.02) for layer in layers)
    return _TYPICAL * _STEP * plan.seconds * depth


def _spectra_cost(plan: Plan) -> float:
    """Products of the decompositions of all linear layers, in seconds."""
    found = 0.0
    for name in linear_layers(plan.subject.net):
        layer = plan.subject.net.layer(name)
        n = layer.parameters / max(layer.units, 1)
        found += layer.units * n * min(layer.units, n)
    return max(0.1, 4 * found / _PRODUCTS)
