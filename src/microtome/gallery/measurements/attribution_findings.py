"""Findings on maps that explain a decision: occlusion, counterfactuals, CAM, bias, relevance, single pixels."""

from __future__ import annotations

from torch import Tensor

from microtome import attribution, data, surgery, zoo
from microtome.errors import InputError
from microtome.gallery.finding import Finding, Workplace, verdict
from microtome.gallery.measurements.photo_findings import photos_of
from microtome.network import Network
from microtome.reproduce.dissecting.trained_convnet import trained_convnet
from microtome.reproduce.evidence import STRONG
from microtome.reproduce.lectures import lectures
from microtome.reproduce.spotting_bias import spotting_bias

__all__ = ["bias", "cam_conversion", "photo_evidence", "relevance_sums", "single_pixels"]

_SEEING, _EXPLAINING = "visualization-lecture", "explaining-lecture"
_PHOTOS = 24  # if quick
_UNTOUCHED = 0.5  # a map with a higher rank correlation does not depend on the upper layers


def photo_evidence(place: Workplace) -> list[Finding]:
    """Covered objects, counterfactuals, and randomised weights, on EfficientNet-Lite0."""
    if place.photos is None:
        raise InputError("this measurement needs photos; give their folder with --data.")
    result = lectures(place.photos, images=_PHOTOS if place.quick else 50, out=place.folder, say=place.say)
    drawn = place.drawn(
        [
            (
                "lectures.png",
                "Covering object and background; evidence and counterfactual; areas under curves; randomised weights.",
            )
        ]
    )
    seen = result.covering["second network"]
    costs = float(seen.object.mean()) / max(float(seen.background.mean()), 1e-9)
    texts = "\n".join(f"{name}: {one.line()}" for name, one in result.covering.items())
    many = seen.share_whole > 0.75
    other = result.counterfactual
    there = int((~other.overlap.isnan()).sum())
    overlap, chance = float(other.overlap.nanmean()), STRONG / (2 - STRONG)
    lower = (float(other.evidence_covered.nanmean()), float(other.counterfactual_covered.nanmean()))
    away = overlap < chance and lower[0] < lower[1]
    upper = {name: float(values[0].mean()) for name, values in result.likeness.items()}
    kept = upper["deconvnet"]
    return [
        Finding(
            _SEEING,
            "occlusion",
            f"object {float(seen.object.mean()):.3f}, background {float(seen.background.mean()):.3f}",
            texts,
            verdict(many and costs > 2, seen.share_whole > 0.5),
            "",
            drawn,
        ),
        Finding(
            _SEEING,
            "counterfactual",
            f"overlap {overlap:.3f} (chance {chance:.3f})",
            "\n".join(other.lines()),
            verdict(away and lower[1] > 0.05, away),
            ""
            if lower[1] > 0.05
            else "The regions differ. But covering them hardly changes the score, "
            "so that they do not "
            f"make the network change its prediction; {there} of {result.photos} photos have such a region at all.",
        ),
        Finding(
            _EXPLAINING,
            "occlusion-probability",
            f"in {seen.share_whole:.0%} of the photos",
            texts,
            verdict(many, seen.share_whole > 0.5),
            "",
        ),
        Finding(
            _EXPLAINING,
            "deconvnet-reliable",
            f"likeness {kept:.2f} with random upper layers",
            "rank correlation with the trained network's map when the upper sixth of the layers is random: "
            + ", ".join(f"{name} {value:.2f}" for name, value in upper.items()),
            verdict(kept < 0.3, kept < _UNTOUCHED),
            ""
            if kept < 0.3
            else "The map shows the patches that drive an activation. It hardly depends on what the upper layers have "
            "learnt about the class (Adebayo et al. 2018).",
            (),
        ),
    ]


def single_pixels(place: Workplace) -> list[Finding]:
    """The pixel of the largest gradient set to gray, beside a window."""
    net = zoo.network("efficientnet-lite0")
    photos = photos_of(place, net, _PHOTOS).load()
    images = photos.images
    target = net.logits(images, batch=8).argmax(1)
    found = attribution.saliency(net, images, target, batch=8)
    spot = found.map.flatten(1).argmax(1)
    rows, columns = spot // images.shape[-1], spot % images.shape[-1]
    before = net.probabilities(images, batch=8).gather(1, target[:, None])[:, 0]
    side = images.shape[-1] // 7
    pixel = before - _covered(net, images, target, rows, columns, 1)
    window = before - _covered(net, images, target, rows, columns, side)
    ratio = float(window.mean() / pixel.abs().mean().clamp(min=1e-9))
    return [
        Finding(
            _SEEING,
            "saliency-single-pixels",
            f"{float(pixel.abs().mean()):.4f} against {float(window.mean()):.3f}",
            f"{len(images)} photos: the pixel of the largest gradient set to gray changes the probability of the "
            f"predicted class by {float(pixel.abs().mean()):.4f} on average, {float(pixel.abs().max()):.3f} at "
            f"most; a window of {side} x {side} pixels around it lowers it by {float(window.mean()):.3f} "
            f"({ratio:.0f} times as much)",
            verdict(float(pixel.abs().mean()) < 0.02 and ratio > 5, ratio > 1),
            "",
            (place.draw("saliency", found, "Saliency: how much the score changes with each pixel."),),
        ),
    ]


def _covered(net: Network, images: Tensor, target: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Probability of the target with a gray square around a pixel."""
    changed, half = images.clone(), side // 2
    for at, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        top, left = max(row - half, 0), max(column - half, 0)
        changed[at, :, top : top + side, left : left + side] = 0.5
    return net.probabilities(changed, batch=8).gather(1, target[:, None])[:, 0]


def relevance_sums(place: Workplace) -> list[Finding]:
    """Sums of relevances by the scores: digits and photos."""
    digits = data.mnist_5000()
    net = trained_convnet(digits.subset(range(0, 5000, 2)))
    some = digits.subset(range(1, 5000, 250)).images
    first = attribution.deep_taylor(net, some)
    wide = zoo.network("efficientnet-lite0")
    photos = photos_of(place, wide, 8).load().images[:8]
    second = attribution.deep_taylor(wide, photos, batch=4)
    texts, shares = [], []
    for name, found in (("SimpleConvNet on digits", first), ("EfficientNet-Lite0 on photos", second)):
        share = found.pixel_share.double()
        shares.append(float((share - 1).abs().max()))
        gap = float((found.conservation.double() - 1).abs().max())
        texts.append(
            f"{name}: the pixels hold {float(share.mean()):.1%} of the score ({float(share.min()):.1%} to "
            f"{float(share.max()):.1%}); with what biases took, the sum is off by {gap:.1e} of it at most"
        )
    return [
        Finding(
            _EXPLAINING,
            "deep-taylor",
            f"off by {shares[0]:.0%} and {shares[1]:.0%} at most",
            "\n".join(texts),
            verdict(max(shares) < 0.05, min(shares) < 0.3),
            ""
            if max(shares) < 0.05
            else "The sum equals the score for networks without positive biases, "
            "which the paper assumes. Trained networks have them, and they take their part.",
            (
                place.draw("deep-taylor-digits", first, "Relevance of pixels for the predicted digit."),
                place.draw("deep-taylor-photos", second, "Relevance of pixels for the predicted class."),
            ),
        ),
    ]


def cam_conversion(place: Workplace) -> list[Finding]:
    """SimpleConvNet with global average pooling: accuracy, and CAM compared with Grad-CAM."""
    train, test = data.mnist("train+validation"), data.mnist("test")
    if place.quick:
        train, test = train.sample(6000, seed=0), test.sample(2000, seed=0)
    net = trained_convnet(train)
    found = surgery.convert_to_cam(net, train, test, epochs=2, lr=0.05, batch=64)
    before, after = found.accuracy["before"], found.accuracy["tuned"]
    converted = found.network(net)
    some = test.subset(range(0, len(test), max(1, len(test) // 40))).images
    cam = attribution.cam(converted, some)
    grad = attribution.grad_cam(converted, some, cam.target, layer=cam.layer)
    positions = cam.values[0, 0].numel()
    expected = cam.values.clamp(min=0) / positions
    gap = float((grad.values - expected).abs().max() / expected.abs().max())
    return [
        Finding(
            _SEEING,
            "cam-accuracy",
            f"{before:.2%} before, {after:.2%} after",
            f"{before:.2%} of {found.images:,} test images before, {found.accuracy['replaced']:.2%} with the new "
            f"head untrained, {after:.2%} after two epochs; weights {found.parameters['before']:,} before, "
            f"{found.parameters['after']:,} after",
            verdict(after > before - 0.01, after > before - 0.05),
            "" if after > before - 0.01 else "Two epochs on few images.",
            (place.draw("cam-conversion", found, "Accuracy before, with the new head, and after fine-tuning."),),
        ),
        Finding(
            _SEEING,
            "cam-is-grad-cam",
            f"{gap:.0e} of the largest value",
            f"on {len(some)} digits Grad-CAM differs from the positive part of CAM by {positions} by "
            f"{gap:.1e} of the largest value",
            verdict(gap < 1e-4, gap < 1e-2),
            "",
            (place.draw("cam", attribution.cam(converted, some[:6]), "Evidence for the predicted digit, in logits."),),
        ),
    ]


def bias(place: Workplace) -> list[Finding]:
    """A biased and an unbiased network, and the share of each map on the tag."""
    train = data.mnist("train").sample(5000, seed=0) if place.quick else None
    found = spotting_bias(train, agreement=1.0, explained=50 if place.quick else 200, out=place.folder, say=place.say)
    pairs = {
        name: tuple(found.shares.mean(network, name) for network in ("biased", "unbiased"))
        for name in found.shares.methods
    }
    more = sum(a > b for a, b in pairs.values())
    seen = pairs["grad-cam"][0] > pairs["grad-cam"][1]
    return [
        Finding(
            _SEEING,
            "spotting-bias",
            f"in {more} of {len(pairs)} methods",
            found.report(),
            verdict(more >= 0.8 * len(pairs) and seen, more > len(pairs) / 2),
            "" if seen else "Grad-CAM does not see a small tag if the head is not an average.",
            place.drawn([("spotting-bias.png", "Share of each map on the tag, biased and unbiased network.")]),
        )
    ]
