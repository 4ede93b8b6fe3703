"""Crops: the rectangle of the picture for one position of a layer, and the pixels inside it."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.trace import ReceptiveField

Box = tuple[int, int, int, int]  # top, left, bottom, right (exclusive)

GRAY = 0.5


def field_box(field: ReceptiveField | None, position: tuple[int, int], picture: tuple[int, int]) -> Box:
    """The receptive field of a position, or the whole picture if the field is unknown. It may exceed the picture."""
    return (0, 0, *picture) if field is None else field.box(*position)


def crop_box(box: Box, picture: tuple[int, int]) -> Box:
    """The crop for a receptive field: along each axis the field, or the picture's extent if the field is larger.

    All positions of a layer have crops of equal size.

    Examples
    --------
    >>> crop_box((-2, 10, 5, 17), picture=(28, 28)), crop_box((-20, 3, 30, 8), picture=(28, 28))
    ((-2, 10, 5, 17), (0, 3, 28, 8))
    """
    top, left, bottom, right = box
    if bottom - top >= picture[0]:
        top, bottom = 0, picture[0]
    if right - left >= picture[1]:
        left, right = 0, picture[1]
    return top, left, bottom, right


def cut(image: Tensor, box: Box, fill: float = GRAY) -> Tensor:
    """The pixels (..., C, h, w) of a rectangle of an image (..., C, H, W); ``fill`` outside the picture.

    Examples
    --------
    >>> cut(torch.ones(1, 2, 2), (-1, 0, 1, 2), fill=0.0).tolist()
    [[[0.0, 0.0], [1.0, 1.0]]]
    """
    top, left, bottom, right = box
    height, width = image.shape[-2:]
    pixels = image.new_full((*image.shape[:-2], bottom - top, right - left), fill)
    inside = (max(top, 0), max(left, 0), min(bottom, height), min(right, width))
    if inside[0] < inside[2] and inside[1] < inside[3]:
        pixels[..., inside[0] - top : inside[2] - top, inside[1] - left : inside[3] - left] = image[
            ..., inside[0] : inside[2], inside[1] : inside[3]
        ]
    return pixels


def inside(box: Box, picture: tuple[int, int]) -> Tensor:
    """Mask (h, w) of the pixels of a rectangle that are inside the picture."""
    return cut(torch.ones(1, *picture, dtype=torch.float32, device="cpu"), box, fill=0.0)[0] > 0
