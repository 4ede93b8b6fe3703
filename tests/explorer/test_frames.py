"""Frames come back as they went out; quantised maps keep zero and half a step."""

from __future__ import annotations

import pytest
import torch

from microtome.errors import InputError
from microtome.explorer.frames import Frame, packed, quantised, unpacked


def test_a_frame_comes_back():
    blocks = {
        "bytes": torch.arange(7, dtype=torch.uint8).view(1, 7),
        "numbers": torch.tensor([[1.5, -2.0]]),
        "places": torch.tensor([3, 4], dtype=torch.int32),
    }
    header, found = unpacked(packed(Frame({"name": "</script> ü"}, blocks), id=5))
    assert header["name"] == "</script> ü"
    assert header["id"] == 5
    for name, block in blocks.items():
        assert found[name].shape == tuple(block.shape)
        assert found[name].tolist() == block.tolist()


@pytest.mark.parametrize("signed", [True, False])
def test_quantised_maps_are_within_half_a_step(signed):
    maps = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    maps = maps if signed else maps.abs()
    levels, limits = quantised(maps, signed=signed)
    steps = 254 if signed else 255
    low, span = limits[:, 0, None, None], (limits[:, 1] - limits[:, 0])[:, None, None]
    back = low + span * levels.float() / steps
    assert bool(((back - maps).abs() <= 0.501 * span / steps).all())


def test_zero_is_the_neutral_byte_and_flat_maps_are_neutral():
    levels, limits = quantised(torch.tensor([[[-3.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]]), signed=True)
    assert levels[0, 0, 1] == 127
    assert levels[1].tolist() == [[127, 127, 127]]
    assert limits[1].tolist() == [0, 0]
    assert quantised(torch.tensor([[[float("nan"), 2.0]]]), signed=False)[0].tolist() == [[[0, 255]]]


@pytest.mark.parametrize("content", [b"", b"MTF1", b"MTF1\xff\xff\xff\xff{}", b"PNG.....", b"MTF1\x02\0\0\0{}"])
def test_other_bytes_are_no_frame(content):
    with pytest.raises(InputError, match="not a frame"):
        unpacked(content)
