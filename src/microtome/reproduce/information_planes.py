"""The lecture's six figures of the information plane on the 12-bit task."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome.results import Provenance, Result
from microtome.training.information import (
    GradientPhases,
    InformationPlane,
    NetworkRuns,
    PlaneComparison,
    gradient_phases,
    plane,
    train_networks,
    twelve_bits,
)

__all__ = ["InformationPlanes", "information_planes"]

Say = Callable[[str], None]

HIDDEN = (10, 7, 5, 4, 3)
LEARNT = (0.15, 0.05)  # test errors whose first epochs are compared
SHARES = (0.05, 0.45, 0.85)
DEPTHS = {"1 hidden layer": (10,), "3 hidden layers": (10, 7, 5), "5 hidden layers": HIDDEN}


@dataclass(frozen=True)
class _Size:
    """How much is done."""

    networks: int
    epochs: int
    checkpoints: int
    others: int  # epochs of the runs that are compared
    kernel_checkpoints: int
    kernel_networks: int
    trials: int


_QUICK = _Size(networks=4, epochs=2500, checkpoints=30, others=1000, kernel_checkpoints=8, kernel_networks=1, trials=3)
_FULL = _Size(
    networks=50, epochs=8000, checkpoints=100, others=8000, kernel_checkpoints=40, kernel_networks=10, trials=10
)


@dataclass(frozen=True, eq=False, kw_only=True)
class InformationPlanes(Result):
    """The six figures.

    Attributes
    ----------
    tanh : InformationPlane
        By bins, averaged over the networks (figures 1 and 2: the path, and I(X;T) by epoch).
    gradients : GradientPhases
        Drift and diffusion of the same networks.
    shares, depths : PlaneComparison
        By share of the patterns trained on, and by number of hidden layers.
    activations : PlaneComparison
        tanh and ReLU, each by bins and by kernels.
    test_errors : dict of str to Tensor
        (E, networks) share of wrong answers on patterns that were not trained on, by number of hidden layers, at the
        epochs of ``depths``.
    shortened : bool
        Whether there are fewer networks and epochs than in the lecture.
    seconds : float
        Run time.
    """

    tanh: InformationPlane
    gradients: GradientPhases
    shares: PlaneComparison
    depths: PlaneComparison
    activations: PlaneComparison
    test_errors: dict[str, Tensor]
    shortened: bool
    seconds: float

    def first_below(self, error: float) -> dict[str, float]:
        """First stored epoch whose mean test error is at most ``error``, by number of hidden layers; else NaN."""
        found = {}
        for name, errors in self.test_errors.items():
            reached = (errors.mean(1) <= error).nonzero()[:, 0]
            found[name] = float(self.depths.planes[name].epochs[reached[0]]) if len(reached) else float("nan")
        return found

    def report(self) -> str:
        """The findings, compared with the claims."""
        lines = [
            f"I(X;T), tanh by bins: a next layer has {float(self.tanh.rise_xt.max()):.2g} bit more at most",
            f"ceiling log2 N = {self.tanh.ceiling:.2f} bit; H(Y) = {self.tanh.label_entropy:.5f} bit",
            "",
            f"{'compression of I(X;T), bits':<28} " + " ".join(f"{name:>8}" for name in self.tanh.layers),
        ]
        for name, one in self.activations.planes.items():
            lost = one.compression.mean(1).tolist()
            marks = [
                f"{value:>7.2f}{' ' if ok else '*'}" for value, ok in zip(lost, one.admitted.tolist(), strict=True)
            ]
            lines.append(f"{name:<28} {' '.join(marks)}")
        lines += ["* not admitted: the estimator does not recover planted information there", "", *self._verdicts(), ""]
        for what, compared in (("share", self.shares), ("depth", self.depths)):
            for name, one in compared.planes.items():
                lines.append(
                    f"{what}: {name:<16} I(X;T) {float(one.i_xt[-1, -1]):.2f}, I(T;Y) {float(one.i_ty[-1, -1]):.3f}, "
                    f"generalisation error {float(one.gap[-1]):.1%}"
                )
        for error in LEARNT:
            reached = (f"{name} {'never' if at != at else f'{at:.0f}'}" for name, at in self.first_below(error).items())
            lines.append(f"first epoch with a test error of {error:.0%}: {', '.join(reached)}")
        crossing = ", ".join(
            f"{name} {float(at):.0f}" if at == at else f"{name} none"
            for name, at in zip(self.gradients.layers, self.gradients.crossing.tolist(), strict=True)
        )
        lines.append(f"gradients' deviation exceeds their mean from epoch: {crossing}")
        if self.shortened:
            lines.append("shortened: fewer networks and epochs than published; see --full")
        lines.append(f"{self.seconds:.0f} s")
        return "\n".join(lines)

    def _verdicts(self) -> list[str]:
        """Compression in the last two hidden layers: of tanh networks by bins, and of ReLU networks by kernels."""
        found = []
        for name in ("tanh, bins", "ReLU, kernels"):
            one = self.activations.planes[name]
            last = one.compression.mean(1)[-3:-1]
            found.append(f"{name}: the last two hidden layers lose {float(last[0]):.2f} and {float(last[1]):.2f} bit")
        return found


def information_planes(*, quick: bool = True, out: Path | None = None, say: Say | None = None) -> InformationPlanes:
    """Train small networks on the 12-bit task and draw six figures of the information in their layers.

    Parameters
    ----------
    quick : bool
        4 networks, 2,500 epochs, and 1,000 where runs are compared; otherwise 50 networks and 8,000 epochs, as
        published.
    out : Path, optional
        Folder for figures, numbers and the result.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    InformationPlanes

    Notes
    -----
    Shwartz-Ziv and Tishby report that layers first learn of the class and then forget the input. Saxe et al. find the
    forgetting for tanh with bins, and none for ReLU. The report gives what these runs show, layer by layer.
    """
    started, tell = time.monotonic(), say or (lambda line: None)
    size, task = (_QUICK if quick else _FULL), twelve_bits()

    def trained(what: str, epochs: int, checkpoints: int, **options: Any) -> NetworkRuns:
        tell(f"{what}: {size.networks} networks, {epochs:,} epochs")
        settings: dict[str, Any] = {"hidden": HIDDEN, **options}
        return train_networks(task, networks=size.networks, epochs=epochs, checkpoints=checkpoints, **settings)

    tanh = trained("tanh", size.epochs, size.checkpoints)
    relu = trained("ReLU", size.epochs, size.checkpoints, activation="relu")
    by_bins = plane(tanh, trials=size.trials)
    activations = {"tanh, bins": by_bins, "ReLU, bins": plane(relu, trials=size.trials)}
    for name, run in (("tanh, kernels", tanh), ("ReLU, kernels", relu)):
        tell(f"{name}: {size.kernel_networks} networks")
        fewer = _thinned(run, size.kernel_checkpoints)
        activations[name] = plane(fewer, estimator="kde", networks=size.kernel_networks, trials=size.trials)
    shares = {
        f"{share:.0%} trained on": plane(
            trained(f"share {share:g}", size.others, size.kernel_checkpoints, share=share), trials=size.trials
        )
        for share in SHARES
    }
    deep = {name: trained(name, size.others, size.checkpoints, hidden=hidden) for name, hidden in DEPTHS.items()}
    depths = {name: plane(run, trials=size.trials) for name, run in deep.items()}
    result = InformationPlanes(
        provenance=Provenance("reproduce information-plane", parameters={"quick": quick}),
        tanh=by_bins,
        gradients=gradient_phases(tanh),
        shares=PlaneComparison(planes=shares),
        depths=PlaneComparison(planes=depths),
        activations=PlaneComparison(planes=activations),
        test_errors={name: run.test_error for name, run in deep.items()},
        shortened=quick,
        seconds=time.monotonic() - started,
    )
    if out is not None:
        _saved(result, tanh, out)
    return result


def _thinned(run: NetworkRuns, count: int) -> NetworkRuns:
    """The same run at fewer checkpoints, including the first and the last."""
    kept = (
        torch.linspace(0, len(run.epochs) - 1, min(count, len(run.epochs)), dtype=torch.float32, device="cpu")
        .round()
        .long()
    )

    def part(value: Tensor) -> Tensor:
        return value[kept.to(value.device)]

    per_epoch = ("epochs", "loss", "error", "test_error", "gradient_mean", "gradient_std")
    kept_parts: dict[str, Any] = {name: part(getattr(run, name)) for name in per_epoch}
    return dataclasses.replace(
        run,
        weights=[part(weight) for weight in run.weights],
        biases=[part(bias) for bias in run.biases],
        **kept_parts,
    )


def _saved(result: InformationPlanes, run: NetworkRuns, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result.save(out / "information-plane.safetensors")
    (out / "information-plane.txt").write_text(result.report() + "\n", encoding="utf-8")
    figures: dict[str, Result] = {
        "1-tanh": result.tanh, "2-errors": run, "3-shares": result.shares, "4-gradients": result.gradients,
        "5-depths": result.depths, "6-activations": result.activations,
    }  # fmt: skip
    for name, one in figures.items():
        one.plot().savefig(out / f"figure-{name}.png", dpi=110)
