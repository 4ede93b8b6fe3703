"""What the loss of a unit costs, against whole passes with the unit's value replaced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import InputError, LayerError, Network, units


class Residual(nn.Module):
    """In-place rectifiers and sums, so that a replay has something to get wrong."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)
        self.relu = nn.ReLU(inplace=True)
        self.fc.weight.data *= 20  # so that a unit's loss changes answers

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.a(x))
        y = self.b(x)
        y += x
        return F.log_softmax(self.fc(self.relu(y).mean((2, 3))), 1)


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(Residual().double(), (1, 10, 10), classes=list("abcd"))


@pytest.fixture(scope="module")
def data() -> list[tuple[Tensor, int]]:
    torch.manual_seed(1)
    return [(torch.rand(1, 10, 10) * torch.rand(1), int(torch.randint(4, ()))) for _ in range(50)]


@pytest.mark.parametrize("layer", ["a", "relu", "b", "/add", "relu#2"])
@pytest.mark.parametrize("value", ["zero", "mean"])
def test_every_unit_equals_a_whole_pass_without_it(net: Network, data: Any, layer: str, value: str) -> None:
    """Oracle: one whole pass per unit over all images at once, counted in Python."""
    found = units.ablate(net, data, layer, value=value, batch=17)
    images, labels = torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])
    every, base = net.activations(images, layer)[layer], net.logits(images)
    assert found.before == pytest.approx(float((base.argmax(1) == labels).double().mean()))
    for unit in range(6):
        fill = 0.0 if value == "zero" else float(every[:, unit].mean())

        def without(whole: Tensor, unit: int = unit, fill: float = fill) -> Tensor:
            changed = whole.clone()
            changed[:, unit] = fill
            return changed

        logits = net.run(images, replace={layer: without}).logits
        right = logits.argmax(1) == labels
        assert float(found.after[unit]) == pytest.approx(float(right.double().mean()))
        for column, label in enumerate(found.labels):
            assert float(found.class_after[unit, column]) == pytest.approx(
                float(right[labels == label].double().mean())
            )
        torch.testing.assert_close(found.logit_change[unit], (logits - base).mean(0), rtol=1e-6, atol=1e-9)
        assert float(found.changed[unit]) == pytest.approx(float((logits.argmax(1) != base.argmax(1)).double().mean()))
    assert value == "mean" or float(found.logit_change.abs().max()) > 0.01


def test_units_are_taken_out_together_when_grouped(net: Network, data: Any) -> None:
    one = units.ablate(net, data, "a", units=[[1, 4], 2, 5])
    assert one.units == [[1, 4], [2], [5]]
    images = torch.stack([image for image, _ in data])

    def without(whole: Tensor) -> Tensor:
        changed = whole.clone()
        changed[:, 1] = changed[:, 4] = 0
        return changed

    expected = (net.run(images, replace={"a": without}).logits - net.logits(images)).mean(0)
    torch.testing.assert_close(one.logit_change[0], expected)
    assert float(expected.abs().max()) > 1e-5
    torch.testing.assert_close(one.logit_change[1:], units.ablate(net, data, "a", units=[2, 5]).logit_change)
    assert units.ablate(net, data, "b", units=2).units == [[2]]


def test_without_labels_the_network_s_own_answers_count(net: Network, data: Any) -> None:
    found = units.ablate(net, [image for image, _ in data], "a")
    assert (found.against, found.before) == ("predictions", 1.0)
    torch.testing.assert_close(found.changed, found.drop)


def test_most_hurt_names_the_class_that_loses_most(net: Network, data: Any) -> None:
    found = units.ablate(net, data, "a")
    for row in range(6):
        label, loss = found.most_hurt(row)
        assert loss == pytest.approx(float(found.class_drop[row].max()))
        assert label in found.labels


def test_the_model_is_left_as_found(net: Network, data: Any) -> None:
    net.model.train()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    units.ablate(net, data[:5], "a")
    assert net.model.training
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    net.model.eval()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layer": "c"}, LayerError, "Nearest"),
        ({"units": [6]}, InputError, "units 0 to 5"),
        ({"units": []}, InputError, "list of units is empty"),
        ({"units": [0, []]}, InputError, "list of units is empty"),
        ({"value": "noise"}, InputError, "mean"),
        ({"dataset": []}, InputError, "empty"),
    ],
)
def test_bad_input_is_one_clear_error(net: Network, data: Any, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        units.ablate(net, **({"dataset": data, "layer": "a"} | options))
