"""A network in the explorer: its layers, pictures by name, and copies with some units changed."""

from __future__ import annotations

import collections
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from microtome import registry, units
from microtome.atlas.planning.budget import budget
from microtome.atlas.planning.network_summary import shown_layers
from microtome.data import Images, adapt
from microtome.errors import InputError
from microtome.explorer.kept_pictures import KeptPictures
from microtome.explorer.questions import Edited
from microtome.loading import RunConfig, Subject
from microtome.network import Network
from microtome.trace import Layer

__all__ = ["LiveNetwork", "watched"]

_EDITED = 32  # number of changed networks in memory; they share the weights
_SLOW = 10.0  # forward passes from which a method counts as slow
_OWN_PANEL = ("occlusion",)  # has its own answer, which is shown while it is computed
SMALL = 64  # largest side of a picture whose pixels are shown as squares and that can be drawn by hand


@dataclass(frozen=True, eq=False)
class LiveNetwork:
    """One checkpoint with its images.

    Attributes
    ----------
    subject : Subject
        Network and images.
    name : str
        Its name on the page.
    config : RunConfig or None
        How to open it again, for the Python code of a frozen view; None if it was given as an object.
    """

    subject: Subject
    name: str
    config: RunConfig | None = None

    _edited: collections.OrderedDict[tuple[Edited, ...], Network] = field(
        default_factory=collections.OrderedDict, init=False, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def net(self) -> Network:
        """The network as it is."""
        return self.subject.net

    @property
    def small(self) -> bool:
        """Whether pixels are shown as squares."""
        return max(self.net.input_shape[1:]) <= SMALL

    @property
    def layers(self) -> list[Layer]:
        """Layers whose units can be shown, in the order they run."""
        return [layer for layer in self.net.layers.values() if layer.units and layer.axes.image_axis is not None]

    @property
    def first_layer(self) -> str:
        """The layer that is shown first: the first layer that an atlas has pages for."""
        known = [layer.name for layer in self.layers]
        if not known:
            raise InputError(
                f"{self.net.name} has no layer with separate values for each image, so there is nothing to show."
            )
        shown = [name for name in shown_layers(self.net, budget("quick")) if name in known]
        return (shown or known)[0]

    @property
    def methods(self) -> list[dict[str, Any]]:
        """Attribution methods, quick ones first."""
        found = [method for name, method in registry.methods("attribution").items() if name not in _OWN_PANEL]
        rows = [{"name": m.name, "signed": m.signed, "slow": m.cost > _SLOW, "quantity": m.quantity} for m in found]
        return sorted(rows, key=lambda row: (row["slow"], row["name"]))

    def edited(self, edits: Sequence[Edited]) -> Network:
        """The network with some units changed; made once for the same changes."""
        if not edits:
            return self.net
        with self._lock:
            table, key = self._edited, tuple(edits)
            if key not in table:
                table[key] = units.intervene(self.net, **changes(edits))
                while len(table) > _EDITED:
                    table.popitem(last=False)
            table.move_to_end(key)
            return table[key]

    def image(self, name: str, kept: KeptPictures) -> Tensor:
        """A picture (1, C, H, W) in the network's range of pixels.

        Raises
        ------
        InputError
            The picture does not exist, or does not fit the network.
        """
        source, _, rest = name.partition(":")
        if source == "data":
            count = len(self.subject.images)
            if int(rest) >= count:
                raise InputError(f"the data set holds {count:,} images, counted from 0; there is no image {rest}.")
            return self.subject.pictures([int(rest)])
        pixels = kept.find(rest)
        if tuple(pixels.shape) != self.net.input_shape:
            raise InputError(f"the picture is {tuple(pixels.shape)}, the network takes {self.net.input_shape}.")
        return adapt(Images(pixels[None]), self.net).fetch(torch.tensor([0], device="cpu"))[0]

    def label(self, name: str) -> tuple[int, str]:
        """Class (-1 if unknown) and name of a picture of the data set."""
        source, _, rest = name.partition(":")
        if source != "data" or int(rest) >= len(self.subject.images):
            return -1, ""
        known = self.subject.labels
        return -1 if known is None else int(known[int(rest)]), self.subject.name(int(rest))

    def window(self) -> tuple[int, int]:
        """Side and step of the occluding window: a seventh of the picture, and a third of that."""
        side = min(self.net.input_shape[1:])
        window = min(max(2, side // 7), side)
        return window, max(1, math.ceil(window / 3) if not self.small else 1)


def changes(edits: Sequence[Edited]) -> dict[str, dict[str, dict[int, float]]]:
    """The arguments of ``units.intervene``; of several edits of one unit the last one counts."""
    last = {(edit.layer, edit.unit): edit for edit in edits}
    found: dict[str, dict[str, dict[int, float]]] = {}
    for (layer, unit), edit in last.items():
        kind, number = ("scale", edit.scale) if edit.scale is not None else ("clamp", edit.clamp)
        found.setdefault(kind, {}).setdefault(layer, {})[unit] = float(number or 0.0)
    return found


class _Watched(Network):
    """The same network, which checks before each pass whether it may continue."""

    def __init__(self, net: Network, pause: Callable[[], None]) -> None:
        vars(self).update(vars(net))  # another view of a network that has already been read
        self._pause = pause

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the model takes them; every pass begins with it."""
        self._pause()
        return super().normalise(images)


def watched(net: Network, pause: Callable[[], None]) -> Network:
    """The same network, which calls ``pause`` before each pass; an exception from ``pause`` ends the computation.

    So any method can be cancelled, or made to wait, between two passes.
    """
    return _Watched(net, pause)
