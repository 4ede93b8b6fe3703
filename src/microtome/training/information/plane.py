"""The information plane: each layer's information about the input and about the class during training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.errors import InputError, ModelError
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.training.information.admission import admit
from microtome.training.information.binary_task import entropy
from microtome.training.information.estimators import Binning, Estimate, Estimator, Kernel
from microtome.training.information.networks import NetworkRuns
from microtome.training.information.run_states import RunStates
from microtome.training.training_run import Run

__all__ = ["InformationPlane", "plane"]

_NOTE = (
    "Information in bits at the last epoch: X the input, Y the class, T the layer. compression: fall of I(X;T) "
    "from its highest value. A layer is admitted where the estimator recovers planted information."
)

ESTIMATORS = ("binning", "kde")


@dataclass(frozen=True, eq=False, kw_only=True)
class InformationPlane(Result, drawing="training.information_figures:information_plane"):
    """I(X;T) and I(T;Y) of layers through training, in bits.

    Attributes
    ----------
    epochs : Tensor
        (E,).
    layers : tuple of str
        L names.
    widths : tuple of int
        Units of each layer.
    i_xt, i_ty : Tensor
        (E, L) means over the networks; for kernels of the upper bound.
    i_xt_networks, i_ty_networks : Tensor
        (E, L, R) of each network.
    i_xt_low, i_xt_high, i_ty_low, i_ty_high : Tensor
        (E, L) means of the estimator's own bounds; the value itself for bins.
    admitted : Tensor
        (L,) bool: whether the estimator recovers planted information at this layer's width and sample size.
    reasons : tuple of str
        For each layer why it is not admitted, or the recovered values.
    estimators : tuple of str
        For each layer a description of the bins or of the noise.
    ceiling : float
        log2 of the number of inputs: no estimate of I(X;T) can be larger.
    label_entropy : float
        H(Y), the largest possible I(T;Y).
    samples : int
        N inputs.
    rise_xt, rise_ty : Tensor
        (L-1,) largest rise in bits from this layer to the next, over epochs and networks. The
        data-processing inequality forbids a rise; bins are not part of the chain, hence ``tolerance``.
    tolerance : float
        Bits.
    gap : Tensor
        (E,) generalisation error, mean over the networks; NaN if unknown.
    """

    epochs: Tensor
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    i_xt: Tensor
    i_ty: Tensor
    i_xt_networks: Tensor
    i_ty_networks: Tensor
    i_xt_low: Tensor
    i_xt_high: Tensor
    i_ty_low: Tensor
    i_ty_high: Tensor
    admitted: Tensor
    reasons: tuple[str, ...]
    estimators: tuple[str, ...]
    ceiling: float
    label_entropy: float
    samples: int
    rise_xt: Tensor
    rise_ty: Tensor
    tolerance: float
    gap: Tensor

    @property
    def consistent(self) -> bool:
        """Whether both data-processing inequalities hold within the tolerance."""
        rises = torch.cat([self.rise_xt, self.rise_ty])
        return bool((rises <= self.tolerance).all())

    @property
    def compression(self) -> Tensor:
        """(L, R) bits of I(X;T) that each network's layer loses from its largest value to the last epoch."""
        return self.i_xt_networks.amax(0) - self.i_xt_networks[-1]

    def table(self) -> Table:
        """Each layer at the last epoch, its compression, the rises over the layer before, and the verdict."""
        columns = ("layer", "units", "I(X;T)", "I(T;Y)", "compression", "rise of I(X;T)", "rise of I(T;Y)", "admitted",
                   "why")  # fmt: skip
        loss = self.compression.mean(1).tolist()
        rows = [
            (name, self.widths[at], float(self.i_xt[-1, at]), float(self.i_ty[-1, at]), loss[at],
             float(self.rise_xt[at - 1]) if at else None, float(self.rise_ty[at - 1]) if at else None,
             "yes" if self.admitted[at] else "no", self.reasons[at])
            for at, name in enumerate(self.layers)
        ]  # fmt: skip
        return Table(columns, tuple(rows), _NOTE)


class _States(Protocol):
    """States of layers at checkpoints: NetworkRuns and RunStates."""

    @property
    def epochs(self) -> Tensor: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def exhaustive(self) -> bool: ...
    def states(self, checkpoint: int) -> list[Tensor]:
        """(R, N, width) of each layer."""
        ...


@register("information-plane", rows=("F5", "H7"), paper="shwartzziv2017opening", needs="checkpoints", kind="training")
def plane(
    run: NetworkRuns | Run,
    net: Network | None = None,
    dataset: Dataset | None = None,
    *,
    layers: str | Iterable[str] | None = None,
    epochs: Sequence[int] | None = None,
    estimator: str = "binning",
    edges: int = 30,
    noise: float = 0.1,
    networks: int | None = None,
    tolerance: float = 0.05,
    trials: int = 10,
    seed: int = 0,
    progress: Listener | None = None,
) -> InformationPlane:
    r"""Estimate each layer's information about the input X and the class Y at every checkpoint, and test the estimator.

    A network is a function, so that I(X;T) is infinite for continuous X and T, or H(X): a finite value needs a coarser
    T. ``binning`` counts the vectors of the units' bins [1]_; ``kde`` bounds the information of T with added Gaussian
    noise [2]_. Both depend on the bins or the noise as well as on the network [3]_.

    An estimator is admitted for a layer only if it recovers planted information at the layer's width and sample
    size, up to 1.25 times its estimate (``admission``). Layers that are not admitted are drawn hollow, with the reason.

    Parameters
    ----------
    run : NetworkRuns or Run
        Many small networks of :func:`train_networks`, or the record of one training with its weights.
    net, dataset
        For a ``Run``: the network, with any weights, and labelled images. The model is not changed.
    layers : str or iterable of str, optional
        For a ``Run``: default the outputs of nonlinearities; for NetworkRuns all.
    epochs : sequence of int, optional
        For a ``Run``: which of the stored epochs; default all.
    estimator : str
        ``"binning"`` or ``"kde"``.
    edges : int
        Bin edges, evenly over [-1, 1] for tanh, as published [1]_; over [0, 1] for sigmoid and softmax of a user's
        network; else over the range of the layer's values in the whole training and all networks.
    noise : float
        Variance of the kernels' noise.
    networks : int, optional
        Number of networks to use; default all.
    tolerance : float
        Tolerance of the data-processing inequality, in bits.
    trials, seed : int
        Of each planting.
    progress
        Called after each checkpoint.

    Returns
    -------
    InformationPlane

    Raises
    ------
    InputError
        The run stored no weights, or not those of an epoch, the data set has one class, or ``net`` and ``dataset`` are
        missing.
    ModelError
        A layer's values are not finite.

    Notes
    -----
    Cost for each network and checkpoint of 4096 inputs and 6 layers: 5 ms by bins, about a second by
    kernels. Layers without fixed range are read twice. Memory: the values of all layers for all images, one checkpoint
    at a time. The inequality holds if each layer is a function of the one before; a rise is no contradiction if a
    connection skips a layer. What it does not show: whether compression causes generalisation. Saxe et al. find
    compression for saturating units and not for ReLU [3]_.

    References
    ----------
    .. [1] R. Shwartz-Ziv, N. Tishby. Opening the black box of deep neural networks via information.
       arXiv:1703.00810, 2017.
    .. [2] A. Kolchinsky, B. D. Tracey. Estimating mixture entropy with pairwise distances. Entropy 19(7), 2017.
    .. [3] A. M. Saxe et al. On the information bottleneck theory of deep learning. ICLR 2018.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f'there is no estimator "{estimator}"; choose from {", ".join(ESTIMATORS)}.')
    if edges < 2 or not noise > 0:
        raise InputError(f"there must be 2 bin edges or more and a positive noise, got {edges} and {noise}.")
    source = _source(run, net, dataset, layers, epochs)
    most = run.biases[0].shape[1] if isinstance(run, NetworkRuns) else 1
    if networks is not None and not 1 <= networks <= most:
        raise InputError(f"the run has {most} network{'s' if most > 1 else ''}; got networks={networks}.")
    labels = source.labels.unique(return_inverse=True)[1]
    chosen = _estimators(source, estimator, edges, noise, networks)
    found: list[list[Estimate]] = []
    clock = Clock(progress, len(source.epochs))
    widths: list[int] = []
    for checkpoint, epoch in enumerate(source.epochs.tolist()):
        values = [states[:networks] for states in source.states(checkpoint)]
        widths = [states.shape[2] for states in values]
        _check_finite(values, source.layers, epoch)
        found.append([one(states, labels) for one, states in zip(chosen, values, strict=True)])
        clock.step(f"epoch {epoch}", checkpoint + 1)
    stacked = {
        name: torch.stack([torch.stack([getattr(one, name) for one in row]) for row in found]).cpu()
        for name in (entry.name for entry in dataclasses.fields(Estimate))
    }
    i_xt, i_ty = stacked["i_xt"], stacked["i_ty"]
    verdicts = [
        admit(one, width, len(labels), reported=float(i_xt[:, at].max()), exhaustive=source.exhaustive, trials=trials,
              seed=seed)
        for at, (one, width) in enumerate(zip(chosen, widths, strict=True))
    ]  # fmt: skip
    gap = run.gap[:, :networks].mean(1).double() if isinstance(run, NetworkRuns) else _gap(run, source.epochs)
    return InformationPlane(
        epochs=source.epochs,
        layers=tuple(source.layers),
        widths=tuple(widths),
        i_xt=i_xt.mean(2),
        i_ty=i_ty.mean(2),
        i_xt_networks=i_xt,
        i_ty_networks=i_ty,
        i_xt_low=stacked["xt_low"].mean(2),
        i_xt_high=stacked["xt_high"].mean(2),
        i_ty_low=stacked["ty_low"].mean(2),
        i_ty_high=stacked["ty_high"].mean(2),
        admitted=torch.tensor([verdict.admitted for verdict in verdicts], device="cpu"),
        reasons=tuple(verdict.reason for verdict in verdicts),
        estimators=tuple(map(str, chosen)),
        ceiling=math.log2(len(labels)),
        label_entropy=entropy(labels),
        samples=len(labels),
        rise_xt=i_xt.diff(dim=1).amax((0, 2)),
        rise_ty=i_ty.diff(dim=1).amax((0, 2)),
        tolerance=tolerance,
        gap=gap,
    )


def _source(
    run: NetworkRuns | Run,
    net: Network | None,
    dataset: Dataset | None,
    layers: str | Iterable[str] | None,
    epochs: Sequence[int] | None,
) -> _States:
    if isinstance(run, NetworkRuns):
        if any(option is not None for option in (net, dataset, layers, epochs)):
            raise InputError(
                "the networks of train_networks already have patterns, layers and epochs; give only the run."
            )
        return run
    if not isinstance(run, Run):
        raise InputError(f"plane needs a training.Run or the networks of train_networks, got {type(run).__name__}.")
    if net is None or dataset is None:
        raise InputError("a training run needs its network and labelled images: plane(run, net, dataset).")
    return RunStates(run, net, dataset, layers, epochs)


def _estimators(source: _States, name: str, edges: int, noise: float, networks: int | None) -> list[Estimator]:
    """The estimator of each layer; bins of layers without a fixed range cover the range in training."""
    if name == "kde":
        return [Kernel(noise) for _ in source.layers]
    if isinstance(source, NetworkRuns):
        tanh = source.activation == "tanh"
        ranges = [(-1.0, 1.0) if tanh else None for _ in source.layers[:-1]] + [(-1.0, 1.0) if tanh else (0.0, 1.0)]
    elif isinstance(source, RunStates):
        ranges = source.ranges
    if None not in ranges:
        return [Binning(*found, edges) for found in ranges if found is not None]
    low = [math.inf] * len(ranges)
    high = [-math.inf] * len(ranges)
    for checkpoint in range(len(source.epochs)):
        for at, states in enumerate(source.states(checkpoint)):
            low[at] = min(low[at], float(states[:networks].min()))
            high[at] = max(high[at], float(states[:networks].max()))
    observed = [(a, b) if b > a else (a, a + 1.0) for a, b in zip(low, high, strict=True)]
    return [Binning(*(known or seen), edges) for known, seen in zip(ranges, observed, strict=True)]


def _check_finite(values: list[Tensor], layers: tuple[str, ...], epoch: int) -> None:
    for name, states in zip(layers, values, strict=True):
        if not bool(states.isfinite().all()):
            raise ModelError(
                f'the values of layer "{name}" at epoch {epoch} are not all finite; the training diverged.'
            )


def _gap(run: Run, epochs: Tensor) -> Tensor:
    """Training accuracy minus validation accuracy at the stored epochs."""
    kept = set(epochs.tolist())
    rows = [record for record in run.records if record["epoch"] in kept]
    pairs = [(record.get("accuracy"), record.get("validation_accuracy")) for record in rows]
    values = [math.nan if seen is None or unseen is None else seen - unseen for seen, unseen in pairs]
    return torch.tensor(values, dtype=torch.float64, device="cpu")
