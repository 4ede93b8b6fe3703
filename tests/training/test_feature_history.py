"""Are features followed from checkpoint to checkpoint, and is their distance to the final ones the definition's?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from microtome import InputError, ModelError, Network, load, training
from microtome.training.checkpoints import state_of


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(3 * 36, 2))


def images() -> list[torch.Tensor]:
    return list(torch.rand(12, 1, 10, 10, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def states() -> list[dict[str, torch.Tensor]]:
    """Three checkpoints: the first convolution is final from the second on, the second only at the end."""
    final = state_of(model())
    torch.manual_seed(7)
    early = {name: torch.randn_like(value) for name, value in final.items()}
    middle = {name: (final if name.startswith("0.") else early)[name] for name in final}
    return [early, middle, final]


@pytest.fixture(scope="module")
def found(states: list[dict[str, torch.Tensor]]) -> training.FeatureHistory:
    net = Network(model(), (1, 10, 10))
    return training.feature_history(net, states, images(), ["0", "2"], steps=4, shown=[0, 3])


def test_distances_follow_the_definition(found: training.FeatureHistory, states: list[dict[str, torch.Tensor]]):
    """Oracle: torch.corrcoef on the activations of two plain models."""
    values = []
    for state in (states[0], states[2]):
        plain = model()
        plain.load_state_dict(state)
        values.append(plain[0](torch.stack(images())).detach().transpose(0, 1).flatten(1).double())
    expected = [1 - float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(*values, strict=True)]
    assert found.distance["0"][0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_layer_that_is_final_early_settles_early(found: training.FeatureHistory):
    assert found.settled() == {"0": 1.0, "2": None}  # the second is final at the end only, as every layer is
    assert float(found.distance["0"][1:].max()) < 1e-9
    assert float(found.distance["2"][2].max()) < 1e-9


def test_a_layer_has_settled_only_if_it_stays_near_before_the_end(found: training.FeatureHistory):
    """By hand: median distances of a layer at four checkpoints."""
    for far, epoch in {
        (0.0, 0.0, 0.0, 0.0): 5.0,
        (0.9, 0.0, 0.0, 0.0): 10.0,
        (0.0, 0.9, 0.0, 0.0): 20.0,
        (0.0, 0.0, 0.9, 0.0): None,
        (0.9, 0.9, 0.9, 0.9): None,  # its units are constant, also in the final network
    }.items():
        distance = {"0": torch.tensor(far)[:, None].repeat(1, 3)}
        one = dataclasses.replace(found, layers=["0"], epochs=[5.0, 10.0, 20.0, 40.0], distance=distance)
        assert one.settled() == {"0": epoch}


def test_pictures_and_labels_are_those_of_the_checkpoint(
    found: training.FeatureHistory, states: list[dict[str, torch.Tensor]]
):
    assert found.filters["0"].shape == (3, 2, 1, 3, 3)
    for place, state in enumerate(states):
        assert torch.equal(found.filters["0"][place], state["0.weight"][[0, 3]])
    assert found.patches["2"].shape == (3, 1, 1, 5, 5)  # unit 3 is not in the second layer
    assert found.superstimuli["0"].shape[:2] == (3, 2)
    assert [len(row) for row in found.labels["0"]] == [2, 2, 2]


def test_the_model_is_left_and_the_result_kept_and_drawn(states: list[dict[str, torch.Tensor]], tmp_path):
    net = Network(model(), (1, 10, 10))
    before = state_of(net.model)
    found = training.feature_history(net, states, images(), ["0"], show=["filters"])
    assert all(torch.equal(value, before[name]) for name, value in state_of(net.model).items())
    found.save(tmp_path / "history.safetensors")
    assert load(tmp_path / "history.safetensors").settled() == found.settled()
    assert len(found.plot(limit=2).axes) == 3  # the curves, and two cells of the filter's strip
    assert len(found.plot(view="distance").axes[0].lines) == 1


def test_wrong_input_is_one_clear_message(states: list[dict[str, torch.Tensor]]):
    net = Network(model(), (1, 10, 10))
    with pytest.raises(InputError, match="two checkpoints"):
        training.feature_history(net, states[:1], images())
    with pytest.raises(InputError, match="show takes"):
        training.feature_history(net, states, images(), show=["dreams"])
    with pytest.raises(ModelError, match="epoch 0"):
        training.feature_history(net, [{"weight": torch.zeros(1)}, *states], images())
    with pytest.raises(InputError, match="a list of state dicts was expected, got"):
        training.feature_history(net, states[0], images())
    with pytest.raises(InputError, match="state dicts, tensors by name, were expected in run, got int"):
        training.feature_history(net, [1, 2], images())


def test_a_layer_with_none_of_the_shown_units_has_no_pictures(states: list[dict[str, torch.Tensor]]):
    net = Network(model(), (1, 10, 10))
    found = training.feature_history(net, states, images(), ["0", "2"], shown=[3], steps=2)
    assert set(found.patches) == set(found.filters) == set(found.superstimuli) == {"0"}
    assert set(found.distance) == {"0", "2"}
    assert found.plot() is not None


def test_strips_show_the_unit_that_they_name(states: list[dict[str, torch.Tensor]]):
    """Units that a layer lacks have no pictures, so that those behind them move up."""
    net = Network(model(), (1, 10, 10))
    found = training.feature_history(net, states, images(), ["0", "2"], shown=[3, 1], show=["filters"])
    for unit, layers in ((3, ["0"]), (1, ["0", "2"])):
        figure = found.plot(view="strip", unit=unit)
        assert [text.get_text().split("\n")[0] for text in figure.texts if ":" in text.get_text()[:3]] == [
            f"{layer}:{unit}" for layer in layers
        ]


@pytest.mark.parametrize("scale", [1.0, 1e-15])
def test_a_constant_unit_is_far_and_a_small_one_is_not(scale: float):
    """All layers with weights count by default, parametrised and transposed ones too. Oracle: NumPy's correlation."""
    torch.manual_seed(0)
    net = nn.Sequential(weight_norm(nn.Conv2d(1, 3, 3)), nn.ConvTranspose2d(3, 2, 2), nn.Flatten(), nn.Linear(50, 2))
    checkpoints = []
    for _ in range(2):
        for parameter in net.parameters():
            parameter.data.normal_()
        net[0].weight = scale * net[0].weight.data
        net[0].bias.data.mul_(scale)
        net[0].bias.data[2] = 1000.0
        net[0].parametrizations.weight.original0.data[2] = 0
        checkpoints.append({name: value.clone() for name, value in net.state_dict().items()})
    pictures = list(torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1)))
    found = training.feature_history(Network(net, (1, 6, 6)), checkpoints, pictures, show=("filters",))
    assert found.layers == ["0", "1", "3"]
    assert list(found.filters) == ["0"]
    assert found.distance["0"][:, 2].tolist() == [1.0, 1.0]
    values = []
    for state in checkpoints:
        net.load_state_dict(state)
        with torch.no_grad():
            values.append(net[0](torch.stack(pictures)).double().transpose(0, 1).flatten(1).numpy())
    for unit in range(2):
        expected = 1 - np.corrcoef(values[0][unit], values[1][unit])[0, 1]
        assert float(found.distance["0"][0, unit]) == pytest.approx(expected, rel=1e-5)
