"""Is the network that runs many times the same function, and is what cannot bear it run as it is?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution, synthesis, units
from microtome.attribution.occlusion import windows


def norm() -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(6)
    with torch.no_grad():
        made.running_mean.uniform_(-0.3, 0.3)
        made.running_var.uniform_(0.5, 2)
        made.weight.uniform_(0.5, 1.5)
    return made


class Usual(nn.Module):
    """Convolution, batch norm, pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.pool = nn.Conv2d(3, 6, 5, stride=2, padding=2), norm(), nn.MaxPool2d(4)
        self.head = nn.Linear(6 * 8 * 8, 4)

    def body(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.norm(self.conv(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Views(Usual):
    """Asks for a view that a map with channels innermost does not have."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x.view(x.size(0), -1))


class Reads(Usual):
    """Reads the statistics of its batch norm by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1)) * self.norm.running_var.sum()


class Asks(Usual):
    """Goes on differently where the batch norm's weight is not what it was."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if isinstance(self.norm, nn.BatchNorm2d) else 1.01)


def hooked() -> nn.Module:
    """Somebody's hook turns the gradient of the batch norm around."""
    model = Usual()
    model.norm.register_full_backward_hook(lambda module, given, got: (-given[0],))
    return model


class Padded(nn.Conv2d):
    """A convolution of somebody's own, with padding as a module inside."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (2, 2, 2, 2)), self.weight, self.bias, self.stride)


class Standardised(nn.Conv2d):
    """A convolution that divides its kernel by its size: a norm cannot be folded into it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.norm(), self.bias, self.stride, self.padding)


def own(kind: type[nn.Conv2d], padding: int) -> nn.Module:
    model = Usual()
    model.conv = kind(3, 6, 5, stride=2, padding=padding)
    return model


def network(model: nn.Module) -> Network:
    return Network(model.double().eval(), (3, 64, 64), mean=0.4, std=0.3)


MANY = 10_000  # images, so that a copy is worth its time


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    monkeypatch.setattr("microtome.network.faster_copy._WORTH", 0)


def test_few_small_passes_are_not_worth_a_copy(monkeypatch):
    """On EfficientNet-B0 and 25 windows of 96 x 96 pixels the copy took longer than all passes."""
    monkeypatch.undo()
    net, image = network(Usual()), torch.rand(1, 3, 64, 64, dtype=torch.double)
    logits = net.logits(image)
    assert net.quick(image, logits, 255) is net
    assert net.quick(image, logits, 256) is not net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "usual": Usual, "views": Views, "reads": Reads, "asks": Asks, "hooked": hooked,
    "padded": lambda: own(Padded, 0), "standardised": lambda: own(Standardised, 2),
}  # fmt: skip
SHARED = {
    "usual": (True, torch.channels_last),  # folded, and how it lies in memory
    "views": (True, torch.contiguous_format),
    "reads": (False, torch.channels_last),
    "asks": (False, torch.channels_last),
    "hooked": (False, torch.channels_last),
    "padded": (True, torch.channels_last),
    "standardised": (False, torch.channels_last),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_bears_is_used_and_no_more(name: str) -> None:
    net = network(MODELS[name]())
    image = torch.rand(2, 3, 64, 64, dtype=torch.double)
    quick = net.quick(image, net.logits(image), MANY)
    folded, layout = SHARED[name]
    assert isinstance(quick.model.norm, nn.Identity) == folded
    for laid in (quick.normalise(image), quick.model.conv.weight):
        assert laid.is_contiguous(memory_format=layout)
    assert net.model.conv.weight.is_contiguous()
    torch.testing.assert_close(quick.logits(image), net.logits(image), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layer", ["conv", "norm", "pool", "conv/conv2d"])
def test_named_layers_keep_their_values_in_windows_of_any_size(layer: str) -> None:
    """A convolution that is named is not folded; a norm may be, since it gives what it gave before."""
    net, window = network(Usual()), torch.rand(2, 3, 40, 40, dtype=torch.double)
    quick = net.quick(window, [layer], MANY)
    assert isinstance(quick.model.norm, nn.Identity) == (not layer.startswith("conv"))
    found, expected = (one.forward(window, layer)[layer] for one in (quick, net))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_copy_holds_the_models_own_weights_where_nothing_was_folded() -> None:
    net = network(Usual())
    image = torch.rand(1, 3, 64, 64, dtype=torch.double)
    quick = net.quick(image, net.logits(image), MANY)
    assert quick.model.head.weight is net.model.head.weight
    assert quick.model.conv.weight is not net.model.conv.weight
    assert isinstance(net.model.norm, nn.BatchNorm2d)
    assert net.model.conv.bias is not None
    assert all(parameter.requires_grad for parameter in net.model.parameters())


def plain(model: nn.Module, x: Tensor) -> Tensor:
    """The oracle: torch's own gradient of class 1, image by image."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model((x - 0.4) / 0.3)[:, 1].sum(), x)[0]


@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_are_those_of_the_model_as_written(name: str) -> None:
    net = network(MODELS[name]())
    image = torch.rand(2, 3, 64, 64, dtype=torch.double)
    found = attribution.integrated_gradients(net, image, 1, steps=8, rule="midpoint").values
    slopes = [plain(net.model, image * (step + 0.5) / 8) for step in range(8)]
    torch.testing.assert_close(found, image * torch.stack(slopes).mean(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_smooth_grad_is_that_of_the_model_as_written(name: str) -> None:
    net = network(MODELS[name]())
    image = torch.rand(1, 3, 64, 64, dtype=torch.double)
    found = attribution.smooth_grad(net, image, 1, samples=5, noise=0.1, seed=3).values
    draws = torch.randn((5, 3, 64, 64), generator=torch.Generator().manual_seed(3)).to(image) * 0.1
    slopes = plain(net.model, image + (image.max() - image.min()) * draws)
    torch.testing.assert_close(found, slopes.mean(0, keepdim=True), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("window", [9, 50])  # by patches, and in full
def test_occlusion_is_that_of_the_model_as_written(name: str, window: int) -> None:
    net = network(MODELS[name]())
    image = torch.rand(1, 3, 64, 64, dtype=torch.double)
    found: Any = attribution.occlusion(net, image, 1, window=window, stride=7, fill=0.2)
    boxes = windows((64, 64), (window, window), (7, 7))
    for row, column in [(0, 0), (1, 1), (-1, -1)]:
        top, left, bottom, right = boxes[row, column].tolist()
        x = image.clone()
        x[..., top:bottom, left:right] = 0.2
        expected = net.model((x - 0.4) / 0.3)[0, 1]
        torch.testing.assert_close(found.logit[0, row, column], expected, rtol=1e-9, atol=1e-9)


IMAGES = torch.rand(6, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(5))


def _checked(net: Network) -> Tensor:
    """The measurements of credentials, which follow paths through the layers below."""
    stimuli = synthesis.maximize(net, "pool", channels=[0, 1], steps=2)
    table = units.top_patches(net, list(IMAGES), layers=["pool"], k=3)["pool"]
    found = synthesis.credentials(net, stimuli, table, restarts=1, retry=False, k=3)
    assert found.path_similarity is not None
    assert found.agreement is not None
    return torch.cat([found.path_similarity, found.agreement, found.peak.double()])


# Every other method that runs on the faster copy: its numbers at a layer, also at a convolution before a norm.
ON_THE_COPY: dict[str, Callable[[Network], Tensor]] = {
    "maximize": lambda net: synthesis.maximize(net, "conv", channels=[0, 2], steps=3).images,
    "maximize, diverse": lambda net: synthesis.maximize(net, "norm", channels=1, steps=3, diverse=2).images,
    "maximize-class": lambda net: synthesis.maximize_class(net, [1], steps=3).images,
    "invert": lambda net: synthesis.invert(net, IMAGES[:1], "conv", steps=3).images,
    "credentials": _checked,
    "ablate": lambda net: units.ablate(net, list(IMAGES), "conv", units=[0, 3]).logit_change,
    "deletion": lambda net: attribution.deletion(net, IMAGES[:2], IMAGES[:2].mean(1), 1, steps=4).probability,
    "what-where": lambda net: units.what_where(net, "conv").response,
    "tuning": lambda net: units.tuning(net, "conv", stimuli=units.stimuli.bars((64, 64))).response,
}


@pytest.mark.parametrize("name", ["usual", "padded", "standardised"])
@pytest.mark.parametrize("method", ON_THE_COPY)
def test_results_are_those_without_the_copy(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the same method on the network as written; the copy is used, else the test shows nothing."""
    copies: list[bool] = []
    quick = Network.quick

    def watched(self: Network, *args: Any, **options: Any) -> Network:
        found = quick(self, *args, **options)
        copies.append(found is not self)
        return found

    monkeypatch.setattr(Network, "quick", watched)
    net = network(MODELS[name]())
    found = ON_THE_COPY[method](net)
    assert any(copies)
    monkeypatch.setattr("microtome.network.faster_copy._WORTH", 2**62)
    copies.clear()
    expected = ON_THE_COPY[method](net)
    assert not any(copies)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
