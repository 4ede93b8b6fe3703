"""Does inversion find what a layer keeps, and leave open what it does not?"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, Network, load
from microtome.synthesis import Prior, invert

FREE = Prior(canvas="pixels", lr=0.05, noise=0.2)


def image(size: int = 8) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(1, size, size, generator=torch.Generator().manual_seed(4))


def invertible() -> Network:
    """A rotation of the pixels: orthogonal, so that the error is the pixel error."""
    q, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False), nn.Linear(64, 3))
    model[1].weight.data.copy_(q)
    model[2].weight.data.copy_(q[:3])
    model[2].bias.data.zero_()
    return Network(model, (1, 8, 8))


def test_an_invertible_layer_gives_the_image_back() -> None:
    """Oracle: the layer is orthogonal, so the image is the only solution and errors are pixel errors."""
    given = image()
    found = invert(invertible(), given, "1", prior=FREE, starts=3, steps=400)
    assert found.images.shape == (3, 1, 8, 8)
    assert float(found.pixel_error.max()) < 2e-3
    expected = (found.images - given).flatten(1).square().sum(1) / given.square().sum()
    torch.testing.assert_close(found.error, expected, rtol=1e-2, atol=1e-9)
    assert bool((found.history[-1] < 1e-3 * found.history[0]).all())


def test_a_layer_that_averages_leaves_the_image_open() -> None:
    """Four pixels are averaged: their mean is found, the rest stays as the start drew it."""
    net = Network(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), (1, 8, 8))
    found = invert(net, image(), "0", prior=FREE, starts=4, steps=300)
    assert float(found.error.max()) < 1e-4
    assert float(found.pixel_error.min()) > 0.05
    spread = found.images.std(0).mean()
    assert float(spread) > 0.05
    pooled = nn.functional.avg_pool2d(found.images, 2)
    torch.testing.assert_close(pooled, nn.functional.avg_pool2d(image()[None], 2).expand_as(pooled), rtol=0, atol=0.01)


def test_total_variation_chooses_the_smooth_one() -> None:
    net = Network(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), (1, 8, 8))
    rough, smooth = (
        invert(net, image(), "0", prior=replace(FREE, tv=tv, relative=False), starts=1, steps=200).images
        for tv in (0.0, 0.05)
    )
    assert float(smooth.diff(dim=3).square().sum()) < 0.5 * float(rough.diff(dim=3).square().sum())


def test_several_images_go_side_by_side_and_do_not_mix() -> None:
    net = invertible()
    both = torch.stack([image(), 1 - image()])
    found = invert(net, both, "1", starts=2, steps=60)
    assert found.source.tolist() == [0, 0, 1, 1]
    assert found.start.tolist() == [0, 1, 0, 1]
    alone = invert(net, both[1], "1", starts=2, steps=60)
    torch.testing.assert_close(alone.images, found.images[2:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("option", [{"seed": 1}, {"steps": 30}, {"prior": FREE}, {"layer": "2"}], ids=str)
def test_every_option_changes_the_images(option: dict[str, object]) -> None:
    plain: dict[str, object] = {"layer": "1", "steps": 20, "starts": 1}
    first, other = (invert(invertible(), image(), **given) for given in (plain, {**plain, **option}))  # type: ignore[arg-type]
    assert not torch.equal(first.images, other.images)


def test_results_are_saved_and_equal_for_equal_seeds(tmp_path: object) -> None:
    first, again = (invert(invertible(), image(), "logits", steps=5, starts=2) for _ in range(2))
    assert torch.equal(first.images, again.images)
    first.save(f"{tmp_path}/x.safetensors")
    assert torch.equal(load(f"{tmp_path}/x.safetensors").images, first.images)  # type: ignore[attr-defined]


def test_what_cannot_be_inverted_is_one_clear_error() -> None:
    with pytest.raises(LayerError):
        invert(invertible(), image(), "nowhere")
    with pytest.raises(InputError, match="at least one start"):
        invert(invertible(), image(), "1", starts=0)
    dead = Network(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8))
    dead.model[0].weight.data.zero_()
    dead.model[0].bias.data.fill_(-1)
    with pytest.raises(InputError, match="is zero for image 0"):
        invert(dead, image(), "1")
