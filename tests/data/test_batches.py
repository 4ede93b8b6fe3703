"""Any map-style data set: torch's, lists, NumPy arrays, Pillow images, Hugging Face tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from microtome import data
from microtome.errors import InputError

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
    with pytest.raises(InputError, match="no image column among picture, label"):
        data.hugging_face(table, (3, 5, 4))
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
        (Rows(lambda i: (torch.zeros(1, 4, 4), "cat")), "label 'cat'"),
        (Rows(lambda i: (torch.zeros(1, 4, 4), [1, 0])), r"label of shape \(2,\)"),
        (Rows(lambda i: torch.zeros(4, dtype=torch.long)), "shape"),
        (Rows(lambda i: (torch.zeros(1, 4, 4, dtype=torch.long), 0)), "int64"),
        (Rows(lambda i: [][i]), "item 0 of the data set cannot be read: IndexError"),
        (iter([1, 2]), "map-style"),
    ],
)
def test_what_is_no_image_is_refused(dataset, message):
    with pytest.raises(InputError, match=message):
        list(data.batches(dataset))


def test_a_batch_holds_something():
    with pytest.raises(InputError, match="batch_size=0"):
        next(data.batches(FLOATS, 0))
