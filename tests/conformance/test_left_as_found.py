"""Is the model left bitwise as found? Every registered method, in every state a user's model may be in."""

from __future__ import annotations

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from microtome import ModelError, Network, attribution, registry
from microtome.errors import ModelWarning
from microtome.trace.guard import as_found

METHODS = sorted(registry.methods("attribution"))
OPTIONS = {
    "occlusion": {"window": 4, "stride": 4},
    "integrated-gradients": {"steps": 2},
    "smooth-grad": {"samples": 2},
}


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


def batch(n: int, c: int = 3, size: tuple[int, int] = (8, 6)) -> torch.Tensor:
    return torch.rand(n, c, *size, generator=torch.Generator().manual_seed(1))


def portrait(model: nn.Module) -> dict[str, object]:
    """Everything that a method may not change, in comparable form."""
    learned = dict(model.named_parameters())
    tensors = {**learned, **dict(model.named_buffers())}
    return {
        "bytes": {name: value.detach().clone() for name, value in tensors.items()},
        "objects": {name: id(value) for name, value in tensors.items()},
        "grad": {name: None if p.grad is None else (id(p.grad), p.grad.clone()) for name, p in learned.items()},
        "learns": {name: p.requires_grad for name, p in learned.items()},
        "mode": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks))
                  for name, m in model.named_modules()},
        "attributes": {name: sorted(module.__dict__) for name, module in model.named_modules()},
        "global hooks": (
            len(torch.nn.modules.module._global_forward_hooks), len(torch.nn.modules.module._global_forward_pre_hooks)
        ),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the state that must stay
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }  # fmt: skip


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [key for key in before if not same(before[key], after[key])]


def run(method: str, net: Network, images: torch.Tensor):
    return registry.method(method).function(net, images, 1, **OPTIONS.get(method, {}))


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


class Writing(nn.Module):
    """A forward pass that writes on its buffers in one of the ways Python allows."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(12, 3), how
        self.register_buffer("seen", torch.arange(3.0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        y = self.fc(x.flatten(1))
        with torch.no_grad():
            if self.how == "in place":
                self.seen.add_(1)
                self.count += 1
            elif self.how == "a part":
                self.seen[1:] = 7
            elif self.how == "exchanged":
                self.seen = self.seen * 2
            elif self.how == "exchanged, then in place":
                self.seen.mul_(3)
                self.seen = self.seen.clone().add_(1)
            elif self.how == "past the version":
                self.seen.data.add_(1)
            elif self.how == "new data":
                self.seen.data = self.seen.data + 1
            elif self.how == "grown":
                self.seen = torch.cat([self.seen, self.seen])[:3] + 1
        return y + self.seen


@pytest.mark.parametrize(
    "how", ["in place", "a part", "exchanged", "exchanged, then in place", "past the version", "new data", "grown"]
)
def test_buffers_that_the_forward_pass_writes(how):
    """Bitwise as found after every pass; what the user writes in between is found by the next pass and kept."""
    model = Writing(how).eval()
    untouched = model.seen.clone()
    net = Network(model, (3, 2, 2))
    images = batch(2, size=(2, 2))
    assert torch.equal(model.seen, untouched)
    for number in range(3):
        before, plain = portrait(model), copy.deepcopy(model)
        assert torch.equal(net.logits(images), plain(images))
        run("saliency", net, images)
        assert not differences(before, portrait(model))
        with torch.no_grad():  # the user's own change, now and then past the version counter
            (model.seen.data if number % 2 else model.seen).add_(1)


class Constrained(nn.Module):
    """A convolution whose kernels are scaled to a largest norm in each forward pass, as in networks for EEG."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        kernel = self.conv.weight
        if self.how == "new data":
            kernel.data = torch.renorm(kernel.data, 2, 0, 0.3)
        elif self.how == "in place, past the version":
            kernel.data.renorm_(2, 0, 0.3)
        elif self.how == "no gradient":
            with torch.no_grad():
                kernel.mul_(0.5)
        elif self.how == "a part":
            with torch.no_grad():
                kernel[1:].zero_()
        elif self.how == "out":
            torch.mul(kernel.data, 0.5, out=kernel.data)
        elif self.how == "many at once":
            with torch.no_grad():
                torch._foreach_mul_([kernel, self.head.bias], 0.5)
        elif self.how == "in place, then new data":
            kernel.data.mul_(0.5)
            kernel.data = kernel.data + 1
        elif self.how == "begun again":
            nn.init.constant_(kernel, 0.25)
        return self.head(self.conv(x).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "how",
    [
        *("new data", "in place, past the version", "no gradient", "a part", "out", "many at once"),
        *("in place, then new data", "begun again"),
    ],
)
def test_weights_that_the_forward_pass_writes(how):
    """Bitwise as found after every pass, in the same memory; what the user writes in between is kept."""
    model = Constrained(how).eval()
    untouched = portrait(model)
    net, images = Network(model, (3, 6, 6)), batch(2, size=(6, 6))
    assert not differences(untouched, portrait(model))
    assert net.graph.note == ""
    assert not net.notes
    for _ in range(3):
        before, plain, memory = portrait(model), copy.deepcopy(model), model.conv.weight.data_ptr()
        assert torch.equal(net.logits(images), plain(images))
        for method in ("saliency", "guided-backprop", "lrp", "occlusion"):
            run(method, net, images)
        assert not differences(before, portrait(model))
        assert model.conv.weight.data_ptr() == memory
        with torch.no_grad():
            model.conv.weight.add_(0.1)


class Normalised(nn.Module):
    """Reads tensors that it writes on before, as a running mean that also learns in evaluation."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.register_buffer("scale", torch.tensor([1.0, -2.0, 3.0, 0.5])[:, None, None])
        self.plain, self.held, self.table = torch.ones(1), [torch.ones(1)], {"factor": torch.ones(1)}
        self.late = True

    def forward(self, x):
        parts = {
            "buffer": self.scale,
            "buffer, past the version": self.scale.data,
            "weight": self.conv.weight.data,
            "mean": self.norm.running_mean,
            "scale of the norm": self.norm.weight.data,
            "attribute": self.plain,
            "list": self.held[0],
            "dict": self.table["factor"],
        }
        if self.late:
            parts[self.where].add_(0.5)
        y = self.norm(self.conv(x)) * self.scale * self.plain * self.held[0] * self.table["factor"]
        return self.head(y.relu().mean((2, 3)))


WHERE = ["buffer", "mean", "attribute", "list", "dict"]
PAST = ["buffer, past the version", "weight", "scale of the norm"]


@pytest.mark.parametrize(
    ("where", "late"),
    # What begins late and past torch's version counter is not found: it would take a comparison of all numbers.
    [*((where, late) for where in WHERE for late in (False, True)), *((where, False) for where in PAST)],
)
def test_a_gradient_reads_the_numbers_that_were_used(where, late):
    """Also where the model begins to write only after it was read."""
    model, images = Normalised(where).eval(), batch(2, size=(6, 6))
    model.late = not late
    net = Network(model, (3, 6, 6))
    model.late = True
    before, plain = portrait(model), copy.deepcopy(model)
    leaf = images.clone().requires_grad_()
    score = plain(leaf)[:, 1]
    (expected,) = torch.autograd.grad(score.sum(), leaf)
    still = copy.deepcopy(plain)  # with the numbers that were used, and writes no more
    still.late = False
    other = Network(still, (3, 6, 6))
    for _ in range(2):
        found = registry.method("gradient").function(net, images, 1)
        torch.testing.assert_close(found.score.float(), score.detach())
        torch.testing.assert_close(found.values, expected)
        for method in ("guided-backprop", "lrp", "integrated-gradients"):
            ours, theirs = (registry.method(method).function(one, images, 1).values for one in (net, other))
            torch.testing.assert_close(ours, theirs)
        assert not differences(before, portrait(model))


def test_a_weight_that_is_overwritten_late_is_named_and_then_written_on_a_copy():
    model, images = Constrained("").eval(), batch(2, size=(6, 6))
    net = Network(model, (3, 6, 6))
    model.how = "no gradient"
    with pytest.warns(ModelWarning, match="overwrote a weight"):
        run("saliency", net, images)
    before, plain = portrait(model), copy.deepcopy(model)
    assert torch.equal(net.logits(images), plain(images))
    run("saliency", net, images)
    assert not differences(before, portrait(model))


def test_a_pass_inside_a_pass_has_its_own_copies():
    model = Writing("in place").eval()
    with as_found(model):
        model(batch(1, size=(2, 2)))
        with as_found(model):
            model(batch(1, size=(2, 2)))
            assert model.count == 2
        assert model.count == 1
    assert model.count == 0
    assert torch.equal(model.seen, torch.arange(3.0))


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
