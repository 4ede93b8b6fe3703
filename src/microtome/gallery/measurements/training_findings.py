"""Findings on the whole network: maps of its images, loss surfaces with and without skips, and scale invariance."""

from __future__ import annotations

import copy

import torch
from torch import nn

from microtome import data
from microtome.errors import InputError
from microtome.gallery.finding import Finding, Workplace, verdict
from microtome.network import Network
from microtome.reproduce.dissecting.trained_convnet import trained_convnet
from microtome.reproduce.loss_surfaces import loss_surfaces
from microtome.reproduce.representations import photo_maps, representations
from microtome.training import landscape

__all__ = ["digit_maps", "photo_map", "rescaled", "surfaces"]

_SEEING, _EXPLAINING = "visualization-lecture", "explaining-lecture"
_FACTOR = 10.0


def digit_maps(place: Workplace) -> list[Finding]:
    """t-SNE of digits by their pixels and by the layers of a network."""
    found = representations(quick=place.quick, out=place.folder, say=place.say)
    pixels, *layers = found.digits.maps
    last = layers[-2]
    text = found.report()
    drawn = place.drawn(
        [
            ("digits-by-layer.png", "Digits by pixels and by each layer, aligned; opaque where neighbours are kept."),
            ("digits.png", "Digits by the last hidden layer."),
        ]
    )
    return [
        Finding(
            _SEEING,
            "representation-map",
            f"{last.map_accuracy or 0:.1%} by {last.layer}",
            text,
            verdict((last.map_accuracy or 0) > 0.9, (last.map_accuracy or 0) > (pixels.map_accuracy or 0)),
            "",
            drawn,
        ),
        Finding(
            _EXPLAINING,
            "digits-map",
            f"{pixels.map_accuracy or 0:.1%} by pixels",
            text,
            verdict((pixels.map_accuracy or 0) > 0.85, (pixels.map_accuracy or 0) > 0.5),
            "Fewer digits than the lecture's keep fewer neighbours." if place.quick else "",
            (),
        ),
    ]


def photo_map(place: Workplace) -> list[Finding]:
    """t-SNE of photos of different classes, beside noise."""
    if place.photos is None:
        raise InputError("this measurement needs photos; give their folder with --data.")
    found = photo_maps(place.photos, 120 if place.quick else None)
    plain, turned, noise = (found.maps[name].trustworthiness for name in ("features", "directions", "noise"))
    drawn = place.draw(
        "photos", found.maps["directions"], "Photos by the directions of their features.", images=found.thumbnails
    )
    return [
        Finding(
            _SEEING,
            "photo-map",
            f"trustworthiness {turned:.2f}; noise {noise:.2f}",
            found.report(),
            verdict(turned > 0.9, turned > noise + 0.03),
            f"By plain distance trustworthiness is {plain:.2f}, below that of noise: {found.popular['features']} of "
            "the photos have the same photo among their nearest, for its features are short, and "
            f"{found.lonely['features']} are near to none. By direction there are no such hubs. Every photo here is "
            "of another class, so that few have a near neighbour to be kept; the lecture maps 50,000 photos, 50 of "
            "each class.",
            (drawn,),
        ),
    ]


def surfaces(place: Workplace) -> list[Finding]:
    """ResNet-20 and ResNet-56 with and without skip connections."""
    found = loss_surfaces(quick=place.quick, out=place.folder, say=place.say)
    mean = {name: float(values.mean()) for name, values in found.negative.items()}
    text = found.report()
    short, long = mean["ResNet-20, plain"], mean["ResNet-56, plain"]
    less = [mean[f"ResNet-{depth}, skip"] < mean[f"ResNet-{depth}, plain"] for depth in (20, 56)]
    chance = {name: float(values.mean()) for name, values in found.accuracy.items()}
    untrained = [name for name, value in chance.items() if value < 0.3]
    why = (
        f"{', '.join(untrained)} had hardly learnt anything, so that there is no minimum to look around. "
        if untrained
        else ""
    ) + ("Networks and trainings are small here; see --full." if place.quick else "")
    drawn = place.drawn(
        [("loss-surfaces.png", "Loss around the trained weights, on one scale; filter-normalised directions.")]
    )
    return [
        Finding(
            _SEEING,
            "twenty-layers-convex",
            f"{short:.0%} (20) and {long:.0%} (56) negative",
            text,
            verdict(short < long, False),
            "" if short < long else why,
            drawn,
        ),
        Finding(
            _SEEING,
            "skips-convexify",
            f"20: {mean['ResNet-20, skip']:.0%} and {short:.0%}; 56: {mean['ResNet-56, skip']:.0%} and {long:.0%}",
            text,
            verdict(all(less), any(less)),
            "" if all(less) else why,
            (),
        ),
    ]


def rescaled(place: Workplace) -> list[Finding]:
    """One ReLU layer times 10 and the next divided by 10; and the line between two networks."""
    digits = data.mnist_5000()
    train, some = digits.subset(range(0, 5000, 2)), digits.subset(range(1, 5000, 25))
    net = trained_convnet(train)
    changed = copy.deepcopy(net.model)
    with torch.no_grad():
        _parameter(changed, "conv2.weight").mul_(_FACTOR)
        _parameter(changed, "conv2.bias").mul_(_FACTOR)
        _parameter(changed, "conv3.weight").div_(_FACTOR)
    other = Network(changed, net.input_shape, classes=net.classes, mean=net.mean, std=net.std)
    gap = {}
    for kind in ("filter", "none"):
        first, second = (landscape.surface(one, some, steps=7, normalization=kind, seed=0) for one in (net, other))
        change = (first.loss - second.loss).abs().max()
        gap[kind] = float(change / (first.loss.max() - first.loss.min()))
        if kind == "filter":
            drawn = place.draw("surface", first, "Loss around a SimpleConvNet: unchanged when layers are rescaled.")
    place.tell("the line between two networks")
    line = landscape.between(net, trained_convnet(train, seed=1), some, steps=21)
    ends = (float(line.loss[0]), float(line.loss[-1]))
    high = float(line.loss.max())
    return [
        Finding(
            _SEEING,
            "scale-invariance",
            f"{gap['filter']:.0e} normalised, {gap['none']:.2f} plain",
            f"largest change of the loss over 49 points, by its range: {gap['filter']:.1e} with filter-wise "
            f"normalised directions, {gap['none']:.2f} with plain ones of equal seed",
            verdict(gap["filter"] < 1e-4 and gap["none"] > 0.01, gap["filter"] < gap["none"]),
            "",
            (drawn,),
        ),
        Finding(
            _SEEING,
            "line-between",
            f"{ends[0]:.2f}, {high:.1f} on the way, {ends[1]:.2f}",
            f"loss of two SimpleConvNets from different first weights {ends[0]:.3f} and {ends[1]:.3f}, largest on "
            f"the line between them {high:.2f}: the two minima are apart",
            verdict(high > 2 * max(ends), high > max(ends)),
            "",
            (place.draw("line", line, "Loss on the line between two trained networks."),),
        ),
    ]


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    return model.get_parameter(name)
