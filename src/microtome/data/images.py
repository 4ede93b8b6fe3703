"""A data set in memory: bytes with labels and names, converted to floats when read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from microtome import inputs
from microtome.data.picture import STRIP
from microtome.errors import InputError
from microtome.option_types import checks_types

__all__ = ["Images"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to gray
_CHUNK = 1024  # images resized at a time, so that no float copy of the whole set exists


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A data set in memory: one byte for each pixel and channel, converted to floats in [0, 1] when read.

    It is a map-style data set: ``images[i]`` is ``(image, label)``, or the image alone where there are no labels. It
    lies in the processor's memory; the network moves each batch to its own device.

    Parameters
    ----------
    pixels : Tensor, uint8, (N, C, H, W)
        The pictures.
    labels : Tensor, int64, (N,), optional
        A class index for each picture; -1 where a picture has none.
    classes : sequence of str, optional
        The classes' names.
    names : sequence of str, optional
        The pictures' names; by default their running number.
    source : str
        Where the pictures are from, for captions.
    classes_by_name : bool
        Whether a class is one of a network only if it has its name, never by its place.

    Raises
    ------
    InputError
        The shapes do not fit each other, or a label is outside the classes.

    Examples
    --------
    >>> import torch
    >>> two = Images(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), labels=torch.tensor([0, 1]))
    >>> two
    Images(2 images, 1 x 1 x 1, labelled)
    >>> two.images.flatten().tolist()
    [0.0, 1.0]
    >>> image, label = two[1]
    >>> image.item(), label
    (1.0, 1)
    """

    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    source: str = ""
    classes_by_name: bool = False

    def __post_init__(self) -> None:
        given: tuple[tuple[str, Any], ...] = (("pixels", self.pixels), ("labels", self.labels))
        for what, value in given:
            if not isinstance(value, Tensor) and (value is not None or what == "pixels"):
                raise InputError(f"{what} are expected as a tensor, got {type(value).__name__}; see torch.as_tensor.")
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.uint8:
            raise InputError(
                f"pixels are expected as a uint8 tensor (N, C, H, W), got {self.pixels.dtype} of shape "
                f"{tuple(self.pixels.shape)}. Images.from_float takes floats in [0, 1]."
            )
        count = len(self.pixels)
        for what, values in (("labels", self.labels), ("names", self.names)):
            if values is not None and len(values) != count:
                raise InputError(f"{count} images came with {len(values)} {what}; give one for each image.")
        object.__setattr__(self, "pixels", self.pixels.cpu())
        object.__setattr__(self, "classes", None if self.classes is None else tuple(map(str, self.classes)))
        object.__setattr__(self, "names", None if self.names is None else tuple(map(str, self.names)))
        if self.labels is not None:
            if self.labels.ndim != 1 or self.labels.is_floating_point() or self.labels.dtype == torch.bool:
                raise InputError(
                    f"labels are expected as a tensor of whole numbers, (N,), got {self.labels.dtype} of shape "
                    f"{tuple(self.labels.shape)}."
                )
            object.__setattr__(self, "labels", self.labels.to("cpu", torch.int64))
            self._check_labels(self.labels)

    def _check_labels(self, labels: Tensor) -> None:
        if len(labels) and int(labels.min()) < -1:
            raise InputError(f"a label is a class index, or -1 for none, got {int(labels.min())}.")
        if len(labels) and self.classes is not None and int(labels.max()) >= len(self.classes):
            raise InputError(f"label {int(labels.max())} has no name: only {len(self.classes)} classes are given.")

    @classmethod
    def from_float(
        cls,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        source: str = "",
    ) -> Images:
        """Round float images in [0, 1] to bytes.

        Raises
        ------
        InputError
            A value is outside [0, 1] or not finite.
        """
        if not isinstance(images, Tensor):
            raise InputError(
                f"images are expected as a float tensor, got {type(images).__name__}; use torch.as_tensor."
            )
        if images.ndim != 4 or not images.is_floating_point():
            raise InputError(f"float images (N, C, H, W) are expected, got {images.dtype} {tuple(images.shape)}.")
        if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
            raise InputError("images are expected in [0, 1]: divide bytes by 255, and leave normalisation to Network.")
        pixels = (images * 255).round().to(torch.uint8)
        return cls(
            pixels,
            labels,
            None if classes is None else tuple(classes),
            None if names is None else tuple(names),
            source,
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        labelled = "unlabelled" if self.labels is None else "labelled"
        return f"Images({len(self):,} images, {shape}, {labelled})"

    def __getitem__(self, index: int) -> tuple[Tensor, int] | Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = self.pixels[index].to(torch.float32) / 255
        return image if self.labels is None else (image, int(self.labels[index]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each picture."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """All images as floats in [0, 1], converted at each call (four bytes for each value)."""
        return self.pixels.to(torch.float32) / 255

    def name(self, index: int) -> str:
        """The picture's name; its running number where it has none."""
        return f"{index:0{len(str(max(len(self) - 1, 0)))}d}" if self.names is None else self.names[index]

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Some pictures as floats in [0, 1], and their labels."""
        images = self.pixels[indices].to(torch.float32) / 255
        return images, None if self.labels is None else self.labels[indices]

    def subset(self, indices: Tensor | Sequence[int] | range) -> Images:
        """The pictures of these indices, in this order, or those where a mask (N,) is True."""
        chosen = chosen_places(indices, len(self))
        return replace(
            self,
            pixels=self.pixels[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            names=tuple(self.name(i) for i in chosen.tolist()),
        )

    @checks_types
    def sample(self, count: int, *, seed: int = 0) -> Images:
        """Draw ``count`` images without repeats, as evenly over the classes as possible; all if there are fewer.

        The same seed draws the same pictures; they come in the order of the data set.
        """
        if count < 0:
            raise InputError(f"a number of images is expected, got {count}.")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator, device="cpu")
        if self.labels is not None:
            order = order[torch.argsort(_turn(self.labels[order]), stable=True)]
        return self.subset(order[:count].sort().values)

    @checks_types
    def fit(self, input_shape: tuple[int, int, int]) -> Images:
        """The pictures with another number of channels (gray to RGB or back) and size (bilinear, antialiased).

        The shorter side is brought to the target and the rest cut off evenly, as for a folder of photos.
        """
        channels, height, width = inputs.shape(input_shape)
        if (channels, height, width) == self.shape:
            return self
        _check_channels(self.shape[0], channels)
        parts = [
            _resized(_recoloured(chunk.to(torch.float32), channels), height, width)
            .round()
            .clamp(0, 255)
            .to(torch.uint8)
            for chunk in self.pixels.split(_CHUNK)
        ]
        empty = self.pixels.new_empty((0, channels, height, width))
        return replace(self, pixels=torch.cat(parts) if len(self) else empty)


def chosen_places(indices: Any, count: int) -> Tensor:
    """The places (n,) that image numbers, or a mask with True for each image to take, choose among ``count`` images.

    Raises
    ------
    InputError
        They are neither, or a number is out of range.
    """
    try:
        places = torch.as_tensor(
            list(indices) if isinstance(indices, range | set | frozenset) else indices, device="cpu"
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"image numbers are expected, got {type(indices).__name__}.") from error
    if places.dtype == torch.bool and places.shape == (count,):
        return places.nonzero()[:, 0]
    if places.ndim != 1 or (len(places) and (places.is_floating_point() or places.dtype == torch.bool)):
        raise InputError(
            f"image numbers (n,) or a mask ({count},) are expected, got {places.dtype} of shape {tuple(places.shape)}."
        )
    places = places.to(torch.int64)
    if len(places) and (int(places.min()) < 0 or int(places.max()) >= count):
        wrong = int(places.min()) if int(places.min()) < 0 else int(places.max())
        raise InputError(f"image numbers are expected in 0 to {count - 1}, got {wrong}.")
    return places


def _turn(labels: Tensor) -> Tensor:
    """For each element, the number of earlier ones with the same label: sorting by it alternates the classes."""
    values = labels.numpy()
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    start = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, bool)
    positions = np.arange(len(ordered))
    turn = np.empty_like(positions)
    turn[order] = positions - np.maximum.accumulate(np.where(start, positions, 0)) if len(ordered) else positions
    return torch.from_numpy(turn)


def _check_channels(channels: int, wanted: int) -> None:
    if {channels, wanted} - {1, 3} and channels != wanted:
        raise InputError(
            f"images of {channels} channels cannot become {wanted}: only gray (1) and RGB (3) are exchanged."
        )


def _recoloured(images: Tensor, channels: int) -> Tensor:
    """Gray repeated three times, or the luma of RGB."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    """Scale so that the target is covered, then cut its centre out."""
    h, w = images.shape[-2:]
    if (h, w) == (height, width):
        return images
    scale = max(height / h, width / w)
    size = (max(round(h * scale), height), max(round(w * scale), width))
    if size[0] * size[1] > STRIP * height * width:
        rows, columns = _kept_rows(size[0], height, images), _kept_rows(size[1], width, images.mT).mT
        return rows @ (images @ columns) if w > h else rows @ images @ columns  # the long side first
    scaled = functional.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled[..., top : top + height, left : left + width]


def _kept_rows(size: int, kept: int, images: Tensor) -> Tensor:
    """The rows in the centre of a bilinear, antialiased scaling to ``size``, as a matrix (kept, rows of the images).

    The filter is that of torch's interpolation: a triangle around each row's centre.
    """
    rows = images.shape[-2]
    step = rows / size
    first = (size - kept) // 2
    centres = (torch.arange(first, first + kept, dtype=torch.float64, device=images.device) + 0.5) * step
    places = torch.arange(rows, dtype=torch.float64, device=images.device) + 0.5
    weights = (1 - (places - centres[:, None]).abs() / max(step, 1.0)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(images.dtype)
