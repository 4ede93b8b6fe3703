"""Canvases: the coordinates in which images are optimised, either pixels or Fourier coefficients."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

# Square root of the covariance of ImageNet's colours. Its columns are brightness, yellow against blue,
# and green against magenta, in the proportions of photographs.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], device="cpu")


class Canvas(Protocol):
    """Coordinates of a batch of images, and the images as a function of them."""

    parameters: Tensor

    def images(self) -> Tensor:
        """The images (n, C, H, W), attached to ``parameters``."""

    def settle(self) -> None:
        """Project the parameters onto valid images after a step."""


class Pixels:
    """Pixel values, projected onto the pixel range.

    Parameters
    ----------
    start : Tensor
        (n, C, H, W), the first images.
    low, high : float or None
        The pixel range. None stands for no bound on that side.
    """

    def __init__(self, start: Tensor, low: float | None = 0.0, high: float | None = 1.0) -> None:
        self.parameters = start.clone().requires_grad_()
        self._box = (low, high)
        self.settle()

    def images(self) -> Tensor:
        """The images (n, C, H, W)."""
        return self.parameters

    @torch.no_grad()
    def settle(self) -> None:
        """Clamp the pixels to the pixel range."""
        if self._box != (None, None):
            self.parameters.clamp_(*self._box)


class Fourier:
    r"""Fourier coefficients with a 1/f weight, decorrelated colours, and a sigmoid onto the pixel range.

    .. math:: x = \mathrm{low} + (\mathrm{high} - \mathrm{low})\,
              \sigma\Big(\mathrm{colour}\big(F^{-1}(z_f / \max(f, 1/\max(H, W))^{p})\big)\Big)

    Steps of equal length in every coordinate change low frequencies more than high ones. This suppresses
    the high-frequency patterns of ascent on pixels [1]_.

    Parameters
    ----------
    shape : tuple of int
        (n, C, H, W).
    noise : Tensor
        (n or 1, C, H, W // 2 + 1, 2), the first coordinates.
    low, high : float
        The pixel range.
    power : float
        Exponent of the weight 1/f; 1 is the spectrum of photographs.
    contrast : float
        Scale of the coordinates before the sigmoid.

    References
    ----------
    .. [1] Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        noise: Tensor,
        low: float = 0.0,
        high: float = 1.0,
        power: float = 1.0,
        contrast: float = 0.25,
    ) -> None:
        n, channels, height, width = shape
        self.parameters = noise.expand(n, *noise.shape[1:]).clone().requires_grad_()
        self._low, self._span, self._size = low, high - low, (height, width)
        rows = torch.fft.fftfreq(height, device=noise.device)[:, None]
        columns = torch.fft.rfftfreq(width, device=noise.device)[None, :]
        frequency = (rows.square() + columns.square()).sqrt().clamp(min=1.0 / max(height, width))
        self._weight = contrast * (height * width) ** 0.5 / frequency.pow(power)
        self._weight = self._weight[None, None, :, :, None].to(noise.dtype)
        scaled = _COLOURS / _COLOURS.norm(dim=0).amax()
        self._colours = scaled.to(noise) if channels == 3 else None

    @staticmethod
    def spectrum(shape: tuple[int, int, int, int]) -> tuple[int, ...]:
        """The shape of the coordinates for images of a shape."""
        n, channels, height, width = shape
        return n, channels, height, width // 2 + 1, 2

    def images(self) -> Tensor:
        """The images (n, C, H, W)."""
        spectrum = torch.view_as_complex((self.parameters * self._weight).contiguous())
        plane = torch.fft.irfft2(spectrum, s=self._size)
        if self._colours is not None:
            plane = torch.einsum("dc,nchw->ndhw", self._colours, plane)
        box: Tensor = self._low + self._span * plane.sigmoid()
        return box

    def settle(self) -> None:
        """Do nothing: all coordinates give valid images."""
