"""A recorder in a loop of one's own: what it notes is what happened, and it reads back as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from microtome import training
from microtome.errors import InputError, ModelError, StoreError


def own_loop(recorder_of, epochs=2, steps=4):
    """A user's loop; returns the recorder, the model, and every gradient, score and loss met."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    recorder = recorder_of(model)
    met = []
    for _ in range(epochs):
        for _ in range(steps):
            images = torch.rand(5, 3, generator=generator)
            labels = torch.randint(0, 2, (5,), generator=generator)
            scores = model(images)
            loss = functional.cross_entropy(scores, labels)
            model.zero_grad()
            loss.backward()
            recorder.step(loss, scores, labels)
            met.append((float(loss.detach()), int((scores.argmax(1) == labels).sum()), model.weight.grad.clone()))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.5 * parameter.grad
        recorder.epoch(validation_accuracy=0.25)
    return recorder, model, met


def test_what_is_recorded_is_what_happened(tmp_path):
    """Gradient statistics against the definition on the stacked gradients, in float64."""
    recorder, model, met = own_loop(lambda m: training.Recorder(tmp_path, m, settings={"lr": 0.5}))
    run = training.Run.read(tmp_path)
    assert run.settings == {"lr": 0.5}
    assert run.epochs.tolist() == [1, 2]
    assert run.steps.tolist() == [loss for loss, _, _ in met]
    assert run.curve("accuracy").tolist() == [sum(c for _, c, _ in met[i : i + 4]) / 20 for i in (0, 4)]
    assert run.curve("validation_accuracy").tolist() == [0.25, 0.25]
    gradients = torch.stack([gradient for _, _, gradient in met]).double().unflatten(0, (2, 4))
    for epoch in (0, 1):
        norm = torch.linalg.norm(run.weights(epoch + 1)["weight"].double())
        expected = [
            torch.linalg.norm(gradients[epoch].mean(0)) / norm,
            torch.linalg.norm(gradients[epoch].std(0, correction=0)) / norm,
            norm,
        ]
        # The squares are summed in float32: a relative error of some 1e-7 of the mean square.
        torch.testing.assert_close(run.gradient("weight")[epoch], torch.stack(expected), rtol=1e-5, atol=1e-6)
    loaded = nn.Linear(3, 2)
    run.load(loaded)
    assert torch.equal(loaded.weight, model.weight)
    assert torch.equal(recorder.run.steps, run.steps)


def test_gradients_in_half_precision_are_summed_in_single(tmp_path):
    """600 steps of one gradient: a sum in bfloat16 stops to grow at 256 times its term."""
    model = nn.Linear(3, 2).bfloat16()
    recorder = training.Recorder(tmp_path, model)
    gradient = torch.full_like(model.weight, 0.25)
    for _ in range(600):
        model.weight.grad = gradient
        recorder.step(1.0)
    recorder.epoch()
    mean, deviation, norm = recorder.run.gradient("weight")[0].tolist()
    assert mean * norm == pytest.approx(0.25 * 6**0.5)
    assert deviation == pytest.approx(0, abs=1e-6)


def test_in_memory_and_sparing(tmp_path):
    recorder, _, _ = own_loop(lambda m: training.Recorder(None, m, gradients=False))
    assert len(recorder.run) == 2
    assert recorder.run.checkpoints == ()
    with pytest.raises(InputError, match='no gradients of "weight"'):
        recorder.run.gradient("weight")
    with pytest.raises(InputError, match="not kept; those of none"):
        recorder.run.weights(-1)
    recorder, _, _ = own_loop(lambda m: training.Recorder(tmp_path, m, keep=[1]))
    assert recorder.run.checkpoints == (1,)
    assert len(training.Run.read(tmp_path)) == 1
    recorder.close()
    assert len(training.Run.read(tmp_path)) == 2


def test_what_is_wrong_is_said(tmp_path):
    recorder, _, _ = own_loop(lambda m: training.Recorder(tmp_path / "run", m))
    with pytest.raises(InputError, match="without a step"):
        recorder.epoch()
    with pytest.raises(InputError, match='no curve "los"; it has accuracy, loss, validation_accuracy'):
        recorder.run.curve("los")
    with pytest.raises(InputError, match="it has weight, bias"):
        recorder.run.gradient("wait")
    with pytest.raises(ModelError, match="does not fit"):
        recorder.run.load(nn.Linear(4, 2))
    with pytest.raises(StoreError, match="holds no training run"):
        training.Run.read(tmp_path)
    (tmp_path / "log.safetensors").write_bytes(b"torn")
    with pytest.raises(StoreError, match="cannot be read"):
        training.Run.read(tmp_path)


def test_a_run_keeps_its_folder_when_another_folder_becomes_the_current_one(tmp_path, monkeypatch):
    """A notebook changes folders between its cells: weights are written and read where the run began."""
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path)
    recorder, model, _ = own_loop(lambda m: training.Recorder("runs/own", m), epochs=1)
    read = training.Run.read("runs/own")
    assert repr(read) == "Run(1 epochs in runs/own)"
    monkeypatch.chdir(tmp_path / "later")
    recorder.step(0.5)
    recorder.epoch()
    assert recorder.run.checkpoints == (1, 2)
    assert len(training.Run.read(tmp_path / "runs/own")) == 2
    assert read.checkpoints == (1,)
    assert torch.equal(read.weights(1)["weight"], model.weight)
    assert str(tmp_path / "runs/own") in repr(read)
