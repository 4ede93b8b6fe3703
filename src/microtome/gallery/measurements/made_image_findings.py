"""Findings on made images: images for classes and units, and images with the representation of a photo."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from microtome import synthesis, units, zoo
from microtome.gallery.finding import Finding, Workplace, verdict
from microtome.gallery.measurements.photo_findings import photos_of, spread

__all__ = ["inversions", "made_images"]

_SEEING, _EXPLAINING = "visualization-lecture", "explaining-lecture"
_CLASSES = ("goose", "ostrich", "limousine", "tench", "macaw", "tarantula", "volcano", "daisy")
_UNITS = "_blocks.6._project_conv"
_DEEP = "_blocks.15._project_conv"  # the last maps before the head: 7 x 7 positions
_LAYOUT = 7  # positions per side of the grid on which layouts are compared


def made_images(place: Workplace) -> list[Finding]:
    """Images that raise class scores, judged by a second network, and images that drive units."""
    net, second = zoo.network("efficientnet-lite0"), zoo.network("mobilenet-v2")
    names = list(net.classes or [])
    classes = [names.index(name) for name in _CLASSES if name in names]
    place.tell(f"images for {', '.join(names[at] for at in classes)}")
    superstimuli = synthesis.maximize_class(net, classes, steps=96 if place.quick else 256)
    wanted = torch.tensor(classes, device="cpu")
    own = net.probabilities(superstimuli.images).cpu().gather(1, wanted[:, None])[:, 0]
    elsewhere = second.probabilities(_sized(superstimuli.images, second.input_shape)).cpu()
    other = elsewhere.gather(1, wanted[:, None])[:, 0]
    rank = (elsewhere > other[:, None]).sum(1) + 1
    first = int((rank == 1).sum())
    near = int((rank <= 5).sum())
    texts = "; ".join(
        f"{names[at]} {float(a):.0%} and {float(b):.0%} (rank {int(c)})"
        for at, a, b, c in zip(classes, own, other, rank, strict=True)
    )
    place.tell(f"images for units of {_UNITS}")
    photos = photos_of(place, net, 60)
    stimuli = synthesis.maximize(net, _UNITS, channels=range(8), steps=96 if place.quick else 256)
    patches = units.top_patches(net, photos, _UNITS)[_UNITS]
    reached = stimuli.peak.cpu()
    best = patches.activation[:8, 0].cpu()
    above = int((reached > best).sum())
    return [
        Finding(
            _SEEING,
            "maximal-class-images",
            f"{first} of {len(classes)} first, {near} among five for a second network",
            f"probability for the network and for MobileNetV2, which took no part (rank among 1,000): {texts}",
            verdict(near >= len(classes) / 2, near > 0),
            ""
            if near >= len(classes) / 2
            else "The images are made for one network. They may show what moves this network more than what "
            "makes the class.",
            (
                place.draw(
                    "class-images", superstimuli, "Images made for class scores, with the priors for photo networks."
                ),
            ),
        ),
        Finding(
            _EXPLAINING,
            "ascent",
            f"{above} of 8 units above every photo",
            f"{_UNITS}, units 0 to 7, strongest response to the made image and to the best of {len(photos)} photos: "
            + "; ".join(f"{float(a):.2f} and {float(b):.2f}" for a, b in zip(reached, best, strict=True)),
            verdict(above == 8, above >= 4),
            "" if above == 8 else "Some units are driven more by a photo than by the image found in these steps.",
            (place.draw("unit-images", stimuli, "Images made for eight units of a middle layer."),),
        ),
    ]


def _sized(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    side = (int(shape[-2]), int(shape[-1]))
    if tuple(images.shape[-2:]) == side:
        return images
    return functional.interpolate(images, size=side, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def inversions(place: Workplace) -> list[Finding]:
    """Five images for each photo with its representation at a deep layer: their differences and their layout."""
    net = zoo.network("efficientnet-lite0")
    photos = photos_of(place, net, 2)
    some = spread(photos, 2 if place.quick else 4).load().images
    place.tell(f"inverting {_DEEP} for {len(some)} photos, 5 starts")
    inversion = synthesis.invert(net, some, _DEEP, starts=5, steps=100 if place.quick else 400)
    layout = correlations(inversion.images, some)
    own = layout.gather(1, inversion.source[:, None].cpu())[:, 0]
    others = (layout.sum(1) - own) / (layout.shape[1] - 1)
    groups = [inversion.images[inversion.source == at] for at in range(len(some))]
    apart = [float(torch.pdist(group.flatten(1).double()).mean() / group[0].numel() ** 0.5) for group in groups]
    error = float(inversion.error.max())
    drawn = (
        place.draw("inversions", inversion, "A photo and five images with nearly its representation at the last maps."),
    )
    return [
        Finding(
            _EXPLAINING,
            "inversion-equivalent",
            f"error up to {error:.3f}, {sum(apart) / len(apart):.2f} apart",
            f"{_DEEP}, {len(some)} photos, 5 starts each: squared error of the representation "
            f"{float(inversion.error.mean()):.3f} on average, {error:.3f} at most (1: nothing in common); the five "
            f"images of a photo differ by {sum(apart) / len(apart):.2f} (root mean square over pixels in [0, 1])",
            verdict(error < 0.1 and min(apart) > 0.05, error < 0.3),
            ""
            if error < 0.1
            else "More steps bring the representation nearer; here 100 were taken."
            if place.quick
            else "",
            drawn,
        ),
        Finding(
            _EXPLAINING,
            "inversion-spatial",
            f"{float(own.mean()):.2f}; other photos {float(others.mean()):.2f}",
            f"correlation of the reconstructions with their photo on {_LAYOUT} x {_LAYOUT} cells "
            f"{float(own.mean()):.2f} on average, "
            f"with the other photos {float(others.mean()):.2f}; higher for {int((own > others).sum())} of {len(own)}",
            verdict(bool((own > others).all()), float(own.mean()) > float(others.mean())),
            "" if bool((own > others).all()) else "The layout of some photos is not determined by the last maps.",
        ),
    ]


def correlations(images: Tensor, photos: Tensor) -> Tensor:
    """(images, photos) correlation of brightness and colour on a coarse grid."""

    def coarse(values: Tensor) -> Tensor:
        cells = functional.adaptive_avg_pool2d(values.double().cpu(), _LAYOUT)
        cells = (cells - cells.mean((2, 3), keepdim=True)).flatten(1)
        return functional.normalize(cells, dim=1)

    return coarse(images) @ coarse(photos).T
