"""Times several programs in turns, in one process on one thread; the least time counts."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import torchvision_schemas

torchvision_schemas.define()

import torchvision.models as models

from microtome import zoo

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("vgg16", "resnet18", "mobilenet_v2", "densenet121", "efficientnet-lite0")
Row = dict[str, float | str]


def build(name: str) -> nn.Module:
    """A network in evaluation mode, with trained weights if an installed package has them, else with random ones."""
    torch.manual_seed(0)
    if name in ("mobilenet_v2", "efficientnet-lite0"):
        return zoo.build(name, weights="pretrained" if zoo.architecture(name).pretrained else None)
    return getattr(models, name)().eval()


def seconds(runs: dict[str, Callable[[], object]], repeat: int, *, warm: bool = True) -> dict[str, tuple[float, float]]:
    """CPU and wall seconds of each, in turns; the least of ``repeat``, after one turn to warm up.

    Every turn begins with another program, because what runs before may make a program slower or faster.
    """
    least = dict.fromkeys(runs, (float("inf"), float("inf")))
    order = list(runs.items())
    for turn in range(repeat + warm):
        for name, run in order[turn % len(order) :] + order[: turn % len(order)]:
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            taken = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= warm:
                least[name] = min(least[name], taken)
    return least


def row(what: str, network: str, times: dict[str, tuple[float, float]], floor: str, scale: dict[str, float]) -> Row:
    """One line of the table: ours, the fastest peer and the floor in CPU seconds, and the ratios.

    ``scale`` is the work of the whole over the timed work.
    """
    whole = {name: cpu * scale.get(name, 1.0) for name, (cpu, _) in times.items()}
    peers = {name: value for name, value in whole.items() if name not in ("ours", floor)}
    made: Row = {"what": what, "network": network, **{f"{name} [s]": round(value, 4) for name, value in whole.items()}}
    made["ours, wall [s]"] = round(times["ours"][1], 4)
    if peers:
        best = min(peers, key=peers.__getitem__)
        made |= {"fastest peer": best, "ours / peer": round(whole["ours"] / whole[best], 3)}
        made["times faster than the peer"] = round(whole[best] / whole["ours"], 2)
    made |= {"floor": floor, "ours / floor": round(whole["ours"] / whole[floor], 3)}
    print("  ".join(f"{key}={value}" for key, value in made.items()), flush=True)
    return made


def keep(file: str, rows: Sequence[Row]) -> None:
    """Write rows into a file of results; they replace rows of the same name, and other rows stay."""
    path = RESULTS / file
    old: list[Row] = json.loads(path.read_text()) if path.is_file() else []
    fresh = {(made["what"], made["network"]) for made in rows}
    kept = [made for made in old if (made["what"], made["network"]) not in fresh]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*kept, *rows], indent=1) + "\n")


def chosen(arguments: Sequence[str], known: Sequence[str]) -> list[str]:
    """The networks named on the command line, or all."""
    unknown = [name for name in arguments if name not in known]
    if unknown:
        print(f"there is no network {unknown[0]}; known: {', '.join(known)}", file=sys.stderr)
        raise SystemExit(2)
    return list(arguments) or list(known)


def peer(module: str, command: str) -> ModuleType:
    """A peer's module; if it is not installed, the program ends and says how it is."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"the peer is not installed ({error.name} is missing): {command}") from error


def peak(module: str, *arguments: str) -> float:
    """Peak memory of a separate process in MB; the process prints the number as its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return float(done.stdout.strip().splitlines()[-1])


def resident(what: str) -> float:
    """Memory of this process in MB: now (``"VmRSS"``), or the peak since ``forget_peak`` (``"VmHWM"``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(what))) / 1024


def forget_peak() -> None:
    """Reset the peak: building a model may have needed more memory than the model."""
    Path("/proc/self/clear_refs").write_text("5")
