"""Models that write on their own buffers and weights: they are left as found, and gradients read what was used."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conformance.portraits import batch, differences, portrait, run
from microtome import ModelError, Network, registry
from microtome.errors import ModelWarning
from microtome.trace.guard import as_found


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


class Elsewhere(nn.Module):
    """Writes on tensors that something else than the table of its module holds, too."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.line, self.head = nn.Conv2d(3, 4, 3), nn.LSTM(4, 4), nn.Linear(4, 2)
        self.register_buffer("whole", torch.tensor([1.0, -2.0, 3.0, 0.5]))
        self.register_buffer("front", self.whole[:2])  # the same memory
        self.alone = {torch.ones(1)}
        self.alias = self.whole
        held = self.whole
        self.write = lambda: held.add_(0.5)

    def forward(self, x):
        y = self.conv(x).relu().mean((2, 3))
        if self.how == "weights that a recurrent layer holds twice":
            for weight in self.line.parameters():
                weight.data.mul_(0.5)
            y = y + self.line(y)[0]
        elif self.how == "memory that two buffers share":
            self.whole.add_(0.5)
            y = torch.cat([y[:, :2] * self.front, y[:, 2:] * self.alias[2:]], 1)
        elif self.how == "a set":
            (factor,) = self.alone
            factor.add_(0.5)
            y = y * factor
        elif self.how == "a variable of a function":
            self.write()
            y = y * self.whole
        return self.head(y)


@pytest.mark.parametrize(
    "how", ["weights that a recurrent layer holds twice", "memory that two buffers share", "a set"]
)
def test_copies_stand_in_every_place(how):
    torch.manual_seed(0)
    model, images = Elsewhere(how).eval(), batch(2, size=(6, 6))
    plain = Elsewhere(how).eval()
    plain.load_state_dict(model.state_dict())
    net = Network(model, (3, 6, 6))
    before, factor = portrait(model), next(iter(model.alone))
    leaf = images.clone().requires_grad_()
    score = plain(leaf)[:, 1]
    (expected,) = torch.autograd.grad(score.sum(), leaf)
    for _ in range(2):
        found = registry.method("gradient").function(net, images, 1)
        torch.testing.assert_close(found.score.float(), score.detach())
        torch.testing.assert_close(found.values, expected)
        torch.testing.assert_close(net.logits(images)[:, 1], score.detach())
    assert not differences(before, portrait(model))
    assert model.alone == {factor}
    assert float(factor) == 1


def test_a_tensor_that_the_modules_do_not_hold_has_values_but_no_gradient():
    torch.manual_seed(0)
    model, images = Elsewhere("a variable of a function").eval(), batch(2, size=(6, 6))
    net = Network(model, (3, 6, 6))
    before = portrait(model)
    torch.manual_seed(0)
    expected = Elsewhere("a variable of a function").eval()(images)
    for _ in range(2):
        assert torch.equal(net.logits(images), expected)
        for method in ("saliency", "guided-backprop", "lrp"):
            with pytest.raises(ModelError, match="Hold the tensor as an attribute"):
                run(method, net, images)
        run("occlusion", net, images)
    assert not differences(before, portrait(model))


def test_a_weight_that_is_overwritten_late_is_named_and_then_restored():
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
