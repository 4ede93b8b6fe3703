"""Writes the page of the proof: the number of right answers and every other answer; and the README's sentence."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from proof import catalogue
from proof.checks import CHECKS
from proof.gathered import SIGNS, Record
from proof.peers import ERROR, QUESTIONS
from proof.verdicts import BLAMED, CRASH, NOT_COMPARED, OUT_OF_TIME, PENDING, REFUSED, RIGHT, VERDICTS, WRONG

ANSWERED = (RIGHT, REFUSED, WRONG, BLAMED, CRASH)  # a reference has an answer
_HEAD = """# Proof at scale

Made by `make proof`. One size of every family of timm and torchvision, and every image classifier of transformers, with
random weights (seed 0; constant weights redrawn) and small images; then random small networks. Each answer of the
library is compared with plain PyTorch: hooks, autograd's nodes, central differences, covered images in plain passes.
The references are in `proof/` and share no code with `src/`. "Right" is equal to 1e-6 of the largest value in double
precision (2e-3 where a model runs in single precision only); relevance values to 1e-4. Where a family has no small
size, a model with fewer blocks or channels stands for it: "made smaller" in the table of models.

- **read**: every module that runs is listed with its shape; scores are found. **activations**: values of all modules.
- **gradient**: autograd and central differences, one image and a batch. **guided**: hooks on autograd's nodes.
- **conservation**: pixels, biases and stabilisers add to the score. **relevance**: values of epsilon-LRP.
- **grad-cam**: at its default layer. **occlusion**: windows by patches and in plain passes against covered images.
- **units**: strongest images of each unit. **dissection**: the terms that one channel is the sum of.
- **batch**: one image against a batch. **left as found**: the model, bitwise.

"right": equal. "refused": the library says by name why it does not answer. "wrong": another answer.
"blamed": an error that says the model raised, though it runs. "crash": any other error. "no answer exists": plain
PyTorch raises, too, and the library says so. "to be run again": it was not right, the library or the check has been
changed since, and it has not been run again. "not compared": no reference has an answer; the reasons are counted below.
"""


def counts(records: list[Record]) -> Counter[str]:
    """Number of answers by verdict."""
    return Counter(check["verdict"] for record in records for check in record["checks"].values())


def sentence(models: list[Record], networks: list[Record]) -> str:
    """The first claim of the README."""
    each = [[one for one in found if one["checks"]] for found in (models, networks)]
    given = counts([*each[0], *each[1]])
    answered = sum(given[verdict] for verdict in ANSWERED)
    rest = [f"{given[verdict]:,} {words}" for verdict, words in (
        (REFUSED, "refused by name"), (WRONG, "silently wrong"), (BLAMED, "blamed on the model"), (CRASH, "crashed")
    )]  # fmt: skip
    return (
        f"Compared with plain PyTorch on {len(each[0]):,} models, none selected by hand, and {len(each[1]):,} random "
        f"networks, {given[RIGHT]:,} of {answered:,} answers are right ({_percent(given[RIGHT], answered)}), "
        f"{', '.join(rest[:-1])} and {rest[-1]}."
        + (
            f" {given[PENDING]:,} that were not right before a mend are still to be run again."
            if given[PENDING]
            else ""
        )
    )


def summary(models: list[Record], networks: list[Record]) -> str:
    """A few lines for the terminal."""
    lines = [sentence(models, networks)]
    for what, found in (("models", models), ("random networks", networks)):
        given = counts(found)
        lines.append(f"{what}: " + ", ".join(f"{given[verdict]} {verdict}" for verdict in VERDICTS if given[verdict]))
    return "\n".join(lines)


def write(models: list[Record], networks: list[Record], file: Path) -> None:
    """Write the page."""
    parts = [_HEAD, f"\n{sentence(models, networks)}"]
    for title, found in (("Models", models), ("Random networks", networks)):
        examined = [one for one in found if one["checks"]]
        if examined:
            parts.append(f"\n## {title}: {len(examined):,} examined\n\n{_by_check(examined)}")
            parts.append(_exceptions(examined))
    parts += [_not_compared(models), _peers(models), _seconds(models, networks), _table(models), _missing(models)]
    text = "\n".join(part.rstrip("\n") for part in parts if part) + "\n"
    made = file.with_suffix(".part")
    made.write_text(text)
    made.replace(file)


def into_readme(models: list[Record], networks: list[Record], readme: Path) -> None:
    """Insert the sentence between the two marks of the README."""
    text = readme.read_text()
    marked = re.compile(r"(<!-- proof -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if marked.search(text):
        claim = f"{sentence(models, networks)} [The proof](docs/proof.md) has each of them."
        readme.write_text(marked.sub(lambda m: m[1] + _wrapped(claim) + m[2], text))


def _wrapped(text: str, width: int = 118) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def _percent(part: int, whole: int) -> str:
    """Rounded down, so that only a complete score reads 100 %."""
    return f"{int(1e4 * part / whole) / 100:.2f} %" if whole else "none"


def _by_check(found: list[Record]) -> str:
    names = [*CHECKS, *sorted({name for one in found for name in one["checks"]} - set(CHECKS))]
    rows = [f"| check | {' | '.join(VERDICTS)} |", "|---" * (len(VERDICTS) + 1) + "|"]
    for name in names:
        given = Counter(one["checks"][name]["verdict"] for one in found if name in one["checks"])
        if given:
            rows.append(f"| {name} | {' | '.join(str(given[verdict] or '') for verdict in VERDICTS)} |")
    every = counts(found)
    rows.append(f"| **all** | {' | '.join(str(every[verdict] or '') for verdict in VERDICTS)} |")
    return "\n".join(rows) + "\n"


def _words(detail: str, most: int = 160) -> str:
    return " ".join(detail.split()).replace("|", "/")[:most]


def _exceptions(found: list[Record]) -> str:
    """Every answer that differs from its reference, with its message; equal messages of a network are joined."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        for name, check in one["checks"].items():
            if check["verdict"] in ANSWERED[1:]:
                who = one.get("model") or f"seed {one['seed']} ({', '.join(one['network'])})"
                rows.setdefault((who, check["verdict"], _words(check["detail"])), []).append(name)
    lines = [f"| {who} | {', '.join(names)} | {verdict} | {words} |" for (who, verdict, words), names in rows.items()]
    return "\n".join(["\n| network | checks | verdict | what was said |", "|---|---|---|---|", *lines]) if lines else ""


def _not_compared(models: list[Record]) -> str:
    """Reasons why references have no answer, the most frequent first; numbers in a reason are ignored."""
    reasons: Counter[tuple[str, str]] = Counter()
    for one in models:
        for name, check in one["checks"].items():
            if check["verdict"] == NOT_COMPARED:
                words = re.sub(r"\d[\d.e+-]*", "n", _words(check["detail"], 100))
                reasons[name, re.sub(r'"[^"]*"|[\w.]*\.n[\w.]*', "a layer", words)] += 1
    rows = [f"| {name} | {words} | {count} |" for (name, words), count in reasons.most_common(40)]
    return "\n".join(["\n## Not compared\n", "| check | why | models |", "|---|---|---|", *rows]) if rows else ""


def _peers(models: list[Record]) -> str:
    """The verdicts of each library on the models for which there is a reference and the library was tested."""
    asked = [one for one in models if one.get("peers")]
    rows = []
    for question, libraries in QUESTIONS.items():
        of = [one for one in asked if question in one["peers"]]
        if not of:
            continue
        ours = Counter(one["checks"][question]["verdict"] for one in of)
        errors = sum(ours[verdict] for verdict in (REFUSED, BLAMED, CRASH))
        rows.append(f"| {question} | **microtome** | {len(of)} | {ours[RIGHT]} | {ours[WRONG]} | {errors} |  |")
        for library in libraries:
            said = [one["peers"][question][library] for one in of if library in one["peers"][question]]
            given = Counter(words.partition(":")[0] for words in said)
            cells = [str(given[word] or "") for word in (RIGHT, WRONG, ERROR, OUT_OF_TIME)]
            rows.append(f"| {question} | {library} | {len(said)} | {' | '.join(cells)} |" if said else "")
    head = ["\n## Other libraries\n", (
        "The same questions on the same models, held against the same references, where a library offers the method. "
        '"Wrong": another number, without a message. "Error": the library raised, or the layer is no module '
        "that it can be asked about.\n"
    ), "| question | library | models | right | wrong | error | over 20 s |", "|---" * 7 + "|"]  # fmt: skip
    return "\n".join([*head, *filter(None, rows)]) if rows else ""


def _seconds(models: list[Record], networks: list[Record]) -> str:
    """Time to read a network beyond three plain passes of one image, for the slowest networks."""
    timed = [one for one in [*models, *networks] if "reading" in one]
    if not timed:
        return ""
    beyond = sorted(((one["reading"] - 3 * one["pass"], one) for one in timed), key=lambda pair: -pair[0])
    rows = [
        f"| {one.get('model') or 'seed ' + str(one['seed'])} | {one['reading']:.2f} | {one['pass']:.3f} | {away:.2f} |"
        for away, one in beyond[:8]
    ]
    late = sum(away > 1 for away, _ in beyond)
    spent = sum(one.get("seconds", 0) for one in models)
    head = (
        f"Processor seconds on one thread, {len(timed):,} networks, images of the size in the table; {late} take more "
        f"than a second beyond three plain passes. All models together took {spent / 60:.0f} processor minutes.\n"
    )
    table = ["| slowest | reading | one plain pass | beyond three |", "|---|---|---|---|", *rows]
    return "\n".join(["\n## Seconds to read a network\n", head, *table])


def _table(models: list[Record]) -> str:
    """One row for each model."""
    rows = ["\n## Every model\n", (
        "+ right, r refused by name, W wrong, B blamed, C crash, 0 no answer exists, - not compared, t out of time, "
        "a to be run again; "
        "images of so many pixels a side, in double precision where nothing else is said.\n"
    )]  # fmt: skip
    rows += [f"| model | input | parameters | made smaller | {' | '.join(CHECKS)} |", "|---" * (len(CHECKS) + 4) + "|"]
    for one in models:
        if one["checks"]:
            signs = " | ".join(_sign(one["checks"].get(name)) for name in CHECKS)
            size = f"{one['shape'][-1]}{'' if one['dtype'] == 'float64' else ' (single)'}"
            smaller = ", ".join(f"{key} {_number(value)}" for key, value in (one.get("smaller") or {}).items())
            rows.append(f"| {one['model']} | {size} | {one['parameters']:,} | {smaller} | {signs} |")
    return "\n".join(rows)


def _number(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _sign(check: dict[str, Any] | None) -> str:
    sign = SIGNS[check["verdict"]] if check else ""
    return f"**{sign}**" if sign in ("W", "B", "C") else sign


def _missing(models: list[Record]) -> str:
    missing = {one["model"]: one.get("problem", "") for one in models if not one["checks"]} | catalogue.LEFT_OUT
    rows = [f"| {name} | {_words(str(why))} |" for name, why in sorted(missing.items())]
    return "\n".join(["\n## Not examined\n", "| model | why |", "|---|---|", *rows])
