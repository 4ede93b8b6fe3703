"""Which images and classes get pages, and what is asked of each image? Mistakes first, then evenly over the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.atlas.findings import Predictions

__all__ = ["chosen_classes", "chosen_images", "questions", "spread"]


def chosen_images(seen: Predictions, count: int) -> list[int]:
    """Images that get pages: up to half of them mistakes, the surest first; the others spread over the classes.

    Examples
    --------
    >>> from microtome.results import Provenance
    >>> scores = torch.tensor([[3.0, 0], [0, 1], [0, 2], [4, 0]])
    >>> seen = Predictions(provenance=Provenance(method=""), logits=scores, labels=torch.tensor([0, 1, 0, 0]))
    >>> chosen_images(seen, 2)
    [0, 2]
    """
    total = len(seen.logits)
    wrong = seen.wrong.nonzero()[:, 0]
    sure = seen.readout.amax(1)
    mistakes = wrong[(-sure[wrong]).argsort(stable=True)].tolist()[: count // 2]
    taken, bad = set(mistakes), set(wrong.tolist())
    rest = [index for index in spread(seen.labels if bool(seen.known.any()) else seen.said) if index not in taken]
    ordered = [index for index in rest if index not in bad] + [index for index in rest if index in bad]
    return sorted([*mistakes, *ordered[: min(count, total) - len(mistakes)]])


def spread(classes: Tensor) -> list[int]:
    """Indices in an order that goes round the classes, the first of each, then the second of each, ...

    Examples
    --------
    >>> spread(torch.tensor([5, 5, 5, 7, 7]))
    [0, 3, 1, 4, 2]
    """
    turns: dict[int, int] = {}
    keyed = []
    for index, label in enumerate(classes.tolist()):
        turns[label] = turns.get(label, -1) + 1
        keyed.append((turns[label], label, index))
    return [index for _, _, index in sorted(keyed)]


def chosen_classes(seen: Predictions, count: int) -> list[int]:
    """Classes that get pages: all if there are few, otherwise those that the images show most."""
    total = seen.logits.shape[1]
    if total <= count:
        return list(range(total))
    shown = torch.cat([seen.said, seen.labels[seen.known]])
    counts = torch.bincount(shown, minlength=total)
    return sorted((-counts).argsort(stable=True)[:count].tolist())


def questions(seen: Predictions, images: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each image the class said, and the one to set against it: the true one, or the runner-up."""
    scores = seen.logits[list(images)]
    order = scores.argsort(dim=1, descending=True, stable=True)
    said = order[:, 0]
    truth = seen.labels[list(images)]
    second = order[:, min(1, order.shape[1] - 1)]
    other = torch.where((truth >= 0) & (truth != said), truth, second)
    return said.tolist(), other.tolist()
