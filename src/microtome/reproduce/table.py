"""Table of a paper's numbers beside the measured ones, with the reason where they differ."""

from __future__ import annotations

from typing import Any

from microtome.spaces import IdealInputs

# Figure 3 of the paper: the kind of the best image for each digit. For ResNet18 it lists all digits, 4 twice.
PAPER_BEST = {
    "1-layer FCNN": "avg-img+training 0 1 4 5 6 8 9, min-img+training 2 3 7",
    "5-layer FCNN": "avg-img+training 1 2 6 7, min-img+training 0 3 4 5 8 9",
    "ResNet18": "avg-img 1 4 5 6 7 9, min-img 0 2 3 8, avg-min-img 4",
}
_NAMES = {"average": "avg-img", "nearest": "min-img", "average_nearest": "avg-min-img"}


def rows(
    accuracy: dict[str, float],
    condition: dict[str, float],
    ideal: dict[str, IdealInputs],
    mixed: int | None,
    *,
    quick: bool,
) -> list[dict[str, Any]]:
    """One row for each measured number of the paper.

    Parameters
    ----------
    accuracy, condition : dict
        Measured so far, by network.
    ideal : dict
        Ideal inputs so far, by network.
    mixed : int, optional
        Number of classes of ResNet18 whose best image is a trained one, with batch norm in training mode.
    quick : bool
        Whether ResNet18 was trained for fewer epochs than in the paper.
    """
    short = "shortened training" if quick else "from random weights, not fine-tuned"
    found = [
        _row("1-layer FCNN, test accuracy", "92 %", _share(accuracy.get("1-layer FCNN")), ""),
        _row("5-layer SELU FCNN, test accuracy", "97 %", _share(accuracy.get("5-layer FCNN")), ""),
        _row("ResNet18, test accuracy", "99 %", _share(accuracy.get("ResNet18")), short),
        _row(
            "1-layer FCNN, condition number",
            "7.22",
            _number(condition.get("1-layer FCNN")),
            "depends on the batch size, which the paper does not state: see the sweep",
        ),
        _row("ResNet18, first convolution of the first stage", "1.07", _number(condition.get("ResNet18")), short),
    ]
    for name, paper in (("1-layer FCNN", "10 of 10"), ("5-layer FCNN", "10 of 10"), ("ResNet18", "0 of 10")):
        if name in ideal:
            trained = sum("+training" in kind for kind in ideal[name].best_kinds)
            note = _WHY_RESNET if name == "ResNet18" else ""
            found.append(_row(f"{name}, classes whose best image is trained", paper, f"{trained} of 10", note))
            found.append(_row(f"{name}, best image by digit", PAPER_BEST[name], best_by_digit(ideal[name]), ""))
    if mixed is not None:
        found.append(_row("ResNet18, the same trained in training mode", "0 of 10", f"{mixed} of 10", _WHY_MIXED))
    return found


_WHY_RESNET = "in evaluation mode, best image kept; the paper does not say how it trained its images"
_WHY_MIXED = "batch norm then mixes the images: 20 steps, last image counts"


def best_by_digit(result: IdealInputs) -> str:
    """Which of the six images is nearest to the ideal output for each digit, in the paper's names."""
    digits: dict[str, list[str]] = {}
    for name, kind in zip(result.classes, result.best_kinds, strict=True):
        start, _, training = kind.partition("+")
        digits.setdefault(f"{_NAMES[start]}+training" if training else _NAMES[start], []).append(name)
    return ", ".join(f"{kind} {' '.join(names)}" for kind, names in sorted(digits.items()))


def text(table: list[dict[str, Any]], sweep: list[dict[str, Any]], shortened: list[str]) -> str:
    """The numbers as text, long entries on lines of their own."""
    lines = [f"{'':<52} {'paper':>8} {'measured':>9}  note"]
    for row in table:
        if len(row["paper"]) > 10:
            lines += [row["what"], f"    paper     {row['paper']}", f"    measured  {row['measured']}"]
        else:
            line = f"{row['what']:<52} {row['paper']:>8} {row['measured']:>9}  {row['note']}"
            lines.append(line.rstrip())
    lines.append("\n1-layer FCNN by batch size (the paper states none):")
    lines += [
        f"  batch {entry['batch']:>4}: accuracy {entry['accuracy']:.2%}, condition number "
        f"{entry['condition_number']:.2f}"
        for entry in sweep
    ]
    if shortened:
        lines.append("\nshortened: " + "; ".join(shortened))
    return "\n".join(lines)


def _row(what: str, paper: str, measured: str, note: str) -> dict[str, Any]:
    return {"what": what, "paper": paper, "measured": measured, "note": note}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
