"""The page of the proof: how many answers were right, and every one that was not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from proof import catalogue
from proof.checks import CHECKS
from proof.verdicts import NOT_COMPARED, OUT_OF_TIME, RIGHT, VERDICTS

_SIGNS = {
    "right": "+", "refused": "r", "wrong": "**WRONG**", "blamed": "**BLAMED**", "crash": "**CRASH**",
    NOT_COMPARED: "-", OUT_OF_TIME: "t",
}  # fmt: skip
_HEAD = """# Proof at scale

Made by `make proof`. One size of every family of timm and torchvision, and every image classifier of transformers, with
random weights (seed 0; constant weights redrawn) and small images; then random small networks. Each answer of the
library is held against plain PyTorch: hooks, autograd's nodes, central differences, covered images in plain passes.
The references are in `proof/` and share no code with `src/`. "Right" is equal to 1e-6 of the largest value in double
precision (2e-3 where a model runs in single precision only); relevance values to 1e-4.

- **read**: every module that runs is listed with its shape; scores are found. **activations**: values of all modules.
- **gradient**: autograd and central differences, one image and a batch. **guided**: hooks on autograd's nodes.
- **conservation**: pixels, biases and stabilisers add to the score. **relevance**: values of epsilon-LRP.
- **grad-cam**: at its default layer. **occlusion**: windows by patches and in plain passes against covered images.
- **units**: strongest images of each unit. **batch**: one image against a batch. **left as found**: the model, bitwise.

"right": equal. "refused": the library says by name why it does not answer. "wrong": another answer.
"blamed": an error that says the model raised, though it runs. "crash": any other error. "not compared": no reference
has an answer.
"""


def records(results: Path, folder: str) -> list[dict[str, Any]]:
    """What has been examined so far, by name."""
    return [json.loads(file.read_text()) for file in sorted((results / folder).glob("*.json"))]


def counts(records: list[dict[str, Any]]) -> Counter[str]:
    """How often each verdict was given."""
    return Counter(check["verdict"] for record in records for check in record["checks"].values())


def summary(results: Path) -> str:
    """Two lines: of the models, and of the random networks."""
    models, fuzzed = records(results, "models"), _networks(results)
    return "\n".join(
        f"{what}: {sum(1 for one in found if one['checks'])} examined, {_told(counts(found))}"
        for what, found in (("models", models), ("random networks", fuzzed))
    )


def write(results: Path, file: Path) -> None:
    """Write the page from all results that are there."""
    models, fuzzed = records(results, "models"), _networks(results)
    parts = [_HEAD]
    for title, found in (("Models", models), ("Random networks", fuzzed)):
        if found:
            examined = [one for one in found if one["checks"]]
            parts.append(f"\n## {title}: {len(examined)} examined\n\n{_by_check(examined)}")
            parts.append(_exceptions(examined))
    parts.append(_table(models))
    file.write_text("\n".join(part.rstrip("\n") for part in parts if part) + "\n")


def _networks(results: Path) -> list[dict[str, Any]]:
    return [one for record in records(results, "fuzz") for one in record["networks"]]


def _told(found: Counter[str]) -> str:
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict])


def _by_check(found: list[dict[str, Any]]) -> str:
    names = [*CHECKS, *sorted({name for one in found for name in one["checks"]} - set(CHECKS))]
    rows = [f"| check | {' | '.join(VERDICTS)} |", "|---" * (len(VERDICTS) + 1) + "|"]
    for name in names:
        given = Counter(one["checks"][name]["verdict"] for one in found if name in one["checks"])
        if given:
            rows.append(f"| {name} | {' | '.join(str(given[verdict] or '') for verdict in VERDICTS)} |")
    every = counts(found)
    rows.append(f"| **all** | {' | '.join(str(every[verdict] or '') for verdict in VERDICTS)} |")
    return "\n".join(rows) + "\n"


def _exceptions(found: list[dict[str, Any]]) -> str:
    """Every answer that is neither right nor without reference, with its words."""
    rows = []
    for one in found:
        for name, check in one["checks"].items():
            if check["verdict"] not in (RIGHT, NOT_COMPARED, OUT_OF_TIME):
                who = one.get("model") or f"seed {one['seed']} ({', '.join(one['network'])})"
                detail = " ".join(check["detail"].split()).replace("|", "/")
                rows.append(f"| {who} | {name} | {check['verdict']} | {detail[:200]} |")
    return "\n".join(["\n| network | check | verdict | what was said |", "|---|---|---|---|", *rows]) if rows else ""


def _table(models: list[dict[str, Any]]) -> str:
    """One row for each model, and why others are missing."""
    if not models:
        return ""
    rows = ["\n## Every model\n", "+ right, r refused by name, - not compared, t out of time.\n"]
    rows += [f"| model | input | parameters | {' | '.join(CHECKS)} |", "|---" * (len(CHECKS) + 3) + "|"]
    for one in models:
        if one["checks"]:
            signs = " | ".join(_SIGNS[one["checks"][name]["verdict"]] for name in CHECKS)
            size = f"{one['shape'][-1]}{'' if one['dtype'] == 'float64' else ' (single)'}"
            rows.append(f"| {one['model']} | {size} | {one['parameters']:,} | {signs} |")
    missing = {one["model"]: one["problem"] for one in models if not one["checks"]} | catalogue.LEFT_OUT
    rows += ["\n## Not examined\n", "| model | why |", "|---|---|"]
    rows += [
        f"| {name} | {' '.join(str(why).split())[:160].replace('|', '/')} |" for name, why in sorted(missing.items())
    ]
    return "\n".join(rows)
