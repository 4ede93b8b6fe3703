"""A run goes on where it stopped, and ends with the same bytes on every engine: a small network end to end."""

from __future__ import annotations

import dataclasses
import multiprocessing
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from atlas import small
from microtome import Network, data
from microtome.atlas import Budget, build
from microtome.atlas.atlas_run import Report
from microtome.errors import ModelError
from microtome.loading import RunConfig, Subject
from microtome.progress import Progress

TINY = small.TINY


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's folder, which is also the current one."""
    folder = tmp_path_factory.mktemp("files")
    small.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        sys.modules.pop("nets", None)
        yield folder


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """An atlas made from its beginning to its end in one process."""

    folder: Path
    report: Report
    seconds: float
    contents: dict[str, str]


@pytest.fixture(scope="module")
def whole(files: Path) -> Undisturbed:
    began = time.monotonic()
    report = run(files, "whole")
    return Undisturbed(files / "whole", report, time.monotonic() - began, small.contents(files / "whole"))


def recipe(folder: Path) -> RunConfig:
    return RunConfig("nets:build", input_shape=(1, 12, 10), data=str(folder / "images"))


def run(folder: Path, out: str, size: Budget = TINY, engine: str = "inline", **options: int) -> Report:
    return build(recipe(folder), folder / out, size=size, engine=engine, **options)


def test_a_run_makes_every_page_and_a_second_one_makes_nothing(files: Path, whole: Undisturbed) -> None:
    pages = {file.relative_to(whole.folder).as_posix() for file in whole.folder.rglob("*.html")}
    assert len(pages) == whole.report.pages == 1 + 2 + 4 + 6 + 3 + 3  # overview, layers, units of both, images, classes
    assert {"index.html", "layers/one.html", "units/two/5.html"} <= pages
    again = run(files, "whole")
    assert (again.tasks, again.made) == (whole.report.tasks, 0)
    assert small.contents(whole.folder) == whole.contents


def test_progress_says_time_and_size_before_the_work_and_ends_at_the_end(files: Path) -> None:
    told: list[Progress] = []
    build(recipe(files), files / "told", size=TINY, engine="inline", progress=told.append)
    stages = list(dict.fromkeys(at.stage for at in told))
    assert stages == ["looking at the images", "layers, units, images"]
    for stage in stages:
        of_stage = [at for at in told if at.stage == stage]
        assert of_stage[0].done == 0
        assert of_stage[0].remaining > 0
        assert [at.done for at in of_stage] == list(range(of_stage[0].total + 1))
        assert of_stage[-1].remaining == 0
    assert next(at for at in told if at.stage == stages[1]).numbers["megabytes"] > 0
    again: list[Progress] = []
    build(recipe(files), files / "told", size=TINY, engine="inline", progress=again.append)
    assert all(at.done == at.total and at.remaining == 0 for at in again)


def test_only_what_is_missing_is_made(files: Path, whole: Undisturbed) -> None:
    shutil.copytree(whole.folder, files / "gap")
    sorted((files / "gap" / "results").rglob("*.safetensors"))[3].unlink()
    assert run(files, "gap").made == 1
    assert small.contents(files / "gap") == whole.contents
    more = run(files, "gap", dataclasses.replace(TINY, images=4))
    assert 0 < more.made < 0.6 * more.tasks


def test_dask_gives_the_same_bytes(files: Path, whole: Undisturbed) -> None:
    """A cluster of two processes on this machine, as ``--engine dask`` starts it; processes: ``test_equal_bytes``."""
    pytest.importorskip("distributed")
    run(files, "dask", engine="dask", workers=2)
    assert small.contents(files / "dask") == whole.contents


def test_two_networks_have_no_result_in_common(files: Path, whole: Undisturbed) -> None:
    small.save_weights(files / "other.pt", {"head.bias": torch.ones(3)})
    other = dataclasses.replace(recipe(files), weights=str(files / "other.pt"))
    build(other, files / "second", size=TINY, engine="inline")
    ours, theirs = (set(small.contents(files / name / "results")) for name in ("whole", "second"))
    assert ours.isdisjoint(theirs)


def test_a_network_with_one_output_has_an_atlas(tmp_path: Path) -> None:
    """The predicted class and the other class are the same, so both have the same maps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)).eval()
    images = data.Images((torch.rand(3, 1, 4, 4) * 255).to(torch.uint8))
    report = build(Subject(Network(model, (1, 4, 4)), images), tmp_path / "one", size=TINY, engine="inline")
    assert report.failed == ()
    assert report.made == report.tasks
    assert (tmp_path / "one" / "index.html").is_file()


def test_a_factory_that_is_never_the_same_is_an_error(files: Path) -> None:
    """A worker must see the network that was planned for: the module counts its calls in a file."""
    (files / "wild.py").write_text(
        "import nets, os, torch\n"
        "def build():\n"
        "    model = nets.build()\n"
        "    torch.nn.init.constant_(model.head.bias, float(os.getpid()))\n"
        "    return model\n"
    )
    with pytest.raises(ModelError, match="another network at each call"):
        build(
            dataclasses.replace(recipe(files), model="wild:build"),
            files / "wild",
            size=TINY,
            engine="processes",
            workers=1,
        )


def test_killed_ten_times_it_ends_with_the_same_bytes(files: Path, whole: Undisturbed) -> None:
    """SIGKILL at random moments of the work itself; what an undisturbed run writes is the oracle.

    The processes are forked from this one, which has imported everything: the kills fall into the work.
    """
    moments = random.Random(7)
    forked = multiprocessing.get_context("fork")
    unfinished = 0
    for _ in range(10):
        running = forked.Process(target=run, args=(files, "killed"))
        running.start()
        running.join(moments.uniform(0, whole.seconds / 3))
        running.kill()
        running.join()
        unfinished += running.exitcode == -signal.SIGKILL
    assert unfinished >= 3
    assert run(files, "killed").pages > 0
    assert small.contents(files / "killed") == whole.contents
