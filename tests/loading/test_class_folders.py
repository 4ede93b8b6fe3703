"""Class folders become the network's classes, by name, by number, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from microtome import Network, data
from microtome.errors import InputError
from microtome.loading import labelled

SHAPE = (1, 4, 4)


def network(outputs, classes=None):
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(16, outputs)), SHAPE, classes=classes)


@pytest.fixture
def tree(tmp_path):
    def make(*folders):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / folder / "a.png")
        return tmp_path

    return make


def label_of(root, folder, net):
    found = labelled(data.folder(root, SHAPE, classes=net.classes), net)
    return int(found.labels[found.names.index(f"{folder}/a.png")])


@pytest.mark.parametrize("gone", [None, "11", "0"])
def test_numbered_folders_are_numbers_whichever_are_there(tree, gone):
    root = tree(*(str(number) for number in range(12) if str(number) != gone))
    assert label_of(root, "2", network(12)) == 2
    assert label_of(root, "10", network(12)) == 10


def test_numbers_with_zeros_in_front_and_numbers_from_1(tree):
    root = tree(*(f"{number:03d}" for number in range(3)))
    assert label_of(root, "002", network(3)) == 2
    assert label_of(root, "002", network(11)) == 2


def test_folders_counted_from_1_come_in_the_order_of_the_outputs(tree):
    root = tree(*(str(number) for number in range(1, 13)))
    assert label_of(root, "10", network(12)) == 9


def test_numbers_before_names_order_the_classes(tree):
    root = tree(*(f"{number}_{name}" for number, name in enumerate("abcdefghijkl")))
    assert label_of(root, "2_c", network(12)) == 2


def test_numbers_with_gaps_are_an_error(tree):
    with pytest.raises(InputError, match="their match is ambiguous"):
        label_of(tree("0", "1", "7"), "7", network(3))


def test_names_are_looked_up_where_the_network_has_them(tree):
    assert label_of(tree("cat", "dog"), "dog", network(3, ["dog", "cow", "cat"])) == 0


@pytest.mark.parametrize(
    "parts", [("train", "val"), ("training", "test"), ("Train", "Validation", "TEST"), ("train_set", "test2017")]
)
def test_parts_of_a_data_set_are_no_classes(tree, parts):
    root = tree(*(f"{part}/{name}" for part in parts for name in ("cat", "dog")))
    with pytest.raises(InputError, match=f"parts of a data set.*{sorted(parts)[0]}, "):
        data.folder(root, SHAPE)
    found = data.folder(root / parts[0], SHAPE)
    assert found.classes == ("cat", "dog")


def test_one_part_alone_with_its_classes_is_no_class(tree):
    with pytest.raises(InputError, match=r"Give one of them: .*train\."):
        data.folder(tree("train/cat", "train/dog"), SHAPE)


def test_parts_without_classes_are_no_classes_either(tree):
    with pytest.raises(InputError, match="parts of a data set"):
        data.folder(tree("train", "test"), SHAPE)


def test_a_class_may_be_called_train_or_test(tree):
    root = tree("train", "bus", "tram")
    assert data.folder(root, SHAPE).classes == ("bus", "train", "tram")
    classes = ["train", "test", "bus", "tram"]
    assert data.folder(root, SHAPE, classes=classes).labels.tolist() == [2, 0, 3]


def test_what_is_no_folder_comes_back_as_it_is():
    pictures = data.Images(torch.zeros(2, *SHAPE, dtype=torch.uint8))
    assert labelled(pictures, network(3)) is pictures


def test_folders_whose_order_by_text_is_not_that_of_their_numbers(tree):
    root = tree(*(f"class{number}" for number in range(12)))
    with pytest.raises(InputError, match="order by text is not that of their numbers"):
        label_of(root, "class2", network(12))
    assert label_of(root, "class2", network(12, [f"class{number}" for number in range(12)])) == 2
    assert label_of(tree("a/class1", "a/class2") / "a", "class2", network(2)) == 1


def test_one_probability_has_two_folders(tree):
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 1), nn.Sigmoid()), SHAPE)
    assert label_of(tree("cat", "dog"), "dog", net) == 1


def test_a_class_without_pictures_keeps_its_number(tree):
    root = tree("cat", "dog")
    (root / "bird").mkdir()
    assert label_of(root, "cat", network(3)) == 1
    assert label_of(root, "cat", network(2)) == 0
    (root / "bird" / "notes.txt").write_text("no class")
    with pytest.raises(InputError, match=r"2 class folders \(cat, dog\), the network 3"):
        label_of(root, "cat", network(3))


def test_one_class_folder_is_said_in_the_singular(tree):
    with pytest.raises(InputError, match=r"has 1 class folder \(cat\), the network 3 classes"):
        label_of(tree("cat"), "cat", network(3))
