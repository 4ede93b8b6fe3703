"""Are the six images what the definitions say, and does training never lead away from the ideal output?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import microtome as mt
from microtome import spaces
from microtome.errors import DataWarning


def setting():
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (1, 2, 2))
    images = torch.rand(40, 1, 2, 2)
    labels = torch.arange(40) % 3
    return net, images, labels, list(zip(images, labels.tolist(), strict=True))


def test_the_three_starts_follow_the_definitions():
    """Oracle: the definitions in a loop."""
    net, images, labels, pairs = setting()
    found = spaces.ideal_inputs(net, pairs, steps=5)
    scores = net.logits(images)
    for c in range(3):
        ideal = scores.min(0).values
        ideal[c] = scores[:, c].max()
        torch.testing.assert_close(found.ideal[c], ideal)
        away = (scores - ideal).norm(dim=1)
        torch.testing.assert_close(found.average[c], images[labels == c].mean(0))
        torch.testing.assert_close(found.nearest[c], images[away.argmin()])
        mine = away[labels == c]
        close = images[labels == c][mine <= torch.quantile(mine, 0.25)]
        torch.testing.assert_close(found.average_nearest[c], close.mean(0))
        for row, kind in enumerate(found.names):
            distance = (net.logits(found.images(kind)[c]) - ideal).norm()
            assert float(found.distance[row, c]) == pytest.approx(float(distance), rel=1e-5)
        assert int(found.best[c]) == int(found.distance[:, c].argmin())
        torch.testing.assert_close(found.best_images[c], found.images(found.best_kinds[c])[c])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("lr", [0.01, 50.0])
def test_trained_images_are_never_further_than_their_start(lr, optimizer):
    """Also where the steps are far too long."""
    net, _, _, pairs = setting()
    seen = []
    found = spaces.ideal_inputs(
        net, pairs, steps=30, optimizer=optimizer, lr=lr, progress=lambda at: seen.append(at.done)
    )
    assert bool((found.distance[3:] <= found.distance[:3] * (1 + 1e-5)).all())
    assert seen == list(range(31))
    assert found.history.shape == (31, 3, 3)
    if lr < 1:
        assert bool((found.distance[3:] < 0.95 * found.distance[:3]).any())
    for image in found.trained.values():
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
    free = spaces.ideal_inputs(net, pairs, steps=200, lr=0.05, bounded=False)
    assert max(float(image.max()) for image in free.trained.values()) > 1


def test_plain_descent_is_the_textbook_s():
    """Oracle: three steps of gradient descent with momentum by hand, without bounds."""
    net, _, _, pairs = setting()
    found = spaces.ideal_inputs(net, pairs, steps=3, optimizer="sgd", lr=0.02, momentum=0.5, bounded=False)
    image, speed = found.average.clone(), torch.zeros_like(found.average)
    for _ in range(3):
        image.requires_grad_()
        slope = torch.autograd.grad((net.model(image) - found.ideal).square().sum(), image)[0]
        speed = 0.5 * speed + slope
        image = (image - 0.02 * speed).detach()
    torch.testing.assert_close(found.trained["average"], image, rtol=1e-5, atol=1e-6)


def test_bad_input_is_refused_and_results_are_drawn(tmp_path):
    net, images, _, pairs = setting()
    with pytest.raises(mt.InputError, match="labels"):
        spaces.ideal_inputs(net, list(images))
    with pytest.warns(DataWarning, match="label 7"), pytest.raises(mt.InputError, match="label"):
        spaces.ideal_inputs(net, [(images[0], 7)])
    with pytest.raises(mt.InputError, match="steps"):
        spaces.ideal_inputs(net, pairs, steps=-1)
    with pytest.raises(mt.InputError, match="optimizer"):
        spaces.ideal_inputs(net, pairs, optimizer="newton")
    found = spaces.ideal_inputs(net, pairs, steps=1)
    with pytest.raises(mt.InputError, match="no kind"):
        found.images("best")
    found.save(tmp_path / "it.safetensors")
    again = mt.load(tmp_path / "it.safetensors")
    assert len(again.plot().axes) == 18
    assert len(again.plot(best=True).axes) == 3
