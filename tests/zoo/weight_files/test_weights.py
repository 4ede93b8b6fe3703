"""Weight files: every common form loads; what does not fit is listed, and the model stays as it was."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from microtome import zoo
from microtome.errors import ModelError
from microtome.zoo.weight_files import state_dicts


@pytest.fixture
def trained():
    return zoo.simple_conv_net(seed=5)


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


class Settings:
    """Hyperparameters as training code keeps them."""

    def __init__(self, **values):
        vars(self).update(values)


class AttributeDict(dict):
    """Lightning's dict of hyperparameters is of this kind."""


def lightning(state):
    hyper = {
        "path": pathlib.Path("runs/a"), "rate": np.float64(0.1), "array": np.arange(3), "args": argparse.Namespace(a=1),
        "settings": Settings(width=3), "when": datetime.datetime(2026, 1, 1), "attributes": AttributeDict(b=2),
    }  # fmt: skip
    return {
        "epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.0", "state_dict": prefixed("model.", state),
        "hyper_parameters": hyper, "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": pathlib.Path("runs")}},
    }  # fmt: skip


WRAPPED = {
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled, then data parallel": lambda state: prefixed("module._orig_mod.", state),
    "data parallel, then compiled": lambda state: prefixed("_orig_mod.module.", state),
    "Lightning, compiled, data parallel": lambda state: {"state_dict": prefixed("model._orig_mod.module.", state)},
    "one part compiled": lambda state: {n.replace("conv2.", "conv2._orig_mod."): v for n, v in state.items()},
    "net": lambda state: prefixed("net.", state),
    "a prefix of one's own": lambda state: {"params": prefixed("my_classifier.inner.", state)},
    "averaged": lambda state: {"n_averaged": torch.tensor(5), **prefixed("module.", state)},
    "average in a checkpoint": lambda state: {"epoch": 1, "ema": {"module": state, "decay": 0.99}},
    "nested": lambda state: {"checkpoint": {"model": {"state_dict": state}}, "loss": torch.tensor(1.0)},
    "Lightning with a loss": lambda state: {
        "state_dict": {**prefixed("model.", state), "criterion.weight": torch.ones(10)}
    },
    "half precision": lambda state: {name: value.half().float().half() for name, value in state.items()},
    "Lightning": lightning,
}


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("form", WRAPPED)
def test_wrappers_are_looked_through(form, kind, trained, tmp_path):
    state = {name: value.half().float() for name, value in trained.state_dict().items()}
    content, path = WRAPPED[form](state), tmp_path / f"w.{kind}"
    if kind == "safetensors":
        flat = next(iter(state_dicts.states(content)))[1]
        save_file({name: value.clone() for name, value in flat.items()}, path)
    else:
        torch.save(content, path)
    model = zoo.simple_conv_net(seed=0)
    zoo.load_weights(model, path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


BESIDE = {
    "timm": ("state_dict", "state_dict_ema", lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema}),
    "torchvision": (
        "model", "model_ema.module",
        lambda raw, ema: {"model": raw, "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.", ema)}},
    ),
    "one dict": ("model", "ema_model", lambda raw, ema: {**prefixed("model.", raw), **prefixed("ema_model.", ema)}),
    "Lightning": (
        "state_dict.model", "state_dict.model_ema",
        lambda raw, ema: {"state_dict": {**prefixed("model.", raw), **prefixed("model_ema.", ema)}},
    ),
    "swa": ("net", "net_swa", lambda raw, ema: {"net": raw, "net_swa": ema}),
}  # fmt: skip


@pytest.mark.parametrize("form", BESIDE)
def test_averaged_weights_beside_others_are_taken_said_and_may_be_chosen(form, trained, tmp_path, caplog):
    raw_name, ema_name, content = BESIDE[form]
    raw, ema = trained.state_dict(), zoo.simple_conv_net(seed=6).state_dict()
    torch.save(content(raw, ema), tmp_path / "w.pt")
    model = zoo.simple_conv_net(seed=0)
    assert zoo.load_weights(model, tmp_path / "w.pt") == ema_name
    assert torch.equal(model.conv1.weight, ema["conv1.weight"])
    assert f"{ema_name}, the averaged weights, was loaded, not {raw_name}" in caplog.text
    caplog.clear()
    assert zoo.load_weights(model, tmp_path / "w.pt", state=raw_name) == raw_name
    assert torch.equal(model.conv1.weight, raw["conv1.weight"])
    assert not caplog.text
    with pytest.raises(ModelError, match=rf'no fitting state "emma"\. Fitting states: {ema_name}, {raw_name}'):
        zoo.load_weights(model, tmp_path / "w.pt", state="emma")


def test_tensors_that_are_left_over_are_named(trained, tmp_path, caplog):
    state = {**prefixed("model.", trained.state_dict()), "criterion.weight": torch.ones(10)}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    zoo.load_weights(trained, tmp_path / "w.pt")
    assert "holds 1 tensors outside state_dict.model that are not used: criterion.weight" in caplog.text


def test_a_layer_of_another_network_is_not_taken_for_the_model(trained, tmp_path):
    message = misfit(trained.state_dict(), tmp_path, torch.nn.Linear(128, 10))  # fits fc5 by shape
    assert "unexpected" in message


def test_shards_with_an_index(trained, tmp_path):
    state = trained.state_dict()
    names, shards = list(state), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    where = {name: shards[place % 2] for place, name in enumerate(names)}
    for shard in shards:
        save_file({name: state[name] for name in names if where[name] == shard}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    for path in (index, tmp_path / shards[0], tmp_path):
        model = zoo.simple_conv_net(seed=0)
        zoo.load_weights(model, path)
        assert torch.equal(model.fc4.weight, state["fc4.weight"])
    (tmp_path / shards[1]).unlink()
    with pytest.raises(ModelError, match=r"00002-of-00002.*Download all shards"):
        zoo.load_weights(trained, index)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ModelError, match="not a weight file beside it"):
        zoo.load_weights(trained, index)
    index.write_text("[]")
    with pytest.raises(ModelError, match="no weight_map"):
        zoo.load_weights(trained, index)


def test_weights_that_share_memory_may_be_held_once(tmp_path):
    def tied():
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        model[2].weight = model[0].weight
        return model

    model, other = tied(), tied()
    save_file(
        {name: value for name, value in model.state_dict().items() if name != "2.weight"}, tmp_path / "w.safetensors"
    )
    zoo.load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other[2].weight, model[0].weight)


def test_a_model_in_wrappers_takes_plain_weights(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    model = zoo.simple_conv_net(seed=0)
    zoo.load_weights(torch.nn.DataParallel(model), tmp_path / "w.pt")
    assert torch.equal(model.conv1.weight, trained.conv1.weight)


CALLED = []


class Bomb:
    """Calls a function when it is unpickled."""

    def __reduce__(self):
        return (detonate, ("called",))


def detonate(what):
    CALLED.append(what)


def test_nothing_of_a_file_is_called(tmp_path, trained):
    torch.save({"state_dict": trained.state_dict(), "extra": Bomb()}, tmp_path / "w.pt")
    zoo.load_weights(zoo.simple_conv_net(seed=0), tmp_path / "w.pt")
    assert not CALLED
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert CALLED  # so that the file does hold what would be called


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
    assert "but Anything, or more than tensors" in misfit(Anything(), tmp_path)
    assert "no state dict" in misfit([torch.zeros(2)], tmp_path)
    assert "no state dict" in misfit({}, tmp_path)
    assert "no state dict" in misfit(collections.OrderedDict(a=1), tmp_path)
    assert "a dict with 'epoch', 'name'" in misfit({"epoch": 3, "name": "x"}, tmp_path)
    for name, content, message in [
        ("w.pt", b"torn", "w.pt"),
        ("w.safetensors", b"torn", r"no weight file, or it is damaged or incomplete \([A-Za-z]+"),
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


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("int8", "int8"),
        ("quantised", "qint8"),
        ("sparse", "sparse float32"),
        ("meta", "without content"),
        ("complex", "complex64"),
    ],
)
def test_tensors_that_do_not_become_weights_by_rounding_are_refused(tmp_path, kind, word):
    model = torch.nn.Linear(4, 3)
    weight = model.weight.detach()
    other = {
        "int8": lambda: (100 * weight).to(torch.int8),
        "quantised": lambda: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "sparse": weight.to_sparse,
        "meta": lambda: weight.to("meta"),
        "complex": lambda: weight.to(torch.complex64),
    }[kind]()
    torch.save({**model.state_dict(), "weight": other}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=f"1 of another type: weight .*{word}"):
        zoo.load_weights(model, tmp_path / "w.pt")


def test_safetensors_under_another_name(tmp_path):
    model, other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    save_file(other.state_dict(), tmp_path / "w.ckpt")
    zoo.load_weights(model, tmp_path / "w.ckpt")
    assert torch.equal(model.weight, other.weight)
