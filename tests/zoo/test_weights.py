"""Weight files: every common form loads; what does not fit is listed, and the model stays as it was."""

from __future__ import annotations

import collections
import re

import pytest
import torch
from safetensors.torch import save_file

from microtome import zoo
from microtome.errors import ModelError


@pytest.fixture
def trained():
    return zoo.simple_conv_net(seed=5)


FORMS = {
    "under a key of one's own": lambda state, path: torch.save({"epoch": 3, "net_ema": state}, path),
    "state dict": lambda state, path: torch.save(state, path),
    "wrapped": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "model": lambda state, path: torch.save({"model": state, "optimizer": {"lr": 0.1}}, path),
    "data parallel": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "old format": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_forms_of_torch_files(write, trained, tmp_path):
    write(trained.state_dict(), tmp_path / "w.pt")
    model = zoo.build("simple-convnet", weights=tmp_path / "w.pt")
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_safetensors(trained, tmp_path):
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = zoo.build("simple-convnet", weights=tmp_path / "w.safetensors")
    assert torch.equal(model.conv2.weight, trained.conv2.weight)


def misfit(state, tmp_path, model=None):
    torch.save(state, tmp_path / "w.pt")
    model = model or zoo.simple_conv_net(seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        zoo.load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


def test_keys_that_do_not_fit_are_listed_and_nothing_is_loaded(trained, tmp_path):
    state = trained.state_dict()
    state["conv9.weight"] = state.pop("conv2.weight")
    state["fc5.weight"] = torch.zeros(7, 128)
    message = misfit(state, tmp_path)
    assert "1 missing: conv2.weight" in message
    assert "1 unexpected: conv9.weight" in message
    assert "1 of another shape: fc5.weight (model (10, 128), file (7, 128))" in message
    assert "w.pt does not fit SimpleConvNet" in message


def test_a_file_of_another_network_says_how_many_more(tmp_path):
    message = misfit(zoo.build("resnet18").state_dict(), tmp_path)
    assert re.search(r"unexpected: conv1\.\w+.* and \d+ more", message) or "and" in message
    assert len(message) < 800


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value, trained, tmp_path):
    state = trained.state_dict()
    state["conv3.bias"] = torch.full((64,), value)
    assert "NaN or infinite weights in conv3.bias" in misfit(state, tmp_path)


class Anything:
    """Something that is no tensor."""


def test_files_that_are_no_weights(trained, tmp_path):
    assert "more than tensors" in misfit({"model": Anything()}, tmp_path)
    assert "no state dict" in misfit([torch.zeros(2)], tmp_path)
    assert "no state dict" in misfit({}, tmp_path)
    assert "no state dict" in misfit(collections.OrderedDict(a=1), tmp_path)
    assert "a dict with 'epoch', 'name'" in misfit({"epoch": 3, "name": "x"}, tmp_path)
    for name, content, message in [
        ("w.pt", b"torn", "w.pt"),
        ("w.safetensors", b"torn", "no weight file, or a torn one"),
        ("empty.pt", b"", "empty.pt is empty"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=message):
            zoo.load_weights(trained, tmp_path / name)
    with pytest.raises(ModelError, match="there is no weight file"):
        zoo.load_weights(trained, tmp_path / "gone.pt")
    with pytest.raises(ModelError, match="is a folder"):
        zoo.load_weights(trained, tmp_path)


def test_a_scripted_model_is_named_as_one_without_a_warning(trained, tmp_path, recwarn):
    torch.jit.trace(trained.eval(), torch.zeros(1, 1, 28, 28)).save(str(tmp_path / "w.pt"))
    recwarn.clear()
    with pytest.raises(ModelError, match="TorchScript archive"):
        zoo.load_weights(trained, tmp_path / "w.pt")
    assert not recwarn.list


def test_batch_counters_may_be_missing(tmp_path):
    state = {k: v for k, v in zoo.build("resnet18", classes=3).state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pt")
    zoo.load_weights(zoo.build("resnet18", classes=3, seed=9), tmp_path / "w.pt")
