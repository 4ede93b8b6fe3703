"""The head of a network: which output holds the class scores, and what its numbers mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import ModelError
from microtome.trace.tracing.tracer import Tracer

# The possible meanings of an output: a score becomes a probability by softmax over the classes, by the
# sigmoid of each, is one already, or has none.
OUTPUTS = ("logits", "sigmoid", "probabilities", "value")

Path = tuple[str | int, ...]

_FIRST = ("logits", "out")  # the names of the scores in transformers and torchvision


@dataclass(frozen=True)
class Head:
    """The place of a network's class scores, and how probabilities follow from them.

    Attributes
    ----------
    classes : int
        Scores per image, K; 0 if the model gives none.
    path : tuple of str and int
        Keys that lead from the model's output to the tensor of the head; empty if the output is that tensor.
    output : str
        ``"logits"``, ``"sigmoid"``, ``"probabilities"`` or ``"value"``.
    squash : str
        The function from scores to probabilities: ``"softmax"``, ``"sigmoid"``, or empty for none.
    layer : str
        The recorded value that holds the scores, if a softmax or sigmoid closes the model; else empty, and the
        returned tensor holds them.
    closing : str
        ``"softmax"``, ``"log_softmax"``, ``"sigmoid"`` or ``"log_sigmoid"``, if one closes the model.
    cut : str
        The first operation that reads the scores, if the model is closed by one of these.
    reason : str
        The reason for this reading, in words.
    problem : str
        Why there are no class scores; empty if there are.
    """

    classes: int = 0
    path: Path = ()
    output: str = "logits"
    squash: str = "softmax"
    layer: str = ""
    closing: str = ""
    cut: str = ""
    reason: str = ""
    problem: str = ""

    @property
    def record(self) -> list[str]:
        """The layer that a tracer must record to get the scores; empty if the model returns them."""
        return [self.layer] if self.layer else []

    def scores(self, tracer: Tracer, output: Any, images: int) -> Tensor:
        """The class scores (N, K) at the end of a pass that recorded ``record``.

        Raises
        ------
        ModelError
            When the model does not give one row of finite scores for each of the ``images``.
        """
        if self.problem:
            raise ModelError(self.problem)
        found = tracer.value[self.layer] if self.layer else tracer.content(at_path(output, self.path))
        return self.rows(found, images)

    def rows(self, output: Tensor, images: int) -> Tensor:
        """An output as (N, K): axes of one element are removed or added.

        Raises
        ------
        ModelError
            When it does not hold K finite numbers for each image.
        """
        scores = as_rows(output, images, self.classes)
        if scores is None:
            raise ModelError(
                f"class scores of shape ({images}, {self.classes}) were expected, one row per image; the network gives "
                f"{tuple(output.shape)}. Wrap the model so that it returns one score per class and image."
            )
        if not bool(torch.isfinite(scores).all()):
            raise ModelError(
                "the class scores hold NaN or infinity; check the weights and the normalisation of the network."
            )
        return scores

    def readout(self, scores: Tensor) -> Tensor:
        """The readout of scores (..., K): probabilities, or the values themselves if the head gives values."""
        return read_out(scores, self.squash)

    def decided(self, scores: Tensor) -> Tensor:
        """The predicted class of each image, (N,): the largest score; 1 for a single probability above one half."""
        return (self.readout(scores)[:, 0] > 0.5).long() if scores.shape[1] == 1 else scores.argmax(1)

    @property
    def decisions(self) -> int:
        """The number of classes: two for a single probability, none for values."""
        return 0 if self.output == "value" else max(self.classes, 2)

    @property
    def quantity(self) -> str:
        """The quantity of ``readout``: ``"probability"`` or ``"value"``."""
        return "value" if self.output == "value" else "probability"


def read_out(scores: Tensor, squash: str) -> Tensor:
    """Scores (..., K) after their softmax or sigmoid; unchanged where ``squash`` is empty."""
    if squash == "softmax":
        return scores.softmax(-1)
    return scores.sigmoid() if squash == "sigmoid" else scores


def as_rows(output: Tensor, images: int, classes: int = 0) -> Tensor | None:
    """A tensor as one row of numbers per image, (N, K); None if it has another form.

    The images are the first axis; of the other axes all but one have length one. With one image the first axis may
    be missing, as after ``squeeze()``, if ``classes`` gives the number of scores per image.

    Examples
    --------
    >>> [tuple(as_rows(torch.zeros(shape), 2).shape) for shape in ((2, 5), (2, 5, 1, 1), (2,))]
    [(2, 5), (2, 5), (2, 1)]
    >>> as_rows(torch.zeros(5), 1), as_rows(torch.zeros(5), 1, classes=5).shape
    (None, torch.Size([1, 5]))
    """
    if not output.is_floating_point() or output.numel() == 0:
        return None
    if classes == 1 and output.numel() == images == 1:
        return output.reshape(1, 1)
    if output.dim() and len(output) == images and sum(size > 1 for size in output.shape[1:]) <= 1:
        rows = output.reshape(images, -1)
        return rows if classes in (0, rows.shape[1]) else None
    alone = images == 1 and classes > 1 and [size for size in output.shape if size > 1] == [classes]
    return output.reshape(1, classes) if alone else None


def tensors_by_path(output: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """All tensors in a model's output, each with the keys that lead to it."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, item in output.items():
            yield from tensors_by_path(item, (*path, key if isinstance(key, str | int) else str(key)))
    elif isinstance(output, list | tuple):
        names = getattr(output, "_fields", range(len(output)))
        for key, item in zip(names, output, strict=True):
            yield from tensors_by_path(item, (*path, key))
    elif not isinstance(output, type):  # a dataclass, or another object with tensors as attributes
        for key, item in _attributes(output).items():
            if isinstance(item, Tensor) or dataclasses.is_dataclass(output):
                yield from tensors_by_path(item, (*path, key))


def _attributes(output: Any) -> dict[str, Any]:
    """The attributes of an object, also of one with slots, and the properties that usually hold scores."""
    slots = [name for kind in type(output).__mro__ for name in _listed_slots(kind)]
    named = [*getattr(output, "__dict__", {}), *slots, *(name for name in _FIRST if hasattr(type(output), name))]
    return {name: getattr(output, name, None) for name in dict.fromkeys(named)}


def _listed_slots(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def at_path(output: Any, path: Path) -> Tensor:
    """The tensor that keys lead to.

    Raises
    ------
    ModelError
        When the model's output has no such part.
    """
    found = output
    try:
        for key in path:
            found = found[key] if isinstance(key, int) or isinstance(found, Mapping) else getattr(found, key)
    except (KeyError, IndexError, AttributeError, TypeError):
        found = None
    if not isinstance(found, Tensor):
        raise ModelError(
            f'the model returned no tensor "{dotted(path)}" for these images, though it did when the network was read; '
            f"it returned {described(output)}."
        )
    return found


def dotted(path: Path) -> str:
    """Keys as text: ``"aux"``, ``"1"``, ``"1.color"``."""
    return ".".join(map(str, path))


def choose(
    output: Any, images: int, names: int | None, behind: Mapping[int, frozenset[int]], head: str | int | None
) -> tuple[Path, str]:
    """The path of the head in a model's output, and the reason if there is none.

    Parameters
    ----------
    output : object
        Output of the model.
    images : int
        Number of images.
    names : int or None
        Number of class names.
    behind : mapping of int to frozenset of int
        For each returned tensor (by id) the ids of the other returned tensors that it is computed from.
    head : str, int or None
        The head that the user chose.
    """
    found = dict(tensors_by_path(output))
    if head is not None:
        chosen = [path for path in found if dotted(path) == str(head)]
        if not chosen and isinstance(head, int) and -len(found) <= head < len(found):  # a position among named outputs
            chosen = [list(found)[head]]
        rows = [path for path in chosen if as_rows(found[path], images) is not None]
        if rows:
            return rows[0], ""
        what = f"has shape {tuple(found[chosen[0]].shape)}" if chosen else "does not exist"
        return (), f'the head "{head}" {what}: one row of scores per image is expected. The model {_heads(found)}.'
    if not found:
        return (), f"class scores were expected, the model returned {described(output)}."
    rows = [path for path, value in found.items() if as_rows(value, images) is not None]
    for key in _FIRST:
        if (key,) in rows:
            return (key,), ""
    if len(rows) > 1:  # leave out outputs that others are computed from, such as features beside logits
        made_of = frozenset[int]().union(*(behind.get(id(found[path]), frozenset()) for path in rows))
        ends = [path for path in rows if id(found[path]) not in made_of]
        all_behind = len(ends) == 1 and all(
            path == ends[0] or id(found[path]) in behind.get(id(found[ends[0]]), ()) for path in rows
        )
        rows = ends if all_behind else rows
    if len(rows) > 1 and names is not None:
        named = [path for path in rows if found[path].numel() == names * images]
        rows = named if len(named) == 1 else rows
    if len(rows) == 1:
        return rows[0], ""
    if rows:
        first = dotted(rows[0])
        option = repr(int(first)) if first.isdigit() else f'"{first}"'
        use = f"use Network(..., head={option}), or --head {first} on the command line"
        return (), f"the model {_heads(found)}, and it is unknown which holds the scores: {use}."
    return (), _no_rows(output, found)


def _heads(found: Mapping[Path, Tensor]) -> str:
    listed = [f'"{dotted(path)}" {tuple(value.shape)}' for path, value in found.items() if path][:8]
    return f"returns the outputs {', '.join(listed)}" if listed else "returns one tensor, which needs no head"


def _no_rows(output: Any, found: Mapping[Path, Tensor]) -> str:
    alone = next(iter(found.values())) if len(found) == 1 else None
    if alone is not None and not alone.is_floating_point():
        came = f"the network gives {alone.dtype} of shape {tuple(alone.shape)} (decided classes, not their scores?)"
    elif alone is not None:
        came = f"the network gives {tuple(alone.shape)}"
    else:
        came = f"the network gives {described(output)}"
    return (
        f"class scores of shape (N, classes) were expected, one row per image; {came}. "
        "Wrap the model so that it returns one score per class and image."
    )


def described(output: Any) -> str:
    """A short description of a model's output.

    Examples
    --------
    >>> described([{"boxes": torch.zeros(7, 4), "scores": torch.zeros(7)}])
    'a list of 1 (a dict of boxes (7, 4), scores (7,))'
    """
    if isinstance(output, Tensor):
        return f"{tuple(output.shape)}"
    kind = type(output).__name__
    if output is None:
        return "None"
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    if isinstance(output, Mapping):
        parts = [f"{key} {described(item)}" for key, item in list(output.items())[:6]]
        return f"{article} {kind} of {', '.join(parts)}" if parts else f"an empty {kind}"
    if isinstance(output, Sequence) and not isinstance(output, str):
        return f"{article} {kind} of {len(output)} ({described(output[0])})" if len(output) else f"an empty {kind}"
    return f"{article} {kind}"
