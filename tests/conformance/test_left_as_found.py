"""Is the model left bitwise as found? Every registered method, in every state a user's model may be in."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from conformance.portraits import OPTIONS, batch, differences, portrait, run
from microtome import ModelError, Network, attribution, registry

METHODS = sorted(registry.methods("attribution"))


class Lively(nn.Module):
    """Batch norm, dropout, in-place rectifiers, a buffer that counts, a hook of the user's own."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(4, 3)
        self.register_buffer("passes", torch.zeros(1))
        self.heard: list[int] = []
        self.conv.register_forward_hook(lambda module, args, output: self.heard.append(1))
        self.fail = False

    def forward(self, x):
        self.passes += 1
        torch.rand(1)  # a model may draw numbers even in evaluation
        x = self.act(self.norm(self.conv(x)))
        if self.fail:
            raise ValueError("broken on purpose")
        return self.fc(self.drop(x).mean((2, 3)))


def lively(channels: int = 3) -> Lively:
    torch.manual_seed(0)
    model = Lively(channels)
    model.norm.running_mean.uniform_(-0.2, 0.2)
    model.norm.running_var.uniform_(0.5, 2)
    model.train()
    model.drop.eval()  # modes differ between submodules
    model.fc.weight.requires_grad_(False)
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(index)) if index % 2 else None
    return model


def test_the_portrait_sees_changes():
    """The check itself can fail: each kind of change is noticed."""
    model = lively()
    for key, change in {
        "mode": model.eval,
        "bytes": lambda: model.norm.running_mean.add_(1),
        "grad": model.zero_grad,
        "learns": lambda: model.conv.weight.requires_grad_(False),
        "torch": lambda: torch.rand(1),
        "hooks": lambda: model.fc.register_forward_hook(print),
    }.items():
        before = portrait(model)
        change()
        assert differences(before, portrait(model)) == [key]


@pytest.mark.parametrize("method", METHODS)
def test_left_as_found(method):
    model, images = lively(), batch(3)
    given, before = images.clone(), portrait(model)
    run(method, Network(model, (3, 8, 6)), images)
    assert differences(before, portrait(model)) == []
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_left_as_found_when_the_model_raises(method):
    model, images = lively(), batch(2)
    before = portrait(model)
    net = Network(model, (3, 8, 6))
    model.fail = True
    with pytest.raises(ModelError, match="broken on purpose"):
        run(method, net, images)
    assert differences(before, portrait(model)) == []


@pytest.mark.parametrize("method", METHODS)
def test_evaluated_in_eval_from_train_mode(method):
    """A model in train mode gives what its evaluated copy gives."""
    model = lively()
    calm = copy.deepcopy(model).eval()
    a, b = (run(method, Network(m, (3, 8, 6)), batch(2)).values for m in (model, calm))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_any_gradient_mode(method, around):
    net = Network(lively(), (3, 8, 6))
    expected = run(method, net, batch(2)).values
    with around():
        torch.testing.assert_close(run(method, net, batch(2)).values, expected, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parameters(method):
    model = lively()
    expected = run(method, Network(model, (3, 8, 6)), batch(2)).values
    model.requires_grad_(False)
    torch.testing.assert_close(run(method, Network(model, (3, 8, 6)), batch(2)).values, expected, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_images_do_not_mix(method):
    """17 images in any batches give each what it gets alone; images that require gradients are left alone."""
    net = Network(lively(), (3, 8, 6))
    images = batch(17).requires_grad_()
    whole = run(method, net, images)
    assert len(whole.values) == len(whole.target) == len(whole.score) == 17
    assert images.grad is None
    function = registry.method(method).function
    small = function(net, images, 1, **OPTIONS.get(method, {}), batch=3)
    alone = run(method, net, images[11])  # one image (C, H, W)
    scale = float(whole.values.abs().max())
    slack = 1e-5 * scale + 1e-7  # the last digit of a probability, where the values are differences of them
    torch.testing.assert_close(small.values, whole.values, rtol=0, atol=slack)
    torch.testing.assert_close(alone.values[0], whole.values[11], rtol=0, atol=slack)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels(method, channels):
    result = run(method, Network(lively(channels), (channels, 8, 6), mean=0.4, std=0.3), batch(2, channels))
    assert result.map.shape == (2, 8, 6)
    assert float(result.values.abs().max()) > 0


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16(method):
    """Half the digits: the same map to a few percent, handed over in float32."""
    model = lively()
    expected = run(method, Network(copy.deepcopy(model), (3, 8, 6)), batch(2))
    model.bfloat16()
    result = run(method, Network(model, (3, 8, 6)), batch(2))
    assert result.values.dtype == result.score.dtype == torch.float32
    if method == "occlusion":  # its values are differences of near numbers
        torch.testing.assert_close(result.probability, expected.probability, rtol=0.02, atol=0)
        return
    away = (result.values - expected.values).norm() / expected.values.norm()
    assert float(away) < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_targets_by_index_name_list_or_prediction(method):
    net = Network(lively(), (3, 8, 6), classes=["cat", "dog", "emu"])
    function, options = registry.method(method).function, OPTIONS.get(method, {})
    by_name = function(net, batch(2), "dog", **options)
    assert torch.equal(by_name.values, function(net, batch(2), 1, **options).values)
    mixed = function(net, batch(2), ["cat", 1], **options)
    assert mixed.target.tolist() == [0, 1]
    assert torch.equal(mixed.values[1], by_name.values[1])
    assert torch.equal(function(net, batch(2), **options).target, net.logits(batch(2)).argmax(1))


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded(method, tmp_path):
    from microtome import load

    result = run(method, Network(lively(), (3, 8, 6)), batch(2))
    result.save(tmp_path / "r.safetensors")
    again = load(tmp_path / "r.safetensors")
    assert type(again) is type(result)
    assert torch.equal(again.map, result.map)
    assert again.provenance == result.provenance


def test_no_warning_is_left_for_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            run(method, Network(lively(), (3, 8, 6)), batch(1))


class Following(nn.Module):
    """Assigns attributes in forward, as windows that follow the image and caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.window, self.calls = 7, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.window = min(self.window, x.shape[2])
        self.calls += 1
        self.cache = x.mean()
        if self.calls > 1 or x.shape[2] > self.window * 100:
            raise RuntimeError("the attributes of an earlier pass are still there")
        return self.head(self.conv(x).mean((2, 3)))


def test_attributes_that_a_pass_assigns_are_left_as_found() -> None:
    model = Following()
    before = dict(vars(model))
    net = Network(model, (3, 8, 8))
    attribution.saliency(net, torch.rand(2, 3, 8, 8), 0)
    assert vars(model).keys() == before.keys()
    assert (model.window, model.calls) == (7, 0)
