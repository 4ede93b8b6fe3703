"""Is usable information that of planted features: all of it, none, and the closed form of two Gaussians?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from microtome import InputError, Network, training
from microtome.training.information.linear_reader import folds_of, read_linearly

usable_information = training.information.usable_information


def bits(values: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Bits over the frequencies of equally frequent classes, and their standard error."""
    found = read_linearly(values, labels, folds_of(labels, 5, 0)).log_likelihood / math.log(2)
    found = found + math.log2(int(labels.max()) + 1)
    return float(found.mean()), float(found.std() / len(labels) ** 0.5)


def test_two_gaussians_in_the_limit_of_endless_data():
    """Oracle: for N(-m, 1) and N(m, 1) the best reader is linear, and I = 1 - E log2(1 + exp(-2 m t)), t ~ N(m, 1), by
    Gauss-Hermite quadrature. Further axes know nothing."""
    generator = torch.Generator().manual_seed(0)
    count, m = 4000, 0.8
    labels = torch.arange(count) % 2
    values = torch.randn(count, 3, generator=generator)
    values[:, 1] += m * (2.0 * labels - 1)
    x, w = np.polynomial.hermite_e.hermegauss(60)
    exact = 1 - float((w * np.log2(1 + np.exp(-2 * m * (x + m)))).sum() / math.sqrt(2 * math.pi))
    value, error = bits(values, labels)
    assert 0.3 < exact < 0.5
    assert abs(value - exact) < 3 * error < 0.04
    assert bits(values[:, ::2], labels)[0] == pytest.approx(0, abs=0.005)


def test_planted_information_is_found_whole_partly_or_not_at_all():
    """Four classes; one feature tells the first bit, another both, and a product of signs tells nothing linearly."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(800) % 4
    half, whole = nn.functional.one_hot(labels // 2, 2).float(), nn.functional.one_hot(labels, 4).float()
    noise = torch.randn(800, 2000, generator=generator)  # more features than images: solved in the images' space
    assert bits(torch.cat([whole, 0.01 * noise], 1)[:, :8], labels)[0] == pytest.approx(2, abs=0.01)
    assert bits(half, labels)[0] == pytest.approx(1, abs=0.01)
    assert bits(torch.cat([10 * whole, 0.1 * noise], 1), labels)[0] == pytest.approx(2, abs=0.15)
    assert -0.1 < bits(noise, labels)[0] < 0.03
    signs = torch.randn(800, 2, generator=generator)
    hidden = (signs.prod(1) > 0).long()
    order = torch.cat([(hidden == k).nonzero()[:, 0][:300] for k in (0, 1)])
    assert bits(signs[order], hidden[order])[0] < 0.03
    assert bits(signs.prod(1, keepdim=True)[order], hidden[order])[0] > 0.8


def test_a_solution_in_the_images_space_is_the_solution():
    """Oracle: the same inner products with more features than images: copies of the features, and constant ones."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(90) % 3
    values = torch.randn(90, 6, generator=generator).double() + labels[:, None] * torch.linspace(-1, 1, 6)
    wide = torch.cat([values.repeat(1, 20) / 20**0.5, torch.ones(90, 5)], 1)
    fold = folds_of(labels, 5, 0)
    few, many = read_linearly(values, labels, fold), read_linearly(wide, labels, fold)
    assert few.penalties == many.penalties
    torch.testing.assert_close(many.log_likelihood, few.log_likelihood, rtol=1e-3, atol=1e-3)  # L-BFGS ends at 1e-7


class Hidden(nn.Module):
    """The class is the sign of a product of two pixels, which the first layer computes beside the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x):
        a, b = 2 * x[:, 0, 0, 0] - 1, 2 * x[:, 0, 0, 1] - 1
        values = self.first(torch.stack([a * b, -a * b, a + 2, b + 2], 1))
        return self.second(values)


def test_a_network_makes_the_class_readable():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(600, 1, 1, 2, generator=generator)
    labels = ((2 * images[:, 0, 0] - 1).prod(1) > 0).long()
    data = [(image, int(label)) for image, label in zip(images, labels, strict=True)]
    net = Network(Hidden(), (1, 1, 2))
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    found = usable_information(net, data, kept=2)
    assert found.layers == ["input", "first", "logits"]
    assert found.widths == [2, 4, 2]
    assert float(found.values[0]) < 0.03
    assert float(found.values[1]) > 0.7
    assert found.pointwise.shape == (3, 600)
    torch.testing.assert_close(found.pointwise.mean(1), found.values)
    assert bool((found.values <= found.label_entropy + 1e-9).all())
    assert found.kept[0] == 1
    assert float(found.kept[1]) == pytest.approx(
        1, abs=0.05
    )  # both pixels are in it, whatever is rectified; 1 % of the output may be lost
    assert len(found.table().rows) == 3
    assert found.plot() is not None
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    some = usable_information(net, data, "first", images=200, seed=1)
    assert len(some.images) == 200
    assert bool(some.kept.isnan().all())


def test_bad_input():
    net = Network(Hidden(), (1, 1, 2))
    images = torch.rand(12, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="at least three folds"):
        usable_information(net, [(image, 0) for image in images], folds=2)
    with pytest.raises(InputError, match="belong to 1 class"):
        usable_information(net, [(image, 0) for image in images])
    for wrong in ({"kept": -1}, {"images": 0}):
        with pytest.raises(InputError, match="at least one image, and kept from 0 on"):
            usable_information(net, [(image, 0) for image in images], **wrong)
    with pytest.raises(InputError, match="no labels"):
        usable_information(net, list(images))
    with pytest.raises(InputError, match="class 1 has 2 images for 5 folds"):
        usable_information(net, [(image, int(at < 2)) for at, image in enumerate(images)])
