"""Can a convolution of SimpleConvNet be omitted because it repeats the one before? Measured over several seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microtome import data
from microtome.errors import InputError
from microtome.network import Network
from microtome.representation.layer_repeats import repeats
from microtome.reproduce.dissecting.trained_convnet import trained_convnet
from microtome.results import Result, provenance
from microtome.surgery.without import without
from microtome.tables import Table

__all__ = ["OmittedLayers", "omitted_layers"]

Say = Callable[[str], None]
# What the next convolution reads, in the order of the pass.
STAGES = ("/max_pool2d", "/max_pool2d.1", "/max_pool2d.2")
CASES = (("conv2", "copies"), ("conv3", "copies"), ("conv3", "identity"))
_IMAGES = 500  # on which layers are compared


@dataclass(frozen=True, eq=False, kw_only=True)
class OmittedLayers(Result, drawing="repeats_figures:omitted_layers"):
    """Accuracy with and without each convolution, and how far it repeats the one before, by seed.

    Attributes
    ----------
    before : Tensor
        (seeds,) test accuracy of the whole network.
    without, retrained : dict of str to Tensor
        (seeds,) by layer and adapter: accuracy without the layer, before and after retraining.
    explained : dict of str to Tensor
        (seeds,) share of the variance of the layer's output that the adapter explains.
    cka, low, high, match, chance : Tensor
        (seeds, 2) CKA of successive stages with its interval, best match of units, and its chance level.
    images : dict of str to int
    seconds : float
    """

    before: Tensor
    without: dict[str, Tensor]
    retrained: dict[str, Tensor]
    explained: dict[str, Tensor]
    cka: Tensor
    low: Tensor
    high: Tensor
    match: Tensor
    chance: Tensor
    images: dict[str, int]
    seconds: float

    def table(self) -> Table:
        """One row for each layer and adapter: means over the seeds, the loss after retraining with its error."""
        rows = []
        for case in self.without:
            loss = 100 * (self.before - self.retrained[case])
            error = float(loss.std() / len(loss) ** 0.5) if len(loss) > 1 else float("nan")
            rows.append((case, *(100 * float(one.mean()) for one in (self.before, self.without[case])),
                         100 * float(self.retrained[case].mean()), float(loss.mean()), error,
                         100 * float(self.explained[case].mean())))  # fmt: skip
        head = ("layer: adapter", "before", "without", "retrained", "loss", "loss ±", "explained")
        return Table(head, tuple(rows))

    def verdict(self, points: float = 0.5) -> dict[str, str]:
        """Whether each layer can be omitted (loss after retraining below some points), and whether it repeats.

        It is not clear where the loss lies within one standard error of the bound.
        """
        found = {}
        for row in self.table():
            error = row["loss ±"]
            clear = "" if error != error else f" ± {error:.2f}"
            omitted = "can be omitted" if row["loss"] < points else "cannot be omitted"
            if error == error and abs(row["loss"] - points) <= error:
                omitted = "not clear whether it can be omitted"
            repeated = "repeats" if row["explained"] > 90 else "does not repeat"
            found[row["layer: adapter"]] = (
                f"{omitted}: {row['loss']:.2f}{clear} points are lost after retraining; {repeated} the one before: "
                f"the adapter gives {row['explained']:.0f} % of its variance, accuracy {row['without']:.1f} % at once"
            )
        return found

    def report(self) -> str:
        """The numbers as text."""
        train, test = self.images["train"], self.images["test"]
        mean = 100 * float(self.before.mean())
        lines = [f"{len(self.before)} seeds, trained on {train:,} images, tested on {test:,}; accuracy {mean:.2f} %"]
        for place, names in enumerate((("conv1", "conv2"), ("conv2", "conv3"))):
            values = (self.cka, self.low, self.high, self.match, self.chance)
            cka, low, high, match, chance = (float(one[:, place].mean()) for one in values)
            lines.append(
                f"{names[0]} and {names[1]} behind ReLU and pooling: CKA {cka:.2f} ({low:.2f} to {high:.2f}), "
                f"best match of units {match:.2f} (by chance {chance:.2f})"
            )
        lines += [f"{case}: {text}" for case, text in self.verdict().items()]
        return "\n".join(lines)


def omitted_layers(
    train: data.Images | None = None,
    test: data.Images | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    epochs: int | None = None,
    networks: Sequence[Network] | None = None,
    out: Path | None = None,
    say: Say | None = None,
) -> OmittedLayers:
    """Train SimpleConvNet from several seeds, take each of its later convolutions out, and retrain.

    Parameters
    ----------
    train, test : Images, optional
        Labelled digits; default all of MNIST's 60,000 and 10,000.
    seeds : sequence of int
        Seeds of first weights and of the images' order.
    epochs : int, optional
        Passes over the training images; default the recipe's. Retraining takes one.
    networks : sequence of Network, optional
        Trained networks, one for each seed; default they are trained here.
    out : Path, optional
        Folder for the result, the figure and the numbers.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    OmittedLayers

    Notes
    -----
    Cost: for each seed the training and three epochs of retraining.

    References
    ----------
    .. [1] "Dissecting a ConvNet": one of the convolutional layers can be omitted altogether, because it replicates
       the outputs of the previous one.
    """
    started, tell = time.monotonic(), say if say is not None else lambda _line: None
    train = data.mnist("train+validation") if train is None else train
    test = data.mnist("test") if test is None else test
    rows: dict[str, list[Tensor]] = {name: [] for name in ("cka", "low", "high", "match", "chance")}
    before: list[float] = []
    parts: dict[str, dict[str, list[float]]] = {name: {} for name in ("without", "retrained", "explained")}
    net: Network | None = None
    for place, seed in enumerate(seeds):
        net = trained_convnet(train, seed=seed, epochs=epochs) if networks is None else networks[place]
        alike = repeats(net, test.sample(_IMAGES, seed=0), STAGES, permutations=5)
        for name, values in rows.items():
            values.append(getattr(alike, name))
        for layer, adapter in CASES:
            found = without(net, layer, train, test=test, adapter=adapter, seed=seed)
            for name, by_case in parts.items():
                by_case.setdefault(f"{layer}: {adapter}", []).append(getattr(found, name))
            tell(f"seed {seed}, {layer} by {adapter}: {found.before:.2%}, {found.without:.2%}, {found.retrained:.2%}")
        before.append(found.before)
    if net is None:
        raise InputError("at least one seed is expected.")
    result = OmittedLayers(
        provenance=provenance(net, "omitted-layers", seeds=list(seeds), train=len(train), test=len(test)),
        before=_row(before),
        without=_rows(parts["without"]),
        retrained=_rows(parts["retrained"]),
        explained=_rows(parts["explained"]),
        cka=torch.stack(rows["cka"]),
        low=torch.stack(rows["low"]),
        high=torch.stack(rows["high"]),
        match=torch.stack(rows["match"]),
        chance=torch.stack(rows["chance"]),
        images={"train": len(train), "test": len(test)},
        seconds=time.monotonic() - started,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        result.save(out / "omitted-layers.safetensors")
        (out / "omitted-layers.txt").write_text(f"{result.report()}\n\n{result.table()}\n", encoding="utf-8")
        result.plot().savefig(out / "omitted-layers.png", dpi=130)
    return result


def _row(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _rows(by_case: dict[str, list[float]]) -> dict[str, Tensor]:
    return {case: _row(values) for case, values in by_case.items()}
