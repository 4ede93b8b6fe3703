"""Predictions: accuracy, the confusion matrix, mistakes, and the images of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from microtome.atlas.album import MISTAKES, Album
from microtome.atlas.planning.plan import blocks, even
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import (
    Absent,
    Amount,
    Amounts,
    Confusion,
    Gallery,
    Number,
    Part,
    Picture,
    Section,
    to_class,
)
from microtome.atlas.wording import images_in_words, with_article

__all__ = ["PREDICTIONS", "accuracy", "probabilities"]

_READABLE = 40  # a confusion matrix with more classes is not readable
_TOP = 5  # classes in the list of probabilities
_CONFUSED = 10  # number of confused classes shown
_EXAMPLES = 16  # images of a class on its page, if fewer are shown on other pages
_AVERAGED = {False: 25, True: 200}  # images of an average, of photos and of small images
_BLOCK = 25  # images that are read at a time


def probabilities(album: Album, index: int) -> Amounts:
    """The most probable classes of an image; of a head without probabilities its largest values."""
    shares, truth = album.seen.readout[index], int(album.seen.labels[index])
    probable = album.seen.quantity == "probability"
    order = shares.argsort(descending=True, stable=True)[:_TOP].tolist()
    if truth >= 0 and truth not in order:
        order = [*order[: _TOP - 1], truth]
    predicted = order[0]
    marks = {predicted: "predicted", truth: "true"} if predicted != truth else {predicted: "true and predicted"}
    scale = 100 if probable else 1
    rows = tuple(
        Amount(album.class_name(i), scale * float(shares[i]), to_class(i), mark=marks.get(i, "")) for i in order
    )
    if probable:
        return Amounts(rows, "%", "The most probable classes.")
    return Amounts(rows, "", "The largest values of the output.", signed=True)


# -- overview ------------------------------------------------------------------------------------------------------


def _card(album: Album) -> list[Number]:
    seen = album.seen
    card = [Number("images looked at", len(seen.logits))]
    right, count = _right(album)
    if count > 1:
        low, high = _interval(right, count)
        text = f"{right:,} of {count:,} labelled images; 95 % interval {low:.1f} to {high:.1f} %."
        card.append(Number("accuracy", 100.0 * right / count, "%", explain=text))
    return card


def accuracy(album: Album) -> str:
    """The accuracy of the network with its confidence interval; empty without labels."""
    right, count = _right(album)
    if count < 2:
        return ""
    low, high = _interval(right, count)
    return (
        f"It classifies {right:,} of {count:,} labelled images correctly: {100.0 * right / count:.1f} % "
        f"(95 % interval {low:.1f} to {high:.1f} %)."
    )


def _right(album: Album) -> tuple[int, int]:
    """The number of correctly classified images, and of all labelled images."""
    count = int(album.seen.known.sum())
    return count - int(album.seen.wrong.sum()), count


def _interval(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share in percent, at a confidence of 95 %."""
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _overview(album: Album) -> list[Section]:
    examples = Gallery(
        tuple(album.picture(index) for index in album.images),
        f"{len(album.images)} images with a page of their own; up to half of them are mistakes.",
    )
    return [
        Section("Which classes it confuses", (Part(_confusion(album)),)),
        Section("Its most confident mistakes", (Part(_mistakes(album)),)),
        Section("Images with pages", (Part(examples),)),
    ]


def _confusion(album: Album) -> Confusion | Absent:
    seen = album.seen
    if not bool(seen.known.any()):
        return Absent("The images have no labels, so it is not known which answers are right.")
    classes = seen.logits.shape[1]
    truth, predicted = seen.labels[seen.known], seen.predicted[seen.known]
    pairs = torch.bincount(truth * classes + predicted, minlength=classes * classes).view(classes, classes)
    off = pairs.clone()
    off.fill_diagonal_(0)
    order = (-off.flatten()).argsort(stable=True)[:12].tolist()
    often = tuple((i // classes, i % classes, int(off.flatten()[i])) for i in order if int(off.flatten()[i]))
    counts = tuple(tuple(row) for row in pairs.tolist()) if classes <= _READABLE else None
    what = ": rows are true classes, columns predicted classes. Mistakes are off the diagonal."
    if counts is None:
        total = int(off.sum())
        what = f", {total:,} of them taken for another class. The most frequent confusions come first."
    return Confusion(
        counts,
        often,
        f"{int(seen.known.sum()):,} labelled images{what}",
    )


def _mistakes(album: Album) -> Gallery | Absent:
    if not bool(album.seen.known.any()):
        return Absent("The images have no labels, so mistakes are not known.")
    found = album.seen.mistakes[:MISTAKES]
    total = len(album.seen.mistakes)
    caption = (
        f"{len(found)} of {total} mistakes, the most confident first. Those with a link have a page."
        if found
        else "Every labelled image is given its class."
    )
    pictures = tuple(album.picture(index) for index in found)
    return Gallery(pictures, caption, none="Every labelled image is given its true class.")


# -- classes -------------------------------------------------------------------------------------------------------


def _class_facts(album: Album, index: int) -> list[Number]:
    """Recall and precision of a class."""
    seen = album.seen
    of_class, predicted = seen.labels == index, (seen.predicted == index) & seen.known
    facts = [Number("images of it", int(of_class.sum()))]
    for name, hits, among, text in (
        ("recognised", predicted, of_class, "Its images that are predicted as this class (recall)."),
        ("rightly taken for it", of_class, predicted, "Images predicted as this class that belong to it (precision)."),
    ):
        right, count = int((hits & among).sum()), int(among.sum())
        if count:
            explain = text
            if count > 1:
                low, high = _interval(right, count)
                explain = f"{text} 95 % interval {low:.0f} to {high:.0f} %."
            facts.append(Number(name, f"{right:,} of {count:,}", explain=explain))
    return facts


def _class(album: Album, index: int) -> list[Section]:
    seen = album.seen
    of_class, predicted = seen.labels == index, seen.predicted == index
    of_it = (of_class if bool(of_class.any()) else predicted).nonzero()[:, 0].tolist()
    mistaken = ((of_class | predicted) & seen.wrong).nonzero()[:, 0].tolist()
    examples = _shown(album, f"class-{index}-images", of_it)
    what = "of it" if bool(of_class.any()) else "predicted as this class"
    images = Gallery(
        examples,
        f"{len(examples):,} of {images_in_words(len(of_it))} {what}. Those with a link have a page.",
        none="No image is of this class.",
    )
    wrong = _shown(album, f"class-{index}-mistakes", mistaken)
    mistakes = Gallery(
        wrong,
        f"Images of it that are taken for another class, and images of other classes that are taken for it: "
        f"{len(wrong):,} of {len(mistaken):,}.",
        none="No mistake in either direction.",
    )
    return [
        Section("Its average image", (Part(_average(album, index)),), half=True),
        Section("Its images", (Part(images),), half=True),
        Section("What it is confused with", (Part(_confused(album, index)),), half=True),
        Section("Taken for another class, or falsely for this one", (Part(mistakes),), half=True),
    ]


def _shown(album: Album, file: str, wanted: Sequence[int]) -> tuple[Picture, ...]:
    """The images that other pages show too, and as many others as there is room for."""
    pictures = [album.picture(index) for index in wanted if index in album.thumbnails]
    others = [index for index in wanted if index not in album.thumbnails][: max(0, _EXAMPLES - len(pictures))]
    if others:
        sprite = album.sprites.natural(file, album.small(others))
        pictures += [
            Picture(sprite, place, f"image {album.image_id(index)}, {album.answer(index)}", None, album.answer(index))
            for place, index in enumerate(others)
        ]
    return tuple(pictures)


def _average(album: Album, index: int) -> Gallery | None:
    """The mean of the images of a class; None of fewer than two."""
    of_class = (album.seen.labels == index).nonzero()[:, 0].tolist()
    shown = [of_class[place] for place in even(len(of_class), _AVERAGED[album.pixelated])]
    if len(shown) < 2:
        return None
    mean = torch.stack([album.small(part).sum(0) for part in blocks(shown, _BLOCK)]).sum(0) / len(shown)
    sprite = album.sprites.natural(f"average-{index}", mean[None])
    name = album.class_name(index)
    picture = Picture(sprite, 0, f"the mean of {len(shown)} images of class {name}")
    return Gallery((picture,), f"The mean of {len(shown)} of its images, pixel by pixel.", size="l")


def _confused(album: Album, index: int) -> Amounts | None:
    """The classes that the images of a class are taken for, and those whose images are taken for it."""
    seen = album.seen
    if not bool(seen.known.any()):
        return None
    wrong = seen.wrong
    taken = torch.bincount(seen.predicted[wrong & (seen.labels == index)], minlength=seen.logits.shape[1])
    mistaken = torch.bincount(seen.labels[wrong & (seen.predicted == index)], minlength=seen.logits.shape[1])
    name = with_article(album.class_name(index))
    rows = [
        Amount(album.class_name(other), int(counts[other]), to_class(other), label=text)
        for counts, text in ((taken, f"{name} is taken for it"), (mistaken, f"it is taken for {name}"))
        for other in counts.nonzero()[:, 0].tolist()
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: -row.value)
    caption = "Number of mistakes, by the predicted class of its images, or by the true class of images taken for it."
    return Amounts(tuple(rows[:_CONFUSED]), "", caption)


PREDICTIONS = Topic(
    "predictions",
    sections={"overview": _overview, "class": _class},
    facts={"overview": _card, "class": _class_facts},
)
