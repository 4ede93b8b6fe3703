"""One unit's activation at the pixels, against autograd by hand, against its definition, and across layouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import Network, units
from microtome.errors import InputError, LayerError

X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.Flatten(), nn.Linear(80, 2)
    ).double()


def test_gradient_is_that_of_the_strongest_position(model):
    net = Network(model, (1, 8, 8))
    made = units.project_back(net, X, "2", 3)
    x = X.clone().requires_grad_()
    value = model[:3](x)[:, 3]
    best = value.flatten(1).max(1)
    (expected,) = torch.autograd.grad(best.values.sum(), x)
    torch.testing.assert_close(made.values, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(made.score, best.values.detach(), rtol=1e-12, atol=0)
    assert (made.position[:, 0] * 4 + made.position[:, 1]).tolist() == best.indices.tolist()


def test_relevance_adds_up_to_the_activation(model):
    """Without biases and at an interior position z-plus and epsilon hand on the whole activation."""
    net = Network(model, (1, 8, 8))
    checked = 0
    for unit in range(5):
        made = units.project_back(net, X, "2", unit, method="relevance", position=(1, 2))
        total, positive = made.values.flatten(1).sum(1), made.score > 0
        torch.testing.assert_close(total[positive], made.score[positive], rtol=1e-4, atol=0)
        checked += int(positive.sum())
    assert checked > 2


def test_rectified_rules_are_those_of_reconstruct(model):
    """The same single activation, by the function that reconstructs patches of a data set."""
    net = Network(model, (1, 8, 8))
    top = units.top_patches(net, list(X.float()), ["2"], k=1)["2"]
    for method in ("deconvnet", "guided", "gradient"):
        for unit in (0, 4):
            image, position, _ = top.entry(unit, 0)
            made = units.project_back(net, X[image].float(), "2", unit, method=method, position=position)
            top_row, left, bottom, right = top.crop_box_at(position)
            patch = units.reconstruct(net, top, method=method, k=1, units=unit).values[0, 0]
            torch.testing.assert_close(made.values[0, :, top_row:bottom, left:right], patch, rtol=1e-5, atol=1e-7)


def test_bad_questions_say_what_is_wrong(model):
    net = Network(model, (1, 8, 8))
    with pytest.raises(InputError, match="gradient, deconvnet"):
        units.project_back(net, X, "2", 0, method="magic")
    with pytest.raises(InputError, match="units 0 to 4"):
        units.project_back(net, X, "2", 5)
    with pytest.raises(InputError, match="outside"):
        units.project_back(net, X, "2", 0, position=(4, 0))
    with pytest.raises(LayerError):
        units.project_back(net, X, "9", 0)
