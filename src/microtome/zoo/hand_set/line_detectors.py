"""A convolution whose kernels are detectors of lines and edges, each given by six named numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.errors import InputError

__all__ = ["LineDetectors"]

NUMBERS = ("angle", "side", "width", "offset", "strength", "threshold")
_LENGTH = 2.0  # standard deviation along the line, pixels


class LineDetectors(nn.Module):
    r"""Detectors of lines and edges: a convolution of gray images, minus a threshold.

    With u across and v along the line, in pixels from the middle,

    .. math:: k = s \, \frac{(1 - |e|)\, \ell(u - o) + e\, \ell'(u - o)}{Z}\, e^{-v^2 / 2 \lambda^2}, \qquad
              \ell(u) = e^{-2 u^2 / w^2} - c\, e^{-u^2 / 2 w^2}

    c makes the sum of the kernel 0, so that an even area gives no response; Z makes the sum of its positive part s.
    :math:`\ell'` is the bell's slope: bright on one side, dark on the other.

    Parameters
    ----------
    angle
        Degrees: 0 is a horizontal line, 45 rises to the right, 90 is vertical.
    size
        Side of the kernels in pixels, odd.
    width
        Of the line in pixels.
    threshold
        Subtracted from the response, so that the following ReLU removes weak matches.

    Attributes
    ----------
    angle, side, width, offset, strength, threshold : Parameter
        (detectors,) each. ``side`` is 0 for a line; towards 1 or -1 it becomes the edge on one or the other side of a
        bright region. ``offset`` moves the line across itself, in pixels. ``strength`` is the response to a perfect
        match.

    Raises
    ------
    InputError
        No angle is given, or the size is even.
    """

    angle: Tensor
    side: Tensor
    width: Tensor
    offset: Tensor
    strength: Tensor
    threshold: Tensor

    def __init__(self, angle: Sequence[float], *, size: int = 7, width: float = 2.0, threshold: float = 0.15) -> None:
        super().__init__()
        if not angle or size % 2 != 1:
            raise InputError(f"at least one angle and an odd size are expected, got {len(angle)} and {size}.")
        self.size = size
        first = {"angle": angle, "side": 0.0, "width": width, "offset": 0.0, "strength": 1.0, "threshold": threshold}
        for name, value in first.items():
            values = value if isinstance(value, Sequence) else [value] * len(angle)
            setattr(self, name, nn.Parameter(torch.tensor(values, dtype=torch.float32, device="cpu")))

    @property
    def weight(self) -> Tensor:
        """(detectors, 1, size, size)."""
        reach = (self.size - 1) / 2
        along = torch.arange(self.size, device=self.angle.device, dtype=self.angle.dtype) - reach
        x, y = along[None, None, :], -along[None, :, None]
        turn = self.angle * (math.pi / 180)
        cosine, sine = (one[:, None, None] for one in (turn.cos(), turn.sin()))
        u = -x * sine + y * cosine - self.offset[:, None, None]
        v = x * cosine + y * sine
        w = self.width[:, None, None].clamp(min=0.5)
        envelope = torch.exp(-v.square() / (2 * _LENGTH**2))
        bell = envelope * torch.exp(-2 * u.square() / w.square())
        surround = envelope * torch.exp(-u.square() / (2 * w.square()))
        line = _shares(bell) - _shares(surround)
        edge = _shares(bell) * u / w
        edge = edge - edge.mean((1, 2), keepdim=True)
        side = self.side[:, None, None].clamp(-1, 1)
        kernel = (1 - side.abs()) * _matched(line) + side * _matched(edge)
        return (self.strength[:, None, None] * _matched(kernel))[:, None]

    @property
    def bias(self) -> Tensor:
        """(detectors,)."""
        return -self.threshold

    def forward(self, images: Tensor) -> Tensor:
        """Response minus threshold (N, detectors, H, W) of gray images (N, 1, H, W)."""
        return functional.conv2d(images, self.weight, self.bias, padding=self.size // 2)

    def describe(self) -> list[str]:
        """Each detector in words."""
        return [self._words(index) for index in range(len(self.angle))]

    def _words(self, index: int) -> str:
        values = {name: float(getattr(self, name)[index].detach()) for name in NUMBERS}
        side = values["side"]
        what = (
            "line"
            if abs(side) < 0.25
            else f"{'edge' if abs(side) > 0.75 else 'line with an edge'}, bright "
            + ("on the left of its direction" if side > 0 else "on the right of its direction")
        )
        moved = "" if abs(values["offset"]) < 0.25 else f", {values['offset']:+.1f} px across"
        return (
            f"{what} at {round(values['angle']) % 180}°, {values['width']:.1f} px wide{moved}, "
            f"strength {values['strength']:.2f}, seen above {values['threshold']:.2f}"
        )


def _shares(bell: Tensor) -> Tensor:
    return bell / bell.sum((1, 2), keepdim=True)


def _matched(kernel: Tensor) -> Tensor:
    """Positive part with the sum 1."""
    return kernel / kernel.clamp(min=0).sum((1, 2), keepdim=True).clamp(min=1e-6)
