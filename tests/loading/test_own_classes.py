"""Folders of classes that are not the network's keep their names; only what needs the network's classes refuses."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from atlas import small
from microtome import Network, data, load, representation, spaces, training, units
from microtome.cli.main import run
from microtome.data import adapt
from microtome.errors import DataWarning, InputError
from microtome.loading.run_config import opened
from microtome.surgery import sampled

SHAPE = (1, 4, 4)
NAMES = ["cat", "dog", "eel"]


def network(classes: list[str] | None, outputs: int = 3) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, outputs))
    model[0].weight.data.abs_()  # lighter pictures give more
    return Network(model.eval(), SHAPE, classes=classes)


def tree(root: Path, *folders: str) -> Path:
    """Six pictures in each folder; those of a later folder are lighter."""
    draw = np.random.default_rng(0)
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for place in range(6):
            pixels = draw.integers(100 * number, 100 * number + 50, (4, 4)).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{place}.png")
    return root


@pytest.mark.parametrize(
    ("classes", "outputs", "folders"),
    [
        (NAMES, 3, ("mug", "teapot")),
        (NAMES, 3, ("cup", "mug", "teapot")),  # as many, but others
        (NAMES, 3, ("cat", "teapot")),  # one of them
        (["crane", "dog", "crane"], 3, ("crane", "dog")),  # two have the name
        (None, 5, ("mug", "teapot")),
        (None, 3, ("0", "1", "7")),
    ],
)
def test_a_folder_of_other_classes_keeps_its_names(
    tmp_path: Path, classes: list[str] | None, outputs: int, folders: tuple[str, ...]
) -> None:
    net, root = network(classes, outputs), str(tree(tmp_path, *folders))
    with pytest.warns(DataWarning, match="labels of the images are not taken for the network's classes: ") as said:
        subject = opened(net, root)
    assert len(said) == 1
    known = torch.arange(len(folders)).repeat_interleave(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert subject.labels is None
        assert net.classes == classes
        top = units.top_patches(net, subject.images, "0", k=2)["0"]
        assert top.classes == list(folders)
        light = top.groups[int(top.mean.argmax()), 0]
        assert top.histogram.sum(1).sum(1).tolist() == [6 * len(folders)] * 2
        assert {int(group) for group in top.groups.flatten()} == {*range(len(folders)), -1}
        assert top.classes[int(light)] in folders
        assert bool((top.selectivity > 0).any())
        special = units.specialised(net, subject.images, "0")
        assert torch.equal(special.peak_label["0"], known[special.peak_image["0"]])
        assert special.classes == list(folders)
        assert units.class_labels(top).labels
        selectivity = units.criteria(net, sampled(subject.images, 12), "0", columns=["class_selectivity"])
        assert bool((selectivity.value["0"] > 0.2).all())
        assert torch.equal(representation.features(net, subject.images, "0").labels, known)
        entropy = training.information.usable_information(net, subject.images, ["0"], folds=3).label_entropy
        assert entropy == pytest.approx(np.log2(len(folders)), rel=1e-6) or entropy == pytest.approx(
            np.log(len(folders)), rel=1e-6
        )
    with pytest.raises(InputError):
        opened(net, root, labelled=True)


def test_what_needs_the_networks_classes_says_which_label_is_none(tmp_path: Path) -> None:
    net = network(NAMES)
    with pytest.warns(DataWarning):
        images = opened(net, str(tree(tmp_path, "mug", "teapot"))).images
    with pytest.raises(InputError, match=r"label 0 \(mug\), which is none of the network's classes"):
        spaces.class_residuals(net, images, layer="0")
    assert adapt(sampled(images, 6), net).labels is None


@pytest.mark.parametrize("folders", [("mug", "teapot"), ("ant", "bee", "cup", "mug")])
def test_a_folder_that_a_function_gets_keeps_its_names_too(tmp_path: Path, folders: tuple[str, ...]) -> None:
    """Without a name in common, another number of classes cannot be the network's in order."""
    net, images = network(NAMES), data.folder(tree(tmp_path, *folders), SHAPE)
    with pytest.warns(DataWarning, match="not taken for the network's classes: it has label 0"):
        top = units.top_patches(net, images, "0")["0"]
    assert top.classes == list(folders)
    assert torch.equal(top.groups[:, :-1].sort().values, torch.arange(len(folders)).expand(2, -1))


def test_labels_of_pairs_that_are_not_the_networks_keep_their_numbers() -> None:
    pairs = [(torch.full(SHAPE, label / 9), label) for label in (7, 8, 9) for _ in range(3)]
    with pytest.warns(DataWarning, match="label 7, while the network has 3 classes"):
        top = units.top_patches(network(NAMES), pairs, "0")["0"]
    assert top.classes is None
    assert {int(group) for group in top.groups.flatten()} == {7, 8, 9, -1}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small.write(tmp_path)
    for number in range(3):
        (tmp_path / "images" / f"class{number}").rename(tmp_path / "images" / ("mug", "pot", "tea")[number])
    (tmp_path / "classes.txt").write_text("cat\ndog\neel\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("nets", None)
    return tmp_path


OPTIONS = ["--model", "nets:build", "--input-shape", small.SHAPE, "--classes", "classes.txt", "--data", "images"]


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["top-patches", "--layer", "one"], "patches.safetensors"),
        (["reconstruct", "--layer", "one", "--channels", "0"], "rows.png"),
        (["map", "--layer", "one", "--method", "pca"], "map.png"),
        (["map", "--layer", "one", "--method", "pca"], "map.html"),
        (["cka"], "cka.png"),
        (["rejected", "--limit", "4"], "rejected.png"),
        (["natural-filters", "--patches", "500"], "ica.png"),
        (["layer-repeats", "--images", "9"], "repeats.png"),
        (["usable-information", "--folds", "3"], "usable.png"),
        (["compress", "--multiply-adds", "0.8"], "weights.safetensors"),
        (["lossless"], "cut.safetensors"),
        (["criteria", "--layers", "one"], "criteria.safetensors"),
    ],
)
def test_commands_that_need_no_class_of_the_network_run(
    files: Path, command: list[str], output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        assert run([*command, *OPTIONS, "-o", output]) == 0, capsys.readouterr().err
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(said) == 1
    assert 'the class folder "mug" is none of the network\'s 3 classes' in said[0]
    if command[0] == "top-patches":
        assert load(output).classes == ["mug", "pot", "tea"]


@pytest.mark.parametrize(
    "command",
    [["prune"], ["without", "--layer", "two"], ["class-residuals"], ["ideal-inputs"], ["landscape"], ["curvature"]],
)
def test_commands_that_need_them_refuse(files: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, *OPTIONS, "-o", "found.safetensors"]) == 2
    assert 'error: the class folder "mug" is none of the network\'s 3 classes' in capsys.readouterr().err
