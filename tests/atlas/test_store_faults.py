"""Faults of the store: files cut short or changed, two runs in one folder, a full disk, a bucket."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from atlas import small
from microtome import load
from microtome.atlas import build
from microtome.atlas.execution.folder_owner import owned
from microtome.atlas.planning.first_look import Predictions
from microtome.atlas.store import OWNER, Store, result_name
from microtome.errors import StoreError, StoreWarning
from microtome.loading import RunConfig, Subject
from microtome.results import Provenance


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets", None)
    return RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images")).open()


def result() -> Predictions:
    return Predictions(provenance=Provenance("predictions"), logits=torch.rand(40, 3), labels=torch.arange(40))


def test_every_change_of_a_byte_and_every_cut_is_found(tmp_path: Path) -> None:
    """Bits anywhere: in the header's length, its text, the checksum, the numbers."""
    content, key = result().to_bytes(), "ab" * 12
    store, numbers = Store(tmp_path), random.Random(0)
    places = [*range(120), *(numbers.randrange(len(content)) for _ in range(200)), len(content) - 1]
    broken = [content[:at] + bytes([content[at] ^ 1 << numbers.randrange(8)]) + content[at + 1 :] for at in places]
    broken += [content[: numbers.randrange(len(content))] for _ in range(50)] + [content + b"\0", b""]
    for one in broken:
        store.write(result_name(key), one)
        with pytest.warns(StoreWarning, match="computed again"):
            assert not store.whole(key)
        assert not store.done(key)
    store.write(result_name(key), content)
    assert store.whole(key)


def test_a_changed_file_is_no_result_for_a_reader(tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    result().save(file)
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    with pytest.raises(StoreError, match="changed since it was written"):
        load(file)


def test_broken_results_and_pages_are_made_again_and_told(subject: Subject, tmp_path: Path) -> None:
    build(subject, tmp_path / "out", size=small.TINY)
    before = small.contents(tmp_path / "out")
    files = [tmp_path / "out" / name for name in before if name != "atlas.json"]
    stored = [file for file in files if file.suffix == ".safetensors"]
    chosen = random.Random(1).sample(stored, 4) + random.Random(1).sample([f for f in files if f not in stored], 6)
    for number, file in enumerate(chosen):
        content = bytearray(file.read_bytes())
        if number % 2:
            content = content[: len(content) // 2]
        else:
            content[len(content) // 3] ^= 0x20
        file.write_bytes(content)
    with pytest.warns(StoreWarning, match="computed again") as told:
        report = build(subject, tmp_path / "out", size=small.TINY)
    assert report.made >= 4
    assert sum("safetensors" in str(one.message) for one in told) == 4
    assert small.contents(tmp_path / "out") == before


@pytest.mark.parametrize("root", ["folder", "memory://owned-in-a-test"])
def test_the_second_run_in_a_folder_is_refused_with_the_owners_name(tmp_path: Path, root: str) -> None:
    store = Store(root if "://" in root else tmp_path / root)
    store.claim({"network": "Small", "fingerprint": "aa"})
    with owned(store):
        with pytest.raises(StoreError, match=r"another run works in .*: process \d+ on "), owned(store):
            pytest.fail("two own it")
        store.claim({"network": "Small", "fingerprint": "aa"})
    assert OWNER not in store
    with owned(store):
        assert OWNER in store


def _own_until_killed(folder: Path, began: Any) -> None:
    with owned(Store(folder)):
        began.set()
        began.clear()
        began.wait(60)


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")
    began = forked.Event()
    owner = forked.Process(target=_own_until_killed, args=(tmp_path, began))
    owner.start()
    began.wait(60)
    owner.kill()
    owner.join()
    assert OWNER in Store(tmp_path)
    with owned(Store(tmp_path)):
        pass
    assert OWNER not in Store(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KB, less than an atlas needs."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a disk is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_after_a_full_disk_the_same_call_goes_on(subject: Subject, tmp_path: Path, small_disk: Path) -> None:
    build(subject, tmp_path / "whole", size=small.TINY)
    with pytest.raises(StoreError, match="No space left"):
        build(subject, small_disk / "out", size=small.TINY)
    assert not list(small_disk.rglob("*.part"))
    done = len(list(small_disk.rglob("*.safetensors")))
    assert done > 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    report = build(subject, small_disk / "out", size=small.TINY)
    assert report.made <= report.tasks - done + 1  # the shards of the first look are gone once they are merged
    assert small.contents(small_disk / "out") == small.contents(tmp_path / "whole")
