"""The mean loss at many points of weight space, with sequential sampling of images; resumable."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError, MicrotomeError, StoreError
from microtome.network import Network
from microtome.option_types import checks_types
from microtome.progress import Clock, Listener
from microtome.trace.tracing import caller_modes
from microtome.training import checkpoints
from microtome.training.image_losses import ImageLosses, Loss, PreparedImages
from microtome.training.landscape.directions import Direction, check_direction

__all__ = ["Evaluation", "Points"]

STATISTICS = ("frozen", "reestimated")
PRECISIONS = ("float32", "bfloat16")
_FIRST = 256  # minimum number of images of a point: a smaller sample underestimates its standard error
_ESTIMATED = 2048  # number of images on which running statistics are re-estimated
_COMPARED, _COMPARED_IMAGES = 9, 512  # points, and images of each, on which bfloat16 is compared with float32
_WRITE = 5.0  # seconds after which finished points are written
_SAME = {"float32": 1e-4, "bfloat16": 1e-2}  # relative difference of a loss between machines
_STORED = ("loss", "error", "accuracy", "images", "skewness")


@dataclass(frozen=True)
class Points:
    """Values at each point: ``loss``, ``error``, ``skewness``, ``accuracy`` and ``images``, (P,) each.

    ``precision_error`` is the largest difference of losses in bfloat16 and float32, at some points; else None.
    """

    loss: Tensor
    error: Tensor
    accuracy: Tensor
    images: Tensor
    skewness: Tensor
    precision_error: float | None = None


class Evaluation:
    """The loss at theta plus multiples of directions, on a private copy of the network.

    Parameters
    ----------
    net, dataset
        The network, theta, and labelled images.
    directions
        Displacements, see :mod:`~microtome.training.landscape.directions`.
    seed
        Random seed of the order of images.
    loss, statistics, tolerance, common, images, batch, precision
        See :class:`~microtome.training.landscape.EvaluationOptions`.

    Attributes
    ----------
    options : dict
        The options that change the numbers, by name.

    Notes
    -----
    theta and directions are stored in float64 and rounded once, so that theta itself, and a network that a direction
    leads to, are exact to the last bit.
    """

    @checks_types
    def __init__(
        self,
        net: Network,
        dataset: Dataset,
        directions: Sequence[Direction],
        *,
        loss: Loss | None = None,
        statistics: str = "frozen",
        tolerance: float | None = None,
        common: bool = True,
        images: int | None = None,
        batch: int | None = None,
        precision: str = "float32",
        seed: int = 0,
    ) -> None:
        if statistics not in STATISTICS:
            raise InputError(f'statistics must be one of {", ".join(STATISTICS)}; got "{statistics}".')
        if tolerance is not None and not tolerance > 0:
            raise InputError(f"tolerance must be a positive share of the loss, such as 0.02; got {tolerance}.")
        if precision not in PRECISIONS:
            raise InputError(f'precision must be one of {", ".join(PRECISIONS)}; got "{precision}".')
        if precision == "bfloat16" and net.dtype != torch.float32:
            raise InputError(f'precision="bfloat16" is for a network in float32; this one is in {net.dtype}.')
        self._precision, self._device = precision, net.device.type
        self._copy = ImageLosses(net, loss, quick=True)
        for direction in directions:
            check_direction(direction, self._copy.state)
        shuffled = tolerance is not None or not common
        self._data = PreparedImages(
            net, dataset, labelled=loss is None, count=images, shuffled=shuffled, batch=batch, layout=self._copy.layout,
            seed=seed,
        )  # fmt: skip
        self._statistics, self._tolerance, self._common, self._seed = statistics, tolerance, common, seed
        self._moved = [name for name in self._copy.state if any(name in direction for direction in directions)]
        home = torch.device("cpu") if net.device.type == "mps" else net.device  # mps has no float64
        self._theta = {name: self._copy.state[name].detach().to(home, torch.float64, copy=True) for name in self._moved}
        self._directions = [
            {name: value.to(home, torch.float64) for name, value in direction.items()} for direction in directions
        ]
        self.options: dict[str, Any] = {
            "loss": loss, "statistics": statistics, "tolerance": tolerance, "common": common, "images": images,
            "precision": precision,
        }  # fmt: skip
        self._settings = {
            "network": net.fingerprint,
            "directions": [_digest(direction) for direction in directions],
            "loss": "cross-entropy" if loss is None else getattr(loss, "__name__", type(loss).__name__),
            "statistics": statistics,
            "tolerance": tolerance,
            "common": common,
            "images": [len(self._data), self._data.batch, seed],
            "precision": precision,
        }

    def treatment(self, found: Points) -> dict[str, str]:
        """How running statistics and rounding are treated, in words for results and figures."""
        words = {"running statistics": self.statistics}
        if found.precision_error is not None:
            words["precision"] = f"bfloat16, {found.precision_error:.2g} off float32 at most at {_COMPARED} points"
        return words

    @property
    def statistics(self) -> str:
        """How running statistics are treated, in words."""
        if not self._copy.norms:
            return "none"
        if self._statistics == "frozen":
            buffers = {name for name, _ in self._copy.model.named_buffers()}
            return "moved with the weights" if buffers & set(self._moved) else "frozen"
        return f"re-estimated at each point on {min(_ESTIMATED, len(self._data)):,} images"

    def at(self, points: Tensor, *, folder: Path | str | None = None, progress: Listener | None = None) -> Points:
        """The loss at points (P, D), as multiples of the D directions.

        Parameters
        ----------
        points
            Coordinates.
        folder
            Folder for finished points, written every few seconds and when the work is interrupted; the same call
            resumes from there.
        progress
            Called after each point with its ``loss``.

        Raises
        ------
        StoreError
            The folder holds points of other settings, or cannot be written.
        """
        found = torch.full((len(points), len(_STORED)), float("nan"), dtype=torch.float64, device="cpu")
        done = torch.zeros(len(points), dtype=torch.bool, device="cpu")
        store = (
            None if folder is None else _Store(Path(folder), {**self._settings, **self._images_digest(), **_at(points)})
        )
        if store is not None:
            store.resume(found, done)
            self._check_stored(points, found, done, store.folder)
        clock, written = Clock(progress, len(points), first=int(done.sum())), time.monotonic()
        try:
            for place in (~done).nonzero()[:, 0].tolist():
                found[place] = self._point(points[place], place)
                done[place] = True
                clock.step("loss surface", int(done.sum()), loss=float(found[place, 0]))
                if store is not None and time.monotonic() - written > _WRITE:
                    store.write(found, done)
                    written = time.monotonic()
        finally:
            if store is not None:
                store.write(found, done)
        off = self._precision_error(points) if self._precision == "bfloat16" else None
        return Points(found[:, 0], found[:, 1], found[:, 2], found[:, 3].long(), found[:, 4], off)

    def _check_stored(self, points: Tensor, found: Tensor, done: Tensor, folder: Path) -> None:
        """Evaluate a finished point again, since settings tell neither other images in the middle nor another loss."""
        if not bool(done.any()):
            return
        place = int(torch.where(done, points.abs().sum(1), torch.inf).argmin())
        was, now = float(found[place, 0]), float(self._point(points[place], place)[0])
        close = math.isclose(was, now, rel_tol=_SAME[self._precision], abs_tol=1e-9)
        if not close and (math.isfinite(was) or math.isfinite(now)):
            raise StoreError(
                f"{folder} holds points of other images or of another loss: at one of them the mean loss is {now:.6g} "
                f"and was {was:.6g}. Give the same ones, delete the folder or choose another."
            )

    def _precision_error(self, points: Tensor) -> float:
        """Largest difference of the mean losses in both precisions, on the same images; inf if one is not finite."""
        worst = 0.0
        for place in sorted({at * (len(points) - 1) // (_COMPARED - 1) for at in range(_COMPARED)}):
            rough, exact = (self._compared(points[place], precision) for precision in ("bfloat16", "float32"))
            if math.isfinite(rough) or math.isfinite(exact):
                worst = max(worst, abs(rough - exact) if math.isfinite(rough) and math.isfinite(exact) else math.inf)
        return worst

    @torch.no_grad()
    def _compared(self, coordinates: Tensor, precision: str) -> float:
        self._move(coordinates.tolist())
        sums = _Sums()
        for images, labels in self._data.batches():
            sums.add(*self._losses(images, labels, precision), labels)
            if sums.count >= _COMPARED_IMAGES:
                break
        return sums.mean

    def _losses(self, images: Tensor, labels: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        with caller_modes.precision(self._device, torch.bfloat16 if precision == "bfloat16" else None):
            return self._copy(images, labels)

    @torch.no_grad()
    def _point(self, coordinates: Tensor, place: int) -> Tensor:
        self._move(coordinates.tolist())
        order = None
        if not self._common:
            order = torch.randperm(
                len(self._data), generator=torch.Generator().manual_seed(self._seed + 1 + place), device="cpu"
            )
        sums = _Sums()
        for images, labels in self._data.batches(order):
            sums.add(*self._losses(images, labels, self._precision), labels)
            if self._finished(sums):
                break
        row = [sums.mean, sums.error, sums.accuracy, sums.count, sums.skewness]
        return torch.tensor(row, dtype=torch.float64, device="cpu")

    def _finished(self, sums: _Sums) -> bool:
        if not math.isfinite(sums.mean):  # and it stays so
            return True
        enough = self._tolerance is not None and sums.count >= _FIRST
        return enough and sums.error <= float(self._tolerance or 0) * abs(sums.mean)

    def _estimated(self) -> Iterator[Tensor]:
        left, seen = min(_ESTIMATED, len(self._data)), 0
        for images, _ in self._data.batches():
            part = images[: left - seen]
            if len(part) == 1 < seen and self._data.batch > 1:  # one image left over has no variance
                return
            seen += len(part)
            yield part
            if seen == left:
                return

    def _move(self, coordinates: list[float]) -> None:
        for name in self._moved:
            value = self._theta[name]
            for coordinate, direction in zip(coordinates, self._directions, strict=True):
                if coordinate != 0 and name in direction:
                    value = value + coordinate * direction[name]
            self._copy.state[name].copy_(value)
        if self._statistics == "reestimated" and self._copy.norms:
            self._copy.reestimate(self._estimated())
        self._copy.refresh()

    def _images_digest(self) -> dict[str, str]:
        first, last = self._data.ends()
        return {"data set": _digest({"first": first, "last": last, "labels": self._data.labels})}


class _Sums:
    """Running mean, standard error, skewness and accuracy, by pairwise updates in float64."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0
        self._squares, self._cubes, self._right, self._labelled = 0.0, 0.0, 0, 0

    def add(self, losses: Tensor, right: Tensor, labels: Tensor) -> None:
        values = losses.detach().to("cpu", torch.float64) if losses.device.type == "mps" else losses.detach().double()
        count, mean = len(values), float(values.mean())
        squares, cubes = float((values - mean).square().sum()), float((values - mean).pow(3).sum())
        apart, whole = mean - self.mean, self.count + count
        self.mean += apart * count / whole
        self._cubes += cubes + apart**3 * self.count * count * (self.count - count) / whole**2
        self._cubes += 3 * apart * (self.count * squares - count * self._squares) / whole
        self._squares += squares + apart**2 * self.count * count / whole
        self.count = whole
        self._right += int((right & (labels >= 0)).sum())
        self._labelled += int((labels >= 0).sum())

    @property
    def error(self) -> float:
        if self.count < 2:
            return float("nan")
        return float((self._squares / (self.count - 1) / self.count) ** 0.5)

    @property
    def skewness(self) -> float:
        if math.isnan(self._squares):
            return float("nan")
        return float(self._cubes * self.count**0.5 / self._squares**1.5) if self._squares > 0 else 0.0

    @property
    def accuracy(self) -> float:
        return self._right / self._labelled if self._labelled else float("nan")


class _Store:
    """Finished points in one file of a folder, with their settings."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self._file = folder, folder / "points.safetensors"
        self._settings = json.loads(json.dumps(settings))

    def resume(self, found: Tensor, done: Tensor) -> None:
        """Load the points that an earlier call has finished."""
        if not self._file.is_file():
            return
        try:
            tensors, header = checkpoints.read(self._file)
        except MicrotomeError as error:
            raise StoreError(f"the points in {self._file} cannot be read; delete the file.") from error
        earlier = {"precision": "float32"}  # for folders of earlier versions
        differing = [name for name, value in self._settings.items() if header.get(name, earlier.get(name)) != value]
        if differing:
            raise StoreError(
                f"{self._file.parent} holds points of other settings ({', '.join(differing)}); give the same ones, "
                "delete the folder or choose another."
            )
        found[:, : tensors["found"].shape[1]] = tensors["found"]  # earlier versions stored no skewness
        done.copy_(tensors["done"])

    def write(self, found: Tensor, done: Tensor) -> None:
        """Write the finished points."""
        checkpoints.write(self._file, {"found": found, "done": done}, self._settings)


def _at(points: Tensor) -> dict[str, str]:
    return {"points": _digest({"points": points})}


def _digest(values: Direction) -> str:
    """A digest of named tensors."""
    found = hashlib.sha256()
    for name, value in sorted(values.items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
