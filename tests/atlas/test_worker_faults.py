"""Workers that die and tasks that fail: replaced, tried again, and told at the end; the rest is delivered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from atlas import small
from microtome.atlas import build
from microtome.atlas.execution.worker_processes import Workers
from microtome.atlas.topics import TOPICS
from microtome.errors import EngineError
from microtome.loading import RunConfig, Subject


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets", None)
    return RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images")).open()


def test_a_killed_worker_fails_its_own_call_only_and_is_replaced() -> None:
    with Workers(2) as workers:
        kept = workers.submit(time.sleep, 1.0)
        dies = workers.submit(signal.raise_signal, signal.SIGKILL)
        more = [workers.submit(os.getpid) for _ in range(3)]
        with pytest.raises(BrokenProcessPool):
            dies.result(120)
        assert kept.result(120) is None
        assert all(future.result(120) not in (0, os.getpid()) for future in more)


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Otherwise a killed driver would leave processes that hold the memory of the network for ever."""
    script = (
        "import os, sys, time\n"
        "from microtome.atlas.execution.worker_processes import Workers\n"
        "if __name__ == '__main__':\n"
        "    print(Workers(1).submit(os.getpid).result(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "driver.py").write_text(script)
    driver = subprocess.Popen([sys.executable, "driver.py"], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    os.kill(worker, 0)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker still runs")


def fails(monkeypatch: pytest.MonkeyPatch, job: str, times: int) -> list[str]:
    """Let a job of the atlas raise so many times; returns the list of its calls."""
    calls: list[str] = []
    topic = next(topic for topic in TOPICS if job in topic.jobs)
    true = topic.jobs[job]

    def job_that_fails(*args: object, **options: object) -> object:
        calls.append(job)
        if len(calls) <= times:
            raise RuntimeError("the disk was asleep")
        return true(*args, **options)

    monkeypatch.setitem(topic.jobs, job, job_that_fails)  # type: ignore[arg-type]
    return calls


def test_a_task_that_fails_twice_is_done_at_the_third_try(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build(subject, tmp_path / "whole", size=small.TINY)
    calls = fails(monkeypatch, "image-positions", 2)
    report = build(subject, tmp_path / "out", size=small.TINY)
    assert (len(calls), report.failed) == (3, ())
    assert small.contents(tmp_path / "out") == small.contents(tmp_path / "whole")


def test_a_task_that_fails_three_times_is_told_and_the_rest_is_delivered(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = build(subject, tmp_path / "whole", size=small.TINY)
    with monkeypatch.context() as context:
        calls = fails(context, "image-positions", 99)
        report = build(subject, tmp_path / "out", size=small.TINY)
    assert len(calls) == 3
    assert report.failed == ("image-positions: RuntimeError: the disk was asleep",)
    assert (report.made, report.pages) == (whole.made - 1, whole.pages)
    assert "the disk was asleep" in (tmp_path / "out/layers/one.html").read_text()
    again = build(subject, tmp_path / "out", size=small.TINY)
    assert (again.made, again.failed) == (2, ())  # with the features that it needs, which are not kept
    assert small.contents(tmp_path / "out") == small.contents(tmp_path / "whole")


def test_without_the_first_look_there_is_nothing_to_show(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def raises(*args: object, **options: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("microtome.atlas.planning.first_look.JOBS", {"look": raises})
    with pytest.raises(EngineError, match="out of order"):
        build(subject, tmp_path / "out", size=small.TINY)
