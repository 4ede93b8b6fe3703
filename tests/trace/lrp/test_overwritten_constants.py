"""A constant that the model overwrites after it was used counts with the value that was used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution

IMAGES = torch.rand(2, 3, 6, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """A convolution with its batch norm, a matrix by hand and a head; some constants are written on afterwards."""

    def __init__(self, written: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.written = written
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(8, 3)
        self.register_buffer("matrix", torch.randn(64, 8))
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)), inplace=True).flatten(1)
        matrix = self.matrix * 0.5
        z = y @ matrix
        if self.written == "matrix":
            matrix.zero_()
        elif self.written == "a part of it":
            matrix[:32].mul_(3)
        elif self.written == "variance":
            self.norm.running_var.mul_(9)
        elif self.written == "mean, past its version":
            self.norm.running_mean.data.add_(1)
        elif self.written == "weight":
            self.norm.weight.data.neg_()
        elif self.written == "weight, new data":
            self.norm.weight.data = -self.norm.weight.data
        return self.head(z)


@pytest.mark.parametrize("rules", ["epsilon", "z-plus", "gamma"])
@pytest.mark.parametrize(
    "written", ["matrix", "a part of it", "variance", "mean, past its version", "weight", "weight, new data"]
)
def test_relevance_reads_the_value_that_was_used(written: str, rules: str) -> None:
    found, expected = (
        attribution.lrp(Network(Model(name), (3, 6, 6)), IMAGES, 1, rules=rules) for name in (written, "")
    )
    assert torch.equal(found.score, expected.score)
    for name in ("values", "bias_share", "stabiliser_share"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-14)
