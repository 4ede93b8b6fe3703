"""Labels of a data set with class names of its own are classes of the network; where that fails, it is said."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from microtome import Network, data, units
from microtome.errors import DataWarning, InputError

SHAPE = (3, 8, 8)
NAMES = ["cat", "dog", "eel"]


def network(classes=NAMES, outputs=3, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs))
    return Network(model.eval(), SHAPE, classes=classes, **options)


class Pictures(torch.utils.data.Dataset):
    """As torchvision.datasets.ImageFolder: class names in the order of text, integer labels."""

    def __init__(self, classes, targets, *, declares=True):
        self.classes, self._targets = classes, list(targets)
        if declares:
            self.targets = self._targets
        self.images = torch.rand(len(self._targets), *SHAPE, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self._targets)

    def __getitem__(self, index):
        return self.images[index], self._targets[index]


def labels_of(dataset, net):
    (_, _, found), *_ = data.batches(dataset, net=net)
    declared = data.labels(dataset, net=net)
    assert (found is None) == (declared is None)
    if found is not None:
        assert found.tolist() == declared.tolist()
    return None if found is None else found.tolist()


@pytest.mark.parametrize("declares", [True, False])
def test_integer_labels_follow_the_names(declares):
    dataset = Pictures(["dog", "cat", "eel"], [0, 1, 2], declares=declares)
    assert labels_of(dataset, network()) == [1, 0, 2]
    assert labels_of(Subset(dataset, [2, 0]), network()) == [2, 1]
    assert labels_of(ConcatDataset([dataset, dataset]), network()) == [1, 0, 2, 1, 0, 2]
    assert labels_of(dataset, network(None)) == [0, 1, 2]
    assert labels_of(data.adapt(dataset), network()) == [1, 0, 2]  # also where it had been read without a network


def test_data_sets_of_the_package_follow_the_names_too():
    pixels = torch.zeros(3, *SHAPE, dtype=torch.uint8)
    images = data.Images(pixels, torch.tensor([0, 1, 2]), ("dog", "cat", "eel"))
    assert labels_of(images, network()) == [1, 0, 2]


def test_synonyms_and_equal_names_at_the_same_place():
    classes = ["crane", "dog, domestic dog", "crane"]
    dataset = Pictures([("crane", "bird"), ("dog", "domestic dog"), ("crane",)], [0, 1, 2])
    assert labels_of(dataset, network(classes)) == [0, 1, 2]


def test_a_class_that_the_network_does_not_have_is_said():
    dataset = Pictures(["ant", "cat", "dog", "eel"], [0, 1, 2, 3])
    with pytest.warns(
        DataWarning,
        match=r"not taken for the network's classes: it has label 0 \(ant\), which is none of the network's classes",
    ):
        assert labels_of(dataset, network()) is None
    with pytest.raises(InputError, match=r"item 0 .* label 0 \(ant\)"), pytest.warns(DataWarning):
        list(data.batches(dataset, net=network(), labelled=True))


def test_names_of_another_kind_are_said():
    dataset = Pictures(["n1", "n2", "n3"], [0, 1, 2])
    with pytest.warns(DataWarning, match="have no name in common; label 0 is taken as the network's first class"):
        assert labels_of(dataset, network()) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["pairs", "in memory"])
def test_a_label_beyond_the_classes_is_said(kind):
    images, labels = torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.tensor([1, 3])
    dataset = data.Images(images, labels) if kind == "in memory" else list(zip(images, labels, strict=True))
    with pytest.warns(DataWarning, match="label 3, while the network has 3 classes, 0 to 2"):
        assert labels_of(dataset, network(None)) is None
    with pytest.warns(DataWarning):
        top = units.top_patches(network(None), dataset, layers=["0"], k=1)  # needs no labels
    assert top["0"].activation.shape == (4, 1)
    with pytest.raises(InputError, match=r"item 1 .* label 3"), pytest.warns(DataWarning):
        list(data.batches(dataset, net=network(None), labelled=True))


def test_one_probability_tells_two_classes_apart():
    net = network(None, outputs=1, output="sigmoid")
    assert labels_of([(torch.zeros(SHAPE), 0), (torch.zeros(SHAPE), 1)], net) == [0, 1]


def test_a_name_of_two_classes_is_refused():
    with pytest.raises(InputError, match='"crane" is the name of 2 of the network\'s classes, numbers 0, 2'):
        labels_of([(torch.zeros(SHAPE), "crane")], network(["crane", "dog", "crane"]))
    with pytest.raises(InputError, match='2 classes are called "crane", numbers 0, 2'):
        network(["crane", "dog", "crane"]).class_index("crane")


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / name / "a.png")
    return root


def test_a_linked_class_folder_is_read(tmp_path):
    folders(tmp_path / "set", "cat")
    folders(tmp_path / "elsewhere", "dogs")
    os.symlink(tmp_path / "elsewhere" / "dogs", tmp_path / "set" / "dog")
    os.symlink(tmp_path / "set", tmp_path / "set" / "cat" / "round")  # a link back is not followed
    assert data.folder(tmp_path / "set", SHAPE).names == ("cat/a.png", "dog/a.png")


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("images_train", "images_val"), ("images", "masks")])
def test_parts_of_a_data_set_in_other_words(tmp_path, names):
    root = folders(tmp_path, *(f"{part}/{name}" for part in names for name in ("cat", "dog")))
    with pytest.raises(InputError, match="parts of a data set, not classes"):
        data.folder(root, SHAPE)


def test_pictures_beside_class_folders_are_said(tmp_path):
    folders(tmp_path, "cat")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "preview.png")
    with pytest.warns(DataWarning, match=r"beside folders of pictures \(preview.png\), so its pictures have no labels"):
        assert data.folder(tmp_path, SHAPE).labels is None


def test_equal_names_say_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels_of(Pictures(NAMES, [2, 1, 0]), network()) == [2, 1, 0]


def test_classes_named_by_number_are_the_networks_where_it_has_no_names():
    assert labels_of(Pictures(["2", "0"], [0, 1, 0]), network(None)) == [2, 0, 2]
    assert labels_of(Pictures(["1", "2", "3"], [0, 1, 2]), network(None)) == [0, 1, 2]  # counted from 1


def test_fewer_classes_than_a_network_without_names_has_are_said():
    with pytest.warns(DataWarning, match="2 classes \\(cat, eel\\), the network 3, whose names are not known"):
        assert labels_of(Pictures(["cat", "eel"], [0, 1]), network(None)) == [0, 1]


class Numbered(Pictures):
    """Items of three parts, as data sets for training with sample weights or memory banks have them."""

    def __init__(self, targets, order):
        super().__init__(None, targets, declares=False)
        self.order = order

    def __getitem__(self, index):
        part = {"image": self.images[index], "label": self._targets[index], "index": index}
        return tuple(part[name] for name in self.order)


def test_the_index_of_an_item_is_not_its_label():
    """Every network of many classes would take the indices of a small data set for classes."""
    with pytest.warns(DataWarning, match="the second part of the data set's items is their own index"):
        assert labels_of(Numbered([1, 2, 1, 0], ["image", "index", "label"]), network(None, 10)) == [1, 2, 1, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels_of(Numbered([1, 2, 1, 0], ["image", "label", "index"]), network(None, 10)) == [1, 2, 1, 0]
