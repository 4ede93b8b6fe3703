"""Any map-style data set: torch's, lists, NumPy arrays, Pillow images, Hugging Face tables."""

from __future__ import annotations

import collections
import dataclasses
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from microtome import data
from microtome.errors import DataWarning, InputError

BYTES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)  # as pictures are stored: N, H, W, C
FLOATS = torch.from_numpy(BYTES).permute(0, 3, 1, 2) / 255
LABELS = torch.tensor([3, 1, 4, 1, 5, 9])


class Rows:
    """A map-style data set made of a function of the index."""

    def __init__(self, row):
        self.row = row

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.row(index)


def hugging_face_table(**columns):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=[f"class {i}" for i in range(10)])}
    )
    pictures = [Image.fromarray(picture) for picture in BYTES]
    return datasets.Dataset.from_dict({"picture": pictures, "label": LABELS.tolist()}, features=features)


LABELLED = {
    "tensors": lambda: TensorDataset(FLOATS, LABELS),
    "subset": lambda: Subset(TensorDataset(FLOATS, LABELS), range(6)),
    "bytes as torch has them": lambda: Rows(lambda i: (torch.from_numpy(BYTES[i]).permute(2, 0, 1), int(LABELS[i]))),
    "bytes as pictures have them": lambda: Rows(lambda i: (BYTES[i], np.int64(LABELS[i]))),
    "pillow": lambda: Rows(lambda i: (Image.fromarray(BYTES[i]), LABELS[i])),
    "lists": lambda: [[x, y] for x, y in zip(FLOATS, LABELS[:, None], strict=True)],
    "in memory": lambda: data.Images.from_float(FLOATS, LABELS),
    "hugging face": lambda: data.hugging_face(hugging_face_table(), (3, 5, 4), image="picture"),
}


@pytest.mark.parametrize("make", LABELLED.values(), ids=LABELLED)
def test_every_kind_of_labelled_data_set_gives_the_same_batches(make):
    dataset = make()
    found = list(data.batches(dataset, 4))
    assert [indices.tolist() for indices, _, _ in found] == [[0, 1, 2, 3], [4, 5]]
    assert torch.equal(torch.cat([images for _, images, _ in found]), FLOATS)
    assert torch.equal(torch.cat([labels for _, _, labels in found]), LABELS)
    assert torch.equal(data.labels(dataset), LABELS)


UNLABELLED = {
    "images": lambda: list(FLOATS),
    "tensor": lambda: FLOATS,
    "one column": lambda: TensorDataset(FLOATS),
    "pillow": lambda: Rows(lambda i: Image.fromarray(BYTES[i])),
    "in memory": lambda: data.Images.from_float(FLOATS),
}


@pytest.mark.parametrize("make", UNLABELLED.values(), ids=UNLABELLED)
def test_images_without_labels(make):
    dataset = make()
    (_, images, labels) = next(data.batches(dataset))
    assert torch.equal(images, FLOATS)
    assert labels is None
    assert data.labels(dataset) is None


def test_gray_pictures_of_two_dimensions():
    gray = Rows(lambda i: BYTES[i, ..., 0])
    assert torch.equal(next(data.batches(gray))[1][:, 0], FLOATS[:, 0])


def test_hugging_face_takes_classes_fits_sizes_and_finds_columns():
    table = hugging_face_table()
    found = data.hugging_face(table.rename_column("picture", "img"), (1, 3, 3))
    assert found.classes[9] == "class 9"
    assert next(data.batches(found))[1].shape == (6, 1, 3, 3)
    with pytest.raises(InputError, match="no image column among scan, label"):
        data.hugging_face(table.rename_column("picture", "scan"), (3, 5, 4))
    with pytest.raises(InputError, match='no column "photo"; it has picture, label'):
        data.hugging_face(table, (3, 5, 4), image="photo")
    with pytest.raises(InputError, match="one split"):
        data.hugging_face({"test": table}, (3, 5, 4))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Rows(lambda i: (torch.zeros(1, 4, 4) - 1, 0)), r"item 0 .* -1 to -1.*Network"),
        (Rows(lambda i: (torch.full((1, 4, 4), float("nan")), 0)), "item 0"),
        (Rows(lambda i: (torch.zeros(1, 4 + i, 4), 0)), "differ in shape"),
        (Rows(lambda i: torch.zeros(4, dtype=torch.long)), "shape"),
        (Rows(lambda i: (torch.zeros(1, 4, 4, dtype=torch.long), 0)), "int64"),
        (Rows(lambda i: [][i]), "item 0 of the data set cannot be read: IndexError"),
        (iter([1, 2]), "map-style"),
    ],
)
def test_what_is_no_image_is_refused(dataset, message):
    with pytest.raises(InputError, match=message):
        list(data.batches(dataset))


IMAGE = torch.zeros(1, 4, 4)
Pair = collections.namedtuple("Pair", "label image")  # the label first: known by its name


@dataclasses.dataclass
class Item:
    """An item as user code defines it."""

    img: torch.Tensor
    target: int


@pytest.mark.parametrize(
    "item",
    [
        {"image": IMAGE, "label": 2},
        {"IMG": IMAGE, "Labels": torch.tensor(2)},
        {"pixel_values": IMAGE, "target": np.int64(2)},
        Pair(2, IMAGE),
        Item(IMAGE, 2),
        (IMAGE, 2, "index of the item"),
        [(IMAGE, IMAGE), 2],
        (IMAGE, np.array([2])),
        (IMAGE, torch.tensor(2.0)),
        (IMAGE, [0, 0, 1]),
        (IMAGE, torch.tensor([[0, 0, 1.0]])),
        (IMAGE, "2"),
    ],
)
def test_an_item_may_have_any_of_the_usual_forms(item):
    _, images, labels = next(data.batches([item, item]))
    assert images.shape == (2, 1, 4, 4)
    assert labels.tolist() == [2, 2]


@pytest.mark.parametrize("label", [0.7, [0, 1, 1], {"boxes": IMAGE}, torch.zeros(4, 4), "cat", [[1], [1, 2]], object()])
def test_labels_that_are_no_class_index_are_none_or_an_error_that_shows_them(label):
    dataset = [(IMAGE, 1), (IMAGE, label)]
    assert data.labels(dataset) is None
    assert next(data.batches(dataset))[2] is None
    with pytest.raises(InputError, match=r"item 1 of the data set has .*label.*a class index is expected"):
        list(data.batches(dataset, labelled=True))


def test_bools_names_and_missing_labels():
    assert data.labels([(IMAGE, True), (IMAGE, np.bool_(False))]).tolist() == [1, 0]
    assert data.labels([(IMAGE, 1), (IMAGE, None), (IMAGE, float("nan")), (IMAGE, -100)]).tolist() == [1, -1, -1, -1]
    net = data.Expected((1, 4, 4), (0.0, 1.0), ["fish", "cat, house cat"])
    assert data.labels([(IMAGE, "House cat"), (IMAGE, "fish")], net=net).tolist() == [1, 0]
    assert data.labels([(IMAGE, b"House cat"), (IMAGE, np.bytes_(b"fish"))], net=net).tolist() == [1, 0]
    with pytest.warns(DataWarning, match="label 'dog', which is none of the class names"):
        assert data.labels([(IMAGE, "dog"), (IMAGE, "fish")], net=net) is None


class Counted(torch.utils.data.Dataset):
    """Counts how often it is read."""

    def __init__(self, **attributes):
        self.reads = 0
        vars(self).update(attributes)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.reads += 1
        return IMAGE + index / 8, self.label(index)

    def label(self, index):
        return index % 3


def test_no_item_is_read_for_its_label_alone():
    plain = Counted()
    adapted = data.adapt(plain)
    list(data.batches(adapted, 3))
    assert adapted.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert plain.reads == 8
    declared = Counted(targets=[0, 1, 2, 0, 1, 2, 0, 1])
    assert data.labels(declared).tolist() == declared.targets
    assert declared.reads == 1  # to see that the items bear the targets out
    parts = ConcatDataset([Subset(declared, [2, 1]), Subset(declared, [0])])
    assert data.labels(parts).tolist() == [2, 1, 0]
    assert declared.reads == 2


def test_what_an_item_says_counts_more_than_targets():
    changed = Counted(targets=[5] * 8)  # as under torchvision's target_transform
    assert data.labels(changed).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_an_item_that_changes_is_an_error_when_it_is_read_again():
    class Flipped(Counted):
        def __getitem__(self, index):
            self.reads += 1
            return torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(self.reads)), 0

    adapted = data.adapt(Flipped())
    list(data.batches(adapted))
    with pytest.raises(InputError, match=r"item 5 .* differs between two reads.*augmentation"):
        data.fetch(adapted, torch.tensor([5]))


@pytest.mark.parametrize("pixels", [(0.0, 255.0), (-1.0, 1.0), (0.0, 10000.0)])
def test_the_networks_range_holds(pixels):
    low, high = pixels
    net = data.Expected((3, 5, 4), pixels)
    expected = low + FLOATS * (high - low)
    forms = [
        [*expected], [*torch.from_numpy(BYTES).permute(0, 3, 1, 2)], [Image.fromarray(one) for one in BYTES],
        data.Images.from_float(FLOATS),
    ]  # fmt: skip
    for dataset in forms:
        torch.testing.assert_close(next(data.batches(dataset, net=net))[1], expected, rtol=1e-6, atol=1e-6 * high)
    with pytest.raises(InputError, match="is expected"):
        next(data.batches([expected[0] + high], net=net))


def test_any_range_admits_integers_and_no_infinity():
    anything = data.Expected((1, 2, 2), None)
    scan = torch.tensor([[[-1000, 0], [40, 3000]]], dtype=torch.int16)
    assert torch.equal(next(data.batches([scan], net=anything))[1][0], scan.float())
    with pytest.raises(InputError, match="NaN or infinity"):
        next(data.batches([torch.full((1, 2, 2), float("inf"))], net=anything))


def test_arrays_of_the_networks_own_shape_and_pillow_images_fit():
    net = data.Expected((3, 5, 4), (0.0, 1.0))
    first = np.ascontiguousarray(BYTES[0].transpose(2, 0, 1))
    assert torch.equal(next(data.batches([first, BYTES[0]], net=net))[1], FLOATS[[0, 0]])
    sizes = [Image.new("RGB", (9, 7)), Image.new("L", (20, 30))]
    assert next(data.batches(sizes, net=net))[1].shape == (2, 3, 5, 4)


class Stream(torch.utils.data.IterableDataset):
    """Has a length all the same."""

    def __len__(self):
        return 3

    def __iter__(self):
        return iter([IMAGE] * 3)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ("photos", r"path or name \"photos\".*microtome.data.folder"),
        (pathlib.Path("photos"), "microtome.data.folder"),
        ({"train": [1], "test": [1]}, r"with 'train', 'test'.*microtome.data.hugging_face"),
        ({"image": FLOATS, "label": LABELS}, "TensorDataset"),
        (DataLoader(TensorDataset(FLOATS, LABELS), batch_size=2), r"DataLoader of batches; give its \.dataset"),
        (list(DataLoader(TensorDataset(FLOATS, LABELS), batch_size=2)), "like a batch of a DataLoader"),
        ([FLOATS, LABELS], "like a batch of a DataLoader"),
        (Stream(), "Collect a stream into a list"),
        ((one for one in FLOATS), "microtome.data.hugging_face"),
        ([{"scan": IMAGE, "label": 1}], r"keys 'scan', 'label'; its image is looked for under image.*hugging_face"),
        (["a.png", "b.png"], "is a str.*microtome.data.folder"),
        ([object()], "is a object; a tensor"),
    ],
)
def test_containers_that_are_no_data_set_are_named_with_what_to_give(container, message):
    with pytest.raises(InputError, match=message):
        list(data.batches(container))


def test_a_batch_holds_something():
    with pytest.raises(InputError, match="batch=0"):
        next(data.batches(FLOATS, 0))
