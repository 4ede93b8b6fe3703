"""What do the tasks of an atlas leave behind? The results that only its pages need."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import Tensor

from microtome import spaces, units
from microtome.atlas.task import Task
from microtome.network import Network
from microtome.results import Provenance, Result, versions
from microtome.trace.head import read_out

__all__ = ["Kept", "Maps", "Predictions", "Reconstructed", "Refusal", "Similarities", "Strongest", "Tunings"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(Result):
    """Class scores (N, K) of all images, and their labels (N,), -1 where not known.

    ``squash`` turns scores into probabilities (see ``Head``); ``quantity`` is what then is read.
    """

    logits: Tensor
    labels: Tensor
    squash: str = "softmax"
    quantity: str = "probability"

    @functools.cached_property
    def readout(self) -> Tensor:
        """Probabilities (N, K) of the classes, or the values of a network whose output is a value."""
        return read_out(self.logits, self.squash)

    @functools.cached_property
    def said(self) -> Tensor:
        """The predicted classes (N,)."""
        return self.logits.argmax(1)

    @functools.cached_property
    def known(self) -> Tensor:
        """Which images (N,) have a label."""
        return self.labels >= 0

    @functools.cached_property
    def wrong(self) -> Tensor:
        """Which images (N,) have a label and were taken for another class."""
        return self.known & (self.said != self.labels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Maps(Result):
    """One method's maps for some images.

    ``scaled`` (n, H, W) is the map divided by ``size`` (n,), its largest absolute value; ``extra`` are
    a method's own tensors (occlusion: probability, winner, unoccluded), ``numbers`` its certificates (n,).
    """

    scaled: Tensor
    size: Tensor
    target: Tensor
    score: Tensor
    layer: str
    extra: dict[str, Tensor]
    numbers: dict[str, Tensor]

    @property
    def map(self) -> Tensor:
        """The maps (n, H, W)."""
        return self.scaled.float() * self.size[:, None, None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Strongest(Result):
    """By layer: the units with the largest values on each image (n, k), their maps (n, k, h, w) and peaks (n, k)."""

    units: dict[str, Tensor]
    maps: dict[str, Tensor]
    peaks: dict[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstructed(Result):
    """Reconstructions of the strongest patches of units (n, ranks, h, w): summed over channels, as they are shown."""

    units: list[int]
    maps: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Tunings(Result):
    """The tuning of several layers."""

    layers: dict[str, units.Tuning]


@dataclass(frozen=True, eq=False, kw_only=True)
class Kept(Result):
    """By layer the kept part of each image (n, C, H, W), and by layer and image what is known of the lost share.

    ``share``, ``error``, ``null_share``, ``known`` and ``reached`` are (layers, n); see ``spaces.KeptAndLost``.
    """

    layers: list[str]
    kept: dict[str, Tensor]
    share: Tensor
    error: Tensor
    null_share: Tensor
    known: Tensor
    reached: Tensor
    threshold: float

    @classmethod
    def of(cls, found: spaces.KeptAndLost) -> Kept:
        """At half precision, for they are only looked at; the lost part is what is missing in the picture."""
        kept = {name: found.kept[place].half() for place, name in enumerate(found.layers)}
        return cls(
            provenance=found.provenance,
            layers=found.layers,
            kept=kept,
            share=found.share.float(),
            error=found.error.float(),
            null_share=found.null_share.float(),
            known=found.known,
            reached=found.reached.float(),
            threshold=found.threshold,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarities(Result):
    """How alike the units of several layers answer."""

    layers: dict[str, units.Similarity]


@dataclass(frozen=True, eq=False, kw_only=True)
class Refusal(Result):
    """Why a method cannot be used here; the page shows the reason in the method's place."""

    reason: str

    @classmethod
    def of(cls, net: Network, task: Task, reason: str) -> Refusal:
        """The refusal of a task."""
        made = Provenance(task.job, dict(task.parameters), net.fingerprint, versions=versions())
        return cls(provenance=made, reason=reason)
