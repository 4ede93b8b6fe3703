"""Folders of pictures: every kind of file that people have, labels from names, clear errors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from microtome import data
from microtome.errors import DataWarning, InputError

SHAPE = (3, 8, 12)


@pytest.fixture
def scene() -> np.ndarray:
    """An RGB picture of 8 x 12 in which every corner has another colour."""
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:4, :6] = (250, 10, 20)
    picture[:4, 6:] = (15, 240, 30)
    picture[4:, :6] = (25, 35, 230)
    picture[4:, 6:] = (200, 210, 60)
    return picture


def read(path, shape=SHAPE) -> np.ndarray:
    return data.decode(path, shape).transpose(1, 2, 0)


def test_a_plain_picture_is_read_as_it_is(tmp_path, scene):
    Image.fromarray(scene).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), scene)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path, scene, orientation):
    turned = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 3),
    }[orientation](scene)  # what the camera stored, if `orientation` is how to turn it upright
    picture = Image.fromarray(np.ascontiguousarray(turned))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), scene)


def test_palette(tmp_path, scene):
    Image.fromarray(scene).quantize(8).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png").astype(int) - scene).max() <= 8


def test_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    picture = Image.new("P", (12, 8), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 6, 8))
    picture.save(tmp_path / "a.png", transparency=0)
    pixels = read(tmp_path / "a.png")
    assert (pixels[:, :6] == 255).all()
    assert (pixels[:, 6:] == (0, 0, 255)).all()


def test_alpha_lies_on_white(tmp_path, scene):
    alpha = np.full((8, 12, 1), 51, np.uint8)  # a fifth
    Image.fromarray(np.concatenate([scene, alpha], 2)).save(tmp_path / "a.png")
    expected = scene * 0.2 + 255 * 0.8
    assert np.abs(read(tmp_path / "a.png") - expected).max() <= 1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", (1, 8, 12))[..., 0], np.rint(deep / 257))
    assert np.array_equal(read(tmp_path / "a.png")[..., 2], np.rint(deep / 257))


def test_floats_are_read_in_their_range(tmp_path):
    Image.fromarray(np.full((8, 12), 0.5, np.float32)).save(tmp_path / "a.tiff")
    assert (read(tmp_path / "a.tiff") == 128).all()
    Image.fromarray(np.full((8, 12), 7.0, np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(InputError, match=r"b\.tiff has gray values from 7 to 7"):
        read(tmp_path / "b.tiff")


def test_bytes_in_a_wider_type_are_no_black_picture(tmp_path):
    Image.fromarray(np.linspace(0, 255, 96).astype(np.int32).reshape(8, 12)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="from 0 to 255 in 32 bits"):
        read(tmp_path / "a.tiff")
    Image.fromarray(np.linspace(0, 65535, 96).astype(np.int32).reshape(8, 12)).save(tmp_path / "b.tiff")
    assert read(tmp_path / "b.tiff").max() == 255


def test_one_folder_around_the_class_folders_is_no_class(tmp_path, scene):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(scene).save(tmp_path / "photos" / name / "a.png")
    with pytest.warns(DataWarning, match="holds the one folder photos, with 2 folders in it"):
        assert data.folder(tmp_path, (3, 8, 12)).labels is None
    assert data.folder(tmp_path / "photos", (3, 8, 12)).classes == ("cat", "dog")


def test_cmyk(tmp_path):
    Image.new("CMYK", (12, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() <= 3


def test_gray_file_for_a_colour_network_and_back(tmp_path, scene):
    Image.fromarray(scene).convert("L").save(tmp_path / "gray.png")
    Image.fromarray(scene).save(tmp_path / "colour.png")
    gray = np.asarray(Image.fromarray(scene).convert("L"))
    assert np.array_equal(read(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, 2))
    assert np.array_equal(read(tmp_path / "colour.png", (1, 8, 12))[..., 0], gray)


def test_the_centre_stays_when_the_shape_differs(tmp_path):
    tall = np.zeros((40, 10, 3), np.uint8)
    tall[16:24] = 200
    Image.fromarray(tall).save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png", (3, 8, 10))
    assert (pixels == 200).all()


def test_a_huge_jpeg_is_decoded_at_a_coarser_scale_without_a_visible_difference(tmp_path):
    y, x = np.mgrid[:1600, :2400]
    smooth = np.stack([x * 255 / 2399, y * 255 / 1599, (x + y) * 255 / 3998], 2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    full = np.asarray(Image.open(tmp_path / "a.jpg").resize((96, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read(tmp_path / "a.jpg", (3, 64, 96)) - full).max() <= 3


def test_flat_folder_in_order_with_names(tmp_path, scene):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.fromarray(scene).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = data.folder(tmp_path, SHAPE)
    assert found.names == ("a.JPG", "b.png")
    assert found.labels is None
    assert found.classes is None
    (indices, images, labels) = next(iter(data.batches(found, 5)))
    assert indices.tolist() == [0, 1]
    assert torch.equal(images[1], torch.from_numpy(scene).permute(2, 0, 1) / 255)
    assert labels is None
    assert torch.equal(found.load().images, images)
    assert torch.equal(found[1], images[1])


def test_class_folders(tmp_path, scene):
    for name in ("dog/1.png", "cat/2.png", "cat/deeper/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene).save(tmp_path / name)
    found = data.folder(tmp_path, SHAPE)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1]
    assert found[2][1] == 1
    chosen = found.subset([2, 0])
    assert chosen.names == ("dog/1.png", "cat/2.png")
    assert chosen.labels.tolist() == [1, 0]
    known = data.folder(tmp_path, SHAPE, classes=["fish", "Dog", "house cat, cat"])
    assert known.labels.tolist() == [2, 2, 1]
    with pytest.raises(
        InputError, match=r'"cat" is none of the network.s 2 classes.*into one folder without subfolders'
    ):
        data.folder(tmp_path, SHAPE, classes=["fish", "dog"])


def test_numbers_in_front_are_labels_only_where_the_classes_bear_them_out(tmp_path, scene):
    for name in ("0_tench.png", "2_great-white shark.png"):
        Image.fromarray(scene).save(tmp_path / name)
    classes = ["tench", "goldfish", "great white shark, white shark"]
    assert data.folder(tmp_path, SHAPE, classes=classes).labels.tolist() == [0, 2]
    assert data.folder(tmp_path, SHAPE).labels is None
    assert data.folder(tmp_path, SHAPE, classes=["a", "b", "c"]).labels is None
    assert data.folder(tmp_path, SHAPE, classes=classes[:2]).labels is None


def broken(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return data.folder(tmp_path, SHAPE)


def test_a_broken_picture_is_named(tmp_path, scene):
    Image.fromarray(np.tile(scene, (20, 20, 1))).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    folder = broken(tmp_path, "cut.jpg", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.jpg is broken"):
        folder.load()
    (tmp_path / "cut.jpg").unlink()
    with pytest.raises(InputError, match=r"text\.png is not an image"):
        broken(tmp_path, "text.png", b"hello").load()
    (tmp_path / "text.png").unlink()
    empty = broken(tmp_path, "text.png", b"")
    with pytest.raises(InputError, match=r"text\.png"):
        list(data.batches(empty))
    gone = data.folder(tmp_path, SHAPE)
    (tmp_path / "text.png").unlink()
    with pytest.raises(InputError, match=r"no image file .*text\.png"):
        gone.load()


def test_a_picture_bomb_is_refused(tmp_path, scene, monkeypatch):
    Image.fromarray(scene).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"bomb\.png is too large"):
        data.folder(tmp_path, SHAPE).load()


def test_no_folder_no_pictures_or_odd_channels(tmp_path, scene):
    with pytest.raises(InputError, match="holds no images"):
        data.folder(tmp_path, SHAPE)
    with pytest.raises(InputError, match="there is no folder"):
        data.folder(tmp_path / "nothing", SHAPE)
    Image.fromarray(scene).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is a file"):
        data.folder(tmp_path / "a.png", SHAPE)
    with pytest.raises(InputError, match="the network takes 5"):
        data.folder(tmp_path, (5, 8, 12)).load()


def test_all_broken_pictures_are_named_at_once(tmp_path, scene):
    for name in ("a.png", "c.png", "e.png"):
        Image.fromarray(scene).save(tmp_path / name)
    broken(tmp_path, "b.png", b"hello")
    folder = broken(tmp_path, "d.jpg", b"")
    with pytest.raises(InputError, match=r"b\.png is not an image.*PNG or JPEG\. 1 more cannot be read: d\.jpg\.$"):
        folder.load()
    with pytest.raises(InputError, match=r"d\.jpg is not.* 1 more cannot be read: b\.png\.$"):
        folder.fetch(torch.tensor([0, 3]))
    for number in range(12):
        folder = broken(tmp_path, f"f{number:02d}.png", b"")
    with pytest.raises(InputError, match=r"13 more .*: d\.jpg, f00\.png, .*f06\.png, \.\.\.$"):
        folder.load()


def test_a_strip_is_scaled_only_where_it_is_kept(tmp_path):
    """A small file must not fill gigabytes: 60,000 x 1 pixels are scaled to 13 million x 224 to cover 224 x 224."""
    Image.new("RGB", (60_000, 1), (9, 99, 9)).save(tmp_path / "a.png")
    tracemalloc.start()
    pixels = read(tmp_path / "a.png", (3, 224, 224))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (pixels == (9, 99, 9)).all()
    assert peak < 8e6
    ramp = np.repeat(np.linspace(0, 255, 2000).astype(np.uint8)[None, :, None], 3, 2)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    assert np.abs(read(tmp_path / "b.png", (3, 20, 20)).astype(int) - 127).max() <= 1  # the middle pixel, magnified


def test_twelve_bits_in_sixteen_are_told(tmp_path):
    deep = np.linspace(0, 4095, 96).astype(np.uint16).reshape(8, 12)
    Image.fromarray(deep).save(tmp_path / "a.tiff")
    with pytest.warns(DataWarning, match="no more than 12 of its 16 bits"):
        assert read(tmp_path / "a.tiff").max() == 16


def laid_out(tmp_path, scene, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene).save(tmp_path / name)
    return tmp_path


def test_class_folders_below_others_are_found_by_name(tmp_path, scene):
    root = laid_out(tmp_path, scene, "2/benign/a.png", "0/benign/a.png", "0/malignant/left/a.png", "1/malignant/a.png")
    found = data.folder(root, SHAPE, classes=["malignant", "benign", "normal"])
    assert dict(zip(found.names, found.labels.tolist(), strict=True)) == {
        "0/benign/a.png": 1,
        "0/malignant/left/a.png": 0,
        "1/malignant/a.png": 0,
        "2/benign/a.png": 1,
    }
    with pytest.warns(DataWarning, match="0, 1, 2 are taken as the classes, not benign, malignant"):
        assert data.folder(root, SHAPE).labels.tolist() == [0, 0, 1, 2]
    with pytest.raises(InputError, match="is none of the network"):
        data.folder(root, SHAPE, classes=["good", "bad"])


def test_several_folders_around_the_class_folders_are_no_class(tmp_path, scene):
    root = laid_out(tmp_path, scene, "a/b/cat/1.png", "a/b/dog/1.png")
    with pytest.warns(DataWarning, match="holds the one folder a/b, with 2 folders in it"):
        assert data.folder(root, SHAPE).labels is None


def test_masks_are_no_pictures(tmp_path, scene):
    root = laid_out(tmp_path, scene, "benign/images/1.png", "benign/masks/1.png", "normal/images/1.png")
    with pytest.raises(InputError, match=r"hold images and masks: masks are not pictures"):
        data.folder(root, SHAPE)
    busi = laid_out(tmp_path / "busi", scene, "benign/b (1).png", "benign/b (1)_mask.png", "benign/face mask.png")
    with pytest.warns(DataWarning, match=r"1 of the 3 pictures .*masks of others \(benign/b \(1\)_mask\.png\)"):
        data.folder(busi, SHAPE)


def test_pictures_of_a_kind_that_is_not_read_are_told(tmp_path, scene):
    root = laid_out(tmp_path, scene, "cat/1.png", "dog/1.png")
    (root / "cat" / "notes.txt").write_text("mine")
    (root / "cat" / "2.HEIC").write_bytes(b"x")
    (root / "dog" / "2.dcm").write_bytes(b"x")
    with pytest.warns(DataWarning, match=r"files that are not read \(1 \.dcm, 1 \.heic\)"):
        assert len(data.folder(root, SHAPE)) == 2


def test_pictures_are_found_when_another_folder_becomes_the_current_one(tmp_path, scene, monkeypatch):
    """Files are read late: a notebook that changes folders between its cells keeps its data set."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(scene).save(tmp_path / "photos/a.png")
    monkeypatch.chdir(tmp_path / "photos")
    found = data.folder(".", SHAPE)
    assert (found.source, found.names) == ("photos", ("a.png",))
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(found.subset([0]).load().pixels[0].permute(1, 2, 0).numpy(), scene)
