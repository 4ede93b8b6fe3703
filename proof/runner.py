"""Processes with limits of time and memory, one for each model; a JSON file each, so that a run goes on."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from proof import catalogue, fuzz
from proof.checks import CHECKS
from proof.subject import NotCompared, Subject
from proof.verdicts import OUT_OF_TIME, examine

Job = Callable[[Path], None]


def examine_model(name: str, file: Path, seed: int) -> None:
    """Build and examine one model of the catalogue; the file is written anew after each check."""
    start = time.process_time()
    record: dict[str, Any] = {"model": name, "seed": seed, "torch": torch.__version__, "checks": {}}
    write(file, {**record, "problem": "the limit of time or memory was reached while it was built"})
    try:
        built = catalogue.build(name, seed)
        record |= {
            "shape": built.shape,
            "dtype": str(built.dtype).removeprefix("torch."),
            "parameters": sum(weight.numel() for weight in built.model.parameters()),
            "build_seconds": round(time.process_time() - start, 1),
        }
        write(file, {**record, "problem": "the limit of time or memory was reached before the first check"})
        subject = Subject(built.model, built.shape, built.dtype, seed)
    except (catalogue.CannotBuild, NotCompared) as error:
        write(file, {**record, "problem": str(error)[:400]})
        return
    except Exception as error:  # the reference itself
        write(file, {**record, "problem": f"{type(error).__name__}: {error}"[:400]})
        return

    def keep(checks: dict[str, Any]) -> None:
        rest = {check: {"verdict": OUT_OF_TIME, "detail": ""} for check in CHECKS if check not in checks}
        write(file, {**record, "checks": {**checks, **rest}, "seconds": round(time.process_time() - start, 1)})

    keep({})
    keep(examine(subject, keep))


def examine_random(seeds: Iterable[int], file: Path) -> None:
    """Examine some random networks; those with a verdict other than right are kept whole."""
    found = []
    for seed in seeds:
        try:
            subject = fuzz.subject(seed)
            checks = {**examine(subject), **fuzz.more_checks(seed, subject)}
            found.append({"seed": seed, "network": fuzz.describe(seed), "checks": checks})
        except NotCompared as error:
            found.append({"seed": seed, "network": fuzz.describe(seed), "problem": str(error), "checks": {}})
        write(file, {"networks": found})


def write(file: Path, record: dict[str, Any]) -> None:
    """Write a record beside its final name, then rename it, so that a file is whole at any moment."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(file)


def run(
    jobs: dict[Path, Job], *, processes: int, limit: float, memory: float, seconds: float, report: Callable[[str], None]
) -> None:
    """Run the jobs whose file does not exist yet, until the time budget is spent.

    Parameters
    ----------
    jobs : dict
        What writes each file.
    processes : int
        How many at a time.
    limit : float
        Processor seconds for each; the wall clock may show four times that.
    memory : float
        GiB of addresses for each.
    seconds : float
        No job is started later than this.
    """
    start, running = time.monotonic(), dict[int, tuple[Path, float]]()
    waiting = [(file, job) for file, job in jobs.items() if not file.exists()]
    gc.freeze()
    while waiting or running:
        while waiting and len(running) < processes and time.monotonic() - start < seconds:
            file, job = waiting.pop(0)
            running[_fork(file, job, limit, memory)] = file, time.monotonic()
        if not running:
            break
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            file, begun = running.pop(pid)
            report(f"{file.stem} {time.monotonic() - begun:.0f} s")
        else:
            for late, (_, begun) in running.items():
                if time.monotonic() - begun > 4 * limit:
                    os.kill(late, signal.SIGKILL)
            time.sleep(0.1)


def _fork(file: Path, job: Job, limit: float, memory: float) -> int:
    """Start a job in a copy of this process, which has imported all libraries already."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30), int(memory * 2**30)))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        job(file)
        status = 0
    finally:
        os._exit(status)
