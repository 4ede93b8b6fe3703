"""One pass whose values are followed: their shapes, their axes, and digests that show which image changes them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.trace.axes import axis_rules
from microtome.trace.axes.axis_labels import Known, Labels, pictures
from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axis, Factor
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import CONVOLUTIONS, those
from microtome.trace.rectifiers.value_function import version

_REDUCING = those(role="reduction")
# They compute each image of a batch (the first axis) by itself.
_BY_IMAGE = those(role=("activation", "convolution", "pooling", "averaging")) | {"linear", "batch_norm"}
# They return the values of an earlier operation, which has been measured.
_MOVING = those(role=("view", "split", "copy", "cast", "selection"), layer=False) | {"expand"}


@dataclass
class Seen:
    """One value of a pass: its shape, its labels, and the value itself or numbers that change when it does."""

    kind: str
    shape: tuple[int, ...]
    labels: Labels | None = None
    axis: int | None = None  # the one that varies
    value: Tensor | None = None  # if it is kept; later operations may write into it
    version: int = 0  # its version counter when it was kept
    digest: NDArray[np.float64] | None = None  # a number for each index of the axis
    why: str = ""
    whole: str = ""  # the operation that reduced all images to one value, if this value is computed from it
    over: bool = False  # an operation that reduces all images to one value on which values of images then depend
    apart: bool = False  # an operation that computes each image of its value from the same image of what it reads
    handed_on: bool = False  # a value that another operation has made, which has been looked at


def kept(kind: str, value: Tensor) -> Seen:
    """A value of a pass that is kept."""
    return Seen(kind, tuple(value.shape), value=value, version=version(value))


class KeptPass:
    """Keeps the values of one pass."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        outputs = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        if outputs:
            self.seen[call.name] = kept(call.kind, outputs[0])

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""
        outputs = tensors(output)
        if outputs:
            self.seen[name] = kept(type(module).__name__, outputs[0])


@dataclass
class FollowedPass:
    """Follows one pass: always the shapes; labels and image axes if the values for another batch size are known.

    Parameters
    ----------
    images : Tensor
        Input of the model.
    other : mapping of str to Seen, with the number of its images
        The same values for another batch size; without them no axis is measured.
    look : function, optional
        Called with each value whose axis has been measured: (name, ``Seen``, value).
    labelled : bool
        Whether operators pass on the labels of axes.

    Attributes
    ----------
    parted : bool
        Whether an operation read only some images of the batch, or laid them out other than in one row.
    """

    images: Tensor
    other: Mapping[str, Seen] | None = None
    other_count: int = 0
    look: Callable[[str, Seen, Tensor], None] | None = None
    labelled: bool = True
    seen: dict[str, Seen] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._labels: dict[int, tuple[weakref.ref[Tensor], Labels | None, str]] = {}
        self._note(self.images, pictures(self.images.shape), "input")
        self.seen["input"] = Seen("input", tuple(self.images.shape), pictures(self.images.shape), 0)
        self._unread: list[str] = []
        self.parted = False
        self.sources: dict[str, str] = {}  # input of a layer -> name of that value

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: remember the value that it reads."""
        read = tensors(args)
        self._read_by(name, read)
        if not read:  # called by keyword: its input is that of its first operation
            self._unread.append(name)

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        outputs = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        if not outputs:
            return
        self.order.append(call.name)
        if self.labelled:
            for name in (call.name, *self._unread):
                self._read_by(name, call.tensors)
            self._unread.clear()
        found = (
            axis_rules.carried(call, self._known, outputs, len(self.order)) if self.labelled else [None] * len(outputs)
        )
        seen = Seen(call.kind, tuple(outputs[0].shape), found[0])
        seen.apart = self.labelled and self._keeps_apart(call, seen.shape)
        self._measure(call.name, outputs[0], seen)
        if self.labelled:
            seen.whole = call.name if self._reduces_images(call, seen) else self._reads_whole(call)
            lost = seen.axis is None and self.other is not None and not seen.whole
            self.parted |= lost and self._reads_images(call)
        self.seen[call.name] = seen
        if seen.whole and seen.axis is not None:
            self.seen[seen.whole].over = True
        for value, labels in zip(outputs, [seen.labels, *found[1:]], strict=True):
            self._note(value, labels, call.name)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""
        outputs = tensors(output)
        if not outputs:
            return
        value = outputs[0]
        known = self._labels.get(id(value))
        if known is not None and known[0]() is value and known[2] in self.seen:
            origin = self.seen[known[2]]
            same = origin.shape == tuple(value.shape)
            seen = Seen(origin.kind, tuple(value.shape), known[1], origin.axis if same else None)
            seen.digest, seen.why = origin.digest, origin.why
        else:  # an opaque module, or one that returns a value of no observed operation
            seen = Seen(type(module).__name__, tuple(value.shape))
            if self.labelled and name not in self.seen:
                images = Known(self.images.shape, pictures(self.images.shape))
                seen.labels = _opaque(images, seen.shape) if value is not self.images else images.labels
            self._measure(name, value, seen)
            self._note(value, seen.labels, name)
        self.seen[name] = seen

    def _read_by(self, name: str, read: list[Tensor]) -> None:
        if read and name not in self.sources:
            found = self._labels.get(id(read[0]))
            if found is not None and found[0]() is read[0]:
                self.sources[name] = found[2]

    def _note(self, value: Tensor, labels: Labels | None, name: str) -> None:
        self._labels[id(value)] = weakref.ref(value), labels, name

    def _known(self, value: Any) -> Known:
        if not isinstance(value, Tensor):
            return Known((), None)
        found = self._labels.get(id(value))
        return Known(tuple(value.shape), found[1] if found is not None and found[0]() is value else None)

    def _reduces_images(self, call: Call, seen: Seen) -> bool:
        if call.kind == "batch_norm" and call.arguments.get("training"):
            return True
        if call.kind not in _REDUCING or seen.axis is not None or self.other is None:
            return False
        return self._holds_images(call.input)

    def _reads_whole(self, call: Call) -> str:
        """The operation that reduced all images to a value that this one reads; gradients of a sum are none."""
        if call.kind == "grad":
            return ""
        read = (found for value in call.tensors if (found := self._labels.get(id(value))) and found[0]() is value)
        return next((self.seen[name].whole for _, _, name in read if name in self.seen and self.seen[name].whole), "")

    def _reads_images(self, call: Call) -> bool:
        return any(self._holds_images(value) for value in call.tensors)

    def _holds_images(self, value: Any) -> bool:
        labels = self._known(value).labels
        return labels is not None and any(f.role == IMAGE for axis in labels.axes for f in axis)

    def _keeps_apart(self, call: Call, shape: tuple[int, ...]) -> bool:
        if call.kind not in _BY_IMAGE or not shape or shape[0] != len(self.images):
            return False
        value, bound = call.input, call.arguments
        labels = [found for read in call.tensors if (found := self._known(read).labels) is not None]
        if len(labels) != 1 or self._known(value).labels is None or value.dim() < 2 or bound.get("training"):
            return False
        batched = call.kind not in CONVOLUTIONS or bound["weight"].dim() == value.dim()
        return batched and labels[0].axes[0] == (Factor(IMAGE, shape[0]),)

    # -- what varies with the number of images ---------------------------------------------------------------------

    def _measure(self, name: str, value: Tensor, seen: Seen) -> None:
        """Find the axis that grows with the images, mark it, and look at the value."""
        if self.other is None:
            return
        single = self.other.get(name)
        before = None if single is None else single.shape
        count, other = len(self.images), self.other_count
        if before is None or len(before) != len(seen.shape):
            seen.labels, seen.why = None, "its axes depend on the number of images"
            return
        varying = [k for k, (a, b) in enumerate(zip(seen.shape, before, strict=True)) if a != b]
        if len(varying) == 1:
            place = varying[0]
            step, rest = divmod(seen.shape[place] - before[place], count - other)
            if rest or step < 1 or step * count != seen.shape[place]:
                seen.labels, seen.why = _without_images(seen.labels), "images and other things share an axis"
            else:
                seen.axis = place
                seen.labels = _with_images(seen.labels, seen.shape, place, count, step)
        elif len(varying) > 1:
            seen.labels, seen.why = _without_images(seen.labels), "more than one axis grows with the images"
        else:
            seen.labels = _without_images(seen.labels)
        plain = seen.axis is not None and seen.shape[seen.axis] == count
        seen.handed_on = plain and seen.kind in _MOVING
        if self.look is not None:
            self.look(name, seen, value)


class Digests:
    """Random projections of values: one number for every index of an axis, which changes when the values do."""

    def __init__(self) -> None:
        self._weights = torch.empty(0, dtype=torch.float32, device="cpu")

    def take(self, name: str, seen: Seen, value: Tensor) -> None:
        """Keep the digest of a value."""
        if not seen.handed_on:
            seen.digest = self.of(value, seen.axis)

    def of(self, value: Tensor, axis: int | None) -> NDArray[np.float64]:
        """One number per index of the axis, or one for all."""
        if value.is_sparse or value.is_quantized or value.numel() == 0:
            return np.zeros(1)
        value = torch.view_as_real(value) if value.is_complex() else value
        value = value if value.dtype in (torch.float32, torch.float64) else value.float()
        rows = value.reshape(1, -1) if axis is None else value.movedim(axis, 0).reshape(value.shape[axis], -1)
        weights = self._up_to(rows.shape[1]).to(rows)
        found = (rows @ weights).double().cpu().numpy()
        if not np.isfinite(found).all():  # masks of minus infinity
            found = (rows.nan_to_num(nan=3.0, posinf=5.0, neginf=-5.0) @ weights).double().cpu().numpy()
        return found

    def _up_to(self, length: int) -> Tensor:
        if len(self._weights) < length:
            # Multiples of the golden ratio are spread evenly over [0, 1); no random state is touched.
            spread = torch.arange(1, length + 1, dtype=torch.float64, device="cpu") * 0.6180339887498949
            self._weights = (spread.frac() - 0.5).float()
        return self._weights[:length]


def _with_images(labels: Labels | None, shape: tuple[int, ...], place: int, count: int, rest: int) -> Labels:
    """Labels with the images on the axis where they were measured."""
    axes: list[Axis] = list(labels.axes) if labels is not None else [()] * len(shape)
    axis = axes[place]
    known = any(f.role == IMAGE and f.size == count for f in axis) and math.prod(f.size for f in axis) == count * rest
    if not known:
        role = UNIT if axis and all(f.role == UNIT for f in axis) else PLACE
        axes[place] = (Factor(IMAGE, count), *([Factor(role, rest)] if rest > 1 else []))
    alone = [axis if k == place else _replaced(axis) for k, axis in enumerate(axes)]
    return Labels(tuple(alone), labels.since if labels is not None else 0)


def _without_images(labels: Labels | None) -> Labels | None:
    if labels is None:
        return None
    return Labels(tuple(_replaced(axis) for axis in labels.axes), labels.since)


def _replaced(axis: Axis) -> Axis:
    """An axis without the wrongly assumed images."""
    return tuple(Factor(PLACE, f.size) if f.role == IMAGE else f for f in axis)


def _opaque(images: Known, shape: tuple[int, ...]) -> Labels:
    """The most likely output of an opaque module: maps with channels first, or features last."""
    if len(shape) == 4:
        return Labels(((Factor(IMAGE, images.shape[0]),), (Factor(UNIT, shape[1]),),
                       (Factor(ROW, shape[2]),), (Factor(COLUMN, shape[3]),)))  # fmt: skip
    axes: list[Axis] = [(Factor(PLACE, size),) if size > 1 else () for size in shape]
    if shape:
        axes[-1] = (Factor(UNIT, shape[-1]),)
        axes[0] = (Factor(IMAGE, images.shape[0]),) if len(shape) > 1 else axes[0]
    return Labels(tuple(axes))
