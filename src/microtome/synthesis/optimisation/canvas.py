"""Canvases: the coordinates in which images are optimised: pixels, Fourier coefficients or Fourier phases."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

# Square root of the covariance of ImageNet's colours. Its columns are brightness, yellow against blue,
# and green against magenta, in the proportions of photographs.
_COLOURS = torch.tensor(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float32, device="cpu"
)


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
        n = shape[0]
        self.parameters = noise.expand(n, *noise.shape[1:]).clone().requires_grad_()
        self._low, self._span, self._size = low, high - low, shape[2:]
        self._weight = contrast * _natural_weight(shape, power).to(noise)[..., None]
        self._colours = _colours(shape[1]).to(noise)

    @staticmethod
    def spectrum(shape: tuple[int, int, int, int]) -> tuple[int, ...]:
        """The shape of the coordinates for images of a shape."""
        n, channels, height, width = shape
        return n, channels, height, width // 2 + 1, 2

    def images(self) -> Tensor:
        """The images (n, C, H, W)."""
        spectrum = torch.view_as_complex((self.parameters * self._weight).contiguous())
        plane = torch.einsum("dc,nchw->ndhw", self._colours, torch.fft.irfft2(spectrum, s=self._size))
        box: Tensor = self._low + self._span * plane.sigmoid()
        return box

    @torch.no_grad()
    def begin(self, images: Tensor) -> None:
        """Add images (n, C, H, W) to the first coordinates; values at the ends of the range are taken just inside."""
        spectrum = torch.fft.rfft2(_before_sigmoid(images, self._low, self._span, self._colours))
        self.parameters.add_(torch.view_as_real(spectrum) / self._weight)

    def settle(self) -> None:
        """Do nothing: all coordinates give valid images."""


class Phases:
    r"""Fourier phases under the fixed magnitudes of photographs, decorrelated colours, and a sigmoid.

    .. math:: x = \mathrm{low} + (\mathrm{high} - \mathrm{low})\,
              \sigma\Big(\mathrm{colour}\big(F^{-1}(r_f \, e^{i \varphi_f})\big)\Big), \qquad r_f \propto 1 / f

    Only the phases are optimised, so that no frequency can become stronger than in photographs: high-frequency
    patterns are impossible at any number of steps [1]_. The magnitudes are those of the law 1/f, where the paper
    has the mean of ImageNet; from a first image on they are the image's own.

    Parameters
    ----------
    shape : tuple of int
        (n, C, H, W).
    noise : Tensor
        (n or 1, C, H, W // 2 + 1), uniform in [0, 1): the first phases in turns.
    low, high : float
        The pixel range.
    contrast : float
        Standard deviation of brightness before the sigmoid.

    References
    ----------
    .. [1] Fel, Boissin, Boutin, Picard, Novello, Colin, Linsley, Rousseau, Cadene, Goetschalckx, Gardes, Serre:
       Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization, NeurIPS 2023.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        noise: Tensor,
        low: float = 0.0,
        high: float = 1.0,
        contrast: float = 1.0,
    ) -> None:
        n = shape[0]
        self.parameters = (2 * torch.pi * noise.expand(n, *noise.shape[1:])).clone().requires_grad_()
        self._low, self._span, self._size = low, high - low, shape[2:]
        magnitude = _natural_weight(shape, 1.0).to(noise)
        magnitude[..., 0, 0] = 0  # the mean is that of the middle of the range
        plane = torch.fft.irfft2(torch.polar(magnitude, self.parameters.detach()[:1]), s=self._size)
        self._magnitude = contrast * magnitude / plane.std().clamp(min=1e-12)
        self._colours = _colours(shape[1]).to(noise)

    def images(self) -> Tensor:
        """The images (n, C, H, W)."""
        spectrum = torch.polar(self._magnitude.expand_as(self.parameters).contiguous(), self.parameters)
        plane = torch.einsum("dc,nchw->ndhw", self._colours, torch.fft.irfft2(spectrum, s=self._size))
        box: Tensor = self._low + self._span * plane.sigmoid()
        return box

    @torch.no_grad()
    def begin(self, images: Tensor) -> None:
        """Take the phases and the magnitudes of images (n, C, H, W)."""
        spectrum = torch.fft.rfft2(_before_sigmoid(images, self._low, self._span, self._colours))
        self.parameters.copy_(spectrum.angle())
        self._magnitude = spectrum.abs()

    def settle(self) -> None:
        """Do nothing: all coordinates give valid images."""


def _natural_weight(shape: tuple[int, int, int, int], power: float) -> Tensor:
    """The weight 1/f of every Fourier coefficient of images of a shape, (1, 1, H, W // 2 + 1)."""
    height, width = shape[2:]
    rows = torch.fft.fftfreq(height, device="cpu")[:, None]
    columns = torch.fft.rfftfreq(width, device="cpu")[None, :]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1.0 / max(height, width))
    weight: Tensor = (height * width) ** 0.5 / frequency.pow(power)
    return weight[None, None]


def _colours(channels: int) -> Tensor:
    """From decorrelated colours to those of the image, (C, C): the identity unless there are three."""
    return (
        _COLOURS / _COLOURS.norm(dim=0).amax()
        if channels == 3
        else torch.eye(channels, dtype=torch.float32, device="cpu")
    )


def _before_sigmoid(images: Tensor, low: float, span: float, colours: Tensor) -> Tensor:
    """Images in decorrelated colours before the sigmoid."""
    logits = ((images - low) / span).clamp(0.02, 0.98).logit()
    planes: Tensor = torch.einsum("cd,ndhw->nchw", torch.linalg.inv(colours), logits)
    return planes
