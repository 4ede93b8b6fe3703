"""Soak: kill the driver, a worker or the scheduler of an atlas at random moments, and compare the bytes at the end.

``python -m benchmarks.soak --rounds 10`` writes how often each was killed, and how many runs ended with other bytes
than an undisturbed one, to ``benchmarks/results/soak.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the small network is that of the tests
RESULTS = ROOT / "benchmarks/results/soak.json"
LATEST = 1800  # seconds until a run counts as stuck
DRAWS = 5  # number of moments tried until there is a process to kill
KILLED = ("driver", "worker of processes", "worker of Dask", "scheduler of Dask")


def run(folder: Path, out: str, engine: str) -> None:
    """One run, in a process of its own."""
    from atlas import small
    from microtome.atlas import build
    from microtome.loading import RunConfig

    config = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(folder / "images"))
    report = build(config, folder / out, size=small.TINY, engine=engine, workers=2)
    if report.failed:
        raise SystemExit("\n".join(report.failed))


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    paths = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, start_new_session=True, **quiet)


def driver(folder: Path, out: str, engine: str) -> subprocess.Popen[bytes]:
    return started(folder, "-m", "benchmarks.soak", "--run", str(folder), out, engine)


def workers_of(process: int) -> list[int]:
    """The child processes of this run that compute."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            words = (place / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == process and b"spawn_main" in words:
            found.append(int(place.name))
    return found


def cluster(folder: Path) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes], str]:
    """A scheduler and two workers with nannies, which restart a killed worker."""
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    scheduler = started(
        folder, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
        "--scheduler-file", str(file),
    )  # fmt: skip
    while not file.exists():
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    workers = started(
        folder, "-m", "distributed.cli.dask_worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"
    )
    return scheduler, workers, address


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def disturbed(folder: Path, out: str, what: str, moment: float) -> bool:
    """A run with a process killed after some seconds; returns whether there was a process to kill."""
    if "Dask" not in what:
        running = driver(folder, out, "processes")
        return killed(running, moment, lambda: [running.pid] if what == "driver" else workers_of(running.pid))
    scheduler, workers, address = cluster(folder)
    running = driver(folder, out, address)
    hit = killed(running, moment, lambda: [scheduler.pid] if what.startswith("scheduler") else workers_of(workers.pid))
    end(scheduler, workers)
    return hit


def killed(running: subprocess.Popen[bytes], moment: float, victims: Callable[[], list[int]]) -> bool:
    """Kill one of the processes after some seconds, or as soon as there is one; wait for the end of the run."""
    time.sleep(moment)
    found = victims()
    while running.poll() is None and not found:
        time.sleep(0.05)
        found = victims()
    hit = running.poll() is None
    if hit:
        os.kill(random.choice(found), signal.SIGKILL)
    running.wait(LATEST)
    return hit


def soak(rounds: int, seed: int) -> dict[str, dict[str, int]]:
    from atlas import small

    random.seed(seed)
    table = {what: {"killed": 0, "other bytes": 0} for what in KILLED}
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    small.write(folder)
    began = time.monotonic()
    if driver(folder, "whole", "processes").wait(LATEST):
        raise SystemExit("the undisturbed run failed.")
    length = time.monotonic() - began
    whole = small.contents(folder / "whole")
    for number in range(rounds):
        for what in KILLED:
            out = f"out-{number}"
            hit = False
            for _ in range(DRAWS):
                hit = disturbed(folder, out, what, random.uniform(0.1, 1.0) * length)
                if hit:
                    break
                shutil.rmtree(folder / out)
            if driver(folder, out, "processes").wait(LATEST):
                raise SystemExit(f"after the {what} was killed the next run failed.")
            table[what]["killed"] += hit
            table[what]["other bytes"] += hit and small.contents(folder / out) != whole
            shutil.rmtree(folder / out)
            print(number, what, "killed" if hit else "was not there", flush=True)
    shutil.rmtree(folder)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs=3)
    asked = parser.parse_args()
    if asked.run:
        run(Path(asked.run[0]), *asked.run[1:])
        return
    table = soak(asked.rounds, asked.seed)
    RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))
    if any(row["other bytes"] for row in table.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
