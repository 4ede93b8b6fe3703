"""Numbers and figures of the vector-spaces paper, measured for several batch sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from microtome import data, spaces, zoo
from microtome.errors import StoreError
from microtome.network import Network
from microtome.progress import Progress
from microtome.reproduce.batch_statistics import trained_best
from microtome.reproduce.table import rows, text
from microtome.results import Result, provenance
from microtome.spaces import ClassResiduals, IdealInputs, Subspaces
from microtome.training.fit import Recipe, evaluate, fit

RATE, MOMENTUM, EPOCHS = 0.001, 0.9, 20  # section 3 of the paper
BATCH = 64  # the paper states none; the sweep shows its effect
FIRST_OF_STAGE = "layer1.0.conv1"  # "the first 2D convolution layer in the first Sequential layer"
STEPS = 200  # of the training of ideal inputs; the paper states no number
_EVERY = 20.0  # seconds between two lines of progress

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorSpaces(Result, drawing="spaces.ideal_input_figures:vector_spaces"):
    """The paper's numbers beside measured ones.

    Attributes
    ----------
    rows : list of dict
        ``what``, ``paper``, ``measured``, ``note``.
    sweep : list of dict
        The one-layer network by batch size: ``batch``, ``accuracy`` and ``condition_number``.
    shortened : list of str
        Deviations from the paper that shorten the run.
    weights : ClassResiduals
        Figure 1.
    kernels : Subspaces
        Figure 2.
    ideal : dict of str to IdealInputs
        Figure 3, by network.
    seconds : float
        Run time.
    """

    rows: list[dict[str, Any]]
    sweep: list[dict[str, Any]]
    shortened: list[str]
    weights: ClassResiduals
    kernels: Subspaces
    ideal: dict[str, IdealInputs]
    seconds: float

    def report(self) -> str:
        """The numbers as text."""
        return text(self.rows, self.sweep, self.shortened) + f"\n\n{self.seconds:.0f} s"


@dataclass
class _Study:
    """The results so far, and the folder for them."""

    quick: bool
    out: Path | None
    say: Say
    train: data.Images
    test: data.Images
    accuracy: dict[str, float] = field(default_factory=dict)
    condition: dict[str, float] = field(default_factory=dict)
    sweep: list[dict[str, Any]] = field(default_factory=list)
    ideal: dict[str, IdealInputs] = field(default_factory=dict)
    mixed: int | None = None  # classes won by training in training mode

    def rows(self) -> list[dict[str, Any]]:
        """The paper's numbers beside the measured ones so far."""
        return rows(self.accuracy, self.condition, self.ideal, self.mixed, quick=self.quick)

    def keep(self) -> None:
        """Write the table so far, so that an interrupted run leaves its results."""
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            shown = text(self.rows(), self.sweep, _shortened() if self.quick else [])
            (self.out / "vector-spaces.txt").write_text(shown + "\n", encoding="utf-8")


def vector_spaces(*, quick: bool = True, out: Path | None = None, say: Say | None = None) -> VectorSpaces:
    """Train the paper's three networks and measure what it reports.

    Parameters
    ----------
    quick : bool
        Ten minutes on two cores: three batch sizes in the sweep, and ResNet18 for one epoch on 6,000 images. Otherwise
        everything as in the paper: some two hours on one core, nearly all of it for ResNet18.
    out : Path, optional
        Folder for the figures and the result. Trained networks are stored there, too: an interrupted run resumes from
        their last epochs.
    say : function, optional
        Called with each line of progress.

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
    study = _Study(quick, out, tell, data.mnist("train+validation"), data.mnist("test"))
    first = _swept(study)
    study.keep()
    weights = spaces.class_residuals(first, study.train, layer="fc")
    five = _network(study, "5-layer FCNN", zoo.fcnn5(), study.train, batch=BATCH, epochs=EPOCHS)
    study.keep()
    part = study.train.sample(6000, seed=0) if quick else study.train
    deep = _network(study, "ResNet18", zoo.resnet18((1, 28, 28), 10), part, batch=BATCH, epochs=1 if quick else EPOCHS)
    kernels = spaces.subspaces(deep, FIRST_OF_STAGE)
    study.condition["ResNet18"] = kernels.condition_number
    study.keep()
    for name, net in {"1-layer FCNN": first, "5-layer FCNN": five, "ResNet18": deep}.items():
        few = study.train.sample(3000, seed=1) if quick and name == "ResNet18" else study.train
        study.ideal[name] = _ideal(study, name, net, few)
        study.keep()
    study.mixed = trained_best(deep, study.ideal["ResNet18"])
    result = VectorSpaces(
        provenance=provenance(first, "vector-spaces", quick=quick),
        rows=study.rows(),
        sweep=study.sweep,
        shortened=_shortened() if quick else [],
        weights=weights,
        kernels=kernels,
        ideal=study.ideal,
        seconds=time.monotonic() - started,
    )
    if out is not None:
        _saved(result, out)
    return result


def _swept(study: _Study) -> Network:
    """Train the one-layer network with several batch sizes; return that of the chosen size."""
    first: Network | None = None
    for batch in (32, BATCH, 128) if study.quick else (16, 32, BATCH, 128, 256):
        name = f"1-layer FCNN, batch {batch}"
        net = _network(study, name, zoo.fcnn1(), study.train, batch=batch, epochs=EPOCHS)
        number = spaces.subspaces(net, "fc").condition_number
        study.say(f"{name}: condition number {number:.2f}")
        study.sweep.append({"batch": batch, "accuracy": study.accuracy[name], "condition_number": number})
        if batch == BATCH:
            first = net
            study.accuracy["1-layer FCNN"], study.condition["1-layer FCNN"] = study.accuracy[name], number
    if first is None:
        raise StoreError("the sweep has no network with the chosen batch size.")
    return first


def _network(study: _Study, name: str, model: nn.Module, train: data.Images, *, batch: int, epochs: int) -> Network:
    """Train a network as in the paper, and add its test accuracy to the study."""
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    recipe = Recipe(epochs=epochs, batch=batch, optimizer="sgd", lr=RATE, momentum=MOMENTUM, channels_last=convolves)
    study.say(f"{name}: training, {epochs} epochs of {len(train):,} images")
    short = name.lower().replace(", ", "-").replace(" ", "-")
    folder = None if study.out is None else study.out / "networks" / f"{short}-{len(train)}x{epochs}"
    every = range(5, epochs + 1, 5)
    fit(model, train, recipe=recipe, out=folder, keep=every, progress=_Ticker(study.say, name))
    _, study.accuracy[name] = evaluate(model, study.test)
    study.say(f"{name}: test accuracy {study.accuracy[name]:.2%}")
    return Network(model, (1, 28, 28), classes=list("0123456789"))


def _ideal(study: _Study, name: str, net: Network, images: data.Images) -> IdealInputs:
    """Ideal inputs, trained at the only rate and momentum that the paper states."""
    study.say(f"{name}: ideal inputs from {len(images):,} images")
    return spaces.ideal_inputs(
        net, images, steps=STEPS, optimizer="sgd", lr=RATE, momentum=MOMENTUM, progress=_Ticker(study.say, name)
    )


class _Ticker:
    """Reports progress at intervals."""

    def __init__(self, say: Say, name: str) -> None:
        self._say, self._name, self._last = say, name, time.monotonic()

    def __call__(self, at: Progress) -> None:
        if time.monotonic() - self._last < _EVERY:
            return
        self._last = time.monotonic()
        self._say(f"{self._name}: {at}")


def _shortened() -> list[str]:
    return [
        "three batch sizes in the sweep in place of five",
        "ResNet18 trained for 1 epoch on 6,000 images in place of 20 on 60,000",
        "ideal inputs of ResNet18 from 3,000 images in place of 60,000",
    ]


def _saved(result: VectorSpaces, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result.save(out / "vector-spaces.safetensors")
    (out / "vector-spaces.txt").write_text(result.report() + "\n", encoding="utf-8")
    for name, figure in (
        ("figure-1", result.weights.plot()),
        ("figure-2", result.kernels.plot(limit=9)),
        ("figure-3", result.plot()),
    ):
        figure.savefig(out / f"{name}.png", dpi=110)
    for name, ideal in result.ideal.items():
        ideal.plot().savefig(out / f"ideal-{name.lower().replace(' ', '-')}.png", dpi=110)


__all__ = ["VectorSpaces", "vector_spaces"]
