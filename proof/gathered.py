"""Merges the results of a run with those of earlier runs, and stores them in one small file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proof.verdicts import NO_ANSWER, NOT_COMPARED, OUT_OF_TIME, PENDING, RIGHT, VERDICTS

SIGNS = dict(zip(VERDICTS, "+rWBC0-ta", strict=True))
_VERDICTS = {sign: verdict for verdict, sign in SIGNS.items()}
_KEPT = ("seed", "torch", "commit", "sources", "reading", "pass", "seconds", "problem")
_OF_MODELS = ("model", "shape", "dtype", "smaller", "parameters", "peers", "again")
Record = dict[str, Any]


def load(results: Path, small: Path) -> tuple[list[Record], list[Record]]:
    """The last result of each model and random network; files in the folder take precedence over the small file."""
    models: dict[str, Record] = {}
    networks: dict[int, Record] = {}
    if small.exists():
        held = json.loads(small.read_text())
        models = {one["model"]: _expanded(one, held["checks"]) for one in held["models"]}
        networks = {one["seed"]: _expanded(one, held["checks"]) for one in held["networks"]}
    for file in sorted((results / "models").glob("*.json")):
        found = json.loads(file.read_text())
        before = models.get(found["model"])
        if before is None or not before["checks"] or _done(found) >= _done(before):
            peers = {**(before or {}).get("peers", {}), **found.get("peers", {})}
            models[found["model"]] = {**found, "peers": peers}
    for file in sorted((results / "fuzz").glob("*.json")):
        made = json.loads(file.read_text())
        about = {key: made[key] for key in _KEPT if key in made}
        networks |= {one["seed"]: {**about, **one} for one in made["networks"]}
    return [models[name] for name in sorted(models)], [networks[seed] for seed in sorted(networks)]


def save(models: list[Record], networks: list[Record], small: Path) -> None:
    """Write the small file, one network a line."""
    order = list(dict.fromkeys(name for one in [*models, *networks] for name in one["checks"]))
    rows = [
        ",\n".join(json.dumps(_shortened(one, order), separators=(",", ":")) for one in found)
        for found in (models, networks)
    ]
    text = f'{{"checks": {json.dumps(order)},\n"models": [\n{rows[0]}\n],\n"networks": [\n{rows[1]}\n]}}\n'
    part = small.with_suffix(".part")
    part.write_text(text)
    part.replace(small)


def _done(record: Record) -> int:
    return sum(check["verdict"] not in (OUT_OF_TIME, PENDING) for check in record["checks"].values())


def _shortened(record: Record, order: list[str]) -> Record:
    """One character for each check, and the messages of those that are not right."""
    checks = record["checks"]
    short = {key: record[key] for key in (*_OF_MODELS, *_KEPT) if record.get(key) not in (None, "", {})}
    short["signs"] = "".join(SIGNS[checks[name]["verdict"]] if name in checks else "." for name in order)
    quiet = (
        (RIGHT, OUT_OF_TIME, NO_ANSWER, PENDING) if "model" in record else (RIGHT, OUT_OF_TIME, NO_ANSWER, NOT_COMPARED)
    )
    said = {name: one["detail"][:200] for name, one in checks.items() if one["verdict"] not in quiet}
    if said:
        short["said"] = said
    if set(said) - {name for name, one in checks.items() if one["verdict"] == NOT_COMPARED} and "network" in record:
        short["network"] = record["network"]
    return short


def _expanded(short: Record, order: list[str]) -> Record:
    said = short.get("said", {})
    checks = {
        name: {"verdict": _VERDICTS[sign], "detail": said.get(name, "")}
        for name, sign in zip(order, short["signs"], strict=False)
        if sign != "."
    }
    return {**{key: value for key, value in short.items() if key not in ("signs", "said")}, "checks": checks}
