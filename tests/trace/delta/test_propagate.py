"""Are patches over a shared pass equal to plain passes, on every operator known and unknown?"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from microtome import Network, attribution
from microtome.attribution.occlusion import evaluate, windows
from microtome.trace.delta.propagate import Windows, logits_under
from microtome.trace.folding import folded


def conv(i: int, o: int, k: int = 3, **options: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, **options), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8, padding=1), nn.MaxPool2d(2), conv(8, 8, 5, stride=2, padding=2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Residual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(8, 8, padding=2, dilation=2), conv(8, 8, 1)
        self.stem = conv(3, 8, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        y = self.a(x)
        y += self.b(x)
        return self.head(torch.cat([y, x * 0.5], 1)[:, 4:12].mean((2, 3)))


class Rounded(Plain):
    """Pooling whose last windows hang over the edge, after each other and behind padding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 8, padding=1),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            conv(8, 8),
            nn.MaxPool2d((3, 2), 2, (1, 0), ceil_mode=True),
            nn.AvgPool2d(2, ceil_mode=True),
        )


class Mobile(Plain):
    """Padding in a module of its own, depthwise, a gate over the whole map, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.expand = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.expand(self.pad(x)))
        x = F.avg_pool2d(F.hardswish(self.depth(x)), 2)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return F.log_softmax(self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)), 1)


class Asks(Plain):
    """Python that looks at values: a stand-in must not answer."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        scale = 2.0 if float(x.detach().flatten()[0]) > -1e9 and x.detach().max().item() > 0 else 0.0
        x = x.permute(0, 2, 3, 1).reshape(x.size(0), -1, 8) * scale
        return self.head(x.sum(1) / x.shape[1])


class Chooses(Plain):
    """Another way for some windows: what the first pass has seen of the image must not serve the others."""

    level = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = x * 2.0 if float(x.sum()) > self.level else x * 3.0
        return self.head(x.mean((2, 3)))


def network(model: nn.Module, size: tuple[int, int] = (48, 40)) -> Network:
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.weight)
    return Network(model.double().eval(), (3, *size), mean=0.4, std=0.3)


@pytest.mark.parametrize("model", [Plain, Residual, Rounded, Mobile, Asks])
@pytest.mark.parametrize(("window", "stride"), [((5, 5), (3, 4)), ((9, 4), (7, 5)), ((30, 20), (9, 20))])
def test_patches_equal_plain_passes(model: type[nn.Module], window: tuple[int, int], stride: tuple[int, int]) -> None:
    """Oracle: each covered image through the model by itself, float64. Independent: no engine at all."""
    net = network(model())
    image, fill = torch.rand(1, 3, 48, 40, dtype=torch.double), torch.rand(1, 3, 48, 40, dtype=torch.double)
    boxes = windows((48, 40), window, stride).reshape(-1, 4)
    expected = []
    for top, left, bottom, right in boxes.tolist():
        x = image.clone()
        x[..., top:bottom, left:right] = fill[..., top:bottom, left:right]
        expected.append(net.model((x - 0.4) / 0.3)[0])
    found = logits_under(net, image, boxes, fill, batch=7)
    scores = torch.stack(expected)
    if isinstance(net.model, Mobile):  # the engine gives logits, the model their log-softmax
        found = found.log_softmax(1)
    torch.testing.assert_close(found, scores, rtol=1e-9, atol=1e-9)  # sums in another order


def test_every_window_goes_its_own_way_through_the_model() -> None:
    """Oracle: each covered image through the model by itself. One window a pass, so that passes differ."""
    net = network(Chooses(), (64, 64))
    image, fill = torch.rand(1, 3, 64, 64, dtype=torch.double), torch.zeros(1, 3, 64, 64, dtype=torch.double)
    boxes = windows((64, 64), (8, 8), (16, 16)).reshape(-1, 4)
    covered = [image.clone() for _ in boxes]
    for x, (top, left, bottom, right) in zip(covered, boxes.tolist(), strict=True):
        x[..., top:bottom, left:right] = 0
    sums = torch.stack([net.model.body((x - 0.4) / 0.3).sum() for x in covered])
    net.model.level = float(sums.detach().sort().values[len(sums) // 2 - 1 : len(sums) // 2 + 1].mean())
    expected = torch.cat([net.model((x - 0.4) / 0.3) for x in covered])
    torch.testing.assert_close(logits_under(net, image, boxes, fill, batch=1), expected, rtol=1e-9, atol=1e-9)


class Counting(TorchDispatchMode):
    """Counts the numbers that convolutions compute."""

    def __init__(self) -> None:
        super().__init__()
        self.computed = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.computed += output.numel()
        return output


@pytest.mark.parametrize(
    ("model", "size", "inner"),
    [(Plain, (96, 96), (24, 24)), (Rounded, (97, 98), (46, 47))],  # Rounded as in SqueezeNet and GoogLeNet
)
def test_patches_are_used_and_spare_most_of_the_work(
    model: type[nn.Module], size: tuple[int, int], inner: tuple[int, int]
) -> None:
    """Count the positions that convolutions compute: a map computed in full would be many times as many."""
    net = network(model(), size)
    image, boxes = torch.rand(1, 3, *size), windows(size, (8, 8), (8, 8)).reshape(-1, 4)
    with Counting() as count:
        logits_under(net, image, boxes, torch.zeros_like(image), batch=len(boxes))
    full = len(boxes) * 8 * (size[0] * size[1] + inner[0] * inner[1])
    assert 0 < count.computed < 0.1 * full


@pytest.mark.parametrize(("model", "window", "by_patches"), [(Plain, 8, True), (Plain, 88, False), (Mobile, 8, False)])
def test_whole_passes_are_run_where_patches_would_save_nothing(
    model: type[nn.Module], window: int, by_patches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a window's reach is most of the picture, or all of it behind a gate."""
    used = []
    module = importlib.import_module("microtome.attribution.occlusion")
    monkeypatch.setattr(module, "logits_under", lambda *given: used.append(True) or logits_under(*given))
    net = network(model(), (96, 96))
    if model is Mobile:  # nearly all of its work is behind the gate, as in networks of many such blocks
        net.model.head = nn.Linear(8, 800_000).double()
        net = Network(net.model, (3, 96, 96))
    attribution.occlusion(net, torch.rand(1, 3, 96, 96), 0, window=window, stride=88)
    assert bool(used) == by_patches


def test_occlusion_is_the_same_by_patches_and_in_full() -> None:
    net = network(Residual())
    images = torch.rand(2, 3, 48, 40)
    small = attribution.occlusion(net, images, 1, window=8, stride=6, fill="blur")
    filling = attribution.baseline(net, images, "blur", seed=0)
    for index in range(2):
        boxes = small.boxes.reshape(-1, 4)
        full = evaluate(net, images[index : index + 1], boxes, filling[index : index + 1], 8)
        torch.testing.assert_close(small.logit[index].flatten(), full[:, 1], rtol=1e-5, atol=1e-5)


def test_folding_changes_a_copy_only_and_no_value() -> None:
    net = network(Residual())
    before = {key: value.clone() for key, value in net.model.state_dict().items()}
    private = folded(net.model, net.graph)
    assert private is not net.model
    left = [name for name, module in private.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == ["body.0.1", "body.2.1"]  # which this model never runs
    x = torch.randn(2, 3, 48, 40, dtype=torch.double)
    torch.testing.assert_close(private(x), net.model(x), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, before[key]) for key, value in net.model.state_dict().items())


def test_norms_read_by_somebody_else_are_not_folded() -> None:
    class Twice(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.head((self.norm(x) + x).mean((2, 3)))

    net = network(Twice())
    assert folded(net.model, net.graph) is net.model


def test_unknown_values_are_full_values() -> None:
    """A tensor that is no stand-in is its own content; a stand-in has the shape and nothing else."""
    rules = Windows()
    x = torch.rand(2, 3)
    assert rules.content(x) is x
