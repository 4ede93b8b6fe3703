"""Networks trained at once are those trained alone; gradient statistics and checkpoints."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from microtome.errors import InputError
from microtome.training import information
from microtome.training.information import Patterns
from microtome.training.information.networks import log_spaced

TASK = information.twelve_bits()


@pytest.fixture(scope="module")
def three() -> information.NetworkRuns:
    return information.train_networks(TASK, hidden=(4, 3), networks=3, epochs=4, checkpoints=4, seed=5)


def test_together_as_alone(three: information.NetworkRuns) -> None:
    """The same seed alone; 28 steps of Adam in single precision: 1e-4."""
    for network in range(3):
        alone = information.train_networks(TASK, hidden=(4, 3), networks=1, epochs=4, checkpoints=4, seed=5 + network)
        assert torch.equal(alone.trained_on[0], three.trained_on[network])
        for one, many in zip(alone.weights, three.weights, strict=True):
            assert torch.allclose(one[:, 0], many[:, network], atol=1e-4)
    assert not torch.allclose(three.weights[0][:, 0], three.weights[0][:, 1], atol=1e-2)


def test_one_network_by_modules_of_torch(three: information.NetworkRuns) -> None:
    """An ordinary loop over nn.Linear with the same first weights, patterns and order: shares no forward, no loss.

    The gradients' statistics of the last epoch are taken here by numpy's way, all steps kept.
    """
    sizes = (12, 4, 3, 2)
    linear = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    for place, layer in enumerate(linear):
        layer.weight.data, layer.bias.data = three.weights[place][0, 0].clone(), torch.zeros(sizes[place + 1])
    model = nn.Sequential(linear[0], nn.Tanh(), linear[1], nn.Tanh(), linear[2])
    generator = torch.Generator().manual_seed(5)
    for a, b in itertools.pairwise(sizes):  # the draws of the first weights
        nn.init.trunc_normal_(torch.empty(b, a), 0, 1, -2, 2, generator=generator)
    chosen = torch.randperm(4096, generator=generator)[: round(0.85 * 4096)]
    optimizer = torch.optim.Adam(model.parameters(), 4e-4)
    for _ in range(4):
        gradients = []
        for places in chosen[torch.randperm(len(chosen), generator=generator)].split(512):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(TASK.inputs[places]), TASK.labels[places]).backward()
            gradients.append([layer.weight.grad.clone() for layer in linear])
            optimizer.step()
    for place, layer in enumerate(linear):
        assert torch.allclose(layer.weight, three.weights[place][-1, 0], atol=1e-4)
        steps = torch.stack([each[place] for each in gradients])
        norm = layer.weight.detach().norm()
        assert float(three.gradient_mean[-1, 0, place]) == pytest.approx(float(steps.mean(0).norm() / norm), rel=1e-2)
        deviation = float(steps.std(0, correction=0).norm() / norm)
        assert float(three.gradient_std[-1, 0, place]) == pytest.approx(deviation, rel=1e-2)
    probabilities = model(TASK.inputs).softmax(1)
    assert torch.allclose(three.states(-1)[-1][0], probabilities, atol=1e-4)
    wrong = (probabilities.argmax(1) != TASK.labels).float()
    assert float(three.error[-1, 0]) == pytest.approx(float(wrong[chosen].mean()), abs=1e-3)


def test_checkpoints_and_files(three: information.NetworkRuns, tmp_path) -> None:
    assert log_spaced(8000, 100)[-1] == 8000
    assert log_spaced(1, 100) == [0, 1]
    assert three.epochs.tolist() == log_spaced(4, 4)
    three.save(tmp_path / "runs.safetensors")
    again = information.NetworkRuns.load(tmp_path / "runs.safetensors")
    assert torch.equal(again.states(-1)[1], three.states(-1)[1])
    assert three.plot().axes


def test_gradients_cross() -> None:
    """By hand: the mean is larger up to the second of four checkpoints, so that they cross at the third."""
    run = information.train_networks(TASK, hidden=(2,), networks=1, epochs=4, checkpoints=6)
    shape = run.gradient_mean.shape
    assert shape[0] == len(run.epochs)
    mean = torch.ones(shape)
    deviation = torch.full(shape, 2.0)
    deviation[: shape[0] - 2] = 0.5
    mean[0] = deviation[0] = float("nan")
    phases = information.gradient_phases(dataclasses.replace(run, gradient_mean=mean, gradient_std=deviation))
    assert phases.crossing.tolist() == [float(run.epochs[-2])] * 2
    never = information.gradient_phases(dataclasses.replace(run, gradient_mean=mean, gradient_std=0 * deviation))
    assert never.crossing.isnan().all()
    assert "crossing at" in phases.plot().axes[0].get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "tan"}, 'no activation "tan"; choose from tanh, relu'),
        ({"networks": 0}, "at least 1"),
        ({"hidden": ()}, "at least one hidden layer"),
        ({"share": 0.0}, r"in \(0, 1\], got 0.0"),
    ],
)
def test_what_is_wrong_is_said(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        information.train_networks(TASK, **options)


def test_a_task_of_one_class() -> None:
    with pytest.raises(InputError, match="only one class"):
        information.train_networks(Patterns(torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)))


def test_numbers_that_train_nothing_are_refused() -> None:
    for wrong, message in (
        ({"checkpoints": 1}, "at least two checkpoints"),
        ({"lr": 0.0}, "a positive learning rate"),
        ({"hidden": 5}, "hidden: expected a list of whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            information.train_networks(TASK, **{"networks": 1, "epochs": 2, **wrong})
    assert log_spaced(9, 2) == [0, 9]
    with pytest.raises(InputError, match="task: expected patterns"):
        information.train_networks(5)
    with pytest.raises(InputError, match="a label for each vector"):
        Patterns(torch.rand(4, 2), torch.tensor([0, 1]))
