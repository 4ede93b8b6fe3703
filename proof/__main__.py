"""``python -m proof`` examines models, ``python -m proof fuzz`` random networks; both write the page.

Two of them can run side by side. A run writes its results to proof/results; ``--keep`` merges them into
proof/results.json, from which the page is written.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from oracles import torchvision_schemas

torchvision_schemas.define()  # before timm, which imports torchvision

import timm
import torch
import torchvision
import transformers

from proof import catalogue, gathered, page, runner
from proof.fuzz import PER_FILE


def main() -> None:
    """Run the requested part, then write the page and the README's sentence."""
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("models", "fuzz", "page"), default="models")
    parser.add_argument("--models", type=int, default=None, help="a sample of so many models")
    parser.add_argument("--only", nargs="*", default=None, help="models by name, such as timm:resnet18")
    parser.add_argument("--count", type=int, default=2000, help="random networks")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the random networks")
    parser.add_argument("--seconds", type=float, default=5400.0, help="then everything stops")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240.0, help="processor seconds for each model")
    parser.add_argument("--memory", type=float, default=12.0, help="GiB for each process")
    parser.add_argument("--results", type=Path, default=ROOT / "proof" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "proof.md")
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="write what is committed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for library in (timm, torchvision, transformers):  # imported once, inherited by every process
        library.__version__  # noqa: B018
    small = ROOT / "proof" / "results.json"
    runner.run(
        _jobs(asked, small), processes=asked.processes, limit=asked.limit, memory=asked.memory, seconds=asked.seconds,
        report=lambda text: print(text, flush=True),
    )  # fmt: skip
    models, networks = gathered.load(asked.results, small)
    print(page.summary(models, networks))
    if asked.keep:
        gathered.save(models, networks, small)
        page.write(models, networks, asked.page)
        page.into_readme(models, networks, ROOT / "README.md")


def _jobs(asked: argparse.Namespace, small: Path) -> dict[Path, runner.Job]:
    """The function that writes each file of results: models in the order of their known cost."""
    models, fuzzed = asked.results / "models", asked.results / "fuzz"
    for folder in (models, fuzzed):
        folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "models":
        names = catalogue.entries() if asked.only is None else asked.only
        known = {one["model"]: one.get("seconds", 0.0) for one in gathered.load(asked.results, small)[0]}
        names = sorted(names, key=lambda name: known.get(name, float("inf")))  # those never timed keep their order
        return {
            models / f"{name.replace(':', '-').replace('/', '-')}.json": partial(
                runner.examine_model, name, seed=asked.seed
            )
            for name in names[: asked.models]
        }
    if asked.what == "fuzz":
        starts = range(asked.seed, asked.seed + asked.count, PER_FILE)
        return {
            fuzzed / f"{start}.json": partial(
                runner.examine_random, range(start, min(start + PER_FILE, asked.seed + asked.count))
            )
            for start in starts
        }
    return {}


if __name__ == "__main__":
    main()
