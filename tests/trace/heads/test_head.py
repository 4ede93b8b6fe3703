"""The head of every model is found, and its scores and probabilities mean what the model means.

Oracle of scores, probabilities and gradients: ``oracles.heads_by_hand``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import ModelError, Network, attribution, trace, units
from oracles.heads_by_hand import (
    SHAPE,
    Headed,
    Make,
    by_hand,
    first,
    images,
    mean_sigmoid,
    mean_softmax,
    network,
    sigmoid,
    softmax,
)


def mixed(a: Tensor, b: Tensor) -> Tensor:
    gate = a[:, :2].softmax(1)[:, :, None]
    return (gate * torch.stack([a.softmax(1), b.softmax(1)], 1)).sum(1)


def stable_softmax(a: Tensor, b: Tensor) -> Tensor:
    powers = torch.exp(a - a.max(1, keepdim=True).values)
    return powers / powers.sum(1, keepdim=True)


# what the model returns, classes, the output that is found, the scores by hand, what they say by hand
CASES: dict[str, tuple[Make, int, str, Make, Make]] = {
    "plain": (first, 4, "logits", first, lambda a, b: softmax(a)),
    "squeeze": (lambda a, b: a.squeeze(), 4, "logits", first, lambda a, b: softmax(a)),
    "one by one": (lambda a, b: a[:, :, None, None], 4, "logits", first, lambda a, b: softmax(a)),
    "log-softmax": (lambda a, b: a.log_softmax(1), 4, "logits", first, lambda a, b: softmax(a)),
    "softmax": (lambda a, b: a.softmax(-1), 4, "logits", first, lambda a, b: softmax(a)),
    "softmax, one by one": (
        lambda a, b: a[:, :, None, None].softmax(1).squeeze(3).squeeze(2), 4, "logits", first, lambda a, b: softmax(a)),
    "softmax of some": (
        lambda a, b: a[:, 1:3].softmax(1), 4, "logits", lambda a, b: a[:, 1:3], lambda a, b: softmax(a[:, 1:3])),
    "softmax of a half": (
        lambda a, b: a.chunk(2, 1)[1].softmax(1), 4, "logits", lambda a, b: a[:, 2:], lambda a, b: softmax(a[:, 2:])),
    "temperature": (
        lambda a, b: (a / 3).softmax(1), 4, "logits", lambda a, b: a / 3, lambda a, b: softmax(a / 3)),
    "dropout, softmax": (
        lambda a, b: F.dropout(a, training=False).softmax(1), 4, "logits", first, lambda a, b: softmax(a)),
    "softmax by hand": (stable_softmax, 4, "logits", first, lambda a, b: softmax(a)),
    "softmax, clamp, log": (
        lambda a, b: a.softmax(1).clamp(1e-9, 1).log(), 4, "logits", first, lambda a, b: softmax(a)),
    "exp of log-softmax": (lambda a, b: a.log_softmax(1).exp(), 4, "logits", first, lambda a, b: softmax(a)),
    "sigmoid": (lambda a, b: a.sigmoid(), 4, "sigmoid", first, lambda a, b: sigmoid(a)),
    "sigmoid in place": (lambda a, b: a.clone().sigmoid_(), 4, "sigmoid", first, lambda a, b: sigmoid(a)),
    "two sigmoids": (lambda a, b: torch.sigmoid(a), 2, "sigmoid", first, lambda a, b: sigmoid(a)),
    "one sigmoid": (lambda a, b: a.sigmoid().squeeze(-1), 1, "sigmoid", first, lambda a, b: sigmoid(a)),
    "sigmoid, clamp": (
        lambda a, b: a.sigmoid().clamp(1e-9, 1 - 1e-9), 4, "sigmoid", first, lambda a, b: sigmoid(a)),
    "sigmoid by hand": (lambda a, b: 1 / (1 + torch.exp(-a)), 4, "sigmoid", first, lambda a, b: sigmoid(a)),
    "sigmoid by tanh": (lambda a, b: (1 + torch.tanh(a / 2)) / 2, 4, "sigmoid", first, lambda a, b: sigmoid(a)),
    "log-sigmoid": (lambda a, b: F.logsigmoid(a), 4, "sigmoid", first, lambda a, b: sigmoid(a)),
    "mean of softmaxes": (
        lambda a, b: torch.stack([a, b]).softmax(-1).mean(0), 4, "probabilities", mean_softmax, mean_softmax),
    "mixture": (mixed, 4, "probabilities", mixed, mixed),
    "log of a mean": (
        lambda a, b: ((a.softmax(1) + b.softmax(1)) / 2).log(), 4, "logits",
        lambda a, b: mean_softmax(a, b).log(), mean_softmax),
    "mean of sigmoids": (lambda a, b: (a.sigmoid() + b.sigmoid()) / 2, 4, "probabilities", mean_sigmoid, mean_sigmoid),
    "mean of sigmoids by hand": (
        lambda a, b: (1 / (1 + torch.exp(-a)) + 1 / (1 + torch.exp(-b))) / 2, 4, "probabilities",
        mean_sigmoid, mean_sigmoid),
    "one of two": (
        lambda a, b: a.softmax(1)[:, 1], 2, "probabilities",
        lambda a, b: softmax(a)[:, 1:], lambda a, b: softmax(a)[:, 1:]),
    "sigmoid, cut": (
        lambda a, b: a.sigmoid().clamp(0.4, 0.6), 4, "probabilities", lambda a, b: sigmoid(a).clamp(0.4, 0.6),
        lambda a, b: sigmoid(a).clamp(0.4, 0.6)),
    "sigmoid, cut where the probes do not reach": (
        lambda a, b: a.sigmoid().clamp(0.01, 0.99), 4, "probabilities",
        lambda a, b: sigmoid(a), lambda a, b: sigmoid(a)),
    "one value": (first, 1, "value", first, first),
    "one value, squeezed": (lambda a, b: a.squeeze(), 1, "value", first, first),
    "one column": (lambda a, b: a[:, 2], 4, "value", lambda a, b: a[:, 2:3], lambda a, b: a[:, 2:3]),
    "features and logits": (
        lambda a, b: (b, b.relu() + a), 4, "logits", lambda a, b: b.clamp(min=0) + a,
        lambda a, b: softmax(b.clamp(min=0) + a)),
    "named": (lambda a, b: {"aux": b, "logits": a}, 4, "logits", first, lambda a, b: softmax(a)),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", list(CASES))
def test_scores_and_what_they_say_are_the_models(name: str, count: int) -> None:
    make, classes, output, score, said = CASES[name]
    net, x = network(make, classes), images(count)
    assert net.output == output
    expected = by_hand(net, x, score)
    torch.testing.assert_close(net.logits(x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(net.head.readout(net.logits(x)), by_hand(net, x, said), rtol=1e-10, atol=1e-12)
    if output != "value":
        torch.testing.assert_close(net.probabilities(x), by_hand(net, x, said), rtol=1e-10, atol=1e-12)
    target = min(1, expected.shape[1] - 1)
    source = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(by_hand(net, source, score)[:, target].sum(), source)
    torch.testing.assert_close(attribution.gradient(net, x, target).values, slope, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["sigmoid", "mean of softmaxes", "one of two", "one value, squeezed", "softmax of some"]
)
def test_occlusion_and_curves_follow_the_head(name: str) -> None:
    """Oracle: every window painted by hand, and the deletion curve's pixels exchanged by hand, through ``by_hand``."""
    make, classes, output, _, said = CASES[name]
    net, x = network(make, classes), images(2)
    found = attribution.occlusion(net, x, 0, window=3, stride=3, fill=0.25)
    expected = torch.empty(2, 2, 2, dtype=torch.float64)
    for row in range(2):
        for column in range(2):
            covered = x.clone()
            covered[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 0.25
            expected[:, row, column] = by_hand(net, covered, said)[:, 0]
    whole = by_hand(net, x, said)[:, 0]
    torch.testing.assert_close(found.probability, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.unoccluded, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.values[:, 0], whole[:, None, None] - expected, rtol=1e-6, atol=1e-7)
    assert found.quantity == ("value" if output == "value" else "probability")
    order = torch.arange(36.0, 0, -1).reshape(1, 6, 6).expand(2, 6, 6)
    curve = attribution.deletion(net, x, order, 0, fill=0.25, steps=2)
    half = x.clone()
    half[:, :, :3] = 0.25
    torch.testing.assert_close(curve.probability[:, 1], by_hand(net, half, said)[:, 0], rtol=1e-10, atol=1e-12)


class Scripted(nn.Module):
    def __init__(self, closing: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = Headed(first)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.closing = torch.jit.trace(closing, torch.rand(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.closing(self.body(x))
        return found


def test_a_closing_that_hides_its_inside_is_measured() -> None:
    net = Network(Scripted(torch.sigmoid).eval(), SHAPE)
    assert (net.output, net.head.layer) == ("sigmoid", "body.a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hidden = torch.jit.trace(Headed(lambda a, b: a.sigmoid()).eval(), torch.rand(2, *SHAPE))
    net = Network(hidden, SHAPE)
    x = images().float()
    torch.testing.assert_close(net.probabilities(x), hidden(x), rtol=1e-5, atol=1e-6)


def test_scores_of_zero_are_logits_not_probabilities() -> None:
    model = Headed(first)
    nn.init.zeros_(model.a.weight)
    nn.init.zeros_(model.a.bias)
    assert Network(model, SHAPE).output == "logits"


def test_what_was_found_is_shown() -> None:
    assert 'scores: 4 logits, which the closing log_softmax reads ("a")' in repr(network(lambda a, b: a.log_softmax(1)))
    assert 'scores: 1 value; give output="sigmoid" (--scores sigmoid)' in repr(network(first, 1))
    assert "scores: 1 logit, which the closing sigmoid reads" in repr(network(lambda a, b: a.sigmoid(), 1))
    assert "use Network(..., head=0), or --head 0 on the command line" in repr(network(lambda a, b: [a, b]))
    assert "as detectors do" in repr(network(lambda a, b: [{"boxes": row} for row in a]))


def test_ablation_follows_the_head() -> None:
    """Oracle: whole passes with the channel at zero, the decision of one sigmoid at a half."""
    net = network(lambda a, b: a.sigmoid(), 1)
    data = [(image.float(), index % 2) for index, image in enumerate(images(10))]
    found = units.ablate(net, data, "conv")
    x = torch.stack([image for image, _ in data]).double()
    labels = torch.arange(10) % 2
    assert found.before == pytest.approx(float(((net.logits(x)[:, 0] > 0).long() == labels).double().mean()))
    assert found.labels == [0, 1]
    values = units.ablate(network(first, 1), data, "conv")
    assert np.isnan(values.before)
    assert values.logit_change.abs().max() > 0
    assert values.plot().axes


def test_a_recorded_pass_ends_where_the_scores_are() -> None:
    """The closing operation does not run: its layer is never reached."""
    seen: list[str] = []

    class Watching(Headed):
        def forward(self, x: Tensor) -> Any:
            rows = super().forward(x)
            seen.append("behind the scores")
            return rows.softmax(1)

    net = Network(Watching(first).double(), SHAPE)
    seen.clear()
    net.logits(images())
    assert seen == []
    assert trace.Tracer(net.model)(images()).shape == (3, 4)
    assert seen == ["behind the scores"]


class Mirrored(Headed):
    """Averages the probabilities of an image and its mirror image, which a gray image does not tell apart."""

    def forward(self, x: Tensor) -> Tensor:
        own = [self.a(self.features(view)).softmax(1) for view in (x, x.flip(3))]
        return (own[0] + own[1]) / 2


def test_the_mean_over_two_views_is_not_the_softmax_of_one() -> None:
    net = Network(Mirrored(first).double().eval(), SHAPE)
    assert net.output == "probabilities"
    x = images().requires_grad_()
    expected = net.model(x)
    torch.testing.assert_close(net.probabilities(x.detach()), expected.detach(), rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(expected[:, 1].sum(), x)
    torch.testing.assert_close(attribution.gradient(net, x.detach(), 1).values, slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [lambda a, _: a.topk(3), lambda a, _: a.softmax(1).sort(1, descending=True).values])
def test_sorted_scores_are_no_class_scores(make: Make) -> None:
    with pytest.raises(ModelError, match="a position is a rank"):
        network(make).logits(images())


def test_scores_that_are_nan_are_not_called_random() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = network(lambda a, _: a / 0 * 0)
    with pytest.raises(ModelError, match="hold NaN or infinity"):
        net.logits(images())


def test_per_cent_are_values_and_not_logits() -> None:
    net = network(lambda a, _: 100 * softmax(a))
    assert net.output == "value"
    assert "sum to 100 for each image" in repr(net)


class Slotted:
    __slots__ = ("logits",)

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class WithProperty:
    def __init__(self, scores: Tensor, features: Tensor) -> None:
        self._kept = {"scores": scores, "features": features}

    @property
    def logits(self) -> Tensor:
        return self._kept["scores"]


@pytest.mark.parametrize("make", [lambda a, _: Slotted(a), WithProperty])
def test_logits_of_any_object(make: Make) -> None:
    net = network(make)
    torch.testing.assert_close(net.logits(images()), by_hand(net, images(), first), rtol=0, atol=1e-12)


def test_scores_of_a_network_with_small_weights_are_no_probabilities() -> None:
    """They leave [0, 1] only for images ten thousand times larger than pixels."""
    dice = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.ReLU()
    )
    for parameter in model.parameters():
        parameter.data.copy_(0.01 * torch.rand(parameter.shape, generator=dice))
    net = Network(model.eval(), (3, 8, 8))
    assert float(net.logits(torch.rand(4, 3, 8, 8, generator=dice)).max()) < 1
    assert net.output == "logits"


@pytest.mark.parametrize("bounded", [nn.Tanh(), nn.LayerNorm(5), nn.Softsign()])
@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_linear_layer_on_bounded_values_gives_no_probabilities(
    bounded: nn.Module, convolution: bool, classes: int
) -> None:
    """Its values stay in [0, 1] for every image because its weights are small, as those of fresh networks are."""
    head = nn.Linear(5, classes)
    head.weight.data.mul_(0.1), head.bias.data.copy_(torch.linspace(0.3, 0.6, classes))
    last: list[nn.Module] = [head]
    if convolution:
        conv = nn.Conv2d(5, classes, 1)
        conv.weight.data.copy_(head.weight.data[:, :, None, None]), conv.bias.data.copy_(head.bias.data)
        last = [nn.Unflatten(1, (5, 1, 1)), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), bounded, *last), (3, 2, 2))
    assert net.head.output == ("logits" if classes > 1 else "value")
