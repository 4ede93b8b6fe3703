"""Runs one process per model, with limits of time and memory; each writes a JSON file, so that a run can resume."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from proof import catalogue, fuzz, peers
from proof.checks import CHECKS
from proof.subject import NotCompared, Subject
from proof.verdicts import BLAMED, CRASH, OUT_OF_TIME, REFUSED, WRONG, examine

ROOT = Path(__file__).resolve().parent.parent
Job = Callable[[Path], None]


@cache
def version() -> dict[str, str]:
    """The version of torch and the digest of the sources behind a result."""
    digest = hashlib.sha256()
    for file in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "proof").glob("*.py")]):
        digest.update(file.read_bytes())
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""  # a copy of the tree without its history
    return {"torch": torch.__version__, "commit": commit, "sources": digest.hexdigest()[:12]}


def examine_model(name: str, file: Path, seed: int) -> None:
    """Build and examine one model of the catalogue, then ask the peers; the file is rewritten after each check.

    If other sources have finished a model, only its checks that were not right run again.
    """
    before = json.loads(file.read_text()) if file.exists() else {}
    if before.get("finished") and before.get("seed") == seed and _faults([before]):
        _examine_again(before, file)
        return
    start = time.process_time()
    record: dict[str, Any] = {"model": name, "seed": seed, **version(), "finished": False, "checks": {}}
    write(file, {**record, "problem": "the limit of time or memory was reached while it was built"})
    try:
        built = catalogue.build(name, seed)
        record |= {
            "shape": built.shape,
            "dtype": str(built.dtype).removeprefix("torch."),
            "smaller": built.smaller,
            "parameters": sum(weight.numel() for weight in built.model.parameters()),
            "build_seconds": round(time.process_time() - start, 1),
        }
        write(file, {**record, "problem": "the limit of time or memory was reached before the first check"})
        subject = Subject(built.model, built.shape, built.dtype, seed)
    except (catalogue.CannotBuild, NotCompared) as error:
        write(file, {**record, "finished": True, "problem": str(error)[:400]})
        return
    except Exception as error:  # the reference itself
        write(file, {**record, "finished": True, "problem": f"{type(error).__name__}: {error}"[:400]})
        return

    def keep(checks: dict[str, Any], **more: Any) -> None:
        rest = {check: {"verdict": OUT_OF_TIME, "detail": ""} for check in CHECKS if check not in checks}
        spent = round(time.process_time() - start, 1)
        write(file, {**record, **subject.timings, "checks": {**checks, **rest}, "seconds": spent, **more})

    keep({})
    checks = examine(subject, keep)
    keep(checks)
    seconds = round(time.process_time() - start, 1)
    keep(checks, finished=True, peers=peers.ask(subject), peers_asked=peers.installed(), seconds=seconds)


def _examine_again(before: dict[str, Any], file: Path) -> None:
    """The checks of a model that were not right, and the check whether it is left as found."""
    start = time.process_time()
    built = catalogue.build(before["model"], before["seed"])
    subject = Subject(built.model, built.shape, built.dtype, before["seed"])
    wanted = [name for name, check in before["checks"].items() if check["verdict"] in (REFUSED, WRONG, BLAMED, CRASH)]
    checks = {**before["checks"], **examine(subject, only=[*wanted, "left as found"])}
    spent = round(before.get("seconds", 0.0) + time.process_time() - start, 1)
    again = {"checks": wanted, **version()}
    timed = {**subject.timings, **{key: before[key] for key in subject.timings if key in before}}
    write(file, {**before, **timed, "checks": checks, "seconds": spent, "again": again, "sources": again["sources"]})


def examine_random(seeds: Iterable[int], file: Path) -> None:
    """Examine some random networks; right results of earlier runs stay."""
    found: list[dict[str, Any]] = []
    before = json.loads(file.read_text()) if file.exists() else {}
    about = {key: before[key] for key in version() if key in before}
    known = {row["seed"]: {**about, **row} for row in before.get("networks", ()) if not _faults([row])}
    for seed in seeds:
        try:
            if seed in known:
                found.append(known[seed])
                continue
            subject = fuzz.subject(seed)
            checks = {**examine(subject), **fuzz.more_checks(seed, subject)}
            found.append({"seed": seed, "network": fuzz.describe(seed), "checks": checks, **subject.timings})
        except NotCompared as error:
            found.append({"seed": seed, "network": fuzz.describe(seed), "problem": str(error), "checks": {}})
        write(file, {**version(), "finished": False, "networks": [*found, *_later(known, found)]})
    write(file, {**version(), "finished": True, "networks": found})


def _later(known: dict[int, Any], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Earlier results of networks that a run has not reached."""
    return [row for seed, row in known.items() if seed not in {one["seed"] for one in found}]


def _faults(rows: list[dict[str, Any]]) -> set[str]:
    """The verdicts on some networks that say that something was not right."""
    given = {check["verdict"] for row in rows for check in row.get("checks", {}).values()}
    return given & {REFUSED, WRONG, BLAMED, CRASH}


def write(file: Path, record: dict[str, Any]) -> None:
    """Write a record beside its final name, then rename it, so that a file is whole at any moment."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(file)


def finished(file: Path) -> bool:
    """Whether a job has nothing left to do; checks that were not right under other sources run again."""
    if not file.exists():
        return False
    record = json.loads(file.read_text())
    mended = record.get("sources") != version()["sources"] and _faults(record.get("networks", [record]))
    return bool(record.get("finished", True)) and not mended


def run(
    jobs: dict[Path, Job], *, processes: int, limit: float, memory: float, seconds: float, report: Callable[[str], None]
) -> None:
    """Run the jobs that are not finished, until the time budget is spent.

    Parameters
    ----------
    jobs : dict
        The function that writes each file.
    processes : int
        Number of processes at a time.
    limit : float
        Processor seconds for each job; the wall clock may show four times that.
    memory : float
        GiB that each process may allocate.
    seconds : float
        Seconds until everything stops. An interrupted job keeps its finished checks and starts again in the next run; a
        job that reached its own limit does not.
    """
    start, running = time.monotonic(), dict[int, tuple[Path, float]]()
    waiting = [(file, job) for file, job in jobs.items() if not finished(file)]
    gc.freeze()
    while waiting or running:
        out_of_time = time.monotonic() - start >= seconds
        if out_of_time and running:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            report(f"stopped after {seconds:.0f} s: {', '.join(file.stem for file, _ in running.values())}")
        if out_of_time:
            return
        while waiting and len(running) < processes:
            file, job = waiting.pop(0)
            running[_fork(file, job, limit, memory)] = file, time.monotonic()
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            file, begun = running.pop(pid)
            if file.exists():
                write(file, {**json.loads(file.read_text()), "finished": True})
            report(f"{file.stem} {time.monotonic() - begun:.0f} s")
        else:
            for late, (_, begun) in running.items():
                if time.monotonic() - begun > 4 * limit:
                    os.kill(late, signal.SIGKILL)
            time.sleep(0.05)


def _fork(file: Path, job: Job, limit: float, memory: float) -> int:
    """Start a job in a copy of this process, which has already imported all libraries."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        # Not the address space: a build of torch for a GPU maps many GiB of libraries that nothing reads here.
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30), int(memory * 2**30)))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        job(file)
        status = 0
    finally:
        os._exit(status)
