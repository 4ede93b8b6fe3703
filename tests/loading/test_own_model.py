"""A model from a name: by its module or its file, and what a mistyped factory is offered."""

from __future__ import annotations

import sys

import pytest
import torch

from microtome.errors import ModelError
from microtome.loading import build


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn import Linear, Module\nfrom math import sqrt as make\n"
        "WIDTH = 8\nclass Small(nn.Module):\n    pass\nclass Needs(nn.Module):\n    def __init__(self, width):\n"
        "        super().__init__()\ndef make_small(): return Small()\ndef train(model): ...\n"
        "def _hidden(): ...\nready = Small()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_nets", None)


def test_only_the_modules_own_factories_are_offered():
    with pytest.raises(ModelError) as caught:
        build("my_nets:mak_smal")
    message = str(caught.value)
    assert "make_small, Small, ready" in message or "Its own: make_small" in message
    for other in ("Linear", "torch", "WIDTH", "_hidden", " make,", "train", "Needs"):
        assert other not in message


def test_a_module_and_a_class_without_arguments_are_taken():
    assert type(build("my_nets:Small")).__name__ == "Small"
    assert type(build("my_nets:ready")).__name__ == "Small"


def test_a_class_that_needs_arguments_says_how_to_write_a_factory():
    with pytest.raises(ModelError, match=r"Needs.* raises: TypeError.*width"):
        build("my_nets:Needs")


def test_a_file_is_named_by_its_path_and_may_import_from_its_folder(tmp_path):
    place = tmp_path / "my project" / "nets.v2.py"
    place.parent.mkdir()
    place.write_text("from blocks_beside import Block\ndef make(): return Block()\nready = Block()\n")
    (place.parent / "blocks_beside.py").write_text(
        "import torch\nclass Block(torch.nn.Linear):\n    def __init__(self): super().__init__(2, 2)\n"
    )
    first, again = build(f"{place}:make"), build("my project/nets.v2.py:make")
    assert type(first).__name__ == "Block"
    assert torch.equal(first.weight, again.weight)  # random weights come from a fixed state
    assert type(build(f"{place}:ready")).__name__ == "Block"
