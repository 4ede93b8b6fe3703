"""Does every method refuse what it cannot explain, with one clear message? Over all that are registered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import InputError, LayerError, ModelError, Network, attribution, registry

SHAPE = (3, 12, 9)
METHODS = registry.methods("attribution")
OPTIONS = {"occlusion": {"window": 4, "stride": 4}, "integrated-gradients": {"steps": 2}, "smooth-grad": {"samples": 2}}
PLAIN = sorted(name for name, method in METHODS.items() if "attention" not in method.needs)
ON_MAPS = ["grad-cam", "guided-grad-cam"]


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    ).double()


class Steep(nn.Module):
    """Finite scores whose slope is not a number: the root of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolutional()

    def forward(self, x: Tensor) -> Tensor:
        return self.body[4](((self.body[0](x) * 0).sqrt() + 1).mean((2, 3)))


def call(name: str, net: Network, images: Tensor, target: object = 1) -> object:
    return METHODS[name].function(net, images, target, **OPTIONS.get(name, {}))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    ("change", "target", "words"),
    [
        (1.0, 4, "4 classes"),
        (1.0, -1, "4 classes"),
        (1.0, [0, 1, 2], "2 targets"),
        (3.0, 1, r"lie in \[0, 1\]"),
        (-1.0, 1, r"lie in \[0, 1\]"),
        (float("nan"), 1, "NaN"),
    ],
)
def test_targets_and_pixels_that_cannot_be(name, change, target, words):
    with pytest.raises(InputError, match=words) as caught:
        call(name, Network(convolutional(), SHAPE), images() * change, target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ON_MAPS)
def test_a_layer_without_height_and_width(name):
    net = Network(convolutional(), SHAPE)
    with pytest.raises(LayerError, match=r'height and width is needed.* "4" gives \(4,\)'):
        METHODS[name].function(net, images(), 1, layer="4")


@pytest.mark.parametrize("name", ["saliency", "gradient", "integrated-gradients", "smooth-grad", "guided-backprop"])
def test_a_slope_that_is_no_number(name):
    with pytest.raises(ModelError, match="not finite") as caught:
        call(name, Network(Steep(), SHAPE), images())
    assert "square root of zero" in str(caught.value)


@pytest.mark.parametrize("window", [13, (4, 10), (13, 4)])
def test_a_window_larger_than_the_image(window):
    with pytest.raises(InputError, match="is larger than the image"):
        attribution.occlusion(Network(convolutional(), SHAPE), images(), 1, window=window, stride=2)


@pytest.mark.parametrize("masks", ["x", None, {"a": 1}, ["nope"]])
def test_masks_that_are_none_are_one_clear_message(masks):
    net = Network(convolutional(), SHAPE)
    with pytest.raises(InputError, match="masks must be a tensor or array of 0 and 1, one for each image, got"):
        attribution.shortcut_share(net, images(), masks, methods=["saliency"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("occlusion", {"window": 4, "stride": 4, "fill": None}, "one finite number or one for each of 3 channels"),
        ("smooth-grad", {"noise": float("inf")}, "finite and not negative"),
    ],
)
def test_an_option_that_is_no_number_is_named(name, options, words):
    net = Network(convolutional(), SHAPE)
    with pytest.raises(InputError, match=words):
        METHODS[name].function(net, images(), 1, **options)


def test_rules_that_do_not_conserve_are_refused():
    rules = attribution.rules
    for make, words in (
        (lambda: rules.Epsilon(-1.0), "epsilon is a finite number from 0 on"),
        (lambda: rules.ZPlus(epsilon=float("nan")), "epsilon is a finite number from 0 on"),
        (lambda: rules.Gamma(-0.5), "gamma is a finite number from 0 on"),
        (lambda: rules.AlphaBeta(2.0, 2.0), "alpha - beta = 1"),
        (lambda: rules.AlphaBeta(0.5, -0.5), "beta from 0 on"),
    ):
        with pytest.raises(InputError, match=words):
            make()
    assert (rules.AlphaBeta(1.0, 0.0).beta, rules.Epsilon(0.0).epsilon) == (0.0, 0.0)


def test_a_baseline_without_a_score_is_not_blamed_on_the_weights():
    """A network that divides by the spread of its image has no score for a black one."""

    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = convolutional()

        def forward(self, x: Tensor) -> Tensor:
            return self.body((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))

    net = Network(Standardised(), SHAPE)
    with pytest.raises(InputError, match=r"no score for the baseline.*Choose another"):
        attribution.integrated_gradients(net, images(), 1, steps=4)
    assert attribution.integrated_gradients(net, images(), 1, steps=4, baseline="noise").values.isfinite().all()
    with pytest.raises(ModelError, match="hold NaN or infinity; check"):
        attribution.integrated_gradients(net, torch.full_like(images(), 0.5), 1, steps=4, baseline="noise")
