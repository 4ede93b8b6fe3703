"""Does a recorded pass hold what the network computed, where it was computed, and stop where it may?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_hooks

from microtome import InputError, LayerError, ModelError, Network, OpaqueError, trace
from microtome.trace.passes import up_to

RAN: list[str] = []


class Net(nn.Module):
    """In-place everything, one shared ReLU, a residual sum, log-softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x))
        y = self.conv2(x)
        y += x
        RAN.append("after conv2")  # outside of the model, whose own lists are left as found
        y = self.relu(y)
        return F.log_softmax(self.fc(y.mean((2, 3))), 1)


def by_hand(model: Net, x: Tensor) -> dict[str, Tensor]:
    """The same function out of place, written again from its definition."""
    v = {"input": x, "conv1": F.conv2d(x, model.conv1.weight, model.conv1.bias, padding=1)}
    v["relu"] = v["conv1"].clamp(min=0)
    v["conv2"] = F.conv2d(v["relu"], model.conv2.weight, model.conv2.bias, padding=1)
    v["/add"] = v["conv2"] + v["relu"]
    v["relu#2"] = v["/add"].clamp(min=0)
    v["fc"] = F.linear(v["relu#2"].mean((2, 3)), model.fc.weight, model.fc.bias)
    return v


@pytest.fixture
def net() -> Network:
    torch.manual_seed(0)
    return Network(Net().double(), (2, 6, 5), mean=(0.1, 0.2), std=(0.5, 0.7))


IMAGES = torch.rand(3, 2, 6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))
MEAN, STD = (torch.tensor(values, dtype=torch.double)[:, None, None] for values in ((0.1, 0.2), (0.5, 0.7)))
PREPARED = (IMAGES - MEAN) / STD


@pytest.mark.parametrize("layer", ["conv1", "relu", "conv2", "/add", "relu#2", "fc"])
def test_values_and_gradients_are_those_before_later_writes(net: Network, layer: str) -> None:
    """Oracle: autograd on the function written out of place, float64. Independent: no hook, no mode."""
    assert isinstance(net.model, Net)
    values = by_hand(net.model, PREPARED)
    (slope,) = torch.autograd.grad(values["fc"][:, 2].sum(), values[layer])
    record = net.run(IMAGES, 2, record=layer, gradient=True)
    torch.testing.assert_close(record.value[layer], values[layer], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(record.gradient[layer], slope, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(record.score, values["fc"][:, 2], rtol=1e-12, atol=1e-12)


def test_several_layers_and_the_image_at_once(net: Network) -> None:
    assert isinstance(net.model, Net)
    source = IMAGES.clone().requires_grad_()
    values = by_hand(net.model, (source - IMAGES) + PREPARED)
    names = ["input", "conv1", "relu#2"]
    slopes = torch.autograd.grad(values["fc"][:, 0].sum(), [values[name] for name in names])
    record = net.run(IMAGES, 0, record=names, gradient=True)
    torch.testing.assert_close(record.gradient["input"], slopes[0] / STD, rtol=1e-10, atol=1e-12)
    for name, slope in list(zip(names, slopes, strict=True))[1:]:
        torch.testing.assert_close(record.gradient[name], slope, rtol=1e-10, atol=1e-12)


def test_the_score_is_a_logit_not_a_log_probability(net: Network) -> None:
    logits = net.logits(IMAGES)
    assert not torch.allclose(logits.exp().sum(1), torch.ones(3).double())
    torch.testing.assert_close(logits.log_softmax(1), net.model(PREPARED), rtol=1e-12, atol=1e-12)


def test_a_pass_inside_a_model_heeds_its_own_end_only() -> None:
    """A network whose forward is itself a pass of the engine, as one converted for class activation maps is."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return up_to(self.body, "1", x).mean((2, 3))

    outer = Network(Inner(), (1, 5, 5))
    image = torch.rand(1, 1, 5, 5)
    signal = torch.ones(1, 2, 3, 3)
    record = outer.run(image, record="input", gradient=True, output_layer="body.0", grad_output=signal)
    (expected,) = torch.autograd.grad(outer.model.body[0](image.requires_grad_()), image, signal)
    torch.testing.assert_close(record.gradient["input"], expected)


def test_a_pass_stops_at_the_layer(net: Network) -> None:
    RAN.clear()
    net.activations(IMAGES, "conv1")
    assert RAN == []
    net.activations(IMAGES, "relu#2")
    assert RAN == ["after conv2"]


def test_what_a_layer_reads(net: Network) -> None:
    assert isinstance(net.model, Net)
    found = net.activations(IMAGES, ["conv2@input", "relu"])
    torch.testing.assert_close(found["conv2@input"], by_hand(net.model, PREPARED)["relu"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found["relu"], found["conv2@input"])


@pytest.mark.parametrize("layer", ["conv1", "relu", "/add"])
def test_replacing_a_value_is_what_the_rest_goes_on_with(net: Network, layer: str) -> None:
    assert isinstance(net.model, Net)
    values = by_hand(net.model, PREPARED)
    model = net.model
    if layer == "/add":
        tail = F.linear(torch.zeros(3, 4).double(), model.fc.weight, model.fc.bias)
    else:
        x = torch.zeros_like(values["relu"])
        y = F.conv2d(x, model.conv2.weight, model.conv2.bias, padding=1) + x
        tail = F.linear(y.clamp(min=0).mean((2, 3)), model.fc.weight, model.fc.bias)
    record = net.run(IMAGES, 0, replace={layer: torch.zeros_like})
    torch.testing.assert_close(record.logits, tail, rtol=1e-12, atol=1e-12)


def test_a_seed_is_pulled_back_from_a_layer(net: Network) -> None:
    assert isinstance(net.model, Net)
    values = by_hand(net.model, PREPARED.clone().requires_grad_())
    values["input"].requires_grad_()
    seed = torch.rand_like(values["conv2"])
    (slope,) = torch.autograd.grad(values["conv2"], values["conv1"], seed)
    record = net.run(IMAGES, record="conv1", gradient=True, output_layer="conv2", grad_output=seed)
    torch.testing.assert_close(record.gradient["conv1"], slope, rtol=1e-10, atol=1e-12)


def test_forward_is_differentiable_in_the_images(net: Network) -> None:
    source = IMAGES.clone().requires_grad_()
    value = net.forward(source, ["conv2", "logits"])
    (slope,) = torch.autograd.grad(value["logits"][:, 1].sum(), source)
    torch.testing.assert_close(slope, net.run(IMAGES, 1, record="input", gradient=True).gradient["input"])
    assert value["conv2"].requires_grad
    assert all(parameter.grad is None for parameter in net.model.parameters())


def test_no_weight_gradient_is_part_of_the_graph(net: Network) -> None:
    value = net.forward(IMAGES.clone().requires_grad_(), ["conv2"])["conv2"]
    seen, queue = [], [value.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None:
            seen.append(type(node).__name__)
            queue.extend(edge for edge, _ in node.next_functions)
    assert seen.count("AccumulateGrad") == 1  # the image, and no weight


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(1, 3, 6, 5), "shape"),
        (torch.rand(0, 2, 6, 5), "empty"),
        (torch.rand(1, 2, 6, 5) * 3 + 1, "must lie in"),
        ((torch.rand(1, 2, 6, 5) * 255).to(torch.uint8), "divide by 255"),
        (torch.full((1, 2, 6, 5), float("nan")), "NaN"),
    ],
)
def test_images_that_do_not_fit_are_refused(net: Network, images: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        net.run(images)


def test_unknown_layers_classes_and_targets_name_what_is_near(net: Network) -> None:
    with pytest.raises(LayerError, match="Nearest: conv"):
        net.run(IMAGES, record="conv3")
    with pytest.raises(InputError, match="class 7 does not exist"):
        net.run(IMAGES, 7)
    with pytest.raises(InputError, match="3 targets were expected"):
        net.run(IMAGES, [1, 2])


def test_models_that_cannot_be_are_refused() -> None:
    model = Net()
    model.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"conv2\.weight"):
        Network(model, (2, 6, 5))
    with pytest.raises(ModelError, match="call it"):
        Network(Net, (2, 6, 5))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match='in layer "conv1"'):
        Network(Net(), (5, 6, 5))


def test_a_gradient_that_is_no_number_is_an_error_not_a_map() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0).sqrt().sum((2, 3))

    with pytest.raises(ModelError, match="not finite"):
        Network(Root(), (2, 6, 5)).run(IMAGES.float(), 0, record="input", gradient=True)


def test_gradients_whose_sum_overflows_are_taken() -> None:
    """Each is a number of float32, their sum is not."""

    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 3e38).flatten(1)[:, :1] - (x * 3e38).flatten(1)[:, 1:]

    class Steeper(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 3e38).mean((2, 3)) * 2

    for model in (Steep(), Steeper()):
        record = Network(model, (1, 1, 2)).run(torch.full((1, 1, 1, 2), 0.1), 0, record="input", gradient=True)
        assert bool((record.gradient["input"].abs() > 2.9e38).all())


def test_a_score_that_depends_on_nothing_is_an_error() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().sum((2, 3))

    with pytest.raises(OpaqueError, match="differentiable"):
        Network(Cut(), (2, 6, 5)).run(IMAGES.float(), 0, record="input", gradient=True)


def test_encoder_layers_are_not_run_past_their_modules() -> None:
    """Torch's fast path for transformers, as one call, would leave the layers inside without values."""

    class Encoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.proj, self.encoder = nn.Conv2d(2, 8, 2, 2), nn.TransformerEncoder(layer, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(self.proj(x).flatten(2).transpose(1, 2)).mean(1)

    net = Network(Encoded(), (2, 6, 5))
    assert torch.backends.mha.get_fastpath_enabled()
    names = ["encoder.layers.0.norm2", "encoder.layers.1.self_attn"]
    assert net.activations(IMAGES.float(), names)[names[0]].shape[1:] == (6, 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_only_recorded_modules_are_hooked_and_only_during_the_pass() -> None:
    """Hooks on every module of a large network take longer than some of its layers."""
    hooked: list[set[str]] = []

    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hooked.append({name for name, module in model.named_modules() if module._forward_hooks})
            everywhere.append(bool(_global_forward_hooks))
            return x.relu()

    everywhere: list[bool] = []
    model = nn.Sequential(nn.Conv2d(2, 4, 3), Looking(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = Network(model, (2, 6, 5))
    hooked.clear()
    everywhere.clear()
    values = net.activations(IMAGES.float(), ["0", "2"])
    assert torch.equal(values["0"], model[0](IMAGES.float()))
    assert (hooked, everywhere) == ([{"0", "2"}], [False])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Picky(nn.Module):
    """Raises on bright images, which no gray image tells."""

    def forward(self, x: Tensor) -> Tensor:
        if x.detach().max() > 0.9:
            raise ValueError("too bright")
        return x.relu()


@pytest.mark.parametrize("record", [(), ("0",)])
def test_the_layer_that_raised_is_named_whether_layers_are_watched_or_not(record: tuple[str, ...]) -> None:
    net = Network(nn.Sequential(nn.Flatten(), nn.Sequential(Picky()), nn.Linear(4, 2)), (1, 2, 2))
    with pytest.raises(ModelError, match=r'ValueError in layer "1\.0"'):
        net.run(torch.ones(1, 1, 2, 2), 0, record=("input", *record), gradient=True, rules="guided")


def test_guided_rules_look_at_rectifiers_and_what_may_spell_one_only() -> None:
    seen: list[str] = []

    class Noting(trace.Guided):
        def run(self, call: trace.Call) -> Any:
            seen.append(call.kind)
            return super().run(call)

    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU6(), nn.Flatten(), nn.Linear(8, 3))
    Network(model, (1, 3, 3)).run(torch.rand(1, 1, 3, 3), 0, record="input", gradient=True, rules=Noting())
    assert seen == ["relu6"]


def test_a_fault_of_ours_on_the_way_back_is_not_the_models(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of the rules that breaks off blames microtome; torch's own refusal still blames the model."""
    from microtome import attribution
    from microtome.trace.rectifiers import rectifier_rules

    monkeypatch.setattr(rectifier_rules, "_clamped", lambda _sign: lambda _signals: ())
    monkeypatch.setattr(rectifier_rules, "_STEPS", frozenset())  # so that every rectifier has that hook
    with pytest.raises(OpaqueError, match="The fault is in microtome"):
        attribution.deconvnet(net, IMAGES, 1)

    class Overwriting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.sigmoid()
            y.mul_(2)
            return y.mean((2, 3))

    with pytest.raises(ModelError, match="cannot be differentiated"):
        attribution.deconvnet(Network(Overwriting(), (2, 6, 5), pixels=None), IMAGES, 1)
