"""Do the numbers and figures of the vector-spaces paper come out again, and for which batch size?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from microtome import data, spaces, zoo
from microtome.errors import StoreError
from microtome.network import Network
from microtome.results import Result, provenance
from microtome.spaces import ClassResiduals, IdealInputs, Subspaces
from microtome.training.fit import Recipe, evaluate, fit

RATE, MOMENTUM, EPOCHS = 0.001, 0.9, 20  # section 3 of the paper
BATCH = 64  # the paper names none; the sweep shows what it decides
FIRST_OF_STAGE = "layer1.0.conv1"  # "the first 2D convolution layer in the first Sequential layer"

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorSpaces(Result):
    """The paper's numbers beside measured ones.

    Attributes
    ----------
    rows : list of dict
        ``what``, ``paper``, ``measured``, ``note``.
    sweep : list of dict
        The one-layer network by batch size: ``batch``, ``accuracy`` and ``condition_number``.
    shortened : list of str
        What was made shorter than in the paper.
    weights : ClassResiduals
        Figure 1.
    kernels : Subspaces
        Figure 2.
    ideal : dict of str to IdealInputs
        Figure 3, by network.
    seconds : float
        How long it took.
    """

    rows: list[dict[str, Any]]
    sweep: list[dict[str, Any]]
    shortened: list[str]
    weights: ClassResiduals
    kernels: Subspaces
    ideal: dict[str, IdealInputs]
    seconds: float

    def table(self) -> str:
        """The numbers as text."""
        lines = [f"{'':<52} {'paper':>8} {'measured':>9}  note"]
        lines += [
            f"{row['what']:<52} {row['paper']:>8} {row['measured']:>9}  {row['note']}".rstrip() for row in self.rows
        ]
        lines.append("\n1-layer FCNN by batch size (the paper names none):")
        lines += [
            f"  batch {entry['batch']:>4}: accuracy {entry['accuracy']:.2%}, condition number "
            f"{entry['condition_number']:.2f}"
            for entry in self.sweep
        ]
        if self.shortened:
            lines.append("\nshortened: " + "; ".join(self.shortened))
        lines.append(f"\n{self.seconds:.0f} s")
        return "\n".join(lines)


def vector_spaces(*, quick: bool = True, out: Path | None = None, say: Say | None = None) -> VectorSpaces:
    """Train the paper's three networks and measure what it reports.

    Parameters
    ----------
    quick : bool
        Ten minutes on two cores: three batch sizes in the sweep, and ResNet18 for one epoch on 6,000 images. Otherwise
        all as in the paper, which takes an hour or more.
    out : Path, optional
        Folder for the figures and the result.
    say : function, optional
        Told what happens, a line at a time.

    Returns
    -------
    VectorSpaces

    Notes
    -----
    Images in [0, 1] without normalisation, from MNIST's 60,000 training and 10,000 test images. ResNet18 starts
    from random weights here: the paper fine-tunes one, presumably trained on ImageNet.
    """
    started = time.monotonic()
    tell: Say = say if say is not None else lambda line: None
    train, test = data.mnist("train+validation"), data.mnist("test")
    sweep = []
    first: Network | None = None
    for batch in (32, BATCH, 128) if quick else (16, 32, BATCH, 128, 256):
        net, accuracy = _trained(zoo.fcnn1(), train, test, batch=batch, epochs=EPOCHS, say=tell)
        number = spaces.subspaces(net, "fc").condition_number
        tell(f"1-layer FCNN, batch {batch}: accuracy {accuracy:.2%}, condition number {number:.2f}")
        sweep.append({"batch": batch, "accuracy": accuracy, "condition_number": number})
        first = net if batch == BATCH else first
    if first is None:
        raise StoreError("the sweep holds no network of the chosen batch size.")
    five, five_accuracy = _trained(zoo.fcnn5(), train, test, batch=BATCH, epochs=EPOCHS, say=tell)
    tell(f"5-layer SELU FCNN: accuracy {five_accuracy:.2%}")
    part = train.sample(6000, seed=0) if quick else train
    deep, deep_accuracy = _trained(
        zoo.resnet18((1, 28, 28), 10), part, test, batch=BATCH, epochs=1 if quick else EPOCHS, say=tell
    )
    tell(f"ResNet18: accuracy {deep_accuracy:.2%}")
    kernels = spaces.subspaces(deep, FIRST_OF_STAGE)
    named = {"1-layer FCNN": first, "5-layer FCNN": five, "ResNet18": deep}
    ideal = {}
    for name, net in named.items():
        tell(f"ideal inputs of {name}")
        few = train.sample(3000, seed=1) if quick and name == "ResNet18" else train
        ideal[name] = spaces.ideal_inputs(net, few, steps=100 if name == "ResNet18" else 300)
    chosen = next(entry for entry in sweep if entry["batch"] == BATCH)
    accuracies = (chosen["accuracy"], five_accuracy, deep_accuracy)
    result = VectorSpaces(
        provenance=provenance(first, "vector-spaces", quick=quick),
        rows=_rows(accuracies, chosen["condition_number"], kernels.condition_number, ideal, quick=quick),
        sweep=sweep,
        shortened=_shortened() if quick else [],
        weights=spaces.class_residuals(first, train, layer="fc"),
        kernels=kernels,
        ideal=ideal,
        seconds=time.monotonic() - started,
    )
    if out is not None:
        _saved(result, out)
    return result


def _trained(
    model: nn.Module, train: data.Images, test: data.Images, *, batch: int, epochs: int, say: Say
) -> tuple[Network, float]:
    """A network trained as the paper says, and its test accuracy."""
    recipe = Recipe(epochs=epochs, batch=batch, optimizer="sgd", lr=RATE, momentum=MOMENTUM)
    say(f"training {type(model).__name__}, batch {batch}, {epochs} epochs, {len(train):,} images")
    fit(model, train, recipe=recipe)
    _, accuracy = evaluate(model, test)
    return Network(model, (1, 28, 28), classes=list("0123456789")), accuracy


def _rows(
    accuracies: tuple[float, float, float],
    condition: float,
    kernels: float,
    ideal: dict[str, IdealInputs],
    *,
    quick: bool,
) -> list[dict[str, Any]]:
    """The paper's numbers beside ours."""
    short = "shortened training" if quick else "from random weights, not fine-tuned"
    rows = [
        _row("1-layer FCNN, test accuracy", "92 %", f"{accuracies[0]:.2%}", ""),
        _row("5-layer SELU FCNN, test accuracy", "97 %", f"{accuracies[1]:.2%}", ""),
        _row("ResNet18, test accuracy", "99 %", f"{accuracies[2]:.2%}", short),
        _row("1-layer FCNN, condition number", "7.22", f"{condition:.2f}", "depends on the batch size: see the sweep"),
        _row("ResNet18, first convolution of the first stage", "1.07", f"{kernels:.2f}", short),
    ]
    for (name, result), paper in zip(ideal.items(), ("10 of 10", "10 of 10", "0 of 10"), strict=True):
        trained = sum("+training" in kind for kind in result.best_kinds)
        note = "training keeps the start where it is better" if name == "ResNet18" else ""
        rows.append(_row(f"{name}, classes whose best image is trained", paper, f"{trained} of 10", note))
    return rows


def _row(what: str, paper: str, measured: str, note: str) -> dict[str, Any]:
    return {"what": what, "paper": paper, "measured": measured, "note": note}


def _shortened() -> list[str]:
    return [
        "three batch sizes in the sweep in place of five",
        "ResNet18 trained for 1 epoch on 6,000 images in place of 20 on 60,000",
        "ideal inputs of ResNet18 from 3,000 images in place of 60,000",
    ]


def _saved(result: VectorSpaces, out: Path) -> None:
    from microtome.figures.ideal_inputs import best_rows

    out.mkdir(parents=True, exist_ok=True)
    result.save(out / "vector-spaces.safetensors")
    (out / "vector-spaces.txt").write_text(result.table() + "\n", encoding="utf-8")
    for name, figure in (
        ("figure-1", result.weights.plot()),
        ("figure-2", result.kernels.plot(most=9)),
        ("figure-3", best_rows(result.ideal)),
    ):
        figure.savefig(out / f"{name}.png", dpi=150)
    for name, ideal in result.ideal.items():
        ideal.plot().savefig(out / f"ideal-{name.lower().replace(' ', '-')}.png", dpi=150)


__all__ = ["VectorSpaces", "vector_spaces"]
