"""Do 95 % bands of a loss hold the true loss in 95 % of samples? Planted losses, so that the truth is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from microtome import Network, data
from microtome.training import landscape
from oracles.planted_losses import Pixel, coverage


def exponential(u: Tensor) -> Tensor:
    return -u.log()


def test_bands_of_all_images():
    """150 samples: a share of .95 lies within .88 and 1 in all but one of 10,000 tests; half an error gives .67."""
    assert 0.88 <= coverage(exponential, 150, 300)[0] < 1


def test_bands_where_few_images_have_all_of_the_loss():
    """1.96 standard errors on both sides hold .91 here: a sample with few of these images underestimates its error."""
    assert coverage(lambda u: 5.0 * (u < 0.007), 300, 500)[0] > 0.94  # two of the 256 levels of a pixel


def test_skewness_of_many_batches_is_that_of_all_losses():
    pixels = torch.randint(256, (333, 1, 1, 1), generator=torch.Generator().manual_seed(0)).byte()
    losses = (pixels.flatten().double() / 255).exp()
    found = landscape.line(
        Network(Pixel(), (1, 1, 1), output="value"), data.Images(pixels, torch.zeros(333, dtype=torch.int64)), steps=3,
        extent=1e-6, direction={"weight": torch.ones(1)}, batch=16, loss=lambda scores, _: scores[:, 0].double().exp(),
    )  # fmt: skip
    apart = losses - losses.mean()
    assert found.skewness is not None
    assert float(found.skewness[1]) == pytest.approx(
        float(apart.pow(3).mean() / apart.square().mean() ** 1.5), rel=1e-5
    )


def test_equal_losses_have_a_band_of_no_width():
    flat = torch.ones(3)
    assert torch.equal(landscape.band(flat, 0 * flat, 0 * flat, 100 * flat), torch.ones(3, 2))


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [None, 0.05])
def test_bands_also_where_a_tolerance_ends_a_point(tolerance):
    """1,000 samples: .95 has a standard error of .007; looking again and again costs at most another .01."""
    assert 0.92 <= coverage(exponential, 1000, 500 if tolerance is None else 5000, tolerance=tolerance)[0] <= 0.975
