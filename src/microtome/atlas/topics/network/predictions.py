"""Predictions: accuracy, the confusion matrix, mistakes, and the images of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.atlas.album import MISTAKES, Album
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Absent, Amount, Amounts, Confusion, Gallery, Number, Part, Section, to_class

__all__ = ["PREDICTIONS", "probabilities"]

_READABLE = 40  # classes up to which a confusion matrix can be read
_TOP = 5  # classes in the list of probabilities


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
    count = int(seen.known.sum())
    if count:
        right = count - int(seen.wrong.sum())
        text = f"{right} of {count} labelled images"
        card.append(Number("accuracy", 100.0 * right / count, "%", explain=f"{text} are given their true class."))
    return card


def _overview(album: Album) -> list[Section]:
    examples = Gallery(
        tuple(album.picture(index) for index in album.images),
        "Images with a page of their own; up to half of them are mistakes.",
    )
    return [
        Section("What it mistakes for what", (Part(_confusion(album)),)),
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
    return Confusion(counts, often, "Rows are true classes, columns predicted ones; mistakes are off the diagonal.")


def _mistakes(album: Album) -> Gallery | Absent:
    if not bool(album.seen.known.any()):
        return Absent("The images have no labels, so mistakes are not known.")
    found = album.seen.mistakes[:MISTAKES]
    caption = "The most confident mistakes come first." if found else "Every labelled image is given its class."
    pictures = tuple(album.picture(index) for index in found)
    return Gallery(pictures, caption, none="None of the images was misread.")


# -- classes -------------------------------------------------------------------------------------------------------


def _class_facts(album: Album, index: int) -> list[Number]:
    seen = album.seen
    of_class, predicted = seen.labels == index, seen.predicted == index
    facts = [Number("images of it", int(of_class.sum())), Number("images taken for it", int(predicted.sum()))]
    if bool(of_class.any()):
        facts.append(
            Number(
                "found", _percent(predicted[of_class]), "%", explain="Recall: share of its images that are recognised."
            )
        )
    if bool((predicted & seen.known).any()):
        explain = "Precision: share of the images taken for it that are of it."
        facts.append(Number("right", _percent(of_class[predicted & seen.known]), "%", explain=explain))
    return facts


def _percent(which: Tensor) -> float:
    return 100 * float(which.float().mean())


def _class(album: Album, index: int) -> list[Section]:
    seen, known = album.seen, set(album.thumbnails)
    of_class, predicted = seen.labels == index, seen.predicted == index
    examples = [i for i in (of_class if bool(of_class.any()) else predicted).nonzero()[:, 0].tolist() if i in known]
    wrong = [i for i in ((of_class | predicted) & seen.wrong).nonzero()[:, 0].tolist() if i in known]
    images = Gallery(
        tuple(album.picture(i) for i in examples),
        "Its images that have pages.",
        none="None of the images is of this class.",
    )
    mistakes = Gallery(
        tuple(album.picture(i) for i in wrong),
        "Taken for another class, or falsely for this one.",
        none="No mistake in either direction.",
    )
    return [
        Section("Its images", (Part(images),)),
        Section("Taken for another class, or falsely for this one", (Part(mistakes),)),
    ]


PREDICTIONS = Topic(
    "predictions",
    sections={"overview": _overview, "class": _class},
    facts={"overview": _card, "class": _class_facts},
)
