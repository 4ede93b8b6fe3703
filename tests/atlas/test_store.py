"""Does the store lose nothing? Whole files or none, the owner's mark, errors that name the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from microtome.atlas.planning.first_look import Predictions
from microtome.atlas.store import MARK, Store, digest, result_name
from microtome.errors import StoreError
from microtome.results import Provenance

MINE = {"network": "Small", "fingerprint": "aa", "input_shape": [1, 8, 8]}


def predictions() -> Predictions:
    return Predictions(provenance=Provenance("predictions"), logits=torch.eye(3), labels=torch.arange(3))


@pytest.mark.parametrize("root", ["folder", "memory://atlas-of-a-test"])
def test_results_come_back_from_disk_and_from_any_file_system(tmp_path: Path, root: str) -> None:
    store = Store(root if "://" in root else tmp_path / root)
    store.claim(MINE)
    assert not store.done("k" * 24)
    store.save("k" * 24, predictions())
    assert store.done("k" * 24)
    loaded = store.load("k" * 24)
    assert isinstance(loaded, Predictions)
    assert torch.equal(loaded.logits, torch.eye(3))


def test_equal_tasks_have_equal_names_whatever_the_order_of_options() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_folder_of_another_model_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Store(tmp_path).claim(MINE)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(StoreError, match="another model"):
        Store(tmp_path).claim({**MINE, "network": "Other", "fingerprint": "bb"})
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    Store(tmp_path).claim(MINE)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        Store(tmp_path).claim(MINE)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="a folder is expected"):
        Store(tmp_path / "out").claim(MINE)


def test_leftovers_of_killed_writers_go_those_of_living_ones_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.claim(MINE)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    folder = tmp_path / result_name("ab" * 12)
    folder.parent.mkdir(parents=True)
    dead = folder.parent / f".x.safetensors.{int(gone.stdout)}.part"
    alive = folder.parent / f".x.safetensors.{os.getppid()}.part"
    dead.write_bytes(b"half")
    alive.write_bytes(b"half")
    Store(tmp_path).claim(MINE)
    assert not dead.exists()
    assert alive.exists()


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the same write fails in the same place."""
    script = (
        "import resource, signal, sys\n"
        "from microtome.atlas.store import Store\n"
        "from microtome.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    Store(sys.argv[1]).write('big', b'x' * 5000)\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_broken_mark_is_an_error(tmp_path: Path) -> None:
    (tmp_path / MARK).write_text("{")
    with pytest.raises(StoreError, match="broken"):
        Store(tmp_path).claim(MINE)
